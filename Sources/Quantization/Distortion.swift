import Foundation
import Kernels

/// What a tensor lost: figures of weights w against their reconstruction ŵ, from sums in double precision.
package struct Distortion: Hashable, Sendable {
  /// ‖w − ŵ‖ / ‖w‖, Frobenius norms. 0 for an exact reconstruction; infinite where w is zero and ŵ is not.
  package let relativeError: Double
  /// Signal-to-quantization-noise ratio, 10·log₁₀(‖w‖² / ‖w − ŵ‖²) in dB; infinite for an exact reconstruction.
  package let sqnr: Double
  /// ⟨w, ŵ⟩ / (‖w‖·‖ŵ‖); 1 where both are zero, 0 where one is.
  package let cosine: Double
  /// Largest |w − ŵ|, and the element of the flattened tensor where it first occurs.
  package let largestError: Float
  package let largestErrorElement: Int
  /// Σ (w − ŵ)² and Σ w², by which totals over tensors are formed.
  package let squaredError: Double
  package let squaredNorm: Double

  /// - Parameter largestErrorElement: where it stands in the tensor, if positions in the sums are not those.
  package init(_ sums: PairSums, largestErrorElement: Int? = nil) {
    squaredError = sums.squaredDifference
    squaredNorm = sums.first
    relativeError = squaredError == 0 ? 0 : squaredNorm == 0 ? .infinity : (squaredError / squaredNorm).squareRoot()
    sqnr = squaredError == 0 ? .infinity : -20 * log10(relativeError)
    let norms = (sums.first * sums.second).squareRoot()
    cosine = norms > 0 ? min(1, sums.product / norms) : sums.first == sums.second ? 1 : 0
    largestError = max(0, sums.largestDifference)
    self.largestErrorElement = largestErrorElement ?? sums.largestIndex
  }
}
