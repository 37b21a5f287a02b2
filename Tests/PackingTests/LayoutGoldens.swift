import Checkpoints
import Foundation
import Kernels
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Folders that the programs themselves wrote (Fixtures/generate/layouts.py), read and written again.
@Suite struct LayoutGoldens {
  static let module = "model.layers.0.self_attn.q_proj"
  static let weightName = module + ".weight"

  static var cases: [String] {
    let names = try? FileManager.default.contentsOfDirectory(atPath: Fixtures.path("layouts").string)
    return (names ?? []).filter { !$0.contains(".") }.sorted()
  }

  @Test func everyLayoutHasCases() {
    #expect(Self.cases.count >= 40)
  }

  private func open(_ name: String) throws -> LayoutCheckpoint {
    try #require(try LayoutCheckpoint(Checkpoint(Fixtures.path("layouts/\(name)"))))
  }

  /// Our values, rounded to the type that the program decodes to, are the program's.
  @Test(arguments: cases)
  func decodesToTheProgramsOwnValues(name: String) throws {
    let opened = try open(name)
    let record = try #require(opened[Self.weightName])
    let expected = try #require(try Checkpoint(Fixtures.path("layouts/decoded.safetensors"))[name])
    #expect(record.shape == expected.entry.shape)
    var values: [Float] = []
    var bytes: [UInt8] = []
    try opened.decode(record, 0..<record.elementCount, into: &values, bytes: &bytes)
    let wanted = try allValues(expected)
    // compressed-tensors decodes NVFP4 in BF16 throughout, rounding the scale before the product.
    let tolerance: Float = name == "nvfp4" ? 1 / 128 : 0
    for index in values.indices {
      let value = rounded(values[index], to: expected.entry.type)
      let difference = abs(value - wanted[index])
      #expect(difference <= tolerance * abs(wanted[index]), "\(name)[\(index)]: \(value), not \(wanted[index])")
      if difference > tolerance * abs(wanted[index]) { return }
    }
  }

  /// Any run of a weight decodes to what the whole has there, whether the whole is read or a few rows.
  @Test(arguments: cases)
  func decodesRuns(name: String) throws {
    let opened = try open(name)
    let record = try #require(opened[Self.weightName])
    var whole: [Float] = []
    var part: [Float] = []
    var bytes: [UInt8] = []
    try opened.decode(record, 0..<record.elementCount, into: &whole, bytes: &bytes)
    let count = record.elementCount
    for range in [0..<1, 5..<200, 120..<136, 900..<1024, 64..<64, count / 2..<count / 2 + 9, count - 3..<count] {
      for isAlone in [false, true] {
        // Opened anew, so that nothing is in memory.
        try open(name).decode(record, range, into: &part, bytes: &bytes, isAlone: isAlone)
        #expect(part == Array(whole[range]), "\(range)")
      }
    }
  }

  /// Packing what was unpacked gives the program's own bytes.
  @Test(arguments: cases)
  func packsToTheProgramsOwnBytes(name: String) throws {
    let opened = try open(name)
    let record = try #require(opened[Self.weightName])
    let weight = try #require(try opened.weight(record))
    let shape = [weight.rows, weight.columns]
    let layout: any WeightLayout
    let checkpoint = opened.checkpoint
    func type(_ suffix: String) -> ElementType { checkpoint[Self.module + suffix]?.entry.type ?? .f32 }
    let symmetric = !name.contains("zero")
    switch opened.family {
    case .gptq(let version):
      layout = GPTQLayout(
        rows: weight.rows, columns: weight.columns, bits: weight.bits, groupLength: weight.groupLength, version: version
      )
    case .awq: layout = AWQLayout(rows: weight.rows, columns: weight.columns, groupLength: 32)
    case .mlx:
      let mode = MLXLayout.Mode(rawValue: String(name.dropFirst(4))) ?? .affine
      layout =
        mode == .mxfp4
        ? try RuntimeLayout.mlxMXFP4.floatLayout(of: "w", shape: shape)
        : MLXLayout(
          mode: mode, rows: weight.rows, columns: weight.columns, bits: weight.bits, groupLength: weight.groupLength,
          scaleType: type(".scales"))
    case .bitsandbytes where name == "llm-int8": layout = LLMInt8Layout(rows: weight.rows, columns: weight.columns)
    case .bitsandbytes:
      layout = BitsandbytesLayout(
        name.hasPrefix("nf4") ? .nf4 : .fp4, rows: weight.rows, columns: weight.columns, blockLength: 64,
        isNested: name.hasSuffix("double"), type: .f32)
    case .compressedTensors:
      if name == "int-quantized-tensor" { return }
      switch name {
      case "mxfp4": layout = try RuntimeLayout.mxfp4.floatLayout(of: "w", shape: shape)
      case "nvfp4": layout = try RuntimeLayout.nvfp4.floatLayout(of: "w", shape: shape)
      case "float-quantized-weight-only":
        layout = NaiveQuantizedLayout(
          rows: weight.rows, columns: weight.columns, codeType: .f8E4M3, scaleType: type(".weight_scale"))
      case "float-quantized": layout = try RuntimeLayout.floatQuantized.floatLayout(of: "w", shape: shape)
      case "int-quantized":
        layout = NaiveQuantizedLayout(
          rows: weight.rows, columns: weight.columns, codeType: .i8, scaleType: type(".weight_scale"))
      default:
        layout = PackQuantizedLayout(
          rows: weight.rows, columns: weight.columns, bits: weight.bits, groupLength: weight.groupLength,
          isSymmetric: symmetric,
          scaleType: type(".weight_scale"))
      }
    }
    for workers in [1, 3] {
      let bytes = try layout.pack(weight, module: Self.module, workers: workers)
      let members = layout.members(of: Self.module)
      #expect(bytes.count == members.count)
      for (member, bytes) in zip(members, bytes) {
        #expect(bytes.count == member.byteCount, "\(member.name)")
        // The order of keys and the padding of this text are free.
        if member.name.contains("quant_state") { continue }
        let stored = try #require(checkpoint[member.name], "\(member.name)")
        #expect(stored.entry.shape == member.shape && stored.entry.type == member.type, "\(member.name)")
        #expect(try allBytes(stored) == bytes, "\(name): \(member.name)")
      }
    }
  }

  /// Names and the layout are told from the tensors alone where there is no configuration.
  @Test(arguments: ["gptq-4", "awq", "nf4", "llm-int8", "pack-quantized-4", "mxfp4"])
  func recognizesWithoutConfiguration(name: String) throws {
    let folder = try TemporaryFolder()
    let source = Fixtures.path("layouts/\(name)/model.safetensors")
    try FileManager.default.copyItem(
      atPath: source.string, toPath: folder.appending("model.safetensors").string)
    let opened = try #require(try LayoutCheckpoint(Checkpoint(folder.path)))
    let expected = try Checkpoint(Fixtures.path("layouts/decoded.safetensors"))[name]?.entry.shape
    #expect(opened[Self.weightName]?.shape == expected)
  }

  @Test func ordinaryCheckpointsAreNotTaken() throws {
    #expect(try LayoutCheckpoint(Checkpoint(Fixtures.path("tiny-llama"))) == nil)
  }
}
