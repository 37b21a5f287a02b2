import Testing
import Tokenizers

@Suite struct SplitPatternTests {
  private static func pieces(_ expression: String, _ text: String) throws -> [String] {
    let pattern = try #require(SplitPattern.parse(expression).pattern)
    let bytes = Array(text.utf8)
    var result: [String] = []
    pattern.forEachSpan(bytes, 0..<bytes.count) { span, isMatch in
      result.append((isMatch ? "" : "-") + String(decoding: bytes[span], as: UTF8.self))
    }
    return result
  }

  private static let llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let gpt2 =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

  /// Worked by hand from the expressions.
  @Test func workedExamples() throws {
    #expect(try Self.pieces(Self.gpt2, "I'm  12345 x!") == ["I", "'m", " ", " 12345", " x", "!"])
    #expect(try Self.pieces(Self.gpt2, "'S \n a ") == ["'", "S", " \n", " a", " "])
    #expect(try Self.pieces(Self.llama3, "I'M  12345!?\n\n x") == ["I", "'M", " ", " ", "123", "45", "!?\n\n", " x"])
    #expect(try Self.pieces(Self.llama3, "a \n \n  b\t") == ["a", " \n \n", " ", " b", "\t"])
    #expect(try Self.pieces(Self.llama3, "'\u{17f}x") == ["'\u{17f}", "x"])
    #expect(try Self.pieces(#"\w+"#, "a² b‍c Ⓐ") == ["a²", "- ", "b", "-\u{200d}", "c", "- ", "Ⓐ"])
    #expect(try Self.pieces(#"[^\w\s]+"#, "a²!½ ‍") == ["-a", "²!½", "- ", "\u{200d}"])
    #expect(try Self.pieces(#"\s+$"#, "a \n b\r\nc \n") == ["-a", " ", "-\n b", "\r", "-\nc", " \n"])
    #expect(try Self.pieces(#"\s++$"#, "a \n b \n") == ["-a \n b", " \n"])
    #expect(try Self.pieces(" {2,}", "a b  c   ") == ["-a b", "  ", "-c", "   "])
    #expect(try Self.pieces("ab|b", "abbab") == ["ab", "b", "ab"])
    #expect(try Self.pieces("[0-9][0-9][0-9]", "12345678") == ["123", "456", "-78"])
  }

  @Test func contractionsHaveTwoSpellings() throws {
    let other = #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
    let pattern = try #require(SplitPattern.parse(other).pattern)
    #expect(pattern == SplitPattern.gpt2)
    for text in try GoldenTests.strings() {
      #expect(try Self.pieces(Self.gpt2, text) == Self.pieces(other, text))
    }
  }

  /// The patterns for whole texts leave nothing out.
  @Test func tilesEverything() throws {
    for expression in [Self.llama3, Self.gpt2] {
      for text in try GoldenTests.strings() {
        let pieces = try Self.pieces(expression, text)
        #expect(pieces.joined().utf8.elementsEqual(text.utf8))
      }
    }
  }

  @Test func unknownAlternativesAreNamed() {
    #expect(SplitPattern.parse(#"\p{L}+|(a)\1"#).unknown == #"(a)\1"#)
    #expect(SplitPattern.parse(#"\p{Greek}"#).unknown == #"\p{Greek}"#)
    #expect(SplitPattern.parse("").unknown == "")
    #expect(SplitPattern.parse("").pattern == nil)
    #expect(SplitPattern.parse(#"[a|b]+"#).unknown == "[a|b]+")
  }

  @Test func behaviors() {
    func split(_ behavior: SplitBehavior, _ text: String, invert: Bool = false) -> [String] {
      var pieces = Pieces(NormalizedText(bytes: Array(text.utf8), keepsStart: true))
      pieces.split(SplitPattern(literal: Array("-".utf8)), behavior, invert: invert)
      return pieces.ranges.map { String(decoding: pieces.bytes[$0], as: UTF8.self) }
    }
    #expect(split(.removed, "the-final--countdown") == ["the", "final", "countdown"])
    #expect(split(.isolated, "the-final--countdown") == ["the", "-", "final", "-", "-", "countdown"])
    #expect(split(.mergedWithPrevious, "the-final--countdown") == ["the-", "final-", "-", "countdown"])
    #expect(split(.mergedWithNext, "the-final--countdown") == ["the", "-final", "-", "-countdown"])
    #expect(split(.contiguous, "the-final--countdown") == ["the", "-", "final", "--", "countdown"])
    #expect(split(.removed, "a-b", invert: true) == ["-"])
    #expect(split(.isolated, "") == [])
  }
}
