import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Folders in the layouts of runtimes with something wrong in them.
@Suite struct LayoutMalformedTests {
  static let module = LayoutGoldens.module

  /// The tensors of a golden folder, to be changed.
  private func tensors(_ name: String) throws -> OrderedDictionary<String, SampleTensor> {
    var result: OrderedDictionary<String, SampleTensor> = [:]
    for tensor in try Checkpoint(Fixtures.path("layouts/\(name)")).tensors {
      let entry = tensor.entry
      result[entry.name] = SampleTensor(
        entry.name, entry.shape, type: entry.type, bytes: try allBytes(tensor))
    }
    return result
  }

  /// Writes a folder and reads its one weight.
  private func read(_ tensors: [SampleTensor], configuration: String?) throws {
    let folder = try TemporaryFolder()
    try SampleTensor.write(tensors, to: folder.appending("model.safetensors"))
    if let configuration { try folder.write(Array(configuration.utf8), to: "config.json") }
    guard let opened = try LayoutCheckpoint(Checkpoint(folder.path)) else { return }
    for record in opened.records { _ = try opened.weight(record) }
  }

  private func configuration(_ name: String) throws -> String {
    String(decoding: try readWhole(Fixtures.path("layouts/\(name)/config.json")), as: UTF8.self)
  }

  struct Defect: Sendable, CustomTestStringConvertible {
    let folder: String
    let suffix: String
    /// Nil leaves the tensor out.
    let type: ElementType?
    let shape: [Int]
    /// Each byte of the data.
    var byte: UInt8 = 0
    let message: String

    var testDescription: String { "\(folder) \(suffix) \(type?.rawValue ?? "missing") \(shape)" }
  }

  static let defects = [
    Defect(folder: "gptq-4", suffix: ".qzeros", type: nil, shape: [], message: "'the tensor' must be present, as I32"),
    Defect(
      folder: "gptq-4", suffix: ".scales", type: .i32, shape: [2, 32], message: "must be BF16 or F16 or F32 with 2"),
    Defect(folder: "gptq-4", suffix: ".qzeros", type: .i32, shape: [2, 5], message: "2, 3, 4 or 8 bits, not [2, 5]"),
    Defect(
      folder: "gptq-4", suffix: ".qzeros", type: .i32, shape: [3, 4], message: "must be I32 [2, 4], not I32 [3, 4]"),
    Defect(folder: "gptq-4", suffix: ".qweight", type: .i32, shape: [8, 30], message: "must be I32 [8, 32], not"),
    Defect(folder: "gptq-4", suffix: ".qweight", type: .i32, shape: [8, 0], message: "none of them 0, not I32 [8, 0]"),
    Defect(folder: "gptq-4", suffix: ".g_idx", type: .i32, shape: [64], byte: 1, message: "numbers of groups, 0 to 1"),
    Defect(folder: "gptq-4", suffix: ".g_idx", type: .i64, shape: [64], message: "must be I32 with 1 dimensions"),
    Defect(folder: "awq", suffix: ".qweight", type: .i32, shape: [64, 5], message: "eight 4-bit codes per word"),
    Defect(folder: "awq", suffix: ".qzeros", type: .i32, shape: [1, 4], message: "must be I32 [2, 4], not"),
    Defect(
      folder: "awq", suffix: ".scales", type: .f16, shape: [7, 32], message: "one row per group of the 64 inputs"),
    Defect(
      folder: "pack-quantized-4", suffix: ".weight_shape", type: .i64, shape: [2], byte: 7,
      message: "shape of the weight"),
    Defect(folder: "pack-quantized-4", suffix: ".weight_shape", type: .i64, shape: [3], message: "'shape' must be [2]"),
    Defect(folder: "pack-quantized-4", suffix: ".weight_packed", type: .i32, shape: [16, 9], message: "not [16, 9]"),
    Defect(
      folder: "pack-quantized-4", suffix: ".weight_scale", type: .f32, shape: [16, 5], message: "groups that divide"),
    Defect(
      folder: "pack-quantized-4-zero", suffix: ".weight_zero_point", type: .i32, shape: [1, 2],
      message: "must be I32 [2, 2], not"),
    Defect(
      folder: "int-quantized", suffix: ".weight_scale", type: .f32, shape: [5, 1], message: "or blocks as config"),
    Defect(
      folder: "int-quantized", suffix: ".weight_scale", type: .i8, shape: [16, 1], message: "F32, F16, BF16 or U8"),
    Defect(folder: "float-quantized", suffix: ".weight", type: .u8, shape: [16, 64], message: "F8_E4M3 or I8 with 2"),
    Defect(folder: "mxfp4", suffix: ".weight_packed", type: .u8, shape: [16, 40], message: "in whole groups"),
    Defect(folder: "mxfp4", suffix: ".weight_scale", type: .u8, shape: [16, 3], message: "must be U8 [16, 2], not"),
    Defect(
      folder: "nvfp4", suffix: ".weight_global_scale", type: .f32, shape: [1], message: "positive and finite, not 0"),
    Defect(folder: "nvfp4", suffix: ".weight_global_scale", type: nil, shape: [], message: "present, as F32 [1]"),
    Defect(
      folder: "nf4", suffix: ".weight.quant_state.bitsandbytes__nf4", type: .u8, shape: [9], message: "must be JSON"),
    Defect(
      folder: "nf4", suffix: ".weight", type: .u8, shape: [500, 1], message: "two codes per byte of a weight [16, 64]"),
    Defect(folder: "nf4", suffix: ".weight.absmax", type: .f32, shape: [15], message: "must be F32 [16], not F32 [15]"),
    Defect(folder: "nf4", suffix: ".weight.quant_map", type: .f32, shape: [15], message: "must be F32 [16], not"),
    Defect(
      folder: "nf4-double", suffix: ".weight.nested_absmax", type: .f32, shape: [2], message: "must be F32 [1], not"),
    Defect(folder: "nf4-double", suffix: ".weight.nested_quant_map", type: nil, shape: [], message: "as F32 [256]"),
    Defect(folder: "llm-int8", suffix: ".SCB", type: .f32, shape: [15], message: "must be F32 [16], not F32 [15]"),
    Defect(
      folder: "llm-int8", suffix: ".weight_format", type: .u8, shape: [], byte: 2, message: "0 (row-major), not [2]"),
    Defect(folder: "mlx-4", suffix: ".weight", type: .u32, shape: [16, 7], message: "for 2 groups of the size"),
    Defect(folder: "mlx-4", suffix: ".biases", type: nil, shape: [], message: "present, as F32 [16, 2]"),
    Defect(folder: "mlx-4", suffix: ".scales", type: .u8, shape: [16, 2], message: "in mode 'affine'"),
  ]

