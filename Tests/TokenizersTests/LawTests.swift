import Checkpoints
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// What holds for every text: nothing traps, nothing is lost, nothing takes forever.
@Suite struct LawTests {
  private static func tokenizer(_ kind: String) throws -> Tokenizer {
    try Tokenizer(folder: Fixtures.path("tokenizers").appending(kind))
  }

  /// Scalars of all planes, surrogates left out, with some that the tokenizers look for.
  private static func text(_ generator: inout SplitMix64) -> String {
    let parts = [
      "<s>", "<mask>", "▁", " ", "  ", "\n", "'s", "one", "New York", "[CLS]", "##", "12345", "\u{301}", "\r\n",
    ]
    var text = ""
    for _ in 0..<Int.random(in: 0...12, using: &generator) {
      if Bool.random(using: &generator) {
        text += parts.randomElement(using: &generator) ?? ""
      } else {
        let limit: UInt32 = [0x80, 0x800, 0x3000, 0x10000, 0x110000].randomElement(using: &generator) ?? 0x80
        if let scalar = Unicode.Scalar(UInt32.random(in: 0..<limit, using: &generator)) {
          text.unicodeScalars.append(scalar)
        }
      }
    }
    return text
  }

  @Test(arguments: GoldenTests.kinds) func randomTextsAndBytes(kind: String) throws {
    let tokenizer = try Self.tokenizer(kind)
    var generator = SplitMix64(seed: 7)
    for _ in 0..<400 {
      let text = Self.text(&generator)
      let ids = tokenizer.encode(text, addSpecialTokens: true)
      #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularySize && tokenizer.content(of: $0) != nil })
      _ = tokenizer.decode(ids, skipSpecialTokens: true)
      let bytes = (0..<Int.random(in: 0...30, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      let repaired = String(decoding: bytes, as: UTF8.self)
      #expect(
        tokenizer.encode(utf8: bytes, addSpecialTokens: false) == tokenizer.encode(repaired, addSpecialTokens: false))
      // Any ids may be asked for, those that do not exist too.
      let odd = (0..<8).map { _ in Int32.random(in: -5...Int32(tokenizer.vocabularySize + 5), using: &generator) }
      _ = tokenizer.decode(odd + [.max, .min], skipSpecialTokens: false)
    }
  }

  /// Which calibration relies on where it needs the beginning of a long text: a cut after a line changes no token but
  /// the last few before it.
  @Test(arguments: GoldenTests.kinds) func aBeginningHasTheTokensOfTheWhole(kind: String) throws {
    let tokenizer = try Self.tokenizer(kind)
    var generator = SplitMix64(seed: 11)
    var lines = try GoldenTests.strings()
    for _ in 0..<400 {
      let line = Self.text(&generator)
      lines.append(line)
    }
    let whole = lines.map { $0 + "\n" }.joined()
    let ids = tokenizer.encode(whole, addSpecialTokens: false)
    for count in [lines.count / 4, lines.count / 2, lines.count - 1] {
      let beginning = lines.prefix(count).map { $0 + "\n" }.joined()
      let found = tokenizer.encode(beginning, addSpecialTokens: false).dropLast(256)
      #expect(Array(found) == Array(ids.prefix(found.count)))
    }
  }

  @Test(arguments: ["gpt2", "llama3", "gpt4o", "deepseek", "falcon"]) func byteLevelKeepsEverything(kind: String) throws
  {
    let tokenizer = try Self.tokenizer(kind)
    for text in try GoldenTests.strings() {
      let ids = tokenizer.encode(text, addSpecialTokens: false)
      #expect(tokenizer.decode(ids, skipSpecialTokens: false).utf8.elementsEqual(text.utf8))
    }
  }

  @Test(arguments: GoldenTests.kinds) func longRunsAreNotQuadratic(kind: String) throws {
    let tokenizer = try Self.tokenizer(kind)
    let clock = ContinuousClock()
    for unit in ["a", " ", "\n", "\u{301}", "ab1", "\u{4e00}", "▁", "A\u{301}", "'"] {
      let text = String(repeating: unit, count: 100_000 / unit.utf8.count)
      var count = 0
      let time = clock.measure { count = tokenizer.encode(text, addSpecialTokens: true).count }
      #expect(count >= 0)
      #expect(time < .seconds(2), "\(kind) \(unit.debugDescription)")
    }
  }

  @Test(arguments: ["gpt2", "llama3", "llama2", "gemma", "bert-uncased", "xlm-roberta", "sp-bpe", "sp-unigram"])
  func streamedTextIsTheWholeText(kind: String) throws {
    let tokenizer = try Self.tokenizer(kind)
    var checked = 0
    for text in try GoldenTests.strings() {
      let ids = tokenizer.encode(text, addSpecialTokens: true)
      let whole = tokenizer.decode(ids, skipSpecialTokens: true)
      // A decoder that tidies blanks before punctuation looks at one token at a time, so that holds for all kinds.
      var stream = TextStream(tokenizer, skipSpecialTokens: true)
      var streamed = ""
      for id in ids {
        let piece = stream.append(id)
        #expect(piece.contains("\u{fffd}") == false || whole.contains("\u{fffd}"))
        streamed += piece
      }
      streamed += stream.finish()
      #expect(streamed.utf8.elementsEqual(whole.utf8), "\(kind) \(text.debugDescription)")
      checked += 1
    }
    #expect(checked >= 500)
  }

  @Test func streamGivesOutDamagedBytesInTheEnd() throws {
    let tokenizer = try Self.tokenizer("gpt2")
    let id = try #require(tokenizer.id(of: "ð"))
    var stream = TextStream(tokenizer, skipSpecialTokens: true)
    #expect(stream.append(id) == "")
    #expect(stream.finish() == "\u{fffd}")
    #expect(stream.finish() == "")
    #expect((0..<8).map { _ in stream.append(id) }.joined() == String(repeating: "\u{fffd}", count: 8))
  }

  @Test func lookUps() throws {
    let tokenizer = try Self.tokenizer("llama3")
    let begin = try #require(tokenizer.id(of: "<s>"))
    #expect(tokenizer.content(of: begin) == "<s>")
    #expect(tokenizer.isSpecial(begin))
    #expect(tokenizer.encode("", addSpecialTokens: true) == [begin])
    #expect(tokenizer.encode("", addSpecialTokens: false) == [])
    #expect(tokenizer.id(of: "no such token") == nil)
    #expect(tokenizer.content(of: -1) == nil)
    #expect(tokenizer.content(of: .max) == nil)
    #expect(tokenizer.vocabularySize == 453)
    #expect(tokenizer.file.lastComponent?.string == "tokenizer.json")
  }

  /// Keys are bytes: these two spellings are one `String` key, and two tokens.
  @Test func canonicallyEqualTokensAreTwo() throws {
    let json = #"{"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"\u00e9":1,"e\u0301":2}}}"#
    let tokenizer = try Tokenizer(json: Array(json.utf8))
    #expect(tokenizer.encode("\u{e9}", addSpecialTokens: false) == [1])
    #expect(tokenizer.encode("e\u{301}", addSpecialTokens: false) == [2])
  }

  /// The reference reads a normalized token back in its normalized form, and then forgets that it is special; we skip it.
  @Test func normalizedAddedTokens() throws {
    let json = #"""
      {"normalizer":{"type":"Lowercase"},"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}},
      "added_tokens":[{"id":1,"content":"ABC","normalized":true,"special":true},
      {"id":2,"content":"DEF","normalized":false,"special":true},{"id":3,"content":"GHI","normalized":true}]}
      """#
    let tokenizer = try Tokenizer(json: Array(json.utf8))
    #expect(tokenizer.encode("ABCabcDEFdefghi", addSpecialTokens: false) == [1, 1, 2, 0, 3])
    #expect(tokenizer.decode([1, 2, 3], skipSpecialTokens: false) == "abc DEF ghi")
    #expect(tokenizer.decode([1, 2, 3], skipSpecialTokens: true) == "ghi")
    #expect(tokenizer.content(of: 3) == "GHI")
    #expect(tokenizer.id(of: "GHI") == 3)
  }

  @Test func beginAndEndOfATokenizerModel() throws {
    let folder = try TemporaryFolder()
    try folder.write(try readWhole(Fixtures.path("tokenizers/sp-bpe/tokenizer.model")), to: "tokenizer.model")
    let plain = try Tokenizer(folder: folder.path)
    let ids = plain.encode("hi", addSpecialTokens: false)
    #expect(plain.encode("hi", addSpecialTokens: true) == [1] + ids)
    try folder.write(Array(#"{"add_bos_token": false, "add_eos_token": true}"#.utf8), to: "tokenizer_config.json")
    #expect(try Tokenizer(folder: folder.path).encode("hi", addSpecialTokens: true) == ids + [2])
  }
}

/// The normalization forms against what the standard library knows of canonical equivalence.
@Suite struct NormalizationTests {
  private static func normal(_ text: String, _ form: UnicodeNormalization.Form) -> String {
    UnicodeNormalization.normalize(Array(text.utf8), to: form).map { String(decoding: $0, as: UTF8.self) } ?? text
  }

  private static func scalars(_ text: String) -> [UInt32] { text.unicodeScalars.map(\.value) }

  @Test func everyScalar() {
    var changed = 0
    for value in (0..<0x30000 as Range<UInt32>) {
      guard let scalar = Unicode.Scalar(value) else { continue }
      // The tables are Unicode 14's; later scalars are left alone.
      if let age = scalar.properties.age, age.major > 14 { continue }
      let text = String(scalar)
      let (nfd, nfc) = (Self.normal(text, .nfd), Self.normal(text, .nfc))
      // `==` of strings is canonical equivalence.
      if nfd != text || nfc != text { Issue.record("U+\(String(value, radix: 16)) is not equivalent to its forms") }
      if Self.scalars(Self.normal(nfd, .nfc)) != Self.scalars(nfc) { Issue.record("\(value): NFC of NFD") }
      if Self.scalars(Self.normal(nfc, .nfd)) != Self.scalars(nfd) { Issue.record("\(value): NFD of NFC") }
      let (nfkd, nfkc) = (Self.normal(text, .nfkd), Self.normal(text, .nfkc))
      if Self.scalars(Self.normal(nfkd, .nfkc)) != Self.scalars(nfkc) { Issue.record("\(value): NFKC of NFKD") }
      if Self.scalars(nfd) != [value] || Self.scalars(nfkd) != [value] { changed += 1 }
    }
    #expect(changed > 16_000)
  }

  @Test func sequences() {
    var generator = SplitMix64(seed: 3)
    let marks: [UInt32] = [0x300, 0x301, 0x323, 0x327, 0x345, 0x5b0, 0x5bc, 0x93c, 0x3099, 0x1161, 0x11a8, 0x1100]
    let bases: [UInt32] = [0x61, 0x41, 0x6f, 0xe9, 0x1e9b, 0xac00, 0xd55c, 0x915, 0x958, 0x3b1, 0x304b, 0x212b]
    for _ in 0..<3_000 {
      var text = ""
      for _ in 0..<Int.random(in: 1...9, using: &generator) {
        let value = (Bool.random(using: &generator) ? marks : bases).randomElement(using: &generator) ?? 0x61
        if let scalar = Unicode.Scalar(value) { text.unicodeScalars.append(scalar) }
      }
      let (nfd, nfc) = (Self.normal(text, .nfd), Self.normal(text, .nfc))
      #expect(nfd == text && nfc == text)
      #expect(Self.scalars(Self.normal(nfd, .nfc)) == Self.scalars(nfc))
      #expect(Self.scalars(Self.normal(nfc, .nfc)) == Self.scalars(nfc))
      #expect(nfc.unicodeScalars.count <= nfd.unicodeScalars.count)
    }
  }

  @Test func workedExamples() {
    #expect(Self.scalars(Self.normal("q\u{307}\u{323}", .nfc)) == [0x71, 0x323, 0x307])
    #expect(Self.scalars(Self.normal("\u{1e9b}\u{323}", .nfkc)) == [0x1e69])
    #expect(Self.scalars(Self.normal("\u{1100}\u{1161}\u{11a8}", .nfc)) == [0xac01])
    #expect(Self.scalars(Self.normal("\u{ac01}", .nfd)) == [0x1100, 0x1161, 0x11a8])
    #expect(Self.scalars(Self.normal("\u{958}", .nfc)) == [0x915, 0x93c])
    #expect(Self.normal("ﬁ①Ａ", .nfkc) == "fi1A")
    #expect(UnicodeNormalization.normalize(Array("plain".utf8), to: .nfkc) == nil)
  }
}
