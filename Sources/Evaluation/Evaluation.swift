import Foundation
import Kernels

/// How well a model predicts a text and, beside a reference, how far it is from it.
package struct Evaluation: Hashable, Sendable {
  package struct Comparison: Hashable, Sendable {
    /// Mean KL divergence of the model from the reference per predicted token, in nats.
    package let divergence: Double
    /// Of it, from the spread of the windows' means; nil for a single window.
    package let divergenceError: Double?
    /// What 99 % of the tokens' divergences do not exceed.
    package let divergence99: Double
    /// Share of tokens where both rank the same token first.
    package let agreement: Double
    /// Of it, likewise.
    package let agreementError: Double?
    /// The reference's own perplexity on the same tokens.
    package let perplexity: Double
    /// The model's perplexity over the reference's, and its standard error: the two are measured on the same windows, so
    /// that their ratio is known far better than either.
    package let perplexityRatio: Double
    package let perplexityRatioError: Double?
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
  private var referenceLossOfWindow: [Double]
  private var divergences: [Float] = []
  private var divergenceOfWindow: [Double]
  private var agreementOfWindow: [Double]
  private var acceptance = 0.0
  private let hasReference: Bool

  init(_ text: TextWindows, hasReference: Bool) {
    self.text = text
    self.hasReference = hasReference
    lossOfWindow = [Double](repeating: 0, count: text.windows.count)
    referenceLossOfWindow = lossOfWindow
    divergenceOfWindow = lossOfWindow
    agreementOfWindow = lossOfWindow
  }

  mutating func add(_ measures: Matrix, rows: Range<Int>, targets: [Int32]) {
    measures.readRows(0..<rows.count) { span in
      for index in 0..<rows.count where targets[index] >= 0 {
        let first = index * PredictionColumn.count
        let window = (rows.lowerBound + index) / text.length
        lossOfWindow[window] += Double(span[first + PredictionColumn.loss])
        guard hasReference else { continue }
        divergences.append(span[first + PredictionColumn.divergence])
        divergenceOfWindow[window] += Double(span[first + PredictionColumn.divergence])
        agreementOfWindow[window] += Double(span[first + PredictionColumn.agreement])
        acceptance += Double(span[first + PredictionColumn.acceptance])
      }
    }
  }

  /// Adds the losses of the reference alone.
  mutating func addReference(_ measures: Matrix, rows: Range<Int>, targets: [Int32]) {
    measures.readRows(0..<rows.count) { span in
      for index in 0..<rows.count where targets[index] >= 0 {
        let loss = span[index * PredictionColumn.count + PredictionColumn.loss]
        referenceLossOfWindow[(rows.lowerBound + index) / text.length] += Double(loss)
      }
    }
  }

  /// The mean of a sum over windows per predicted token, and its standard error. Tokens of a window depend on each other,
  /// windows hardly do: the windows are the sample (ratio estimator).
  private func mean(_ sums: [Double]) -> (value: Double, error: Double?) {
    let count = Double(max(1, text.predictedCount))
    let mean = sums.reduce(0, +) / count
    let squares = zip(text.windows, sums).reduce(0) { total, item in
      let residual = item.1 - mean * Double(item.0.tokens.upperBound - item.0.firstPredicted)
      return total + residual * residual
    }
    let windows = Double(sums.count)
    return (mean, sums.count > 1 ? (squares * windows / (windows - 1)).squareRoot() / count : nil)
  }

  var evaluation: Evaluation {
    let tokens = text.predictedCount
    let count = Double(max(1, tokens))
    let loss = mean(lossOfWindow)
    let perplexity = exp(loss.value)
    let error = loss.error.map { perplexity * $0 }
    var comparison: Evaluation.Comparison?
    if hasReference, !divergences.isEmpty {
      let sorted = divergences.sorted()
      let rank = min(sorted.count - 1, Int((0.99 * Double(sorted.count)).rounded(.up)) - 1)
      let divergence = mean(divergenceOfWindow)
      let agreement = mean(agreementOfWindow)
      let difference = mean(zip(lossOfWindow, referenceLossOfWindow).map { $0 - $1 })
      let ratio = exp(difference.value)
      comparison = Evaluation.Comparison(
        divergence: divergences.reduce(0) { $0 + Double($1) } / count, divergenceError: divergence.error,
        divergence99: Double(sorted[rank]), agreement: agreement.value, agreementError: agreement.error,
        perplexity: exp(mean(referenceLossOfWindow).value), perplexityRatio: ratio,
        perplexityRatioError: difference.error.map { ratio * $0 }, acceptance: acceptance / count)
    }
    return Evaluation(
      perplexity: perplexity, standardError: error, tokens: tokens, window: text.length, stride: text.stride,
      comparison: comparison)
  }
}
