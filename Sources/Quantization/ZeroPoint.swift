import Kernels

/// Asymmetric quantization with an integer zero point (arXiv 1712.05877, section 2.1).
///
/// The range is widened to hold zero, so that zero is exact: scale = (max − min) / (2^bits − 1), rounded to the stored
/// type; zero point = round(−min / scale) within 0 … 2^bits − 1; code = round(w / scale + zero point), clamped.
/// - All values zero: scale 0, zero point 0, codes 0. One constant value: exact but for the rounding of the scale.
/// - A scale that rounds to zero makes the whole group zero; its error is at most the largest magnitude.
enum ZeroPoint {
  static func range(bits: Int, from smallest: Double, to largest: Double, scaleType: ElementType) -> AffineRange {
    let low = min(smallest, 0)
    let high = max(largest, 0)
    let highest = Double((1 << bits) - 1)
    let scale = rounded(Float((high - low) / highest), to: scaleType)
    let zeroPoint = scale > 0 ? min(max((-low / Double(scale)).rounded(.toNearestOrEven), 0), highest) : 0
    return AffineRange(scale: scale, zeroPoint: Float(zeroPoint), highestCode: Int32(highest))
  }
}
