import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Passes over a model for evidence, and unpacking, that are interrupted and gone on with.
@Suite struct PassResumptionTests {
  let folder: TemporaryFolder
  let sample: SampleEvidence

  init() throws {
    folder = try TemporaryFolder()
    sample = SampleEvidence(folder: folder)
  }

  private func exists(_ path: FilePath) -> Bool { FileManager.default.fileExists(atPath: path.string) }

  private func lines(_ name: String, with key: String) throws -> Int {
    String(decoding: try readWhole(folder.appending(".\(name).partial/journal")), as: UTF8.self)
      .split(separator: "\n").count { $0.contains("\"\(key)\"") }
  }

  private func flip(byte index: Int, of name: String) throws {
    let path = folder.appending(name)
    var bytes = try readWhole(path)
    bytes[index] ^= 1
    try Data(bytes).write(to: URL(fileURLWithPath: path.string))
  }

  // MARK: Evidence

  @Test(arguments: ["llama", "mixtral-fused", "gpt2"])
  func evidenceIsGoneOnWithAfterItsLastWholeBlock(_ name: String) throws {
    let source = try SampleEvidence.checkpoint(name)
    let expected = try readWhole(try sample.write("undisturbed", of: source))
    #expect(throws: SuspendedConversion.self) { try sample.write("out", of: source, stop: 1.3) }
    #expect(try lines("out", with: "next_observed_block") == 1)
    // Stopped at once, the first block is there, and is not done again.
    #expect(throws: SuspendedConversion.self) { try sample.write("out", of: source, stop: 1.1) }
    #expect(try lines("out", with: "next_observed_block") == 1)
    #expect(try readWhole(try sample.write("out", of: source, workers: 3)) == expected)
    #expect(!exists(folder.appending(".out.partial")))
  }

  @Test("What does not have its hash is gathered again", arguments: ["output", "observed-states-1-0"])
  func damagedEvidenceIsNotBelieved(_ file: String) throws {
    let source = try SampleEvidence.checkpoint("llama")
    let expected = try readWhole(try sample.write("undisturbed", of: source))
    #expect(throws: SuspendedConversion.self) { try sample.write("out", of: source, stop: 1.3) }
    let size = try readWhole(folder.appending(".out.partial/\(file)")).count
    let header = try SafetensorsFile(folder.appending("undisturbed")).header
    let first = try #require(header.tensors.first { $0.name == "input.0.gram" })
    try flip(
      byte: file == "output"
        ? expected.count - header.tensors.reduce(0) { max($0, $1.bytes.upperBound) }
          + first.bytes.lowerBound : size / 2, of: ".out.partial/\(file)")
    // The first block is done again, too.
    #expect(throws: SuspendedConversion.self) { try sample.write("out", of: source, stop: 1.3) }
    #expect(try lines("out", with: "next_observed_block") == 2)
    #expect(try readWhole(try sample.write("out", of: source)) == expected)
  }

  // MARK: Outlier features

