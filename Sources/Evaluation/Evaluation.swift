import Foundation
import Kernels

/// How well a model predicts a text and, beside a reference, how far it is from it.
package struct Evaluation: Hashable, Sendable {
  package struct Comparison: Hashable, Sendable {
    /// Mean KL divergence of the model from the reference per predicted token, in nats.
    package let divergence: Double
    /// What 99 % of the tokens' divergences do not exceed.
    package let divergence99: Double
    /// Share of tokens where both rank the same token first.
    package let agreement: Double
    /// Mean Σ min(p, q): the share of the model's drafts that speculative decoding accepts (arXiv 2211.17192, §3.2).
    package let acceptance: Double
  }

  /// exp of the mean loss.
  package let perplexity: Double
  /// Of the perplexity, from the spread of the windows' losses; nil for a single window.
  package let standardError: Double?
  /// Predicted tokens.
  package let tokens: Int
  package let window: Int
  package let stride: Int
  package let comparison: Comparison?
}

/// Sums of the measures of single predictions, in the order of the text.
struct EvaluationTally {
  private let text: TextWindows
  private var lossOfWindow: [Double]
  private var divergences: [Float] = []
  private var agreement = 0.0
  private var acceptance = 0.0
  private let hasReference: Bool

  init(_ text: TextWindows, hasReference: Bool) {
    self.text = text
    self.hasReference = hasReference
    lossOfWindow = [Double](repeating: 0, count: text.windows.count)
  }

  mutating func add(_ measures: Matrix, rows: Range<Int>, targets: [Int32]) {
    measures.readRows(0..<rows.count) { span in
      for index in 0..<rows.count where targets[index] >= 0 {
        let first = index * PredictionColumn.count
        lossOfWindow[(rows.lowerBound + index) / text.length] += Double(span[first + PredictionColumn.loss])
        guard hasReference else { continue }
        divergences.append(span[first + PredictionColumn.divergence])
        agreement += Double(span[first + PredictionColumn.agreement])
        acceptance += Double(span[first + PredictionColumn.acceptance])
      }
    }
  }

  var evaluation: Evaluation {
    let tokens = text.predictedCount
    let count = Double(max(1, tokens))
    let mean = lossOfWindow.reduce(0, +) / count
    let perplexity = exp(mean)
    // Tokens of a window depend on each other, windows hardly do: the windows are the sample (ratio estimator).
    let residuals = zip(text.windows, lossOfWindow).map { window, loss in
      loss - mean * Double(window.tokens.upperBound - window.firstPredicted)
    }
    let windows = Double(residuals.count)
    let error =
      residuals.count > 1
      ? perplexity * (residuals.reduce(0) { $0 + $1 * $1 } * windows / (windows - 1)).squareRoot() / count : nil
    var comparison: Evaluation.Comparison?
    if hasReference, !divergences.isEmpty {
      let sorted = divergences.sorted()
      let rank = min(sorted.count - 1, Int((0.99 * Double(sorted.count)).rounded(.up)) - 1)
      comparison = Evaluation.Comparison(
        divergence: divergences.reduce(0) { $0 + Double($1) } / count, divergence99: Double(sorted[rank]),
        agreement: agreement / count, acceptance: acceptance / count)
    }
    return Evaluation(
      perplexity: perplexity, standardError: error, tokens: tokens, window: text.length, stride: text.stride,
      comparison: comparison)
  }
}
