import Kernels

/// What is known of each input feature of a layer without products of features: enough for importance-weighted scales
/// (E[x²]), for smoothing (max |x|), for activation-aware scaling (mean |x|) and for outlier splitting (counts).
///
/// A value; evidence gathered in parts merges by addition.
package struct FeatureStatistics: Hashable, Codable, Sendable {
  package private(set) var tokens = 0
  /// The magnitude from which a value counts as an outlier (LLM.int8(), arXiv 2208.07339, section 3.2: 6.0).
  package let threshold: Float
  private var sums: ColumnStatistics

  package static let usualThreshold: Float = 6

  package var dimension: Int { sums.squareSums.count }

  package init(dimension: Int, threshold: Float = Self.usualThreshold) {
    sums = ColumnStatistics(columns: dimension)
    self.threshold = threshold
  }

  /// Evidence that was gathered before. The arrays have one element a feature.
  package init(tokens: Int, threshold: Float, sums: ColumnStatistics) {
    (self.tokens, self.threshold, self.sums) = (tokens, threshold, sums)
  }

  /// The plain sums, for files.
  package var columnSums: ColumnStatistics { sums }

  /// Adds the rows in use of `x`, `[tokens, dimension]`, all finite.
  package mutating func add(_ x: Matrix, workers: Int) {
    precondition(x.columns == dimension)
    sums.add(columnStatistics(x, threshold: threshold, workers: workers))
    tokens += x.rows
  }

  /// Adds the evidence of other tokens, gathered with the same threshold.
  package mutating func merge(_ other: FeatureStatistics) {
    precondition(other.dimension == dimension && other.threshold == threshold)
    sums.add(other.sums)
    tokens += other.tokens
  }

  /// Mean |x| of each feature; zeros without tokens.
  package var meanMagnitudes: [Float] { sums.magnitudeSums.map { Float($0 / Double(max(1, tokens))) } }
  /// E[x²] of each feature; zeros without tokens.
  package var meanSquares: [Float] { sums.squareSums.map { Float($0 / Double(max(1, tokens))) } }
  package var largestMagnitudes: [Float] { sums.largestMagnitudes }
  /// Tokens for which a feature is an outlier.
  package var outlierTokens: [Int] { sums.exceedances }
}
