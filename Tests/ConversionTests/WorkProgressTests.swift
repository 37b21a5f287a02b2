import Calibration
import Checkpoints
import Conversion
import Evaluation
import Kernels
import Models
import Quantization
import Synchronization
import SystemPackage
import TestSupport
import Testing

/// What runs of a model tell of their work: what was planned is what is done.
@Suite struct WorkProgressTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func tokens(_ count: Int) -> [Int32] {
    var generator = SplitMix64(seed: 7)
    return (0..<count).map { _ in Int32.random(in: 0..<36, using: &generator) }
  }

  /// Never back, never beyond the total, in the end all of it; block after block.
  private func check(_ told: [WorkProgress], blocks: Int) throws {
    let last = try #require(told.last)
    #expect(!last.total.isEmpty && last.done == last.total, "\(last)")
    for (one, next) in zip(told, told.dropFirst()) {
      #expect(next.total == one.total)
      for (kind, total) in next.total {
        let (before, now) = (one.done[kind] ?? 0, next.done[kind] ?? 0)
        #expect(now >= before && now <= total * (1 + 1e-9), "\(kind)")
      }
    }
    let visited = told.compactMap(\.block)
    #expect(Set(visited) == Set(0..<blocks) && zip(visited, visited.dropFirst()).allSatisfy { $0 <= $1 })
    #expect(told.allSatisfy { (0...1).contains($0.blockShare) })
  }

  struct Case: Sendable, CustomTestStringConvertible {
    let architecture: String
    let method: Quantization.Method
    var scaling: Scaling?

    var testDescription: String { "\(architecture) \(method.rawValue)" + (scaling == nil ? "" : " smoothed") }
  }

  @Test(arguments: [
    Case(architecture: "llama", method: .gptq), Case(architecture: "gpt-neox", method: .gptq),
    Case(architecture: "mixtral", method: .gptq), Case(architecture: "llama", method: .awq),
    Case(architecture: "llama", method: .absmax, scaling: .smooth(strength: 0.5)),
    Case(architecture: "llama", method: .learned),
  ])
  func aCalibratedConversionDoesWhatItPlanned(_ row: Case) throws {
    var recipe = Recipe()
    recipe.options.method = row.method
    recipe.options.bits = row.scaling == nil ? 4 : 8
    recipe.options.granularity = row.scaling == nil ? .group(8) : nil
    recipe.scaling = row.scaling
    recipe.calibration.learning.iterations = 10
    let checkpoint = try Checkpoint(Fixtures.path("architectures/\(row.architecture)/model.safetensors"))
    let plan = try Plan(converting: checkpoint, recipe: recipe)
    try folder.write(Array("\(tokens(160))\n".utf8), to: "tokens.jsonl")
    let model = try #require(plan.model)
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
      CalibrationWindows.Options(samples: 8, sequenceLength: 16, heldOut: 2),
      vocabulary: model.description.embedding.vocabulary
    ) { _ in [] }
    let output = try OutputFolder(folder.appending("out"), source: checkpoint.folder, overwrite: false)
    let converter = Converter(
      plan: plan, toolVersion: "test", workers: 2, windows: windows,
      resources: RunResources(activationMemory: 1 << 28, spillFolder: folder.path))
    var told: [WorkProgress] = []
    let written = Mutex([ByteProgress]())
    try converter.run(
      into: output,
      onCalibration: {
        told.append($0)
        return true
      },
      onProgress: { progress in
        written.withLock { $0.append(progress) }
        return true
      })
    try check(told, blocks: model.description.blocks.count)
    #expect(told.contains { $0.layer?.hasSuffix("weight") == true })
    // The bytes that were announced before are those that were written after.
    let last = try #require(written.withLock { $0.last })
    #expect(last.stage == "writing" && last.done == last.total)
    #expect(last.kinds.mapValues(\.total) == converter.writtenBytes())
    #expect(last.kinds.values.allSatisfy { $0.done == $0.total })
  }

  @Test func anEvaluationAndACollectionOfEvidenceDoWhatTheyPlanned() throws {
    let model = try Model(Fixtures.path("architectures/llama"))
    let options = BlockCalibration.Options(workers: 2, memoryLimit: 1 << 28, spillFolder: folder.path)
    for sumsHessians in [false, true] {
      var told: [WorkProgress] = []
      _ = try BlockCalibration(model, windows: [tokens(32), tokens(32)], heldOut: [], options).collect(
        EvidenceOptions(threshold: 6, sumsHessians: sumsHessians),
        onProgress: {
          told.append($0)
          return true
        })
      try check(told, blocks: model.description.blocks.count)
    }
    var told: [WorkProgress] = []
    _ = try Evaluator(
      model, against: model, Evaluator.Options(workers: 2, memoryLimit: 1 << 28, spillFolder: folder.path)
    ).run(TextWindows(tokens(96), length: 16, stride: 16)) {
      told.append($0)
      return true
    }
    let last = try #require(told.last)
    for kind in [WorkProgress.Kind.run, .reference, .head] {
      #expect(abs((last.done[kind] ?? 0) / (last.total[kind] ?? 1) - 1) < 1e-9, "\(kind)")
    }
  }
}
