/// What a Unicode scalar is, as the split patterns and normalizers ask: general category and white space.
///
/// The data are the standard library's (`Unicode.Scalar.Properties`); those of the first plane are kept in tables,
/// the second of which is made for the first text that needs it: that takes 10 ms.
package struct ScalarClasses: OptionSet, Hashable, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Lu and Lt.
  static let upper = ScalarClasses(rawValue: 1 << 0)
  /// Ll.
  static let lower = ScalarClasses(rawValue: 1 << 1)
  /// Lm and Lo.
  static let otherLetter = ScalarClasses(rawValue: 1 << 2)
  /// Nd, Nl and No.
  static let number = ScalarClasses(rawValue: 1 << 3)
  /// Mn.
  static let nonspacingMark = ScalarClasses(rawValue: 1 << 4)
  /// Mc and Me.
  static let otherMark = ScalarClasses(rawValue: 1 << 5)
  static let punctuation = ScalarClasses(rawValue: 1 << 6)
  static let symbol = ScalarClasses(rawValue: 1 << 7)
  /// The property White_Space.
  static let space = ScalarClasses(rawValue: 1 << 8)
  /// Cc, Cf and Co.
  static let other = ScalarClasses(rawValue: 1 << 9)
  /// `\w` of UTS #18: alphabetic, marks, decimal digits, connectors, joiners.
  static let word = ScalarClasses(rawValue: 1 << 10)
  /// Line feed and carriage return.
  static let newline = ScalarClasses(rawValue: 1 << 11)
  /// U+0020 alone.
  static let blank = ScalarClasses(rawValue: 1 << 12)
  /// Nd.
  static let decimal = ScalarClasses(rawValue: 1 << 13)
  /// 0 to 9.
  static let asciiDigit = ScalarClasses(rawValue: 1 << 14)
  /// The Han, Hiragana and Katakana ranges that DeepSeek's pattern names: U+4E00–U+9FA5, U+3040–U+30FF.
  static let eastAsian = ScalarClasses(rawValue: 1 << 15)

  /// Unicode punctuation, and the ASCII symbols that BERT counts to it.
  static let bertPunctuation = ScalarClasses(rawValue: 1 << 16)

  /// `\w` of the regular expressions in tokenizer.json: their engine, Oniguruma, leaves the joiners out.
  static let expressionWord = ScalarClasses(rawValue: 1 << 17)
  /// The superscripts and fractions of Latin-1, which that engine takes for `\w` outside of brackets.
  static let latinNumber = ScalarClasses(rawValue: 1 << 18)

  static let letter: ScalarClasses = [.upper, .lower, .otherLetter]
  static let mark: ScalarClasses = [.nonspacingMark, .otherMark]

  /// After alphabets, punctuation and symbols, before the scripts of East Asia.
  private static let firstEnd: UInt32 = 0x2c00
  private static let first: [UInt32] = (0..<firstEnd).map { compute($0).rawValue }
  private static let second: [UInt32] = (firstEnd..<0x10000).map { compute($0).rawValue }

  @inline(__always)
  package static func of(_ scalar: UInt32) -> ScalarClasses {
    if scalar < firstEnd { return ScalarClasses(rawValue: first[Int(scalar)]) }
    return scalar < 0x10000 ? ScalarClasses(rawValue: second[Int(scalar - firstEnd)]) : compute(scalar)
  }

  @inline(__always)
  func meets(_ mask: ScalarClasses) -> Bool { rawValue & mask.rawValue != 0 }

  private static func compute(_ value: UInt32) -> ScalarClasses {
    guard let scalar = Unicode.Scalar(value) else { return [] }
    let properties = scalar.properties
    var classes: ScalarClasses =
      switch properties.generalCategory {
      case .uppercaseLetter, .titlecaseLetter: .upper
      case .lowercaseLetter: .lower
      case .modifierLetter, .otherLetter: .otherLetter
      case .decimalNumber: [.number, .decimal, .word]
      case .letterNumber, .otherNumber: .number
      case .nonspacingMark: [.nonspacingMark, .word]
      case .spacingMark, .enclosingMark: [.otherMark, .word]
      case .connectorPunctuation: [.punctuation, .word]
      case .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation, .finalPunctuation,
        .otherPunctuation:
        .punctuation
      case .mathSymbol, .currencySymbol, .modifierSymbol, .otherSymbol: .symbol
      case .control, .format, .privateUse: .other
      default: []
      }
    if properties.isAlphabetic || properties.isJoinControl { classes.insert(.word) }
    switch value {
    case 0xb2, 0xb3, 0xb9, 0xbc, 0xbd, 0xbe: classes.insert(.latinNumber)
    default: if classes.meets(.word), !properties.isJoinControl { classes.insert(.expressionWord) }
    }
    if properties.isWhitespace { classes.insert(.space) }
    if value == 0x0a || value == 0x0d { classes.insert(.newline) }
    if value == 0x20 { classes.insert(.blank) }
    if classes.meets(.punctuation) || (value < 0x80 && classes.meets(.symbol)) { classes.insert(.bertPunctuation) }
    if (0x30...0x39).contains(value) { classes.insert(.asciiDigit) }
    if (0x4e00...0x9fa5).contains(value) || (0x3040...0x30ff).contains(value) { classes.insert(.eastAsian) }
    return classes
  }
}

/// Reads the scalar at `index` of valid UTF-8. Bytes that are not valid give U+FFFD of length 1, never a trap.
@inline(__always)
func decodeScalar(_ bytes: [UInt8], _ index: Int, _ end: Int) -> (value: UInt32, length: Int) {
  let first = bytes[index]
  if first < 0x80 { return (UInt32(first), 1) }
  let length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1
  guard length > 1, index + length <= end else { return (0xfffd, 1) }
  var value = UInt32(first) & (0xff >> UInt32(length + 1))
  for next in 1..<length { value = value << 6 | UInt32(bytes[index + next] & 0x3f) }
  return (value, length)
}

/// The scalar that ends before `index`, in valid UTF-8.
@inline(__always)
func decodeScalarBefore(_ bytes: [UInt8], _ index: Int, _ start: Int) -> (value: UInt32, length: Int) {
  var first = index - 1
  while first > start, bytes[first] & 0xc0 == 0x80 { first -= 1 }
  return (decodeScalar(bytes, first, index).value, index - first)
}

/// Appends a scalar as UTF-8.
@inline(__always)
func appendScalar(_ value: UInt32, to bytes: inout [UInt8]) {
  switch value {
  case ..<0x80: bytes.append(UInt8(value))
  case ..<0x800:
    bytes.append(UInt8(0xc0 | value >> 6))
    bytes.append(UInt8(0x80 | value & 0x3f))
  case ..<0x10000:
    bytes.append(UInt8(0xe0 | value >> 12))
    bytes.append(UInt8(0x80 | value >> 6 & 0x3f))
    bytes.append(UInt8(0x80 | value & 0x3f))
  default:
    bytes.append(UInt8(0xf0 | value >> 18 & 0x07))
    bytes.append(UInt8(0x80 | value >> 12 & 0x3f))
    bytes.append(UInt8(0x80 | value >> 6 & 0x3f))
    bytes.append(UInt8(0x80 | value & 0x3f))
  }
}
