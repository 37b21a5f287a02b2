import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Quantization
import Reports
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
    let tuned = try divergence("tuned") {
      $0.calibration.learning.distillation = 24
      $0.calibration.learning.rate = 0
      $0.calibration.learning.tunesNorms = true
      $0.calibration.learning.normRate = 0.005
    }
    #expect(tuned < start, "\(start) \(tuned)")
    let (before, after) = (try Checkpoint(tiny), try Checkpoint(folder.appending("tuned")))
    for name in before.tensors.map(\.name) where name.contains("norm") {
      let isSame = try values(#require(before[name])) == values(#require(after[name]))
      #expect(isSame == (name == "model.norm.weight"), "\(name)")
    }
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

  /// A trap once: their groups are no runs of columns.
  @Test func otherMethodsMayOrderTheirGroups() throws {
    let source = Fixtures.path("architectures/llama/model.safetensors")
    var override = SchemeOptions()
    override.method = .gptq
    override.bits = 3
    override.granularity = .group(8)
    override.groupOrder = .activation
    let output = try convert(source, to: "out", tokens: randomTokens(320), length: 16) { recipe in
      Self.all(&recipe)
      recipe.overrides = [Recipe.Override(pattern: "*.0.self_attn.q_proj.weight", options: override)]
    }
    #expect(try report(output).count == 3)
  }

  // MARK: Norms and biases

  private func values(_ tensor: CheckpointTensor) throws -> [Float] {
    let bytes = try allBytes(tensor)
    var values = [Float](repeating: 0, count: tensor.entry.elementCount)
    var target = values.mutableSpan
    decodeElements(bytes.span.bytes, as: tensor.entry.type, into: &target)
    return values
  }

  @Test(
    "Norms and biases are tuned where that is asked for, are stored as they were, and nothing else changes",
    arguments: ["llama", "gemma2", "qwen3", "gpt-neox", "opt-post-norm", "mixtral-fused", "bert"])
  func tunesNorms(_ name: String) throws {
    let source = try Checkpoint(Fixtures.path("architectures/\(name)/model.safetensors"))
    let output = try convert(source.folder, to: "out", tokens: randomTokens(320), length: 16) { recipe in
      Self.all(&recipe)
      recipe.calibration.learning.tunesNorms = true
      recipe.calibration.learning.normRate = 0.01
      recipe.exclude = ["*.1.*[nN]orm*"]
    }
    let packed = try PackedCheckpoint(output)
    let model = try Model(source, configuration: source.configuration)
    let vectors = Set(model.description.blocks.flatMap(\.vectors).map(\.tensor))
    var tuned = 0
    for record in packed.manifest.records where !record.fate.isQuantized {
      let original = try #require(source[record.name])
      let stored = try #require(packed.checkpoint[record.name])
      #expect(stored.entry.type == original.entry.type && stored.entry.shape == original.entry.shape)
      let isTuned = vectors.contains(record.name) && !matches(record.name, pattern: "*.1.*[nN]orm*")
      #expect(record.isFolded == isTuned, "\(record.name)")
      let (before, after) = (try values(original), try values(stored))
      if !isTuned { #expect(try allBytes(original) == allBytes(stored), "\(record.name)") }
      if isTuned { tuned += 1 }
      // Eight steps at most, each of a hundredth at most, twice: for the block and for the model.
      let unit = (before.reduce(0) { $0 + $1 * $1 } / Float(before.count)).squareRoot()
      #expect(zip(before, after).allSatisfy { abs($0 - $1) <= 0.2 * unit + 0.01 * abs($0) }, "\(record.name)")
    }
    for record in try report(output) {
      #expect(try #require(record["loss_after"]?.double) <= #require(record["loss_before"]?.double))
    }
    let report = try Measurement(packed: output, source: source).run(sampling: .all, workers: 2) { _ in true }
    #expect(report.altered.isEmpty && report.folded.count == tuned && tuned > 0)
    #expect(report.text(path: "out").contains(", tuned"))
  }

  @Test(
    "In a runtime's layout what was tuned is told apart", arguments: [RuntimeLayout.gptq, .awq, .mlx, .packQuantized])
  func tunesNormsInLayouts(_ layout: RuntimeLayout) throws {
    let source = try Checkpoint(Fixtures.path("tiny-llama"))
    let output = try convert(source.folder, to: "out", tokens: randomTokens(320), length: 16) { recipe in
      recipe.options.bits = 4
      recipe.options.granularity = .group(64)
      recipe.layout = layout
      recipe.calibration.learning.coupledSweeps = 0
      recipe.calibration.learning.iterations = 4
      recipe.calibration.learning.tunesNorms = true
    }
    let report = try Measurement(packed: output, source: source).run(sampling: .all, workers: 2) { _ in true }
    #expect(report.altered.isEmpty)
    #expect(report.folded.count == 6 && report.folded.allSatisfy { $0.name.contains("layernorm") })
    #expect(report.text(path: "out").contains("not quantized, tuned"))
  }

  @Test func scalesAndNormsAloneAreLearned() throws {
    let source = Fixtures.path("architectures/llama/model.safetensors")
    func output(_ name: String, _ distillation: Int) throws -> (codes: [[UInt8]], divergence: Double) {
      let output = try convert(source, to: name, tokens: randomTokens(320), length: 16) { recipe in
        recipe.options.bits = 3
        recipe.calibration.learning.distillation = distillation
        recipe.calibration.learning.rate = 0
        recipe.calibration.learning.tunesNorms = distillation > 0
      }
      let packed = try PackedCheckpoint(output)
      let codes = try packed.manifest.records.filter(\.fate.isQuantized).compactMap { record in
        try packed.checkpoint[#require(record.members.first).tensor].map(allBytes)
      }
      return (codes, try report(output).first?["loss_after"]?.double ?? .infinity)
    }
    let (start, tuned) = (try output("start", 0), try output("tuned", 12))
    let same = zip(start.codes.joined(), tuned.codes.joined()).count { $0 == $1 }
    #expect(Double(same) > 0.97 * Double(start.codes.joined().count), "\(same) of \(start.codes.joined().count)")
    #expect(tuned.divergence < .infinity)
  }

  @Test func tuningWithoutStepsIsRefused() throws {
    let source = Fixtures.path("architectures/llama/model.safetensors")
    #expect(throws: RecipeError.tuningNeedsSteps) {
      _ = try convert(source, to: "out", tokens: randomTokens(320), length: 16) {
        $0.calibration.learning.tunesNorms = true
      }
    }
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