  @Test(arguments: defects)
  func namesTheFileAndTheTensor(defect: Defect) throws {
    var tensors = try tensors(defect.folder)
    let name = Self.module + defect.suffix
    #expect(tensors[name] != nil)
    tensors[name] = nil
    if let type = defect.type {
      let count = defect.shape.reduce(1, *) * type.bitWidth / 8
      tensors[name] = SampleTensor(
        name, defect.shape, type: type, bytes: [UInt8](repeating: defect.byte, count: count))
    }
    let configuration = try configuration(defect.folder)
    #expect {
      try read(Array(tensors.values), configuration: configuration)
    } throws: { error in
      guard let error = error as? CheckpointError else { return false }
      let text = error.description
      let isNamed = error.tensor?.hasPrefix(Self.module) ?? false
      if !text.contains(defect.message) || !isNamed { Issue.record("\(text)") }
      return text.contains(defect.message) && isNamed
    }
  }

  @Test(arguments: [
    ("gptq-4", #"{"quantization_config": {"quant_method": "bitsandbytes"}}"#, "the layout that the tensors have, GPTQ"),
    (
      "awq", #"{"quantization_config": {"quant_method": "awq", "version": "gemv"}}"#,
      "the AWQ layout read here, not 'gemv'"
    ),
    ("nf4", #"{"quantization_config": {"quant_method": "gptq"}}"#, "the layout that the tensors have, bitsandbytes"),
  ])
  func refusesContradictions(folder: String, configuration: String, message: String) throws {
    let tensors = try tensors(folder)
    #expect {
      try read(Array(tensors.values), configuration: configuration)
    } throws: {
      "\($0)".contains("config.json") && "\($0)".contains(message)
    }
  }

  /// A weight stored both quantized and as it is.
  @Test func refusesAWeightTwice() throws {
    var tensors = try tensors("gptq-4")
    let name = Self.module + ".weight"
    tensors[name] = SampleTensor(name, [2, 2], [1, 2, 3, 4])
    let configuration = try configuration("gptq-4")
    #expect {
      try read(Array(tensors.values), configuration: configuration)
    } throws: {
      "\($0)".contains("stored once, not both")
    }
  }

  /// Whatever is changed, reading ends with a weight or an error.
  @Test(arguments: LayoutGoldens.cases)
  func neverTraps(name: String) throws {
    var random = SplitMix64(seed: 70)
    let types: [ElementType] = [.u8, .i8, .f16, .f32, .i32, .i64, .u32, .f8E4M3, .bf16]
    let configurations: [String?] = [
      try configuration(name), nil,
      #"{"quantization_config": {"quant_method": "gptq", "bits": 64, "group_size": -9223372036854775808}}"#,
      #"{"quantization": {"group_size": 4611686018427387904, "bits": 0, "mode": "x"}}"#,
      #"{"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": 99, "block_structure": [0, -1]}}}}}"#,
    ]
    for round in 0..<60 {
      var tensors = try tensors(name)
      let changed = tensors.keys[Int(random.next() % UInt64(tensors.count))]
      let tensor = tensors.values[tensors.index(forKey: changed) ?? 0]
      var shape = tensor.specification.shape
      var type = tensor.specification.type
      switch random.next() % 4 {
      case 0: type = types[Int(random.next() % UInt64(types.count))]
      case 1: shape = shape.map { max(0, $0 + Int(random.next() % 5) - 2) }
      case 2: shape = random.next() % 2 == 0 ? shape + [1] : Array(shape.dropLast())
      default: break
      }
      let count = shape.reduce(1, *) * type.bitWidth / 8
      let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      tensors[changed] = SampleTensor(changed, shape, type: type, bytes: bytes)
      if random.next() % 8 == 0 { tensors[changed] = nil }
      do {
        try read(Array(tensors.values), configuration: configurations[round % configurations.count])
      } catch let error as CheckpointError {
        #expect(!error.description.isEmpty)
      }
    }
  }
}
