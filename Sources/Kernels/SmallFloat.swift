/// A floating-point format of at most eight bits, described by its fields (OCP 8-bit and Microscaling
/// specifications; the FNUZ forms as AMD and Graphcore use them).
///
/// Every value is read from a table of at most 256 entries, so one description serves decoding, encoding and tests.
package struct SmallFloat: Hashable, Sendable {
  let exponentBits: Int
  let mantissaBits: Int
  let bias: Int
  let signed: Bool
  let special: Special

  /// What the codes that are not numbers mean.
  enum Special: Hashable, Sendable {
    /// Every code is a number.
    case none
    /// The highest exponent holds infinity and NaN, as in IEEE 754.
    case ieee
    /// Only all ones (of exponent and mantissa) is NaN; there is no infinity.
    case allOnesIsNaN
    /// Only the code of minus zero is NaN; there is no infinity.
    case minusZeroIsNaN
  }

  /// The format of an element type, nil where the type is not a float of eight bits or fewer.
  package init?(_ type: ElementType) {
    switch type {
    case .f8E4M3: self.init(4, 3, bias: 7, special: .allOnesIsNaN)
    case .f8E5M2: self.init(5, 2, bias: 15, special: .ieee)
    case .f8E4M3FNUZ: self.init(4, 3, bias: 8, special: .minusZeroIsNaN)
    case .f8E5M2FNUZ: self.init(5, 2, bias: 16, special: .minusZeroIsNaN)
    case .f8E8M0: self.init(8, 0, bias: 127, signed: false, special: .allOnesIsNaN)
    case .f6E2M3: self.init(2, 3, bias: 1, special: .none)
    case .f6E3M2: self.init(3, 2, bias: 3, special: .none)
    case .f4: self.init(2, 1, bias: 1, special: .none)
    default: return nil
    }
  }

  private init(_ exponentBits: Int, _ mantissaBits: Int, bias: Int, signed: Bool = true, special: Special) {
    self.exponentBits = exponentBits
    self.mantissaBits = mantissaBits
    self.bias = bias
    self.signed = signed
    self.special = special
  }

  package var bitWidth: Int { exponentBits + mantissaBits + (signed ? 1 : 0) }

  /// The value of a code; bits above `bitWidth` are ignored.
  package func value(of code: UInt8) -> Float {
    let magnitudeBits = exponentBits + mantissaBits
    let magnitude = Int(code) & ((1 << magnitudeBits) - 1)
    let negative = signed && (Int(code) >> magnitudeBits) & 1 == 1
    let exponent = magnitude >> mantissaBits
    let mantissa = magnitude & ((1 << mantissaBits) - 1)
    let highestExponent = (1 << exponentBits) - 1
    switch special {
    case .none: break
    case .ieee where exponent == highestExponent:
      return mantissa == 0 ? (negative ? -.infinity : .infinity) : .nan
    case .allOnesIsNaN where magnitude == (1 << magnitudeBits) - 1: return .nan
    case .minusZeroIsNaN where negative && magnitude == 0: return .nan
    default: break
    }
    // E8M0 has neither zero nor subnormals: its mantissa is the implied one alone.
    let isSubnormal = exponent == 0 && signed
    let significand = isSubnormal ? mantissa : mantissa + (1 << mantissaBits)
    let power = (isSubnormal ? 1 : exponent) - bias - mantissaBits
    let absolute = Float(sign: .plus, exponent: power, significand: Float(significand))
    return negative ? -absolute : absolute
  }

  /// All values in code order, `1 << bitWidth` of them.
  package var values: [Float] { (0..<(1 << bitWidth)).map { value(of: UInt8($0)) } }
}
