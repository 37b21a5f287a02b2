import Foundation

// Functions on sixteen lanes, in our own polynomials: the same bits on every machine, and no call per element.

extension SIMD16 where Scalar == Float {
  /// The larger of the lanes; where either is NaN, `self`.
  @inline(__always)
  func larger(_ other: Self) -> Self { replacing(with: other, where: other .> self) }

  /// The largest lane.
  @inline(__always)
  var largestLane: Float {
    var eight = lowHalf
    eight.replace(with: highHalf, where: highHalf .> eight)
    var four = eight.lowHalf
    four.replace(with: eight.highHalf, where: eight.highHalf .> four)
    return Swift.max(Swift.max(four.x, four.y), Swift.max(four.z, four.w))
  }

  /// eˣ, within 2.6e-7 relatively, for −87 ≤ x ≤ 88; the value at the bound beyond. A quiet NaN stays one: its low
  /// bits, which go into the exponent, are zeros.
  ///
  /// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ is a polynomial of degree 6, its factor 2ⁿ goes into the exponent bits.
  @inline(__always)
  var exponential: Self {
    let low = Self(repeating: -87)
    let high = Self(repeating: 88)
    let x = replacing(with: low, where: self .< low).replacing(with: high, where: self .> high)
    let shifted = x * 1.442_695_04 + roundingShift
    let whole = shifted - roundingShift
    // ln 2 in two parts, the first with zeros at its end, so that its product with a small integer is exact.
    let rest = (x - whole * 0.693_359_375) + whole * 2.121_944_4e-4
    var sum = Self(repeating: 1.388_888_9e-3)
    sum = sum * rest + 8.333_333_8e-3
    sum = sum * rest + 4.166_666_4e-2
    sum = sum * rest + 1.666_666_7e-1
    sum = sum * rest + 0.5
    sum = sum * rest + 1
    sum = sum * rest + 1
    // The low bits of the shifted number are n; added to the exponent field, they multiply by 2ⁿ.
    return (sum.words &+ ((shifted.words &- Self(repeating: roundingShift).words) &<< 23)).floats
  }

  /// 1 / (1 + e⁻ˣ).
  @inline(__always)
  var logistic: Self { 1 / (1 + (-self).exponential) }

  /// tanh x = 1 − 2 / (e²ˣ + 1), to 1.2e-7 absolutely.
  @inline(__always)
  var hyperbolicTangent: Self { 1 - 2 / ((self + self).exponential + 1) }

  /// The error function to 2e-7 absolutely (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
  @inline(__always)
  var errorFunction: Self {
    let magnitude = (words & 0x7fff_ffff).floats
    let t = 1 / (1 + 0.327_591_1 * magnitude)
    var sum = Self(repeating: 1.061_405_429)
    sum = sum * t - 1.453_152_027
    sum = sum * t + 1.421_413_741
    sum = sum * t - 0.284_496_736
    sum = sum * t + 0.254_829_592
    let value = 1 - sum * t * (-(magnitude * magnitude)).exponential
    return (value.words | (words & Int32(bitPattern: 0x8000_0000))).floats
  }
}

/// eˣ of one number, with the bits that the lanes give.
package func exponential(_ x: Float) -> Float { Floats(repeating: x).exponential[0] }

/// The natural logarithm, rounded from double precision.
func logarithm(_ x: Float) -> Float { Float(log(Double(x))) }
