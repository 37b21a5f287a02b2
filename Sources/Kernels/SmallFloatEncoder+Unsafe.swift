extension SmallFloatEncoder {
  /// The codes of values / step, as `code(of:)` gives them; 0 where the step is zero.
  ///
  /// The bits of a float, rounded to the mantissa's width, are the code of a normal number but for the exponent's bias;
  /// below the normal numbers a code is a whole number of their smallest step.
  /// - Precondition: no quotient is NaN; `members` are places of both.
  package func encode(_ values: Span<Float>, _ members: Range<Int>, step: Float, into codes: inout MutableSpan<UInt8>) {
    precondition(members.lowerBound >= 0 && members.upperBound <= min(values.count, codes.count))
    var index = members.lowerBound
    if step > 0, let smallest = Float.power(ofTwo: lowestExponent),
      let grid = Float.power(ofTwo: mantissaBits - lowestExponent)
    {
      let shift = Int32(23 - mantissaBits)
      let (half, first) = (Int32(1) &<< (shift &- 1) &- 1, Int32(126 + lowestExponent) &<< Int32(mantissaBits))
      let (highest, sign) = (Int32(highestCode), Int32(signBit))
      codes.withUnsafeMutableBufferPointer { target in
        values.withUnsafeBufferPointer { source in
          guard let input = source.baseAddress, let output = target.baseAddress else { return }
          // Bounds: sixteen values and codes while index + 16 ≤ the end of the members.
          while index &+ 16 <= members.upperBound {
            let words = (input.lanes(index, as: Floats.self) / step).words
            let magnitude = words & 0x7fff_ffff
            let normal = ((magnitude &+ half &+ ((magnitude &>> shift) & 1)) &>> shift) &- first
            let below = (magnitude.floats * grid + roundingShift).words & 0x3f_ffff
            // All ones where the number is below the normal ones.
            let isBelow = (magnitude &- Int32(bitPattern: smallest.bitPattern)) &>> 31
            let code = ((normal & ~isBelow) | (below & isBelow)).clamped(to: highest)
            output.store((code | ((words &>> 31) & sign)).lowBytes, at: index)
            index &+= 16
          }
        }
      }
    }
    while index < members.upperBound {
      codes[index] = step > 0 ? code(of: values[index] / step) : 0
      index += 1
    }
  }
}

extension Float {
  /// 2^exponent; nil beyond the normal numbers.
  fileprivate static func power(ofTwo exponent: Int) -> Float? {
    (-126...127).contains(exponent) ? Float(sign: .plus, exponent: exponent, significand: 1) : nil
  }
}
