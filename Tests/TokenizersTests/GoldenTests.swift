import Checkpoints
import Crypto
import OrderedCollections
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// Ids and texts that Hugging Face `tokenizers` and SentencePiece give; made by Fixtures/generate/make_tokenizers.py.
@Suite struct GoldenTests {
  private static let folder = Fixtures.path("tokenizers")

  static let kinds = [
    "gpt2", "roberta", "llama3", "qwen2", "gpt4o", "deepseek", "falcon", "llama2", "metaspace", "gemma", "openai-gpt",
    "bert-uncased", "bert-cased", "words", "xlm-roberta", "unigram", "sp-bpe", "sp-bpe-plain", "sp-unigram",
    "sp-unigram-bytes",
  ]

  static func strings() throws -> [String] {
    try #require(Fixtures.json("tokenizers/strings.json").array).map { try #require($0.string) }
  }

  /// One line for each list of ids, numbers in base 36.
  private static func packed(_ lists: [[Int32]]) -> String {
    lists.map { $0.map { String($0, radix: 36) }.joined(separator: " ") + "\n" }.joined()
  }

  private static func hex(_ digest: SHA256.Digest) -> String {
    digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  private static func digest(_ texts: [String]) -> String {
    var hash = SHA256()
    for text in texts {
      let bytes = Array(text.utf8)
      hash.update(data: (0..<4).map { UInt8(truncatingIfNeeded: bytes.count >> (8 * $0)) })
      hash.update(data: bytes)
    }
    return hex(hash.finalize())
  }

  @Test(arguments: kinds) func equalsTheReference(kind: String) throws {
    let strings = try Self.strings()
    let summary = try #require(Fixtures.json("tokenizers/summary.json")["tokenizers"]?[kind])
    let tokenizer = try Tokenizer(folder: Self.folder.appending(kind))
    let text = String(decoding: try readWhole(Self.folder.appending(kind).appending("ids.txt")), as: UTF8.self)
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(strings.count >= 500)
    #expect(lines.count == strings.count + 1)
    for (string, line) in zip(strings, lines) {
      let expected = line.split(separator: " ").compactMap { Int32($0, radix: 36) }
      #expect(tokenizer.encode(string, addSpecialTokens: false) == expected, "\(kind): \(string.debugDescription)")
      #expect(tokenizer.encode(utf8: string.utf8, addSpecialTokens: false) == expected)
    }
    let special = strings.map { tokenizer.encode($0, addSpecialTokens: true) }
    #expect(Self.hex(SHA256.hash(data: Array(Self.packed(special).utf8))) == summary["with_special"]?.string)
    if let decoded = summary["decoded"]?.string {
      #expect(Self.digest(special.map { tokenizer.decode($0, skipSpecialTokens: false) }) == decoded)
    }
    #expect(
      Self.digest(special.map { tokenizer.decode($0, skipSpecialTokens: true) }) == summary["decoded_skipping"]?.string)
  }

  @Test func everyKindHasAGolden() throws {
    let summary = try #require(Fixtures.json("tokenizers/summary.json")["tokenizers"]?.object)
    #expect(Set(summary.keys) == Set(Self.kinds))
  }

  @Test func tinyLlama() throws {
    let golden = try Fixtures.json("goldens/tiny-llama.json")
    let text = String(decoding: try readWhole(Fixtures.path("text/tiny-eval.txt")), as: UTF8.self)
    let ids = try Tokenizer(folder: Fixtures.path("tiny-llama")).encode(text, addSpecialTokens: false)
    let first = try #require(golden["first_tokens"]?.array).compactMap(\.integer).map(Int32.init)
    #expect(!first.isEmpty)
    #expect(Array(ids.prefix(first.count)) == first)
    #expect(ids.count == golden["evaluation_tokens"]?.integer)
  }

  /// Megabytes of text through the tokenizers of models that are not in the repository.
  @Test(
    .enabled(if: Fixtures.shared("text") != nil),
    arguments: [
      "stories5M/tokenizer.json", "stories260K/tokenizer.json", "stories260K/tokenizer.model",
    ])
  func sharedTexts(file: String) throws {
    let golden = try #require(Fixtures.json("goldens/tokenizers-shared.json")[file]?.object)
    let bytes = try readWhole(#require(Fixtures.shared("models/\(file)")))
    let tokenizer =
      try file.hasSuffix(".json") ? Tokenizer(json: bytes, file: file) : Tokenizer(sentencePiece: bytes, file: file)
    #expect(!golden.isEmpty)
    for (name, expected) in golden {
      let text = try readWhole(#require(Fixtures.shared("text/\(name)")))
      let ids = tokenizer.encode(utf8: text, addSpecialTokens: false)
      #expect(ids.count == expected["count"]?.integer)
      let packed = ids.flatMap { id in (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * Int32($0))) } }
      #expect(Self.hex(SHA256.hash(data: packed)) == expected["sha256"]?.string)
      let decoded = Array(tokenizer.decode(ids, skipSpecialTokens: false).utf8)
      #expect((decoded == text) == expected["decoded_is_text"]?.bool)
    }
  }
}
