import Checkpoints
import Conversion
import Foundation
import Kernels
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

/// What can go wrong, what is said then, and that nothing half-written is left.
@Suite struct FailureTests {
  let tiny = Fixtures.path("tiny-llama")
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A model of one linear, written to the folder `name`.
  private func model(_ name: String, _ tensors: [SampleTensor]) throws -> FilePath {
    let path = folder.appending(name)
    try FileManager.default.createDirectory(atPath: path.string, withIntermediateDirectories: true)
    try SampleTensor.write(tensors, to: path.appending("model.safetensors"))
    return path
  }

  private func expect(_ expected: ConversionError, _ body: () throws -> Void) throws {
    let before = try Set(FileManager.default.contentsOfDirectory(atPath: folder.path.string))
    let error = #expect(throws: ConversionError.self) { try body() }
    #expect(error == expected)
    #expect(error?.description.contains("\n") == false)
    let after = try Set(FileManager.default.contentsOfDirectory(atPath: folder.path.string))
    #expect(after == before, "something was left behind")
  }

  @Test(arguments: [Float.nan, .infinity])
  func valuesThatAreNotFiniteAreNamedOrKept(value: Float) throws {
    var values = [Float](repeating: 0.5, count: 200 * 64)
    values[130 * 64 + 7] = value
    let bad = SampleTensor("layers.0.a.weight", [200, 64], values, as: .bf16)
    let good = SampleTensor("layers.0.b.weight", [2, 64], [Float](repeating: 1, count: 128))
    let source = try model("bad", [bad, good])
    let output = folder.appending("out")
    let file = source.appending("model.safetensors").string
    try expect(.notFinite(file: file, tensor: "layers.0.a.weight", index: [130, 7], value: "\(value)")) {
      _ = try convert(source, to: output)
    }
    _ = try convert(source, to: output) { $0.nonFinite = .keep }
    let report = try report(output, against: source)
    #expect(report.kept.map(\.name) == ["layers.0.a.weight"])
    #expect(report.quantized.map(\.name) == ["layers.0.b.weight"])
    #expect(report.altered.isEmpty)
  }

  /// A stage whose predecessor failed must not begin: it once did, on another thread, and trapped.
  @Test func aFailingScanEndsWithItsErrorOnAnyNumberOfThreads() throws {
    var values = [Float](repeating: 0.5, count: 512 * 512)
    values[512 * 512 - 1] = .nan
    let source = try model("late", [SampleTensor("a.weight", [512, 512], values)])
    let file = source.appending("model.safetensors").string
    for workers in [1, 2, 4, 8, 8, 8] {
      try expect(.notFinite(file: file, tensor: "a.weight", index: [511, 511], value: "nan")) {
        _ = try convert(source, to: folder.appending("out"), workers: workers) {
          $0.options.method = .absmax
          $0.options.granularity = .tensor
        }
      }
    }
  }

  @Test func aWeightFileOfAnyNameIsNotCopiedBesideItsPackedForm() throws {
    let source = try model("named", [SampleTensor("a.weight", [2, 4], [Float](repeating: 1, count: 8))])
    let file = source.appending("weights.st")
    try FileManager.default.moveItem(
      atPath: source.appending("model.safetensors").string, toPath: file.string)
    _ = try convert(file, to: folder.appending("out")) { $0.options.method = .absmax }
    #expect(try Set(contents(folder.appending("out")).keys) == ["model.safetensors", "quantization_manifest.json"])
  }

  @Test func aScaleBeyondItsTypeNamesTheTypeThatWouldDo() throws {
    let source = try model("huge", [SampleTensor("a.weight", [1, 4], [1e9, 1, 2, 3])])
    let file = source.appending("model.safetensors").string
    let expected = ConversionError.scaleOverflow(
      file: file, tensor: "a.weight", index: [0, 0], scale: .infinity, type: "F16")
    try expect(expected) { _ = try convert(source, to: folder.appending("out")) { $0.options.method = .absmax } }
    #expect(expected.description.contains("--scale-type bf16"))
  }

  @Test func outputsAreNeverOverwrittenUnasked() throws {
    let output = folder.appending("out")
    _ = try convert(tiny, to: output)
    let before = try contents(output)
    try expect(.outputExists(output.string)) { _ = try convert(tiny, to: output) }
    #expect(try contents(output) == before)
    _ = try convert(tiny, to: output, overwrite: true) { $0.options.method = .absmax }
    #expect(try contents(output) != before)
    try expect(.outputIsSource(tiny.string)) { _ = try convert(tiny, to: tiny, overwrite: true) }
  }

  @Test func aFolderThatIsNoModelIsNotReplaced() throws {
    let other = folder.appending("letters")
    try FileManager.default.createDirectory(atPath: other.string, withIntermediateDirectories: true)
    try folder.write([1], to: "letters/dear.txt")
    try expect(.outputIsNotAModel(other.string)) { _ = try convert(tiny, to: other, overwrite: true) }
  }

  @Test func theParentOfTheSourceIsNotReplaced() throws {
    let parent = try model("parent", [SampleTensor("a.weight", [1, 4], [1, 2, 3, 4])])
    let source = try model("parent/child", [SampleTensor("a.weight", [1, 4], [1, 2, 3, 4])])
    try expect(.outputIsSource(parent.string)) { _ = try convert(source, to: parent, overwrite: true) }
  }

  @Test func aLinkToTheSourceIsTheSource() throws {
    let source = try model("model", [SampleTensor("a.weight", [1, 4], [1, 2, 3, 4])])
    let link = folder.appending("link")
    try FileManager.default.createSymbolicLink(atPath: link.string, withDestinationPath: source.string)
    try expect(.outputIsSource(link.string)) { _ = try convert(source, to: link, overwrite: true) }
  }

  @Test func stoppingLeavesNothing() throws {
    try expect(.cancelled) { _ = try convert(tiny, to: folder.appending("out"), stopAt: 300_000) }
  }

  @Test func packedSourcesAreSaidToBe() throws {
    _ = try convert(tiny, to: folder.appending("once"))
    try expect(.alreadyPacked(folder.appending("once").string)) {
      _ = try convert(folder.appending("once"), to: folder.appending("twice"))
    }
    try expect(.notPacked(tiny.string)) { _ = try Unpacker(tiny, workers: 1) }
  }

  @Test func namesThatCollideAreRefused() throws {
    let source = try model(
      "names",
      [SampleTensor("a.weight", [1, 4], [1, 2, 3, 4]), SampleTensor("a.weight.codes", [1], type: .u8, bytes: [0])])
    try expect(.nameCollision("a.weight", member: "a.weight.codes")) {
      _ = try convert(source, to: folder.appending("out"))
    }
  }

  @Test func aModelWithNothingToQuantizeIsSaidToBe() throws {
    let source = try model("vectors", [SampleTensor("norm.weight", [4], [1, 2, 3, 4])])
    try expect(.nothingToQuantize(source.string)) { _ = try convert(source, to: folder.appending("out")) }
  }

  @Test func comparingWithAnotherModelIsRefused() throws {
    let one = try model("one", [SampleTensor("a.weight", [2, 4], [Float](repeating: 1, count: 8))])
    let other = try model("other", [SampleTensor("a.weight", [4, 2], [Float](repeating: 1, count: 8))])
    _ = try convert(one, to: folder.appending("out"))
    try expect(.differentTensor("a.weight", packed: "F32 [2, 4]", source: "F32 [4, 2]")) {
      _ = try report(folder.appending("out"), against: other)
    }
  }
}
