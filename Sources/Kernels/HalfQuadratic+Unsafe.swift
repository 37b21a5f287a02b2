/// One step of half-quadratic splitting over a group (see `HalfQuadratic` in Quantization), in units of the scale:
/// with c = w/s, q = clamp(round(c + z)) and residuals r = c + z − q,
/// `error` is Σ|r|^p and `zeroPointSum` is Σ (q − c + shrink(r)), shrink(r) = sign(r)·max(0, |r| − |r|^(p−1) / β).
package func halfQuadraticStep(
  _ values: Span<Float>, _ range: AffineRange, norm: Float, penalty: Float
) -> (zeroPointSum: Double, error: Double) {
  let inverse = 1 / range.scale
  let highest = Floats(repeating: Float(range.highestCode))
  let zero = Floats(repeating: 0)
  func step(_ weights: Floats) -> (sum: Floats, error: Floats) {
    let centred = weights * inverse
    let position = centred + range.zeroPoint
    var code = (position + roundingShift) - roundingShift
    code = code.replacing(with: zero, where: code .< zero)
    code = code.replacing(with: highest, where: code .> highest)
    let residual = position - code
    let magnitude = (residual.words & 0x7fff_ffff).floats
    let power = exponential(logarithm(magnitude) * (norm - 1))
    let shrunk = magnitude - power / penalty
    let kept = shrunk.replacing(with: zero, where: shrunk .< zero)
    let signed = (kept.words | (residual.words & Int32.min)).floats
    return (code - centred + signed, magnitude * power)
  }
  var sum = 0.0
  var error = 0.0
  values.withUnsafeBufferPointer { source in
    guard let input = source.baseAddress else { return }
    let count = source.count
    var index = 0
    // Bounds: reads sixteen elements while index + 16 ≤ count, then single ones below count.
    while index &+ 16 <= count {
      let part = step(input.lanes(index))
      sum += Double(part.sum.total)
      error += Double(part.error.total)
      index &+= 16
    }
    while index < count {
      let part = step(Floats(repeating: input[index]))
      sum += Double(part.sum[0])
      error += Double(part.error[0])
      index &+= 1
    }
  }
  return (sum, error)
}

/// Base-2 logarithm of non-negative floats, to 3e-6 absolute for normal ones and near −127 below: a polynomial of degree
/// six fitted to the mantissa, so that it is the same on every machine.
@inline(__always)
private func logarithm(_ value: Floats) -> Floats {
  let bits = value.words
  let biased = ((bits &>> 23) | Int32(bitPattern: roundingShift.bitPattern)).floats - roundingShift
  let fraction = ((bits & 0x007f_ffff) | 0x3f80_0000).floats - 1
  var polynomial = fraction * -0.025123203 + 0.119298235
  polynomial = polynomial * fraction - 0.274623245
  polynomial = polynomial * fraction + 0.455527097
  polynomial = polynomial * fraction - 0.717557847
  polynomial = polynomial * fraction + 1.442475319
  polynomial = polynomial * fraction + 2.1237408e-6
  return biased - 127 + polynomial
}

/// Two to the power of floats within ±126, to 3e-7 relative: a polynomial of degree five on −½…½.
@inline(__always)
private func exponential(_ value: Floats) -> Floats {
  let shifted = value + roundingShift
  let fraction = value - (shifted - roundingShift)
  var polynomial = fraction * 0.00134004327 + 0.00967603736
  polynomial = polynomial * fraction + 0.0555032715
  polynomial = polynomial * fraction + 0.240221068
  polynomial = polynomial * fraction + 0.693147182
  polynomial = polynomial * fraction + 1.00000012
  let exponent = (shifted.words &- Int32(bitPattern: roundingShift.bitPattern)) &<< 23
  return (polynomial.words &+ exponent).floats
}
