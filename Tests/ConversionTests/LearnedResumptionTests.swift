import Calibration
import Checkpoints
import Conversion
import Foundation
import Models
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Learned rounding that is interrupted and gone on with.
@Suite struct LearnedResumptionTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  struct Row: Sendable, CustomTestStringConvertible {
    let name: String
    var fixture = "architectures/llama"
    let change: @Sendable (inout LearningOptions) -> Void
    var testDescription: String { name }
  }

  static let rows: [Row] = [
    Row(name: "curvature") { $0.coupledSweeps = 2 },
    Row(name: "blocks") { $0.iterations = 12 },
    Row(name: "blocks with norms") {
      $0.iterations = 12
      $0.tunesNorms = true
    },
    Row(name: "model") { $0.distillation = 12 },
    Row(name: "all", fixture: "architectures/opt-post-norm") {
      $0.coupledSweeps = 2
      $0.iterations = 8
      $0.distillation = 12
      $0.tunesNorms = true
    },
    Row(name: "all, experts", fixture: "architectures/mixtral-fused") {
      $0.coupledSweeps = 1
      $0.iterations = 4
      $0.distillation = 8
      $0.tunesNorms = true
    },
  ]

  /// - Parameter goOn: false stops the run, as a signal would.
  private func convert(
    _ row: Row, to name: String, goOn: @escaping (WorkProgress) -> Bool = { _ in true },
    onBytes: @escaping @Sendable (ByteProgress) -> Bool = { _ in true }
  ) throws {
    var recipe = Recipe()
    recipe.options.method = .learned
    recipe.options.bits = 3
    recipe.options.granularity = .group(8)
    recipe.calibration.learning.coupledSweeps = 0
    recipe.calibration.learning.batchSize = 3
    row.change(&recipe.calibration.learning)
    let source = try Checkpoint(Fixtures.path(row.fixture))
    let plan = try Plan(converting: source, recipe: recipe)
    let output = try OutputFolder(folder.appending(name), source: source.folder, overwrite: false)
    let earlier = try output.begin(
      ConversionIdentity(toolVersion: "test", recipe: recipe.json, source: source, kernels: nil))
    var generator = SplitMix64(seed: 11)
    let tokens = (0..<320).map { _ in Int32.random(in: 0..<36, using: &generator) }
    try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
      CalibrationWindows.Options(samples: 18, sequenceLength: 16, heldOut: 2), vocabulary: 36
    ) { _ in [] }
    try output.confirm(windows.tokens, among: earlier)
    try Converter(
      plan: plan, toolVersion: "test", workers: 2, windows: windows,
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(into: output, goingOnFrom: earlier, onCalibration: goOn, onProgress: onBytes)
  }

  private func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: folder.appending(name).string) }

  private func kept(_ name: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.appending(".\(name).partial").string).sorted()
  }

  /// Goes on, and compares with a run that was never stopped.
  private func expectSameBytes(_ row: Row, _ name: String = "out") throws {
    if !exists(name) { try convert(row, to: name) }
    #expect(try contents(folder.appending(name)) == contents(folder.appending("undisturbed")))
    #expect(!exists(".\(name).partial"))
    try? FileManager.default.removeItem(atPath: folder.appending(name).string)
  }

  @Test("Stopped at places all over the run, each time gone on with", arguments: rows)
  func bytesAreThoseOfAnUndisturbedRun(_ row: Row) throws {
    var calls = 0
    try convert(row, to: "undisturbed") { _ in
      calls += 1
      return true
    }
    // Once each, then again and again in one run.
    let stops = (1...9).map { calls * $0 / 10 }
    for stop in stops {
      var count = 0
      func stopped(_: WorkProgress) -> Bool {
        count += 1
        return count < stop
      }
      #expect(throws: (any Error).self) { try convert(row, to: "out", goOn: stopped) }
      try expectSameBytes(row)
    }
    for stop in stops where !exists("out") {
      var count = 0
      _ = try? convert(row, to: "out") { _ in
        count += 1
        return count < max(6, stop / 2)
      }
    }
    try expectSameBytes(row)
  }

  /// Where a run is, by the kind of its work.
  private struct Seen {
    var blocks: Set<Int> = []
    var first: [WorkProgress.Kind: Double] = [:]
    var last: [WorkProgress.Kind: Double] = [:]

    mutating func add(_ progress: WorkProgress) {
      if let block = progress.block { blocks.insert(block) }
      for (kind, total) in progress.total where total > 0 {
        guard let done = progress.done[kind] else { continue }
        if first[kind] == nil { first[kind] = done / total }
        last[kind] = done / total
      }
    }
  }

  @Test func stepsOverTheModelAreNotTakenAgain() throws {
    let row = Self.rows[3]
    try convert(row, to: "undisturbed")
    var share = 0.0
    #expect(throws: SuspendedConversion.self) {
      try convert(row, to: "out") { progress in
        if progress.block == nil, progress.loss != nil { share += 1 }
        return share < 11
      }
    }
    #expect(try kept("out").filter { $0.hasPrefix("distillation") } == ["distillation-1"])
    var seen = Seen()
    try convert(row, to: "out") { progress in
      seen.add(progress)
      return true
    }
    // Ten of twelve were taken, eight of which are kept; no block is done again. The three losses that were found by then,
    // of five, count for 0.3 steps each: (8 + 3 · 0.3) / (12 + 5 · 0.3).
    #expect(seen.blocks.isEmpty && (0.65..<0.67).contains(seen.first[.distill] ?? 0))
    try expectSameBytes(row)
  }

  @Test func stepsWithinABlockAreNotTakenAgain() throws {
    let row = Self.rows[1]
    try convert(row, to: "undisturbed")
    var steps = 0
    #expect(throws: SuspendedConversion.self) {
      try convert(row, to: "out") { progress in
        if progress.block == 1, progress.loss != nil { steps += 1 }
        return steps < 8
      }
    }
    steps = 0
    try convert(row, to: "out") { progress in
      if progress.loss != nil { steps += 1 }
      #expect(progress.block == 1)
      return true
    }
    // Of twelve, four were kept: eight are left.
    #expect(steps == 8)
    try expectSameBytes(row)
  }

  @Test func curvatureIsNotFoundAgain() throws {
    let row = Self.rows[0]
    try convert(row, to: "undisturbed")
    var seen: [Double] = []
    func record(_ progress: WorkProgress, until limit: Double) -> Bool {
      guard progress.block == nil, let total = progress.total[.curvature], total > 0 else { return true }
      seen.append((progress.done[.curvature] ?? 0) / total)
      return seen[seen.count - 1] < limit
    }
    // Forwards, then backwards, then in the first block after it: 2 blocks are 8.1 units, of which a block forwards is one
    // and one backwards 2.3.
    for (limit, kept) in [
      (1 / 8.1, ["stream-0", "stream-1"]), (4.5 / 8.1, ["curvature-1", "gradient-1", "stream-0"]),
    ] {
      #expect(throws: SuspendedConversion.self) { try convert(row, to: "out") { record($0, until: limit) } }
      let names = try self.kept("out").filter { $0.contains("stream") || $0.contains("-0") || $0.contains("-1") }
      #expect(names == kept)
    }
    seen = []
    #expect(throws: SuspendedConversion.self) {
      try convert(row, to: "out") { record($0, until: 2) && $0.blockShare < 0.5 }
    }
    #expect(seen.map { ($0 * 8.1 * 10).rounded() } == [58, 81])
    seen = []
    try convert(row, to: "out") { record($0, until: 2) }
    #expect(seen == [1])
    try expectSameBytes(row)
  }

  @Test(
    "What was kept is damaged: it is found again",
    arguments: ["curvature-1", "gradient-1", "learned-0", "distillation-0"])
  func damageIsMadeGood(_ name: String) throws {
    let row = Self.rows[4]
    try convert(row, to: "undisturbed")
    var count = 0
    #expect(throws: SuspendedConversion.self) {
      try convert(row, to: "out") { progress in
        if name.hasPrefix("dist") || name.hasPrefix("learned") {
          if progress.block == nil, progress.loss != nil { count += 1 }
        } else if progress.block == nil, (progress.done[.curvature] ?? 0) / (progress.total[.curvature] ?? 1) > 0.6 {
          count = 6
        }
        return count < 6
      }
    }
    let path = folder.appending(".out.partial").appending(name)
    var bytes = try readWhole(path)
    bytes[bytes.count / 2] ^= 1
    try Data(bytes).write(to: URL(fileURLWithPath: path.string))
    try expectSameBytes(row)
  }

  /// After the last step, while tensors that are only copied are written.
  @Test func aModelThatIsLearnedIsNotLearnedAgain() throws {
    let row = Self.rows[3]
    try convert(row, to: "undisturbed")
    #expect(throws: SuspendedConversion.self) { try convert(row, to: "out", onBytes: { $0.done < 1 }) }
    var steps = 0
    try convert(row, to: "out") { progress in
      if progress.loss != nil { steps += 1 }
      return true
    }
    #expect(steps == 0)
    try expectSameBytes(row)
  }
}
