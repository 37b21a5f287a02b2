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

/// Conversions from evidence that was gathered before.
@Suite struct EvidenceConversionTests {
  let folder: TemporaryFolder
  let sample: SampleEvidence

  init() throws {
    folder = try TemporaryFolder()
    sample = SampleEvidence(folder: folder)
  }

  private func recipe(_ method: Quantization.Method, bits: Int? = 3, group: Int = 8) -> Recipe {
    var recipe = Recipe()
    recipe.options.method = method
    recipe.options.bits = bits
    recipe.options.granularity = .group(group)
    return recipe
  }

  private func convert(
    _ source: Checkpoint, _ recipe: Recipe, evidence: (any StoredEvidence)?, to name: String, workers: Int = 2
  ) throws -> [LayerOutcome] {
    let statistics = recipe.needsStatistics ? try evidence?.columnStatistics(workers: workers) ?? [:] : [:]
    let plan = try Plan(converting: source, recipe: recipe, statistics: statistics, evidence: evidence)
    let output = try OutputFolder(folder.appending(name), source: source.folder, overwrite: false)
    return try Converter(plan: plan, toolVersion: "test", workers: workers).run(into: output) { _ in true }
  }

  private func weights(_ name: String) throws -> [UInt8] {
    try readWhole(folder.appending(name).appending("model.safetensors"))
  }

  @Test(
    "GPTQ from a file equals GPTQ with the original model's inputs", arguments: ["llama", "phi3", "gpt2", "gpt-neox"])
  func equalsTheLiveRun(_ name: String) throws {
    let source = try SampleEvidence.checkpoint(name)
    let evidence = try openEvidence(sample.write("e.safetensors", of: source).string, for: source)
    let outcomes = try convert(source, recipe(.gptq), evidence: evidence, to: "stored")
    #expect(outcomes.allSatisfy { $0.heldOut == nil && $0.tokens == 192 && $0.fallback == nil })
    var live = recipe(.gptq)
    live.calibration.usesOriginalInputs = true
    live.calibration.correction = .none
    let output = try OutputFolder(folder.appending("live"), source: source.folder, overwrite: false)
    try Converter(
      plan: Plan(converting: source, recipe: live), toolVersion: "test", workers: 2, windows: sample.windows(1),
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(into: output) { _ in true }
    #expect(try weights("stored") == weights("live"))
    _ = try convert(source, recipe(.gptq), evidence: evidence, to: "one", workers: 1)
    #expect(try weights("one") == weights("stored"))
  }

  /// Σ E[x²]·(w − ŵ)² over all quantized tensors.
  private func weighedError(
    _ source: Checkpoint, _ name: String, _ statistics: [String: FeatureStatistics]
  ) throws -> Double {
    var reader = PackedSource(try PackedCheckpoint(folder.appending(name))).makeReader()
    var sum = 0.0
    for (tensor, found) in statistics.sorted(by: { $0.key < $1.key }) {
      let original = try allValues(#require(source[tensor]))
      var stored: [Float] = []
      try reader.read(tensor, 0..<original.count, into: &stored)
      let squares = found.meanSquares
      for index in original.indices {
        let difference = Double(original[index] - stored[index])
        sum += Double(squares[index % squares.count]) * difference * difference
      }
    }
    return sum
  }

  static let dataFree: [(Quantization.Method, ScaleSearch, Int)] = [
    (.absmax, .signedMSE, 16), (.zeroPoint, .mse, 16), (.nf4, .mse, 32), (.fp4, .mse, 32),
  ]

  @Test("Evidence lowers the error that counts, and names the search", arguments: dataFree)
  func weighsScales(_ method: Quantization.Method, _ search: ScaleSearch, group: Int) throws {
    let source = try SampleEvidence.checkpoint("llama")
    let evidence = try openEvidence(
      sample.write("e.safetensors", of: source, EvidenceOptions()).string, for: source)
    let statistics = try evidence.columnStatistics(workers: 1)
    let bits = method.isCodebook ? 4 : 3
    var weighed = recipe(method, bits: bits, group: group)
    try weighed.weighScales()
    weighed.calibration.evidence = evidence.record
    #expect(weighed.options.scaleSearch == search)
    #expect(weighed.json["scale_search"]?.string == search.rawValue)
    #expect(weighed.json["calibration"]?["evidence"]?["model_sha256"]?.string == (try source.identity()))
    var plain = recipe(method, bits: bits, group: group)
    plain.options.scaleSearch = search
    _ = try convert(source, weighed, evidence: evidence, to: "weighed")
    _ = try convert(source, plain, evidence: nil, to: "plain")
    let found = try weighedError(source, "weighed", statistics)
    #expect(try found < weighedError(source, "plain", statistics))
  }

  @Test func aRecipeThatUsesNoEvidenceIsRefused() throws {
    for method in [Quantization.Method.hqq, .absmax] {
      var recipe = recipe(method, bits: 4)
      if method == .absmax { recipe.options.scaleSearch = ScaleSearch.none }
      let error = #expect(throws: RecipeError.self) { try recipe.weighScales() }
      #expect(error?.description.contains("nothing in this recipe uses it") ?? false)
    }
    var mixed = recipe(.hqq, bits: 4)
    var options = SchemeOptions()
    options.method = .absmax
    mixed.overrides = [Recipe.Override(pattern: "*up_proj*", options: options)]
    try mixed.weighScales()
    #expect(mixed.overrides[0].options.scaleSearch == .signedMSE && mixed.options.scaleSearch == nil)
  }

  @Test func evidenceOfAnotherModelOrWithoutHessiansIsRefused() throws {
    let source = try SampleEvidence.checkpoint("llama")
    let path = try sample.write("e.safetensors", of: source, EvidenceOptions())
    let other = #expect(throws: EvidenceFileError.self) {
      _ = try openEvidence(path.string, for: SampleEvidence.checkpoint("qwen2"))
    }
    #expect(other?.description.contains("is evidence of another model") ?? false)
    let evidence = try openEvidence(path.string, for: source)
    let error = #expect(throws: EvidenceFileError.self) {
      _ = try Plan(converting: source, recipe: recipe(.gptq), evidence: evidence)
    }
    #expect(error?.description.contains("without --no-hessians") ?? false)
  }

