/// IEEE 754 binary16 and bfloat16 as bit patterns, converted by integer arithmetic, so that results are the same on
/// every machine and the loops over them become SIMD instructions without compiler flags.
package enum Half {
  /// The value of a binary16 bit pattern; exact.
  @inline(__always)
  package static func float(fromHalf bits: UInt16) -> Float {
    let magnitude = UInt32(bits & 0x7fff)
    // Moving exponent and mantissa up leaves a float whose exponent is 112 too small, subnormals included.
    let scaled = (Float(bitPattern: magnitude << 13) * Float(bitPattern: 0x7780_0000)).bitPattern
    let special: UInt32 = magnitude >= 0x7c00 ? 0x7f80_0000 : 0
    return Float(bitPattern: scaled | special | UInt32(bits & 0x8000) << 16)
  }

  /// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
  package static func half(from value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: (value.bitPattern & 0x8000_0000) >> 16)
    let magnitude = value.bitPattern & 0x7fff_ffff
    if magnitude > 0x7f80_0000 { return sign | 0x7e00 }
    if magnitude >= 0x4780_0000 { return sign | 0x7c00 }
    if magnitude < 0x3880_0000 {
      // Below 2^-14 the result is a multiple of 2^-24: adding one half lets the addition itself round to that grid.
      let aligned = (Float(bitPattern: magnitude) + 0.5).bitPattern &- Float(0.5).bitPattern
      return sign | UInt16(truncatingIfNeeded: aligned)
    }
    let odd = (magnitude >> 13) & 1
    return sign | UInt16(truncatingIfNeeded: (magnitude &- 0x3800_0000 &+ 0xfff &+ odd) >> 13)
  }

  /// The value of a bfloat16 bit pattern; exact.
  @inline(__always)
  package static func float(fromBrain bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

  /// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
  package static func brain(from value: Float) -> UInt16 {
    let bits = value.bitPattern
    if bits & 0x7fff_ffff > 0x7f80_0000 { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
  }
}
