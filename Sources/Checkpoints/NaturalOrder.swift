extension String {
  /// Orders names as people count: runs of digits compare as numbers, so that `layers.2` comes before `layers.10`.
  package func naturallyPrecedes(_ other: String) -> Bool {
    var left = Substring(self).utf8
    var right = Substring(other).utf8
    while let a = left.first, let b = right.first {
      if Self.isDigit(a), Self.isDigit(b) {
        let x = left.prefix(while: Self.isDigit).drop { $0 == UInt8(ascii: "0") }
        let y = right.prefix(while: Self.isDigit).drop { $0 == UInt8(ascii: "0") }
        // Without leading zeros, the longer number is the larger.
        if x.count != y.count { return x.count < y.count }
        if !x.elementsEqual(y) { return x.lexicographicallyPrecedes(y) }
        left = left.drop(while: Self.isDigit)
        right = right.drop(while: Self.isDigit)
      } else {
        if a != b { return a < b }
        left = left.dropFirst()
        right = right.dropFirst()
      }
    }
    return left.isEmpty && !right.isEmpty
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}
