import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Quantization
import Synchronization
import SystemPackage
import TestSupport
import Testing

/// Conversions that are interrupted and gone on with.
@Suite struct ResumptionTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  struct Row: Sendable, CustomTestStringConvertible {
    let name: String
    var fixture = "architectures/llama"
    let change: @Sendable (inout Recipe) -> Void
    var testDescription: String { name }
  }

  static let rows: [Row] = [
    Row(name: "nf4 double", fixture: "tiny-llama") { $0.options.doubleQuantization = true },
    Row(name: "absmax tensor", fixture: "tiny-llama") {
      $0.options.method = .absmax
      $0.options.granularity = .tensor
    },
    Row(name: "layout gptq", fixture: "tiny-llama") {
      $0.layout = .gptq
      $0.options.method = .zeroPoint
      $0.options.bits = 4
      $0.options.granularity = .group(32)
    },
    Row(name: "gptq") { Self.calibrated(&$0, .gptq) },
    Row(name: "gptq, experts", fixture: "architectures/mixtral-fused") { Self.calibrated(&$0, .gptq) },
    Row(name: "awq") { Self.calibrated(&$0, .awq) },
    Row(name: "gptq, smoothed") {
      Self.calibrated(&$0, .gptq)
      $0.scaling = .smooth(strength: 0.5)
    },
    Row(name: "learned") {
      Self.calibrated(&$0, .learned)
      $0.calibration.learning.iterations = 3
      $0.calibration.learning.batchSize = 3
    },
  ]

  private static func calibrated(_ recipe: inout Recipe, _ method: Quantization.Method) {
    recipe.options.method = method
    recipe.options.bits = 3
    recipe.options.granularity = .group(8)
  }

  private struct Stop: Sendable {
    var calibration = Double.infinity
    /// How often that place is told of before it stops.
    var passes = 0
    var bytes = Int.max
  }

  /// Converts as the command does.
  private func convert(
    _ row: Row, to name: String, stop: Stop = Stop(), restart: Bool = false, version: String = "test",
    recordingEvery interval: Duration = .zero, _ change: (inout Recipe) -> Void = { _ in }
  ) throws {
    var recipe = Recipe()
    row.change(&recipe)
    change(&recipe)
    let source = try Checkpoint(Fixtures.path(row.fixture))
    let plan = try Plan(converting: source, recipe: recipe)
    let output = try OutputFolder(folder.appending(name), source: source.folder, overwrite: false)
    let earlier = try output.begin(
      ConversionIdentity(toolVersion: version, recipe: recipe.json, source: source, kernels: nil), restart: restart,
      recordingEvery: interval)
    var windows: CalibrationWindows?
    if plan.model != nil {
      var generator = SplitMix64(seed: 11)
      let tokens = (0..<640).map { _ in Int32.random(in: 0..<36, using: &generator) }
      try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
      let found = try CalibrationWindows(
        [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
        CalibrationWindows.Options(samples: 38, sequenceLength: 16, heldOut: 2), vocabulary: 36
      ) { _ in [] }
      try output.confirm(found.tokens, among: earlier)
      windows = found
    }
    let passes = Atomic(stop.passes)
    try Converter(
      plan: plan, toolVersion: version, workers: 2, windows: windows,
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(
      into: output, goingOnFrom: earlier,
      onCalibration: {
        $0.place < stop.calibration || passes.wrappingSubtract(1, ordering: .relaxed).oldValue > 0
      }
    ) { $0.done < stop.bytes }
  }

  private func staging(_ name: String) -> FilePath { folder.appending(".\(name).partial") }

  private func exists(_ path: FilePath) -> Bool { FileManager.default.fileExists(atPath: path.string) }

  private func lines(_ name: String) throws -> [String] {
    String(decoding: try readWhole(staging(name).appending("journal")), as: UTF8.self)
      .split(separator: "\n").map(String.init)
  }

  @Test("Interrupted at many places, and gone on with, the bytes are the same", arguments: rows)
  func bytesAreThoseOfAnUndisturbedRun(_ row: Row) throws {
    try convert(row, to: "undisturbed")
    let expected = try contents(folder.appending("undisturbed"))
    var stops = (0..<3).map { Stop(bytes: 300_000 + 300_000 * $0) }
    if row.fixture != "tiny-llama" { stops = [0.2, 0.55, 0.85].map { Stop(calibration: $0) } + [Stop(bytes: 1)] }
    for (index, stop) in stops.enumerated() where !exists(folder.appending("out")) {
      do {
        try convert(row, to: "out", stop: stop)
        // What was left may be done before the place to stop at.
        #expect(index > 1)
      } catch is SuspendedConversion {
        #expect(try lines("out").count > 3)
      } catch is CancellationError {
        // Stopped before a first tensor was done: nothing is kept.
        #expect(index == 0 && !exists(staging("out")))
      }
    }
    if !exists(folder.appending("out")) { try convert(row, to: "out") }
    #expect(try contents(folder.appending("out")) == expected)
    #expect(!exists(staging("out")))
  }

  @Test func aBlockThatIsDoneIsNotDoneAgain() throws {
    let row = Self.rows[3]
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: Stop(calibration: 0.6)) }
    let before = try lines("out").count { $0.contains("next_block") }
    #expect(before == 1)
    // Stopped at once, the second run has the first block to tell of and nothing to add.
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: Stop(calibration: 0.55)) }
    #expect(try lines("out").count { $0.contains("next_block") } == before)
    try convert(row, to: "out")
    let report = try readJSONObject(folder.appending("out/calibration_report.json"))
    #expect(report["layers"]?.array?.count == 14)
  }

  /// Blocks that are done sooner than the interval allows are recorded together, at the latest after the last.
  @Test func shortBlocksAreRecordedTogether() throws {
    let row = Self.rows[3]
    try convert(row, to: "undisturbed")
    let hour = Duration.seconds(3600)
    // The second word of the end comes when the last block is recorded.
    for (stop, blocks) in [(Stop(calibration: 0.6), []), (Stop(calibration: 1, passes: 1), [2])] {
      #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: stop, recordingEvery: hour) }
      let found = try lines("out").filter { $0.contains("next_block") }
      #expect(found.count == blocks.count && zip(found, blocks).allSatisfy { $0.contains("\"next_block\":\($1)") })
    }
    #expect(!exists(staging("out").appending("states-1-0")))
    // Both blocks are taken from there: the first word of a calibration would stop it.
    try convert(row, to: "out", stop: Stop(calibration: 0), recordingEvery: hour)
    #expect(try contents(folder.appending("out")) == contents(folder.appending("undisturbed")))
    let report = try readJSONObject(folder.appending("out/calibration_report.json"))
    #expect(report["layers"]?.array?.count == 14)
  }

  @Test("Another recipe, or version, is refused with what differs, and --restart begins anew")
  func anotherConversionIsRefused() throws {
    let row = Self.rows[0]
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: Stop(bytes: 700_000)) }
    for (version, exclude, difference) in [
      ("other", [], "version: test, now other"), ("test", ["*.down_proj.weight"], "recipe, exclude"),
    ] {
      let error = #expect(throws: ConversionError.self) {
        try convert(row, to: "out", version: version) { $0.exclude = exclude }
      }
      guard case .otherConversion(_, _, let differences)? = error else {
        Issue.record("\(String(describing: error))")
        continue
      }
      #expect(differences.count == 1 && differences[0].contains(difference), "\(differences)")
    }
    #expect(exists(staging("out")))
    try convert(row, to: "out", restart: true) { $0.exclude = ["*.down_proj.weight"] }
    #expect(!exists(staging("out")))
  }

  @Test func anotherTextIsRefused() throws {
    let source = try Checkpoint(Fixtures.path("tiny-llama"))
    let identity = try ConversionIdentity(toolVersion: "test", recipe: [:], source: source, kernels: nil)
    do {
      let output = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
      try output.confirm([1, 2, 3], among: try output.begin(identity))
    }
    let output = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    let earlier = try output.begin(identity)
    try output.confirm([1, 2, 3], among: earlier)
    let error = #expect(throws: ConversionError.self) { try output.confirm([1, 2, 4], among: earlier) }
    #expect("\(String(describing: error))".contains("calibration tokens"))
  }

  @Test func aChangedSourceIsRefused() throws {
    let copy = folder.appending("source")
    try FileManager.default.copyItem(atPath: Fixtures.path("tiny-llama").string, toPath: copy.string)
    let row = Row(name: "", fixture: "tiny-llama") { _ in }
    var identities: [ConversionIdentity] = []
    for bytes in ["{}", "{ }"] {
      try Data(bytes.utf8).write(to: URL(fileURLWithPath: copy.appending("config.json").string))
      identities.append(
        try ConversionIdentity(toolVersion: row.name, recipe: [:], source: Checkpoint(copy), kernels: nil))
    }
    #expect(identities[0] != identities[1])
  }

  /// What a power cut leaves: bytes that never reached the disk, and a line cut in two.
  @Test func whatTheDiskLostIsDoneAgain() throws {
    let row = Self.rows[0]
    try convert(row, to: "undisturbed")
    let expected = try contents(folder.appending("undisturbed"))
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: Stop(bytes: 700_000)) }
    let data = staging("out").appending("output/model-00001-of-00002.safetensors")
    let size = try readWhole(data).count
    let file = try FileDescriptor.open(data, .readWrite)
    let zeros = [UInt8](repeating: 0, count: size / 2)
    try file.writeFully(zeros, count: zeros.count, at: size / 4)
    try file.close()
    let journal = staging("out").appending("journal")
    let text = try readWhole(journal)
    try Data(text.dropLast(20)).write(to: URL(fileURLWithPath: journal.string))
    try convert(row, to: "out")
    #expect(try contents(folder.appending("out")) == expected)
  }

  /// States of a block that are gone or damaged: the calibration begins anew, and the bytes are the same.
  @Test(arguments: [true, false])
  func lostStatesAreFoundAgain(isGone: Bool) throws {
    let row = Self.rows[3]
    try convert(row, to: "undisturbed")
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", stop: Stop(calibration: 0.6)) }
    let states = staging("out").appending("states-1-0")
    if isGone {
      try FileManager.default.removeItem(atPath: states.string)
    } else {
      var bytes = try readWhole(states)
      bytes[100] ^= 1
      try Data(bytes).write(to: URL(fileURLWithPath: states.string))
    }
    try convert(row, to: "out")
    #expect(try contents(folder.appending("out")) == contents(folder.appending("undisturbed")))
  }

  @Test func aSecondProcessIsRefused() throws {
    let source = try Checkpoint(Fixtures.path("tiny-llama"))
    let first = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    try first.begin(nil)
    #expect(throws: ConversionError.inUse(folder.appending("out").string)) {
      try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    }
    #expect(first.path == folder.appending("out"))
  }

  /// Input at fault gives the same error every time: nothing is kept.
  @Test func nothingIsKeptWhereTheInputIsAtFault() throws {
    var values = [Float](repeating: 0.5, count: 64 * 64)
    values[100] = .nan
    let names = ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"]
    let checkpoint = folder.appending("nan.safetensors")
    try SampleTensor.write(
      [
        SampleTensor(names[1], [64, 64], [Float](repeating: 1, count: 64 * 64)),
        SampleTensor(names[0], [64, 64], values),
      ],
      to: checkpoint)
    let source = try Checkpoint(checkpoint)
    let output = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    let identity = try ConversionIdentity(toolVersion: "test", recipe: [:], source: source, kernels: nil)
    let earlier = try output.begin(identity)
    #expect(throws: ConversionError.self) {
      try Converter(plan: Plan(converting: source, recipe: Recipe()), toolVersion: "test", workers: 1)
        .run(into: output, goingOnFrom: earlier) { _ in true }
    }
    #expect(!exists(staging("out")))
  }

  /// Killed between the two renames that replace an old output, or after them.
  @Test func theLastMomentsOfARunCanBeItsEnd() throws {
    let row = Self.rows[0]
    try convert(row, to: "out")
    let manager = FileManager.default
    try manager.createDirectory(atPath: staging("out").string, withIntermediateDirectories: false)
    try manager.moveItem(
      atPath: folder.appending("out").string, toPath: staging("out").appending("replaced").string)
    let source = try Checkpoint(Fixtures.path("tiny-llama"))
    _ = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: true)
    #expect(exists(folder.appending("out/config.json")))
    // The folder was in its place, but the journal not yet removed.
    try manager.createDirectory(atPath: staging("out").string, withIntermediateDirectories: false)
    try folder.write([], to: ".out.partial/journal")
    #expect(throws: ConversionError.outputExists(folder.appending("out").string)) {
      try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    }
    #expect(!exists(staging("out")))
  }

  @Test func aGGUFFileIsGoneOnWith() throws {
    let source = Fixtures.path("tiny-llama")
    func convert(_ name: String, stopAt limit: Int = .max) throws {
      let opened = try OpenedWeights(source)
      let conversion = try GGUFConversion(
        opened.source, configuration: opened.configuration, folder: opened.folder, .init(mix: .q4KM))
      let file = try OutputFile(folder.appending(name), source: source, overwrite: false)
      let identity = try ConversionIdentity(toolVersion: "test", recipe: conversion.recipe, files: opened.files)
      try conversion.run(into: file, goingOnFrom: try file.begin(identity), workers: 2) { $0.done < limit }
    }
    try convert("undisturbed.gguf")
    for limit in [50_000, 50_000, 90_000] {
      #expect(throws: SuspendedConversion.self) { try convert("out.gguf", stopAt: limit) }
    }
    #expect(try lines("out.gguf").count > 3)
    try convert("out.gguf")
    #expect(try readWhole(folder.appending("out.gguf")) == readWhole(folder.appending("undisturbed.gguf")))
    #expect(!exists(staging("out.gguf")))
  }

  @Test func aValueIsRemembered() throws {
    let source = try Checkpoint(Fixtures.path("tiny-llama"))
    let identity = try ConversionIdentity(toolVersion: "test", recipe: [:], source: source, kernels: nil)
    let value = ["a": [1.0 / 3, Double(Float.pi)]]
    for isFirst in [true, false] {
      let output = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
      let found = try output.remembered("value", among: try output.begin(identity)) {
        #expect(isFirst)
        return value
      }
      #expect(found == value)
    }
  }
}

extension WorkProgress {
  /// How far it is through the blocks, from 0 to 1.
  fileprivate var place: Double { (Double(block ?? 0) + blockShare) / Double(max(1, blockCount)) }
}
