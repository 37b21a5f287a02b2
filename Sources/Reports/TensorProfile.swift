import Checkpoints

/// What a tensor's weights, codes and scales look like, for pictures.
package struct TensorProfile: Hashable, Sendable {
  /// The source's weights, in equal intervals around zero that reach the largest magnitude.
  package let weights: TensorInspection.Histogram
  /// How often each code occurs; empty for a kept tensor.
  package let codes: [Int]
  /// Base-2 logarithms of the magnitudes of scales that are not zero; nil where there are none.
  package let scales: TensorInspection.Histogram?
  /// Largest magnitude over the standard deviation.
  package let peak: Double
  /// See `pqIndex`.
  package let sparsity: Double
  /// Stored bytes that are not codes: scales, zero points and the like.
  package let scaleByteCount: Int

  package init(
    weights: TensorInspection.Histogram, codes: [Int], scales: TensorInspection.Histogram?, peak: Double,
    sparsity: Double, scaleByteCount: Int
  ) {
    self.weights = weights
    self.codes = codes
    self.scales = scales
    self.peak = peak
    self.sparsity = sparsity
    self.scaleByteCount = scaleByteCount
  }

  package var unusedCodes: Int { codes.count { $0 == 0 } }
}

/// The PQ index of a vector, a measure of its sparsity that says how far it can be compressed (arXiv 2302.05601, eq. 1):
///
///     I = 1 − d^(1/q − 1/p) · ‖w‖p / ‖w‖q        with p = ½, q = 1:        1 − (Σ √|w|)² / (d · Σ |w|)
///
/// 0 where all magnitudes are equal, 1 − 1/d where one alone is not zero.
/// - Parameters:
///   - rootSum: Σ √|w|.
///   - sum: Σ |w|.
///   - count: d.
/// - Returns: 0 for a vector of zeros.
package func pqIndex(rootSum: Double, sum: Double, count: Int) -> Double {
  sum > 0 ? 1 - rootSum * rootSum / (Double(count) * sum) : 0
}
