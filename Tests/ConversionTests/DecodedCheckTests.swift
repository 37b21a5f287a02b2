import Checkpoints
import Conversion
import Crypto
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

/// What `verify --deep` finds where hashes find nothing.
@Suite struct DecodedCheckTests {
  let folder: TemporaryFolder
  let output: FilePath

  init() throws {
    folder = try TemporaryFolder()
    output = folder.appending("out")
  }

  private func check(workers: Int = 2) throws -> [DecodedCheck.Finding] {
    try DecodedCheck(output, workers: workers).run { _ in true }
  }

  private func damaged() throws -> [String] { try Verification(output, workers: 2).run { _ in true }.damaged }

  /// Changes a byte of a stored tensor, and its hash in the manifest with it.
  private func change(_ name: String, byte: Int, to change: (UInt8) -> UInt8) throws {
    let checkpoint = try Checkpoint(output)
    let tensor = try #require(checkpoint[name])
    var bytes = try allBytes(tensor)
    let old = hexadecimal(bytes)
    bytes[byte] = change(bytes[byte])
    let file = try FileDescriptor.open(tensor.file.path, .readWrite)
    try file.writeFully([bytes[byte]], count: 1, at: tensor.entry.bytes.lowerBound + byte)
    try file.close()
    let manifest = output.appending(PackedManifest.fileName)
    let text = String(decoding: try readWhole(manifest), as: UTF8.self)
    try #require(text.contains(old))
    try Data(text.replacing(old, with: hexadecimal(bytes)).utf8).write(to: URL(fileURLWithPath: manifest.string))
  }

  private func hexadecimal(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
  }

