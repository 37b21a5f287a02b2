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
    let older = lines.filter { !$0.contains("\"code_sum\"") && !$0.contains("openblas_family") }
    #expect(older.count == lines.count - 21)
    try Data(older.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: manifest.string))
    #expect(try PackedCheckpoint(output).manifest.records.allSatisfy { $0.codeSum == nil })
    #expect(try check().isEmpty && damaged().isEmpty)
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
}
