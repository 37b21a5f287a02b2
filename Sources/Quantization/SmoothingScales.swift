import Foundation
import Kernels

/// Smoothing scales of SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4): with α = 0.5, outliers of activations are
/// shared evenly between activations and weights, so that both can be quantized to eight bits.
///
///     s[j] = max |x[j]|^α / max |w[j]|^(1−α)                                     divided by √(min s · max s)
///
/// The maxima are over calibration tokens, and over the rows of all layers that read the input. With a search, α is the
/// one of 0, 0.05 … 1 (or no scaling) whose quantized product is nearest on kept tokens x (as many as `sampledTokens`):
///
///     loss = Σ over layers of ‖Q₈(x·diag(s)⁻¹)·Q(W·diag(s))ᵀ − x·Wᵀ‖²
///
/// Q₈ rounds each token to signed 8-bit integers by its largest magnitude, as a runtime does; Q is the layer's scheme,
/// without a search for ranges.
package enum SmoothingScales {
  package static let usualStrength = 0.5
  static let gridSize = 21
  /// Tokens to keep for a search.
  package static let sampledTokens = 256

  package static func scales(
    _ layers: [ScaledLayer], statistics: FeatureStatistics, strength: Double, sets: [Int]?, workers: Int
  ) -> FeatureScales {
    FeatureScales(
      scales: vector(maxima(layers, statistics, sets, workers: workers), strength), form: .largest, strength: strength,
      lossBefore: nil, lossAfter: nil)
  }

  /// - Parameter tokens: inputs, `[tokens, inputs]`.
  /// - Throws: where a weight is not finite.
  package static func search(
    _ layers: [ScaledLayer], tokens: Matrix, statistics: FeatureStatistics, sets: [Int]?, workers: Int
  ) throws -> FeatureScales {
    let maxima = maxima(layers, statistics, sets, workers: workers)
    let ones = [Float](repeating: 1, count: tokens.columns)
    let before = try loss(layers, tokens: tokens, scales: ones, workers: workers)
    var best = FeatureScales(
      scales: ones, form: .largest, strength: 0, lossBefore: before, lossAfter: before)
    for step in 0..<gridSize {
      let strength = Double(step) / Double(gridSize - 1)
      let scales = vector(maxima, strength)
      let found = try loss(layers, tokens: tokens, scales: scales, workers: workers)
      if found < best.lossAfter ?? .infinity {
        best = FeatureScales(
          scales: scales, form: .largest, strength: strength, lossBefore: before, lossAfter: found)
      }
    }
    return best
  }

  private static func maxima(
    _ layers: [ScaledLayer], _ statistics: FeatureStatistics, _ sets: [Int]?, workers: Int
  ) -> [(activation: Float, weight: Float)] {
    var weights = [Float](repeating: 0, count: statistics.dimension)
    for layer in layers {
      let found = columnStatistics(layer.weight, threshold: .infinity, workers: workers).largestMagnitudes
      for column in weights.indices { weights[column] = max(weights[column], found[column]) }
    }
    return Array(
      zip(
        FeatureScales.tiedLargest(statistics.largestMagnitudes, sets), FeatureScales.tiedLargest(weights, sets)
      ).map { (activation: $0, weight: $1) })
  }

  private static func vector(_ maxima: [(activation: Float, weight: Float)], _ strength: Double) -> [Float] {
    FeatureScales.normalized(
      maxima.map { pair in
        guard pair.activation > 0, pair.weight > 0 else { return 0 }
        return pow(Double(pair.activation), strength) / pow(Double(pair.weight), 1 - strength)
      })
  }

  /// ‖quantized product − product‖² over the tokens.
  package static func loss(
    _ layers: [ScaledLayer], tokens: Matrix, scales: [Float], workers: Int
  ) throws -> Double {
    let activations = try WeightScheme(method: .absmax, bits: 8, granularity: .row, scaleType: .f32)
    let x = copy(tokens)
    scaleColumns(x, by: scales.map { 1 / $0 }, workers: workers)
    try AffineWeight(roundingToNearest: x, activations, importance: nil, workers: workers).decode(
      into: x, workers: workers)
    var total = 0.0
    for layer in layers {
      guard let scheme = layer.scheme else { continue }
      let w = copy(layer.weight)
      scaleColumns(w, by: scales, workers: workers)
      try AffineWeight(roundingToNearest: w, scheme.plain, importance: nil, workers: workers).decode(
        into: w, workers: workers)
      let exact = Matrix(rows: tokens.rows, columns: w.rows)
      let found = Matrix(rows: tokens.rows, columns: w.rows)
      multiply(tokens, transposed: layer.weight, into: exact, workers: workers)
      multiply(x, transposed: w, into: found, workers: workers)
      subtract(exact, from: found, workers: workers)
      total += (0..<found.rows).reduce(0) { $0 + sumOfSquares(found, row: $1) }
    }
    return total
  }

  private static func copy(_ matrix: Matrix) -> Matrix {
    let result = Matrix(rows: matrix.rows, columns: matrix.columns)
    copyColumns(MatrixColumns(matrix, from: 0), into: result, at: 0, count: matrix.rows)
    return result
  }
}
