import Calibration
import Testing

@Suite struct DefaultTextTests {
  @Test func itIsAsLargeAndVariedAsItIsSaidToBe() {
    let parts = DefaultText.parts
    #expect(DefaultText.byteCount > 80_000)
    #expect(parts.count > 90 && Set(parts).count == parts.count)
    #expect(parts.reduce(0) { $0 + $1.split(whereSeparator: \.isWhitespace).count } > 12_000)
    #expect(parts.allSatisfy { $0.hasSuffix("\n") && !$0.hasSuffix("\n\n") })
    // Continued lines of the literals must not show.
    #expect(!parts.contains { $0.contains("\\#") })
    let scripts: [ClosedRange<UnicodeScalar>] = [
      "\u{370}"..."\u{3ff}", "\u{400}"..."\u{4ff}", "\u{5d0}"..."\u{5ea}", "\u{600}"..."\u{6ff}",
      "\u{900}"..."\u{97f}", "\u{980}"..."\u{9ff}", "\u{e00}"..."\u{e7f}", "\u{3040}"..."\u{30ff}",
      "\u{4e00}"..."\u{9fff}", "\u{ac00}"..."\u{d7a3}",
    ]
    for script in scripts {
      #expect(parts.reduce(0) { $0 + $1.unicodeScalars.count(where: script.contains) } > 50, "\(script)")
    }
  }

  /// Repetition would teach a method about one line instead of about text.
  @Test func noLineIsRepeated() {
    var counts: [Substring: Int] = [:]
    for line in DefaultText.parts.flatMap({ $0.split(separator: "\n") }) { counts[line, default: 0] += 1 }
    let repeated = counts.filter { line, count in
      count > 3 && line.count(where: \.isLetter) > 0 || count > 1 && line.count > 40
    }
    #expect(repeated.isEmpty)
  }

  @Test func everyKindShowsEarly() {
    let start = DefaultText.parts.prefix(25).joined()
    #expect(start.contains("def ") && start.contains("ferry") && start.contains("Bahnhof"))
    #expect(start.unicodeScalars.contains { ("\u{400}"..."\u{4ff}").contains($0) })
  }
}