  // MARK: Experts

  @Test func anExpertThatSawTooLittleIsReportedAndCalibratedOnItsMixture() throws {
    let source = try SampleEvidence.checkpoint("mixtral")
    let windows = try sample.windows(1, count: 1, length: 6)
    var live = recipe(.gptq)
    live.calibration.correction = .none
    let plan = try Plan(converting: source, recipe: live)
    let output = try OutputFolder(folder.appending("live"), source: source.folder, overwrite: false)
    let outcomes = try Converter(
      plan: plan, toolVersion: "test", workers: 2, windows: windows,
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(into: output) { _ in true }
    let starved = outcomes.filter { $0.routedTokens != nil }
    #expect(!starved.isEmpty)
    for outcome in starved {
      #expect(outcome.tokens == 6 && outcome.tensor.contains("experts"))
      // Two linear layers read one input; the wider of an expert's inputs decides for all of them.
      #expect(outcome.routedTokens ?? 99 < 6)
    }
    let text = try #require(CalibrationSummary(outcomes, windows: windows, evidence: nil)).text
    #expect(text.contains("Calibrated on all tokens of its mixture, for the router sent it"))
    #expect(text.contains("Fewer tokens than inputs, so that dampening decides"))
  }

  @Test func anExpertThatSawTooLittleInAFileIsRounded() throws {
    let source = try SampleEvidence.checkpoint("mixtral-fused")
    let path = try sample.write("e.safetensors", of: source, count: 1)
    let outcomes = try convert(
      source, recipe(.gptq), evidence: openEvidence(path.string, for: source), to: "out")
    let starved = outcomes.filter { $0.expert != nil && $0.tokens < MixtureRule.leastTokens(inputs: $0.inputs) }
    #expect(!starved.isEmpty)
    for outcome in starved {
      let why = "\(outcome.tokens) tokens reached it, fewer than \(MixtureRule.leastTokens(inputs: outcome.inputs))"
      #expect(outcome.fallback == why && outcome.dampening == nil)
    }
  }

  // MARK: Activations captured elsewhere

  /// A model of an architecture that cannot be run, with two linear layers.
  private func unknownModel() throws -> Checkpoint {
    var generator = SplitMix64(seed: 3)
    try FileManager.default.createDirectory(
      atPath: folder.appending("odd").string, withIntermediateDirectories: true)
    try SampleTensor.write(
      [
        SampleTensor("blocks.0.mixer.weight", [24, 32], generator.weights(24 * 32)),
        SampleTensor("blocks.1.mixer.weight", [24, 16], generator.weights(24 * 16)),
      ], to: folder.appending("odd/model.safetensors"))
    try folder.write(Array(#"{"model_type": "mamba"}"#.utf8), to: "odd/config.json")
    return try Checkpoint(folder.appending("odd"))
  }

  @Test("Captured activations calibrate a model that cannot be run", arguments: [ElementType.f32, .f16, .bf16])
  func capturedActivations(_ type: ElementType) throws {
    let source = try unknownModel()
    var generator = SplitMix64(seed: 4)
    let values = generator.weights(100 * 32, scale: 1)
    let path = folder.appending("captured.safetensors")
    try SampleTensor.write([SampleTensor("blocks.0.mixer.input", [2, 50, 32], values, as: type)], to: path)
    let evidence = try openEvidence(path.string, for: source)
    let found = try evidence.evidence(ofInput: 0, withHessian: true, workers: 2)
    let stored = values.map { rounded($0, to: type) }
    for column in 0..<32 {
      let squares = (0..<100).reduce(0.0) { $0 + Double(stored[$1 * 32 + column]) * Double(stored[$1 * 32 + column]) }
      #expect(abs(Double(found.hessian?.diagonal[column] ?? 0) - squares) < 1e-5 * squares)
    }
    let plan = try Plan(converting: source, recipe: recipe(.gptq), evidence: evidence)
    #expect(plan.model == nil && plan.withoutEvidence == ["blocks.1.mixer.weight"])
    let outcomes = try convert(source, recipe(.gptq), evidence: evidence, to: "out")
    #expect(outcomes.map(\.tokens) == [100] && outcomes[0].fallback == nil)
  }

  @Test func evidenceAtTheEdgeGivesAClearAnswer() throws {
    let source = try unknownModel()
    let path = folder.appending("captured.safetensors")
    func outcome(_ tokens: Int, _ value: (Int) -> Float) throws -> LayerOutcome {
      try SampleTensor.write(
        [SampleTensor("blocks.0.mixer.input", [tokens, 32], (0..<(tokens * 32)).map(value))], to: path)
      let name = "out-\(UUID().uuidString)"
      return try #require(
        try convert(source, recipe(.gptq), evidence: openEvidence(path.string, for: source), to: name).first)
    }
    // One token: dampening makes up for rank one, and is as high as it goes.
    let one = try outcome(1) { Float($0 + 1) }
    #expect(one.tokens == 1 && one.fallback == nil && one.dampening == GPTQ.largestDampening)
    let zeros = try outcome(8) { _ in 0 }
    #expect(zeros.fallback?.contains("an input other than zero") ?? false && zeros.deadColumns == 32)
    // All features equal: a Hessian of rank one.
    #expect(try outcome(64) { Float($0 / 32) }.fallback == nil)
    for (value, message) in [(Float.nan, "input feature 5 is nan"), (1e25, "beyond the range of float32")] {
      let error = #expect(throws: EvidenceError.self) { _ = try outcome(4) { $0 == 37 ? value : 1 } }
      let text = error?.description ?? ""
      #expect(text.contains(message) && text.contains("'blocks.0.mixer.weight'"), "\(text)")
    }
  }

  @Test func capturedActivationsThatDoNotFitAreNamed() throws {
    let source = try unknownModel()
    let cases: [(SampleTensor, String)] = [
      (SampleTensor("x", [1, 32], [Float](repeating: 0, count: 32)), "has no tensor named '<linear>.input'"),
      (SampleTensor("blocks.7.mixer.input", [1, 1], [0]), "no weight 'blocks.7.mixer.weight' of two dimensions"),
      (SampleTensor("blocks.0.mixer.input", [1, 8], [Float](repeating: 0, count: 8)), "has 8 features"),
      (SampleTensor("blocks.0.mixer.input", [32], [Float](repeating: 0, count: 32)), "must be F32, F16 or BF16"),
      (
        SampleTensor("blocks.0.mixer.input", [1, 32], type: .i8, bytes: [UInt8](repeating: 0, count: 32)), "I8 [1, 32]"
      ),
      (SampleTensor("blocks.0.mixer.input", [0, 32], []), "has no tokens"),
    ]
    for (tensor, message) in cases {
      let path = folder.appending("captured.safetensors")
      try SampleTensor.write([tensor], to: path)
      let error = #expect(throws: EvidenceFileError.self) { _ = try openEvidence(path.string, for: source) }
      #expect(error?.description.contains(message) ?? false, "\(error?.description ?? "")")
    }
  }

  // MARK: Text of the model's own

  @Test func aModelWritesTheSameTextForTheSameSeed() throws {
    let source = try SampleEvidence.checkpoint("llama")
    let model = try Model(source, configuration: source.configuration)
    func windows(_ seed: UInt64, workers: Int = 2, ends: Set<Int32> = [2, 3, 4, 5]) throws -> [[Int32]] {
      try SelfWrittenText(
        model, start: .token(1), ends: ends, seed: seed, memoryLimit: 1 << 30, workers: workers
      ).windows(3, length: 24) { _ in true }
    }
    let found = try windows(7)
    #expect(try found == windows(7, workers: 1) && found != windows(8))
    #expect(found.allSatisfy { $0.count == 24 && $0[0] == 1 && $0.allSatisfy { (0..<36).contains($0) } })
    // After the end of a text the next begins.
    for window in found {
      for (token, next) in zip(window, window.dropFirst()) where (2...5).contains(token) { #expect(next == 1) }
    }
    #expect(found.contains { $0.dropLast().contains { (2...5).contains($0) } })
    let sources = try CalibrationSource.parse("self")
    let cut = try CalibrationWindows(
      sources, CalibrationWindows.Options(samples: 2, sequenceLength: 24, heldOut: 1), vocabulary: 36,
      encode: { _ in [] }, write: { Array(try windows(7).prefix($0)) })
    #expect(cut.windows.map { Array(cut.tokens[$0]) } + cut.heldOut.map { Array(cut.tokens[$0]) } == found)
    let encoder = try SampleEvidence.checkpoint("bert")
    let error = #expect(throws: ModelError.self) {
      _ = try SelfWrittenText(
        Model(encoder, configuration: encoder.configuration), start: .random, ends: [], seed: 1, memoryLimit: 1 << 30,
        workers: 1
      ).windows(1, length: 4) { _ in true }
    }
    #expect(error?.reason == .notGenerative)
  }
}
