import Kernels

/// Symmetric quantization by the largest magnitude ("absmax quantization" of LLM.int8(), arXiv 2208.07339, section 2.1).
///
/// scale = max |w| / (2^(bits−1) − 1), rounded to the stored type; code = round(w / scale), ties to even, an integer
/// within −2^(bits−1) … 2^(bits−1) − 1 kept in offset binary. The lowest code appears only where the scale
/// is smaller than the magnitudes ask for: after a search that clips, or where its type rounded it down coarsely.
/// - All values zero: scale 0, codes 0. One constant value: exact but for the rounding of the scale.
/// - A scale that rounds to zero makes the whole group zero; its error is at most the largest magnitude.
enum Absmax {
  static func range(bits: Int, scale: Float) -> AffineRange {
    AffineRange(scale: scale, zeroPoint: Float(1 << (bits - 1)), highestCode: (1 << Int32(bits)) - 1)
  }

  /// The range whose outermost positive code is `magnitude`.
  static func range(bits: Int, magnitude: Double, scaleType: ElementType) -> AffineRange {
    range(bits: bits, scale: rounded(Float(magnitude / Double((1 << (bits - 1)) - 1)), to: scaleType))
  }
}