  @Test func theMeasurementOfSplitsIsGoneOnWith() throws {
    let source = try SampleEvidence.checkpoint("llama")
    let model = try Model(source, configuration: source.configuration)
    var recipe = Recipe()
    recipe.options.method = .llmInt8
    let windows = try sample.windows(3)
    let gathered = try sample.calibration(model, windows).collect(EvidenceOptions()) { _ in true }
    let plan = try Plan(converting: source, recipe: recipe, statistics: gathered.columnStatistics)
    let heldOut = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens-3.jsonl")))],
      CalibrationWindows.Options(samples: 8, sequenceLength: 16, heldOut: 4), vocabulary: 36
    ) { _ in [] }
    func convert(_ name: String, stop: Double = .infinity) throws {
      let output = try OutputFolder(folder.appending(name), source: source.folder, overwrite: false)
      let earlier = try output.begin(
        ConversionIdentity(toolVersion: "test", recipe: recipe.json, source: source, kernels: nil))
      try Converter(
        plan: plan, toolVersion: "test", workers: 2, windows: heldOut,
        resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
      ).run(
        into: output, goingOnFrom: earlier, onCalibration: { Double($0.block ?? 0) + $0.blockShare < stop },
        onProgress: { _ in true })
    }
    try convert("undisturbed")
    let report = try readWhole(folder.appending("undisturbed/calibration_report.json"))
    #expect(String(decoding: report, as: UTF8.self).contains("output_error_without_split"))
    for stop in [1.3, 1.1] {
      #expect(throws: SuspendedConversion.self) { try convert("out", stop: stop) }
      #expect(try lines("out", with: "next_split_block") == 1)
    }
    try convert("out")
    #expect(try contents(folder.appending("out")) == contents(folder.appending("undisturbed")))
  }

  // MARK: Unpacking

  /// Something quantized, and what turns it back.
  private func unpacker(_ kind: String) throws -> any DenseUnpacker {
    let tiny = Fixtures.path("tiny-llama")
    if kind == "gguf" {
      let opened = try OpenedWeights(tiny)
      let path = folder.appending("source.gguf")
      if !exists(path) {
        let conversion = try GGUFConversion(
          opened.source, configuration: opened.configuration, folder: opened.folder, .init(mix: .q80))
        try conversion.run(into: try OutputFile(path, source: tiny, overwrite: false), workers: 2) { _ in true }
      }
      return try GGUFUnpacker(path, workers: 2)
    }
    let path = folder.appending("source")
    if !exists(path) {
      let source = try Checkpoint(tiny)
      var recipe = Recipe()
      if kind == "layout" {
        recipe.layout = .gptq
        recipe.options.method = .zeroPoint
        recipe.options.bits = 4
        recipe.options.granularity = .group(32)
      }
      try Converter(plan: Plan(converting: source, recipe: recipe), toolVersion: "test", workers: 2)
        .run(into: OutputFolder(path, source: source.folder, overwrite: false)) { _ in true }
    }
    return try Unpacker(path, workers: 2)
  }

  @Test("An interrupted unpacking is gone on with, and gives the same bytes", arguments: ["packed", "layout", "gguf"])
  func unpackingIsGoneOnWith(_ kind: String) throws {
    let unpacker = try unpacker(kind)
    func unpack(_ name: String, stopAt limit: Int = .max, overwrite: Bool = false) throws {
      let output = try OutputFolder(folder.appending(name), source: unpacker.source, overwrite: overwrite)
      let earlier = try output.begin(
        ConversionIdentity(toolVersion: "test", recipe: ["command": "unpack"], files: unpacker.files))
      _ = try unpacker.run(into: output, goingOnFrom: earlier) { $0.stage == "checking" || $0.done < limit }
    }
    try unpack("undisturbed")
    #expect(throws: SuspendedConversion.self) { try unpack("out", stopAt: 700_000) }
    let done = try lines("out", with: "hashes")
    #expect(done > 3 && !unpacker.isWritten(at: folder.appending("out")))
    // Stopped at once, what was done stays and is not done again.
    #expect(throws: SuspendedConversion.self) { try unpack("out", stopAt: 1) }
    #expect(try lines("out", with: "hashes") <= done + 2)
    // A tensor that did not reach the disk is written again.
    let file = try #require(
      FileManager.default.contentsOfDirectory(atPath: folder.appending(".out.partial/output").string).sorted()
        .first { $0.hasSuffix(".safetensors") })
    let size = try readWhole(folder.appending("undisturbed/\(file)")).count
    for index in [size / 3, size / 2, size - 3] { try flip(byte: index, of: ".out.partial/output/\(file)") }
    try unpack("out")
    #expect(try contents(folder.appending("out")) == contents(folder.appending("undisturbed")))
    #expect(!exists(folder.appending(".out.partial")))
    #expect(unpacker.isWritten(at: folder.appending("out")))
    try flip(byte: 20, of: "out/\(file)")
    #expect(!unpacker.isWritten(at: folder.appending("out")))
  }
}
