/// The reversible map of bytes to visible characters that byte-level BPE works on (Radford et al. 2019).
///
/// Bytes that are visible in Latin-1 stand for themselves; the others take the code points from U+0100 on, in order.
enum ByteAlphabet {
  /// The scalar of each byte.
  static let scalars: [UInt32] = {
    var next: UInt32 = 0x100
    return (0..<256).map { (byte: UInt32) in
      switch byte {
      case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: return byte
      default:
        defer { next += 1 }
        return next
      }
    }
  }()

  /// The byte of each scalar below U+0200, or -1.
  private static let bytes: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x200)
    for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
    return table
  }()

  @inline(__always)
  static func append(_ byte: UInt8, to output: inout [UInt8]) { appendScalar(scalars[Int(byte)], to: &output) }

  static func encode(_ input: ArraySlice<UInt8>) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(input.count * 2)
    for byte in input { append(byte, to: &output) }
    return output
  }

  /// The bytes a token stands for; nil where one of its characters stands for none.
  static func decode(_ token: [UInt8]) -> [UInt8]? {
    var output: [UInt8] = []
    output.reserveCapacity(token.count)
    var index = 0
    while index < token.count {
      let (value, length) = decodeScalar(token, index, token.count)
      guard value < 0x200, bytes[Int(value)] >= 0 else { return nil }
      output.append(UInt8(bytes[Int(value)]))
      index += length
    }
    return output
  }
}
