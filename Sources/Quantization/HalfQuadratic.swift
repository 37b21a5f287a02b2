import Kernels

/// HQQ, half-quadratic quantization (Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning
/// Models"): the scale is the range's, the real zero point is fitted to the lp norm, p < 1, of the error.
///
/// The splitting alternates between the error's proximal step and the zero point's closed form,
///
///     e ← shrink(r, β), r = w/s + z − q        z ← mean(q − w/s + e)        β ← κ·β
///
/// with q = round(w/s + z) clamped. Deviations: residuals are measured in units of the scale, so that the result does
/// not depend on the magnitude of the weights; the zero point of the least error seen, rounded as stored, is kept.
/// - All values zero: scale 0. One constant value c: scale |c|, exact but for its rounding.
/// - A range far from zero is widened to hold zero, so that the zero point keeps its precision.
struct HalfQuadratic {
  let bits: Int
  let scaleType: ElementType
  var norm: Float = 0.7
  var penalty: Float = 10
  var growth: Float = 1.01
  var iterations = 100
  /// Rounds without progress after which a group is settled.
  var patience = 20

  func range(of values: Span<Float>) -> AffineRange {
    var best = initialRange(of: values)
    guard best.scale > 0, (1 / best.scale).isFinite else { return best }
    var current = best
    var penalty = penalty
    var leastError = Double.infinity
    var settled = 0
    for _ in 0...iterations {
      let step = halfQuadraticStep(values, current, norm: norm, penalty: penalty)
      if step.error < leastError {
        leastError = step.error
        best = current
        settled = 0
      } else {
        settled += 1
        if settled == patience { break }
      }
      current.zeroPoint = rounded(Float(step.zeroPointSum / Double(values.count)), to: scaleType)
      penalty *= growth
    }
    return best
  }

  /// The range from smallest to largest value, zero not necessarily within.
  private func initialRange(of values: Span<Float>) -> AffineRange {
    let (smallest, largest) = extrema(values)
    let highest = Float((1 << bits) - 1)
    var low = smallest
    var high = largest
    if low == high {
      let scale = rounded(abs(low), to: scaleType)
      return AffineRange(scale: scale, zeroPoint: low < 0 ? 1 : 0, highestCode: Int32(highest))
    }
    if low > high - low { low = 0 }
    if -high > high - low { high = 0 }
    let scale = rounded(Float((Double(high) - Double(low)) / Double(highest)), to: scaleType)
    let zeroPoint = scale > 0 ? rounded(-low / scale, to: scaleType) : 0
    return AffineRange(scale: scale, zeroPoint: zeroPoint, highestCode: Int32(highest))
  }
}
