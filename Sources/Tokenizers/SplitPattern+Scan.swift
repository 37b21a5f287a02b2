extension SplitPattern {
  /// The end of the match that begins exactly at `start`; nil if none does. `bytes[start..<end]` is valid UTF-8, and a
  /// look beyond `end` sees the end of the text.
  @inline(__always)
  func match(_ bytes: [UInt8], at start: Int, _ end: Int) -> Int? {
    for alternative in alternatives {
      let found: Int? =
        switch alternative {
        case .run(let run): Self.match(run, bytes, start, end)
        case .literal(let literal): Self.match(literal, bytes, start, end)
        case .contraction(let ignoringCase): Self.contraction(bytes, start, end, ignoringCase: ignoringCase)
        case .spaceThroughNewline: Self.spaceThroughNewline(bytes, start, end)
        case .spaceBeforeEnd: Self.spaceBeforeEnd(bytes, start, end)
        case .spaceAtEnd(let possessive): Self.spaceAtEnd(bytes, start, end, possessive: possessive)
        case .casedWord(let endsLower, let contraction):
          Self.casedWord(bytes, start, end, endsLower: endsLower, contraction: contraction)
        case .punctuatedASCIIWord: Self.punctuatedASCIIWord(bytes, start, end)
        }
      if let found { return found }
    }
    return nil
  }

  @inline(__always)
  private static func classes(_ bytes: [UInt8], _ index: Int, _ end: Int) -> (ScalarClasses, Int) {
    let scalar = decodeScalar(bytes, index, end)
    return (ScalarClasses.of(scalar.value), scalar.length)
  }

  private static func match(_ literal: [UInt8], _ bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    guard end - start >= literal.count else { return nil }
    for (offset, byte) in literal.enumerated() where bytes[start + offset] != byte { return nil }
    return start + literal.count
  }

  @inline(__always)
  private static func match(_ run: Run, _ bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    var index = start
    var (found, length) = classes(bytes, index, end)
    var inRun = found.meets(run.classes) != run.negated
    switch run.lead {
    case .none: break
    case .blank:
      if bytes[index] == 0x20, index + 1 < end {
        let (second, secondLength) = classes(bytes, index + 1, end)
        // A lead that is itself of the class joins the run either way.
        if second.meets(run.classes) != run.negated {
          index += 1
          (length, inRun) = (secondLength, true)
        }
      }
    case .except(let excluded):
      if !found.meets(excluded), index + length < end {
        let (second, secondLength) = classes(bytes, index + length, end)
        if second.meets(run.classes) != run.negated {
          index += length
          (length, inRun) = (secondLength, true)
        }
      }
    }
    guard inRun else { return nil }
    var count = 1
    index += length
    while index < end, count < run.maximum {
      let (next, length) = classes(bytes, index, end)
      guard next.meets(run.classes) != run.negated else { break }
      index += length
      count += 1
    }
    guard count >= run.minimum else { return nil }
    if !run.tail.isEmpty { while index < end, run.tail.contains(bytes[index]) { index += 1 } }
    return index
  }

  /// Under Unicode's case folding the long s, U+017F, is an s too.
  static func contraction(_ bytes: [UInt8], _ start: Int, _ end: Int, ignoringCase: Bool) -> Int? {
    guard bytes[start] == UInt8(ascii: "'"), start + 1 < end else { return nil }
    let fold: UInt8 = ignoringCase ? 0x20 : 0
    func letter(_ index: Int) -> UInt8 {
      guard index < end else { return 0 }
      let byte = bytes[index]
      return (0x41...0x5a).contains(byte) ? byte | fold : byte
    }
    switch letter(start + 1) {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
    case UInt8(ascii: "r"), UInt8(ascii: "v"): return letter(start + 2) == UInt8(ascii: "e") ? start + 3 : nil
    case UInt8(ascii: "l"): return letter(start + 2) == UInt8(ascii: "l") ? start + 3 : nil
    case 0xc5 where ignoringCase && letter(start + 2) == 0xbf: return start + 3
    default: return nil
    }
  }

  /// The end of the white space at `start`.
  private static func spaceEnd(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int {
    var index = start
    while index < end {
      let (found, length) = classes(bytes, index, end)
      guard found.meets(.space) else { break }
      index += length
    }
    return index
  }

  private static func spaceThroughNewline(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    var index = spaceEnd(bytes, start, end)
    while index > start {
      if bytes[index - 1] == 0x0a || bytes[index - 1] == 0x0d { return index }
      index -= 1
    }
    return nil
  }

  private static func spaceBeforeEnd(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    let stop = spaceEnd(bytes, start, end)
    guard stop > start else { return nil }
    if stop == end { return stop }
    let last = decodeScalarBefore(bytes, stop, start)
    return stop - last.length > start ? stop - last.length : nil
  }

  private static func spaceAtEnd(_ bytes: [UInt8], _ start: Int, _ end: Int, possessive: Bool) -> Int? {
    let stop = spaceEnd(bytes, start, end)
    if stop == end { return stop > start ? stop : nil }
    guard !possessive else { return nil }
    // Back to the last line feed with something before it.
    var index = stop - 1
    while index > start {
      if bytes[index] == 0x0a { return index }
      index -= 1
    }
    return nil
  }

  private static func punctuatedASCIIWord(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) }
    let first = bytes[start]
    guard (0x21...0x7e).contains(first), !isLetter(first), !(0x30...0x39).contains(first) else { return nil }
    var index = start + 1
    while index < end, isLetter(bytes[index]) { index += 1 }
    return index > start + 1 ? index : nil
  }

  private static let upperLike: ScalarClasses = [.upper, .otherLetter, .mark]
  private static let lowerLike: ScalarClasses = [.lower, .otherLetter, .mark]

  private static func casedWord(
    _ bytes: [UInt8], _ start: Int, _ end: Int, endsLower: Bool, contraction: Bool
  ) -> Int? {
    let (first, length) = classes(bytes, start, end)
    var stop: Int?
    // With the leading character if it can be one, then, as a mark may be both, without.
    if !first.meets([.newline, .letter, .number]), start + length < end {
      stop = casedLetters(bytes, start + length, end, endsLower: endsLower)
    }
    guard let found = stop ?? casedLetters(bytes, start, end, endsLower: endsLower) else { return nil }
    if contraction, found < end, let after = Self.contraction(bytes, found, end, ignoringCase: true) { return after }
    return found
  }

  private static func casedLetters(_ bytes: [UInt8], _ start: Int, _ end: Int, endsLower: Bool) -> Int? {
    var index = start
    // Where a last scalar that may count as lower case ends, inside the run of upper case.
    var lastLowerEnd: Int?
    while index < end {
      let (found, length) = classes(bytes, index, end)
      guard found.meets(upperLike) else { break }
      index += length
      if found.meets(lowerLike) { lastLowerEnd = index }
    }
    let upperEnd = index
    while index < end {
      let (found, length) = classes(bytes, index, end)
      guard found.meets(lowerLike) else { break }
      index += length
    }
    if endsLower { return index > upperEnd ? index : lastLowerEnd }
    return upperEnd > start ? index : nil
  }

  /// Calls `body` with every match in `bytes[range]` and every stretch between matches, in order.
  @inline(__always)
  package func forEachSpan(_ bytes: [UInt8], _ range: Range<Int>, _ body: (_ span: Range<Int>, _ isMatch: Bool) -> Void)
  {
    var gap = range.lowerBound
    var index = range.lowerBound
    while index < range.upperBound {
      if let end = match(bytes, at: index, range.upperBound) {
        if gap < index { body(gap..<index, false) }
        body(index..<end, true)
        index = end
        gap = end
      } else {
        index += decodeScalar(bytes, index, range.upperBound).length
      }
    }
    if gap < range.upperBound { body(gap..<range.upperBound, false) }
  }

  /// The text with every match replaced.
  func replacing(_ bytes: [UInt8], with replacement: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    forEachSpan(bytes, 0..<bytes.count) { span, isMatch in
      result += isMatch ? replacement[...] : bytes[span]
    }
    return result
  }
}
