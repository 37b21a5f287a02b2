import Checkpoints
import Foundation

/// What a tensor's weights, codes and scales look like, for pictures.
package struct TensorProfile: Hashable, Sendable {
  /// The source's weights, in equal intervals around zero that reach the largest magnitude.
  package let weights: TensorInspection.Histogram
  /// How often each code occurs; empty where codes are not looked at.
  package let codes: [Int]
  /// Base-2 logarithms of the magnitudes of scales that are not zero; nil where there are none.
  package let scales: TensorInspection.Histogram?
  /// Largest magnitude over the standard deviation.
  package let peak: Double
  /// See `pqIndex`.
  package let sparsity: Double
  /// Stored bytes of scales, zero points and what else tells what codes mean.
  package let scaleByteCount: Int
  /// Stored bytes of weights that are kept beside the codes.
  package let outlierByteCount: Int

  package init(
    weights: TensorInspection.Histogram, codes: [Int], scales: TensorInspection.Histogram?, peak: Double,
    sparsity: Double, scaleByteCount: Int, outlierByteCount: Int = 0
  ) {
    self.weights = weights
    self.codes = codes
    self.scales = scales
    self.peak = peak
    self.sparsity = sparsity
    self.scaleByteCount = scaleByteCount
    self.outlierByteCount = outlierByteCount
  }

  package var unusedCodes: Int { codes.count { $0 == 0 } }

  /// Shannon entropy of the codes, in bits per code; nil where they are not looked at.
  package var entropy: Double? {
    let total = Double(codes.reduce(0, +))
    guard total > 0 else { return nil }
    return codes.reduce(0) { sum, count in
      count == 0 ? sum : sum - Double(count) / total * log2(Double(count) / total)
    }
  }
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