  @Test(arguments: [Quantization.Method.nf4, .absmax, .zeroPoint, .hqq])
  func aChangedCodeIsFoundThoughItsHashWasMadeAnew(method: Quantization.Method) throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output) {
      $0.options.method = method
      if method == .absmax { $0.options.bits = 5 }
    }
    #expect(try check().isEmpty)
    let name = "model.layers.1.mlp.up_proj.weight"
    try change(name + ".codes", byte: 1234) { $0 ^ 4 }
    #expect(try damaged().isEmpty)
    let findings = try check()
    #expect(findings.map(\.tensor) == [name])
    #expect(findings.first?.problem.contains("its codes add up to") == true)
    #expect(try check(workers: 1) == findings)
  }

  @Test func aScaleThatIsNotFiniteIsFound() throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output) { $0.options.method = .absmax }
    let name = "model.layers.0.self_attn.k_proj.weight"
    // F16 with the largest exponent: an infinity or NaN.
    try change(name + ".scales", byte: 1) { $0 | 0x7c }
    #expect(try damaged().isEmpty)
    let findings = try check()
    #expect(findings.map(\.tensor) == [name])
    #expect(findings.first?.problem.contains("which no quantized weight is") == true)
  }

  /// Manifests of earlier versions have no sums: their values are decoded and looked at.
  @Test func manifestsWithoutSumsAreRead() throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output)
    let manifest = output.appending(PackedManifest.fileName)
    let lines = String(decoding: try readWhole(manifest), as: UTF8.self).split(separator: "\n")
    var isLoss = false
    let older = lines.filter { line in
      if line.contains("\"loss\": {") { isLoss = true }
      defer { if isLoss, line.contains("}") { isLoss = false } }
      return !isLoss && !line.contains("\"code_sum\"") && !line.contains("openblas_family")
    }
    // Each of 21 tensors has five lines of a loss.
    #expect(older.count == lines.count - 21 * 6)
    try Data(older.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: manifest.string))
    #expect(try PackedCheckpoint(output).manifest.records.allSatisfy { $0.codeSum == nil && $0.loss == nil })
    #expect(try check().isEmpty && damaged().isEmpty)
    #expect(try DecodedCheck(output, workers: 1).unrecorded.count == 21)
    try change("model.layers.0.self_attn.k_proj.weight.codes", byte: 7) { $0 ^ 1 }
    #expect(try check().isEmpty)
  }

  @Test func sumsAreTakenOfStackedExpertsAndSplitWeights() throws {
    _ = try convert(Fixtures.path("architectures/mixtral-fused"), to: output) {
      $0.options.granularity = .group(8)
      $0.options.method = .absmax
    }
    let packed = try PackedCheckpoint(output)
    #expect(packed.manifest.records.contains { $0.shape.count == 3 && $0.codeSum ?? 0 > 0 })
    #expect(try check().isEmpty)
  }

  // MARK: Recorded errors

  /// A scale decides no code: the squares of the weights tell.
  @Test(arguments: [Quantization.Method.nf4, .absmax, .zeroPoint, .hqq])
  func aChangedScaleIsFoundThoughItsHashWasMadeAnew(method: Quantization.Method) throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output) { $0.options.method = method }
    let name = "model.layers.0.mlp.down_proj.weight"
    // The last bit of the mantissa.
    try change(name + ".scales", byte: method == .nf4 ? 4 : 2) { $0 ^ 1 }
    #expect(try damaged().isEmpty)
    let findings = try check()
    #expect(findings.map(\.tensor) == [name])
    #expect(findings.first?.problem.contains("the squares of its weights add up to") == true)
  }

  /// Two codes of rows with other scales that change places leave the sum of codes as it was.
  @Test func codesThatChangePlacesAreFound() throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output) { $0.options.method = .absmax }
    let name = "model.layers.1.self_attn.q_proj.weight"
    let bytes = try allBytes(try #require(try Checkpoint(output)[name + ".codes"]))
    func distance(_ code: UInt8) -> Int { abs(Int(code) - 128) }
    let other = try #require((2048..<bytes.count).first { distance(bytes[$0]) != distance(bytes[0]) })
    try change(name + ".codes", byte: 0) { _ in bytes[other] }
    try change(name + ".codes", byte: other) { _ in bytes[0] }
    #expect(try damaged().isEmpty)
    #expect(try check().first?.problem.contains("the squares of its weights") == true)
  }

  /// Signs leave sums of squares as they were; beside the source nothing does.
  @Test func aChangedSignIsFoundBesideTheSource() throws {
    let source = Fixtures.path("tiny-llama")
    _ = try convert(source, to: output) { $0.options.method = .absmax }
    let name = "model.layers.1.self_attn.v_proj.weight"
    try change(name + ".scales", byte: 1) { $0 ^ 0x80 }
    #expect(try damaged().isEmpty && check().isEmpty)
    let findings = try DecodedCheck(output, against: Checkpoint(source), workers: 2).run { _ in true }
    #expect(findings.map(\.tensor) == [name])
    #expect(findings.first?.problem.contains("measured on what was written it was") == true)
  }

  static let rows: [@Sendable (inout Recipe) -> Void] = [
    { _ in },
    { $0.options.doubleQuantization = true },
    { $0.options.method = .fp4 },
    {
      $0.options.method = .absmax
      $0.options.granularity = .tensor
    },
    {
      $0.options.method = .zeroPoint
      $0.options.bits = 3
      $0.options.granularity = .group(100)
    },
    {
      $0.options.method = .zeroPoint
      $0.options.granularity = .tensor
    },
    { $0.options.method = .hqq },
  ]

  /// The record is the error of what is read back, by a few independent lines; whatever the source's type, and also of
  /// tensors that are large enough for a sample.
  @Test(arguments: rows.indices, [ElementType.f32, .bf16, .f16])
  func theRecordIsTheErrorOfWhatIsReadBack(row: Int, type: ElementType) throws {
    var random = SplitMix64(seed: 11)
    try SampleTensor.write(
      [
        SampleTensor("a.weight", [100, 200], random.weights(20_000, scale: 0.05), as: type),
        SampleTensor("b.weight", [450, 600], random.weights(270_000, scale: 0.05), as: type),
      ], to: folder.appending("model.safetensors"))
    let source = try Checkpoint(folder.appending("model.safetensors"))
    // Of the runs that give eight elements each, for the groups of each row.
    let lengths = [64, 64, 64, 512, 64, 512, 64]
    var manifests: [[UInt8]] = []
    for workers in [1, 2, 4, 7] {
      let output = folder.appending("out-\(workers)")
      _ = try convert(folder.appending("model.safetensors"), to: output, workers: workers, Self.rows[row])
      manifests.append(try readWhole(output.appending(PackedManifest.fileName)))
      guard workers == 1 else { continue }
      let packed = try PackedCheckpoint(output)
      for record in packed.manifest.records {
        let loss = try #require(record.loss)
        let weights = try allValues(try #require(source[record.name]))
        var (values, workspace) = ([Float](), PackedCheckpoint.Workspace())
        try packed.decode(record, 0..<record.elementCount, into: &values, using: &workspace)
        let length = lengths[row]
        let wanted = values.indices.filter { index in
          let place = (2_654_435_769 * (index / length)) % 4_294_967_296 * (length / 8) / 4_294_967_296
          return values.count <= 262_144 || index % length / 8 == place
        }
        func sum(_ term: (Int) -> Double) -> Double { wanted.reduce(0) { $0 + term($1) } }
        let expected = [
          (loss.source, sum { Double(weights[$0]) * Double(weights[$0]) }),
          (loss.decoded, sum { Double(values[$0]) * Double(values[$0]) }),
          (loss.error, sum { (Double(weights[$0]) - Double(values[$0])) * (Double(weights[$0]) - Double(values[$0])) }),
        ]
        for (found, expected) in expected {
          #expect(expected > 0 && abs(found - expected) < 1e-12 * expected, "\(record.name)")
        }
      }
      #expect(try DecodedCheck(output, against: source, workers: 2).run { _ in true } == [])
    }
    #expect(Set(manifests).count == 1)
  }

  @Test func anotherSourceIsNamed() throws {
    var random = SplitMix64(seed: 12)
    for name in ["a", "b"] {
      try FileManager.default.createDirectory(atPath: folder.appending(name).string, withIntermediateDirectories: true)
      try SampleTensor.write(
        [
          SampleTensor("x.weight", [64, 64], random.weights(4096)),
          SampleTensor("x.norm.weight", [64], random.weights(64)),
        ], to: folder.appending(name).appending("model.safetensors"))
    }
    _ = try convert(folder.appending("a"), to: output)
    let findings = try DecodedCheck(output, against: Checkpoint(folder.appending("b")), workers: 2).run { _ in true }
    #expect(findings.map(\.tensor) == ["x.norm.weight", "x.weight"])
    #expect(findings.first?.problem == "it was kept as it was, but its bytes are not the source's")
    #expect(findings.last?.problem.contains("this is another source") == true)
    let error = #expect(throws: ConversionError.self) {
      try DecodedCheck(output, against: Checkpoint(Fixtures.path("tiny-llama")), workers: 2)
    }
    #expect(error?.description.contains("no such tensor") == true)
  }

  @Test(arguments: ["-1", "x", "inf", ""]) func malformedSumsAreRefused(sum: String) throws {
    _ = try convert(Fixtures.path("tiny-llama"), to: output)
    let manifest = output.appending(PackedManifest.fileName)
    let text = String(decoding: try readWhole(manifest), as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.contains("\"squared_error\"") })
    try Data(text.replacing(line, with: "\"squared_error\": \"\(sum)\"").utf8)
      .write(to: URL(fileURLWithPath: manifest.string))
    let error = #expect(throws: CheckpointError.self) { try PackedCheckpoint(output) }
    #expect(error?.description.contains("loss") == true)
  }
}
