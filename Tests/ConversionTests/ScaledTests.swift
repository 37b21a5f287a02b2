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

/// Conversions that scale inputs before they quantize: AWQ and smoothing.
@Suite struct ScaledTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func convert(
    _ source: FilePath, to name: String, workers: Int = 2, length: Int = 16, _ change: (inout Recipe) -> Void = { _ in }
  ) throws -> (outcomes: [LayerOutcome], output: FilePath, windows: CalibrationWindows) {
    var recipe = Recipe()
    recipe.options.method = .awq
    recipe.options.bits = 3
    recipe.options.granularity = .group(8)
    change(&recipe)
    let checkpoint = try Checkpoint(source)
    let plan = try Plan(converting: checkpoint, recipe: recipe)
    var generator = SplitMix64(seed: 11)
    let tokens = (0..<480).map { _ in Int32.random(in: 0..<36, using: &generator) }
    try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
      CalibrationWindows.Options(samples: tokens.count / length - 2, sequenceLength: length, heldOut: 2),
      vocabulary: try #require(plan.model).description.embedding.vocabulary
    ) { _ in [] }
    let output = folder.appending(name)
    let target = try OutputFolder(output, source: checkpoint.folder, overwrite: false)
    let outcomes = try Converter(
      plan: plan, toolVersion: "test", workers: workers, windows: windows,
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(into: target) { _ in true }
    return (outcomes, output, windows)
  }

  private func fixture(_ name: String) -> FilePath {
    Fixtures.path("architectures/\(name)").appending("model.safetensors")
  }

  /// Relative difference of the last hidden states, of the median token: a router may send one elsewhere.
  private func difference(_ output: FilePath, _ name: String) throws -> Double {
    let tokens = (0..<24).map { Int32($0 * 5 % 36) }
    let batch = TokenBatch(lengths: [24])
    let found = try Forward(Model(output), workers: 1).lastHiddenStates(tokens, batch).values()
    let expected = try Forward(Model(Fixtures.path("architectures/\(name)")), workers: 1)
      .lastHiddenStates(tokens, batch).values()
    let width = expected.count / tokens.count
    let differences = tokens.indices.map { token -> Double in
      let places = token * width..<(token + 1) * width
      let error = places.reduce(0.0) { $0 + pow(Double(found[$1]) - Double(expected[$1]), 2) }
      return (error / places.reduce(0.0) { $0 + Double(expected[$1]) * Double(expected[$1]) }).squareRoot()
    }
    return differences.sorted()[tokens.count / 2]
  }

  static let architectures = [
    "llama", "llama-bias", "phi3", "gemma2", "gemma3", "gpt2", "gpt-neox", "opt", "opt-post-norm", "mixtral",
    "mixtral-fused",
    "qwen3-moe", "bert", "modernbert",
  ]

  @Test("Eight bits behind scales are nearly the model", arguments: architectures)
  func foldedModelIsTheModel(_ name: String) throws {
    let (outcomes, output, _) = try convert(fixture(name), to: "out") { $0.options.bits = 8 }
    #expect(try difference(output, name) < 0.02)
    try requireRecordedErrors(output, fixture(name))
    let model = try Model(Fixtures.path("architectures/\(name)"))
    let routers = model.description.blocks.count { if case .mixture = $0.feedForward { true } else { false } }
    #expect(outcomes.count == model.description.blocks.flatMap(\.linears).count - routers)
    // Every layer says how its input was scaled, or why not.
    for outcome in outcomes {
      let scaling = try #require(outcome.scaling)
      #expect((scaling.found == nil) == (scaling.obstacle != nil), "\(outcome.tensor)")
    }
    #expect(outcomes.contains { $0.scaling?.found != nil })
  }

  @Test("Scales lower the error of outputs", arguments: ["llama", "mixtral", "phi3"])
  func itBeatsRounding(_ name: String) throws {
    let outcomes = try convert(fixture(name), to: "out").outcomes
    let ratios = outcomes.compactMap { $0.heldOut?.ratio }
    #expect(ratios.count { $0 < 1 } * 10 >= ratios.count * 8, "\(ratios)")
  }

  @Test("Threads do not change a byte", arguments: ["llama", "mixtral-fused"])
  func isDeterministic(_ name: String) throws {
    let first = try contents(try convert(fixture(name), to: "a", workers: 1).output)
    #expect(try contents(try convert(fixture(name), to: "b", workers: 2).output) == first)
    let smooth = { (recipe: inout Recipe) in
      recipe.options.method = .absmax
      recipe.options.bits = 8
      recipe.options.granularity = .row
      recipe.scaling = .smooth(strength: nil)
    }
    let one = try contents(try convert(fixture(name), to: "c", workers: 1, smooth).output)
    #expect(try contents(try convert(fixture(name), to: "d", workers: 2, smooth).output) == one)
  }

  @Test("Any integer method can follow a scaling", arguments: ["llama", "mixtral", "gpt-neox"])
  func scalingComesBeforeOtherMethods(_ name: String) throws {
    for (index, method) in [Quantization.Method.gptq, .zeroPoint, .absmax].enumerated() {
      for (number, scaling) in [Scaling.activationAware, .smooth(strength: 0.5)].enumerated() {
        let result = try convert(fixture(name), to: "out\(index)\(number)") { recipe in
          recipe.options.method = method
          recipe.options.bits = 8
          recipe.scaling = scaling
        }
        #expect(try difference(result.output, name) < 0.02, "\(method) \(scaling)")
        #expect(result.outcomes.contains { $0.scaling?.found != nil })
      }
    }
  }

  @Test func reportsCompareNoFoldedValues() throws {
    let source = fixture("llama")
    let (outcomes, output, windows) = try convert(source, to: "out") { $0.exclude = ["*.0.self_attn.v_proj.weight"] }
    let summary = try #require(CalibrationSummary(outcomes, windows: windows, evidence: nil))
    #expect(summary.text.contains("Scaled inputs: "))
    try Data(summary.json.text().utf8).write(
      to: URL(fileURLWithPath: output.appending(CalibrationSummary.fileName).string))
    let report = try Measurement(packed: output, source: Checkpoint(source)).run(sampling: .all, workers: 2) { _ in true
    }
    let value = try #require(report.tensors.first { $0.name == "model.layers.0.self_attn.v_proj.weight" })
    guard case .folded(nil, _, _) = value.outcome else {
      Issue.record("\(value.outcome)")
      return
    }
    let query = try #require(report.tensors.first { $0.name == "model.layers.0.self_attn.q_proj.weight" })
    guard case .folded(_?, _, let error?) = query.outcome else {
      Issue.record("\(query.outcome)")
      return
    }
    #expect(error.own > 0 && error.plain > 0)
    #expect(report.altered.isEmpty && report.relativeError == nil && report.quantizedBitsPerWeight != nil)
    #expect(report.text(path: "out").contains("Scales are folded into"))
    let norm = try #require(report.tensors.first { $0.name == "model.layers.0.input_layernorm.weight" })
    #expect(norm.isFolded && !norm.isQuantized)
    #expect(try PackedCheckpoint(output)["model.norm.weight"]?.isFolded == false)
  }

  @Test func whatCannotBeScaledIsLeftAndSaid() throws {
    let outcomes = try convert(fixture("llama"), to: "out") { recipe in
      recipe.overrides = [Recipe.Override(pattern: "*.1.mlp.down_proj.weight", options: Self.options(.nf4))]
    }.outcomes
    let up = try #require(outcomes.first { $0.tensor == "model.layers.1.mlp.up_proj.weight" })
    #expect(up.scaling?.found != nil)
    let encoder = try convert(fixture("bert"), to: "encoder").outcomes
    let reasons = Set(encoder.compactMap { $0.scaling?.obstacle })
    #expect(reasons == ["no norm stands before it", "the activation before it does not pass factors on"])
    // A layer whose absorber is quantized by a method without the model stays as it is.
    let other = try convert(fixture("llama"), to: "other") { recipe in
      recipe.overrides = [Recipe.Override(pattern: "*.1.mlp.up_proj.weight", options: Self.options(.nf4))]
    }.outcomes
    let down = try #require(other.first { $0.tensor == "model.layers.1.mlp.down_proj.weight" })
    #expect(down.scaling?.obstacle?.contains("'model.layers.1.mlp.up_proj.weight' is quantized by nf4") ?? false)
  }

  private static func options(_ method: Quantization.Method) -> SchemeOptions {
    var options = SchemeOptions()
    options.method = method
    return options
  }

  @Test func combinationsThatMakeNoSenseAreRefused() throws {
    let checkpoint = try Checkpoint(fixture("llama"))
    func message(_ change: (inout Recipe) -> Void) -> String {
      var recipe = Recipe()
      change(&recipe)
      do {
        _ = try Plan(converting: checkpoint, recipe: recipe)
        return ""
      } catch {
        return "\(error)"
      }
    }
    let codebook = message {
      $0.options.method = .nf4
      $0.scaling = .activationAware
    }
    #expect(codebook.contains("scaling 'awq' goes in front of absmax and zero-point in rows or groups, gptq"))
    #expect(codebook.contains("nf4 with these options does not take it"))
    let tensor = message {
      $0.options.method = .absmax
      $0.options.granularity = .tensor
      $0.scaling = .smooth(strength: 0.5)
    }
    #expect(tensor.contains("scaling 'smooth' goes in front of"))
    let twice = message {
      $0.options.method = .awq
      $0.scaling = .smooth(strength: 0.5)
    }
    #expect(twice.contains("awq is a scaling itself"))
  }

  @Test func symmetryIsAChoice() throws {
    #expect(try WeightScheme(method: .awq).isSymmetric == false)
    let symmetric = try WeightScheme(method: .awq, isSymmetric: true)
    #expect(symmetric.rounding.method == .absmax && symmetric.scaleSearch == .signedMSE)
    #expect(throws: SchemeError.needsGroups(method: .awq)) {
      _ = try WeightScheme(method: .awq, granularity: .tensor)
    }
    let output = try convert(fixture("llama"), to: "out") { recipe in
      recipe.options.isSymmetric = true
      recipe.options.bits = 8
    }.output
    #expect(try difference(output, "llama") < 0.02)
  }
}
