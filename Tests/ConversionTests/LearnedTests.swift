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
import Tokenizers

/// Learned rounding through the whole conversion.
@Suite struct LearnedTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func convert(
    _ source: FilePath, to name: String, workers: Int = 2, tokens: [Int32], length: Int,
    memoryLimit: Int = 1 << 30, _ change: (inout Recipe) -> Void
  ) throws -> FilePath {
    var recipe = Recipe()
    recipe.options.method = .learned
    recipe.options.bits = 2
    recipe.options.granularity = .group(8)
    change(&recipe)
    let checkpoint = try Checkpoint(source)
    let plan = try Plan(converting: checkpoint, recipe: recipe)
    try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
      CalibrationWindows.Options(samples: tokens.count / length - 2, sequenceLength: length, heldOut: 2),
      vocabulary: try #require(plan.model).description.embedding.vocabulary
    ) { _ in [] }
    let output = folder.appending(name)
    let target = try OutputFolder(output, source: checkpoint.folder, overwrite: false)
    try Converter(
      plan: plan, toolVersion: "test", workers: workers, windows: windows,
      resources: RunResources(activationMemory: memoryLimit, spillFolder: folder.path)
    ).run(into: target) { _ in true }
    return output
  }

  private func randomTokens(_ count: Int) -> [Int32] {
    var generator = SplitMix64(seed: 11)
    return (0..<count).map { _ in Int32.random(in: 0..<36, using: &generator) }
  }

  private func report(_ output: FilePath) throws -> [JSONValue] {
    try #require(readJSONObject(output.appending("calibration_report.json"))["learning"]?.array)
  }

  private static let all: @Sendable (inout Recipe) -> Void = { recipe in
    recipe.calibration.learning.coupledSweeps = 2
    recipe.calibration.learning.iterations = 4
    recipe.calibration.learning.distillation = 4
    recipe.calibration.learning.batchSize = 3
  }

  @Test(
    "Every architecture is learned, and what is kept is no worse than the start",
    arguments: ["llama", "gemma2", "gpt-neox", "opt-post-norm", "phi3", "mixtral-fused", "bert"])
  func learns(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)/model.safetensors")
    let output = try convert(source, to: "out", tokens: randomTokens(320), length: 16, Self.all)
    let records = try report(output)
    let model = try Model(output)
    let blocks = model.description.blocks.count
    #expect(records.count == blocks + (model.description.head.linear == nil ? 0 : 1))
    for record in records {
      let before = try #require(record["loss_before"]?.double)
      let after = try #require(record["loss_after"]?.double)
      #expect(before.isFinite && after <= before && before > 0)
    }
    let hidden = try Forward(model, workers: 1).lastHiddenStates(randomTokens(8), TokenBatch(lengths: [8]))
    #expect(!hidden.values().contains { !$0.isFinite })
  }

  @Test("Threads and spilling do not change a byte", arguments: ["llama", "mixtral"])
  func isDeterministic(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)/model.safetensors")
    func bytes(_ output: FilePath) throws -> [UInt8] {
      try readWhole(output.appending("model.safetensors")) + readWhole(output.appending("calibration_report.json"))
    }
    let tokens = randomTokens(320)
    let first = try bytes(try convert(source, to: "a", workers: 1, tokens: tokens, length: 16, Self.all))
    #expect(try bytes(try convert(source, to: "b", workers: 2, tokens: tokens, length: 16, Self.all)) == first)
    // Too little for the states, which are spilled, and enough for the learned weights.
    let spilled = try convert(source, to: "c", tokens: tokens, length: 16, memoryLimit: 1 << 19, Self.all)
    #expect(try bytes(spilled) == first)
  }

  @Test func eachStageBringsATrainedModelNearer() throws {
    let tiny = Fixtures.path("tiny-llama")
    let tokenizer = try Tokenizer(folder: tiny)
    let text = try String(decoding: readWhole(Fixtures.path("text/tiny-eval.txt")), as: UTF8.self)
    let ids = tokenizer.encode(text, addSpecialTokens: false)
    let half = ids.count / 2 / 128 * 128
    func divergence(_ name: String, _ change: @escaping (inout Recipe) -> Void) throws -> Double {
      let output = try convert(tiny, to: name, tokens: Array(ids[..<half]), length: 128) { recipe in
        recipe.options.granularity = .group(64)
        recipe.calibration.learning.coupledSweeps = 0
        change(&recipe)
      }
      let options = Evaluator.Options(workers: 2, memoryLimit: 1 << 30, spillFolder: folder.path)
      let windows = TextWindows(Array(ids[half...]), length: 128, stride: 128)
      let found = try Evaluator(Model(output), against: Model(tiny), options).run(windows) { _ in true }
      return try #require(found.comparison).divergence
    }
    let start = try divergence("start") { _ in }
    let coupled = try divergence("coupled") { $0.calibration.learning.coupledSweeps = 4 }
    let distilled = try divergence("distilled") { $0.calibration.learning.distillation = 40 }
    #expect(coupled < 0.97 * start, "\(start) \(coupled)")
    // Judged by two windows: about as good on others at least.
    #expect(distilled < 1.02 * start, "\(start) \(distilled)")
  }

  @Test func otherMethodsBesideAreLeftAlone() throws {
    let source = Fixtures.path("architectures/llama/model.safetensors")
    func codes(_ name: String, _ change: (inout Recipe) -> Void) throws -> [UInt8] {
      let output = try convert(source, to: name, tokens: randomTokens(320), length: 16, change)
      let packed = try PackedCheckpoint(output)
      let record = try #require(packed.manifest.records.first { $0.name.contains("layers.0.self_attn.q_proj.weight") })
      let member = try #require(record.members.first)
      return try allBytes(try #require(packed.checkpoint[member.tensor]))
    }
    var override = SchemeOptions()
    override.method = .gptq
    override.bits = 2
    override.granularity = .group(8)
    let mixed = try codes("mixed") { recipe in
      Self.all(&recipe)
      recipe.overrides = [Recipe.Override(pattern: "*.0.self_attn.q_proj.weight", options: override)]
    }
    let plain = try codes("plain") { $0.options.method = .gptq }
    #expect(mixed == plain)
  }

  @Test func aModelThatDoesNotFitIsNotDistilled() throws {
    let source = Fixtures.path("architectures/llama/model.safetensors")
    let error = #expect(throws: ConversionError.self) {
      _ = try convert(source, to: "out", tokens: randomTokens(320), length: 16, memoryLimit: 1000, Self.all)
    }
    let message = error?.description ?? ""
    #expect(message.contains("--distill keeps all") && message.contains("1000 that may be used"), "\(message)")
    #expect(!FileManager.default.fileExists(atPath: folder.appending("out").string))
  }
}
