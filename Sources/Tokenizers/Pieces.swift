/// The text between added tokens, cut into the pieces that the model tokenizes one by one.
package struct Pieces {
  package private(set) var bytes: [UInt8]
  package private(set) var ranges: [Range<Int>]
  /// True while the first piece begins where the whole input begins.
  var startsAtStart: Bool

  package init(_ text: NormalizedText) {
    bytes = text.bytes
    ranges = text.bytes.isEmpty ? [] : [0..<text.bytes.count]
    startsAtStart = text.keepsStart
  }

  /// Cuts every piece at the matches of `pattern`.
  package mutating func split(_ pattern: SplitPattern, _ behavior: SplitBehavior, invert: Bool = false) {
    var cut: [Range<Int>] = []
    cut.reserveCapacity(max(ranges.count, bytes.count / 4))
    if behavior == .isolated {
      for range in ranges { pattern.forEachSpan(bytes, range) { span, _ in cut.append(span) } }
    } else if behavior == .removed {
      for range in ranges {
        pattern.forEachSpan(bytes, range) { span, isMatch in if isMatch == invert { cut.append(span) } }
      }
    } else {
      var spans: [(Range<Int>, Bool)] = []
      for range in ranges {
        spans.removeAll(keepingCapacity: true)
        pattern.forEachSpan(bytes, range) { span, isMatch in spans.append((span, isMatch != invert)) }
        behavior.merge(spans, into: &cut)
      }
    }
    if let first = ranges.first, cut.first?.lowerBound != first.lowerBound { startsAtStart = false }
    ranges = cut
  }

  /// Rewrites every piece; `body` appends the new bytes of one.
  mutating func rewrite(_ body: (_ bytes: [UInt8], _ piece: Range<Int>, _ index: Int, _ output: inout [UInt8]) -> Void)
  {
    var output: [UInt8] = []
    output.reserveCapacity(bytes.count + bytes.count / 4 + 16)
    for index in ranges.indices {
      let start = output.count
      body(bytes, ranges[index], index, &output)
      ranges[index] = start..<output.count
    }
    bytes = output
  }
}

/// What becomes of the matches of a splitting pattern; names as in tokenizer.json.
package enum SplitBehavior: String, Sendable, CaseIterable {
  case removed = "Removed"
  case isolated = "Isolated"
  case mergedWithPrevious = "MergedWithPrevious"
  case mergedWithNext = "MergedWithNext"
  case contiguous = "Contiguous"

  /// For the three that join spans: a match joins a neighbour unless the span before it (after it) is a match too.
  func merge(_ spans: [(Range<Int>, Bool)], into output: inout [Range<Int>]) {
    let start = output.count
    var wasMatch = false
    if self == .mergedWithNext {
      for (span, isMatch) in spans.reversed() {
        if isMatch, !wasMatch, output.count > start {
          output[output.count - 1] = span.lowerBound..<output[output.count - 1].upperBound
        } else {
          output.append(span)
        }
        wasMatch = isMatch
      }
      output[start...].reverse()
      return
    }
    for (span, isMatch) in spans {
      let joins = self == .contiguous ? isMatch == wasMatch : isMatch && !wasMatch
      if joins, output.count > start {
        output[output.count - 1] = output[output.count - 1].lowerBound..<span.upperBound
      } else {
        output.append(span)
      }
      wasMatch = isMatch
    }
  }
}
