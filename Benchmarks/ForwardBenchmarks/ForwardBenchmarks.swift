import ArgumentParser
import Checkpoints
import Evaluation
import Foundation
import Kernels
import Models
import SystemPackage

/// Times the forward pass of blocks whose weights are loaded, and its linear layers alone beside BLAS's own rate.
@main
struct ForwardBenchmarks: ParsableCommand {
  @Argument(help: "A model folder.")
  var model: String

  @Argument(help: "Windows of random tokens.")
  var windows: Int

  @Argument(help: "Tokens of a window.")
  var length: Int

  @Option(help: "Only the first blocks, and no head.")
  var blocks: Int?

  @Option var threads = 2

  @Option(help: "The fastest of these counts.")
  var rounds = 3

  func run() throws {
    let model = try Model(FilePath(model))
    let forward = Forward(model, workers: threads)
    let used = model.description.blocks.prefix(blocks ?? .max)
    let weights = try used.indices.map { try forward.weights(ofBlock: $0) }
    let head = blocks == nil ? try forward.loadHead() : nil
    var generator = SeededGenerator(seed: 1)
    let vocabulary = Int32(model.description.embedding.vocabulary)
    let tokens = (0..<windows * length).map { _ in Int32.random(in: 0..<vocabulary, using: &generator) }
    // Eight windows at a time, as the peer runs them.
    let groups = stride(from: 0, to: windows, by: 8).map { $0..<min(windows, $0 + 8) }
    let tables = ModelRotaryTables(model.description, length: length)
    var best = Double.infinity
    for _ in 0...rounds {
      let seconds = try measure {
        for group in groups {
          let batch = TokenBatch(lengths: group.map { _ in length })
          let hidden = forward.pool.take(rows: batch.tokenCount, columns: model.description.hiddenSize)
          let part = Array(tokens[group.lowerBound * length..<group.upperBound * length])
          try forward.embed(part, batch, into: hidden)
          for index in used.indices {
            forward.run(block: index, weights[index], hidden, batch, tables: tables[used[index]])
          }
          if let head {
            let logits = forward.pool.take(rows: hidden.rows, columns: head.vocabulary)
            let measures = forward.pool.take(rows: hidden.rows, columns: PredictionColumn.count)
            forward.logits(hidden, head, into: logits)
            measurePredictions(logits, reference: nil, targets: part, into: measures, workers: threads)
            forward.pool.give(logits, measures)
          }
          forward.pool.give(hidden)
        }
      }
      best = min(best, seconds)
    }
    let linear = try linearRate(forward, weights, rows: groups.first.map { $0.count * length } ?? 0)
    let product = sgemmRate()
    let json: JSONValue = [
      "tokensPerSecond": .real(Double(tokens.count) / best), "linearGFLOPS": .real(linear / 1e9),
      "sgemmGFLOPS": .real(product / 1e9), "linearShareOfSgemm": .real(linear / product),
    ]
    print(json.text())
  }

  private func measure(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    let time = start.duration(to: .now).components
    return Double(time.seconds) + Double(time.attoseconds) * 1e-18
  }

  /// Floating-point operations per second in the linear layers of the blocks.
  private func linearRate(_ forward: Forward, _ weights: [BlockWeights], rows: Int) throws -> Double {
    let linears = weights.flatMap { weights in
      [weights.attentionInput, weights.attentionOutput] + weights.feedForward.flatMap { [$0.input, $0.output] }
    }
    let matrices = linears.map {
      (Matrix(rows: rows, columns: $0.weight.columns), Matrix(rows: rows, columns: $0.weight.rows))
    }
    var best = Double.infinity
    for _ in 0...rounds {
      let seconds = measure {
        for (linear, (input, output)) in zip(linears, matrices) { linear.apply(input, into: output, workers: threads) }
      }
      best = min(best, seconds)
    }
    return Double(linears.reduce(0) { $0 + 2 * rows * $1.weight.rows * $1.weight.columns }) / best
  }

  private func sgemmRate() -> Double {
    let matrices = SquareProducts(size: 2048, workers: threads)
    var best = 0.0
    for _ in 0...rounds {
      var operations = 0
      let seconds = measure { operations = matrices.run(byBLAS: true) }
      best = max(best, Double(operations) / seconds)
    }
    return best
  }
}
