import Models

/// Text that a model writes itself, for calibration without any other: sampled from the full-precision model at
/// temperature 1, as LLM-QAT (arXiv 2305.17888, section 3.1) does to train, without its greedy first tokens.
///
/// Every text starts with the token that the tokenizer begins texts with, else with the one that ends them, else with
/// one drawn at random. Where a text ends, the next begins in the same window, so that all windows are full.
package struct SelfWrittenText {
  /// How a text begins.
  package enum Start: Hashable, Sendable {
    case token(Int32)
    /// Each of the vocabulary with the same chance.
    case random
  }

  private let model: Model
  private let start: Start
  private let ends: Set<Int32>
  private let seed: UInt64
  private let memoryLimit: Int
  private let workers: Int

  /// - Parameters:
  ///   - ends: the tokens that end a text.
  ///   - memoryLimit: bytes up to which the weights are kept as float32.
  package init(
    _ model: Model, start: Start, ends: Set<Int32>, seed: UInt64, memoryLimit: Int, workers: Int
  ) {
    (self.model, self.start, self.ends, self.seed) = (model, start, ends, seed)
    (self.memoryLimit, self.workers) = (memoryLimit, workers)
  }

  /// - Parameters:
  ///   - count: windows to write.
  ///   - length: tokens of each, at least 2.
  ///   - onProgress: the share that is done; false stops.
  /// - Returns: the same windows for the same seed, whatever the number of threads.
  /// - Throws: `ModelError` for a model without a language head, and for windows longer than its positions.
  package func windows(_ count: Int, length: Int, onProgress: (Double) -> Bool) throws -> [[Int32]] {
    if let limit = model.description.positionLimit, length > limit {
      throw ModelError(file: model.source.place, .tooLong(tokens: length, limit: limit))
    }
    let generation = try Generation(model, capacity: length, memoryLimit: memoryLimit, workers: workers)
    let sampling = Sampling(temperature: 1)
    var generator = SeededGenerator(seed: seed)
    return try (0..<count).map { window in
      guard onProgress(Double(window) / Double(count)) else { throw CancellationError() }
      var tokens: [Int32] = []
      while tokens.count < length {
        generation.restart()
        tokens.append(firstToken(using: &generator))
        while tokens.count < length {
          let logits = try generation.append([tokens[tokens.count - 1]])
          tokens.append(sampling.token(logits, using: &generator))
          if ends.contains(tokens[tokens.count - 1]) { break }
        }
      }
      return tokens
    }
  }

  private func firstToken(using generator: inout SeededGenerator) -> Int32 {
    switch start {
    case .token(let token): token
    case .random: Int32.random(in: 0..<Int32(model.description.embedding.vocabulary), using: &generator)
    }
  }
}
