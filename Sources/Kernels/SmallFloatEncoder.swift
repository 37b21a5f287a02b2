/// Finds the code of a small float nearest to a value, ties to the even code; values beyond the largest finite one take
/// that one.
package struct SmallFloatEncoder: Sendable {
  /// Values of the codes without sign, ascending, and the midpoints between neighbours.
  private let magnitudes: [Float]
  private let midpoints: [Float]
  let signBit: UInt8
  let mantissaBits: Int
  /// The power of two of the smallest normal number.
  let lowestExponent: Int

  /// Nil for a type that is no signed float of at most eight bits.
  package init?(_ type: ElementType) {
    guard let format = SmallFloat(type), type != .f8E8M0 else { return nil }
    mantissaBits = format.mantissaBits
    lowestExponent = 1 - format.bias
    signBit = 1 << UInt8(format.bitWidth - 1)
    magnitudes = (0..<signBit).map { format.value(of: $0) }.filter(\.isFinite)
    midpoints = zip(magnitudes, magnitudes.dropFirst()).map { ($0 + $1) / 2 }
  }

  var highestCode: UInt8 { UInt8(magnitudes.count - 1) }

  package var largest: Float { magnitudes[magnitudes.count - 1] }

  /// - Precondition: the value is not NaN.
  package func code(of value: Float) -> UInt8 {
    let magnitude = abs(value)
    var (low, high) = (0, midpoints.count)
    while low < high {
      let middle = (low + high) / 2
      // A midpoint belongs to the even one of its neighbours, which is above it if the code below is odd.
      if magnitude > midpoints[middle] || magnitude == midpoints[middle] && middle % 2 == 1 {
        low = middle + 1
      } else {
        high = middle
      }
    }
    return UInt8(low) | (value.sign == .minus ? signBit : 0)
  }
}
