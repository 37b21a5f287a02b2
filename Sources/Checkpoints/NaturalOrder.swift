extension String {
  /// Orders names as people count: runs of digits compare as numbers, so that `layers.2` comes before `layers.10`.
  package func naturallyPrecedes(_ other: String) -> Bool {
    let (left, right) = (utf8.span, other.utf8.span)
    // Names of a model begin alike: what is equal is gone over byte by byte, back to the begin of a number it ends in.
    var start = 0
    while start < min(left.count, right.count), left[start] == right[start] { start += 1 }
    while start > 0, Self.isDigit(left[start - 1]) { start -= 1 }
    guard start < left.count, start < right.count else { return left.count < right.count }
    let (x, y) = (Self.number(in: left, from: start), Self.number(in: right, from: start))
    guard !x.isEmpty, !y.isEmpty else { return left[start] < right[start] }
    // Without leading zeros, the longer number is the larger.
    let (a, b) = (Self.withoutZeros(x, in: left), Self.withoutZeros(y, in: right))
    if a.count != b.count { return a.count < b.count }
    for offset in 0..<a.count where left[a.lowerBound + offset] != right[b.lowerBound + offset] {
      return left[a.lowerBound + offset] < right[b.lowerBound + offset]
    }
    // The same number with more zeros before it in one of them.
    return String(Substring(utf8.dropFirst(x.upperBound)))
      .naturallyPrecedes(String(Substring(other.utf8.dropFirst(y.upperBound))))
  }

  private static func number(in text: Span<UInt8>, from start: Int) -> Range<Int> {
    var end = start
    while end < text.count, isDigit(text[end]) { end += 1 }
    return start..<end
  }

  private static func withoutZeros(_ number: Range<Int>, in text: Span<UInt8>) -> Range<Int> {
    var start = number.lowerBound
    while start < number.upperBound, text[start] == UInt8(ascii: "0") { start += 1 }
    return start..<number.upperBound
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}
