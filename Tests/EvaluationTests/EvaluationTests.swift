import Checkpoints
import Evaluation
import Foundation
import Kernels
import Models
import SystemPackage
import TestSupport
import Testing
import Tokenizers

@Suite struct EvaluationTests {
  private func evaluate(
    _ path: FilePath, against: FilePath? = nil, text: FilePath, window: Int = 256, stride: Int? = nil, tokens: Int,
    from first: Int = 0, workers: Int = 2, memoryLimit: Int = 1 << 30
  ) throws -> Evaluation {
    let model = try Model(path)
    let ids = try Tokenizer(folder: path)
      .encode(String(decoding: readWhole(text), as: UTF8.self), addSpecialTokens: false)
    let windows = TextWindows(Array(ids.dropFirst(first).prefix(tokens)), length: window, stride: stride ?? window)
    let options = Evaluator.Options(
      workers: workers, memoryLimit: memoryLimit, spillFolder: FilePath(FileManager.default.temporaryDirectory.path))
    return try Evaluator(model, against: try against.map { try Model($0) }, options).run(windows) { _ in true }
  }

  private let tiny = Fixtures.path("tiny-llama")
  private let text = Fixtures.path("text/tiny-eval.txt")

  @Test func thePerplexityIsThatOfTransformers() throws {
    let golden = try Fixtures.json("goldens/tiny-llama.json")
    let whole = try evaluate(tiny, text: text, tokens: .max)
    // The golden counts a last, shorter window too.
    let total = try #require(golden["evaluation_tokens"]?.integer)
    let rest = try evaluate(tiny, text: text, window: total % 256, tokens: .max, from: total / 256 * 256)
    let count = whole.tokens + rest.tokens
    #expect(count == golden["predicted_tokens"]?.integer)
    let loss = log(whole.perplexity) * Double(whole.tokens) + log(rest.perplexity) * Double(rest.tokens)
    #expect(abs(exp(loss / Double(count)) / (golden["perplexity"]?.double ?? 0) - 1) < 1e-5)
    #expect((whole.standardError ?? 0) > 0 && rest.standardError == nil)
  }

  @Test func theGreedyContinuationIsThatOfTransformers() throws {
    let golden = try Fixtures.json("goldens/tiny-llama.json")
    let first = try #require(golden["first_tokens"]?.array).compactMap { $0.integer.map { Int32($0) } }
    let expected = try #require(golden["greedy_after_first_16"]?.array).compactMap { $0.integer.map { Int32($0) } }
    let generation = try Generation(Model(tiny), capacity: 16 + expected.count, memoryLimit: 1 << 30, workers: 2)
    var generator = SeededGenerator(seed: 0)
    var logits = try generation.append(Array(first.prefix(16)))
    var made: [Int32] = []
    while made.count < expected.count {
      made.append(Sampling().token(logits, using: &generator))
      logits = try generation.append([made[made.count - 1]])
    }
    #expect(made == expected)
  }

  @Test func aModelEqualsItself() throws {
    let found = try evaluate(tiny, against: tiny, text: text, tokens: 1024)
    let comparison = try #require(found.comparison)
    #expect(comparison.divergence == 0 && comparison.divergence99 == 0)
    #expect(comparison.agreement == 1 && abs(comparison.acceptance - 1) < 1e-5)
    #expect(comparison.perplexityRatio == 1 && comparison.perplexity == found.perplexity)
    #expect(comparison.divergenceError == 0 && comparison.agreementError == 0 && comparison.perplexityRatioError == 0)
  }

  /// A copy of the tiny model whose values are off by a little.
  private func perturbed(_ folder: TemporaryFolder) throws -> FilePath {
    let source = try Checkpoint(tiny)
    let tensors = try source.tensors.map { tensor in
      let values = try allValues(tensor)
      let changed = values.enumerated().map { $1 * (1 + 0.08 * Float($0 % 5 - 2)) }
      return SampleTensor(tensor.name, tensor.entry.shape, changed)
    }
    try SampleTensor.write(tensors, to: folder.appending("model.safetensors"))
    for name in ["config.json", "tokenizer.json"] {
      try folder.write(readWhole(tiny.appending(name)), to: name)
    }
    return folder.path
  }

  @Test func standardErrorsAreThoseOfARatioOverWindows() throws {
    let folder = try TemporaryFolder()
    let model = try perturbed(folder)
    let (window, count) = (128, 8)
    let all = try evaluate(model, against: tiny, text: text, window: window, tokens: window * count)
    let whole = try #require(all.comparison)
    // Each window alone, and the errors by the formula of Docs/Evaluation.md.
    let parts = try (0..<count).map {
      try evaluate(model, against: tiny, text: text, window: window, tokens: window, from: $0 * window)
    }
    let comparisons = parts.compactMap(\.comparison)
    #expect(comparisons.count == count && comparisons.allSatisfy { $0.divergenceError == nil })
    func spread(_ means: [Double]) -> (mean: Double, error: Double) {
      let mean = means.reduce(0, +) / Double(count)
      let squares = means.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      return (mean, (squares / Double(count - 1) / Double(count)).squareRoot())
    }
    func agree(_ found: Double?, _ expected: Double) -> Bool { abs((found ?? .nan) / expected - 1) < 1e-5 }
    let divergence = spread(comparisons.map(\.divergence))
    #expect(agree(whole.divergence, divergence.mean) && agree(whole.divergenceError, divergence.error))
    let agreement = spread(comparisons.map(\.agreement))
    #expect(agree(whole.agreement, agreement.mean) && agree(whole.agreementError, agreement.error))
    let differences = spread(zip(parts, comparisons).map { log($0.perplexity) - log($1.perplexity) })
    #expect(agree(whole.perplexityRatio, exp(differences.mean)))
    #expect(agree(whole.perplexityRatioError, exp(differences.mean) * differences.error))
    // The reference's perplexity is what it has by itself.
    let own = try evaluate(tiny, text: text, window: window, tokens: window * count)
    #expect(agree(whole.perplexity, own.perplexity) && agree(all.perplexity / own.perplexity, whole.perplexityRatio))
    #expect(whole.perplexityRatioError ?? 1 < (all.standardError ?? 0) / own.perplexity)
  }

  @Test func threadsAndSpillingDoNotChangeABit() throws {
    let usual = try evaluate(tiny, text: text, tokens: 4096)
    #expect(try evaluate(tiny, text: text, tokens: 4096, workers: 1) == usual)
    #expect(try evaluate(tiny, text: text, tokens: 4096, memoryLimit: 0) == usual)
  }

  @Test func overlappingWindowsPredictEachTokenOnce() throws {
    let windows = TextWindows((0..<100).map { Int32($0) }, length: 32, stride: 8)
    #expect(windows.windows.count == 9)
    #expect(windows.predictedCount == 31 + 8 * 8)
    let predicted = windows.windows.flatMap { Array($0.firstPredicted..<$0.tokens.upperBound) }
    #expect(predicted == Array(1..<96))
    #expect(TextWindows([1, 2, 3], length: 4, stride: 4).windows.isEmpty)
    // More context, better predictions.
    let apart = try evaluate(tiny, text: text, window: 64, tokens: 2048)
    let overlapping = try evaluate(tiny, text: text, window: 64, stride: 16, tokens: 2048)
    #expect(overlapping.perplexity < apart.perplexity)
  }

  struct Bar: Sendable {
    let model: String
    let perplexity: Double
  }

  static let bars: [Bar] = [
    Bar(model: "stories5M", perplexity: 24.6681), Bar(model: "stories260K", perplexity: 5.5011),
    Bar(model: "stories260K_pad192", perplexity: 5.5011),
  ]

  /// What transformers gives for the first 32,768 tokens in windows of 256.
  @Test(
    "Trained models", .enabled(if: Fixtures.shared("models") != nil, "the trained models are not on this machine"),
    arguments: bars)
  func trained(_ bar: Bar) throws {
    let model = try #require(Fixtures.shared("models/\(bar.model)"))
    let text = try #require(Fixtures.shared("text/eval.txt"))
    let found = try evaluate(model, text: text, tokens: 32_768)
    #expect(found.tokens == 32_640)
    #expect(abs(found.perplexity / bar.perplexity - 1) < 1e-4, "\(found.perplexity)")
  }
}
