import Checkpoints
import SwiftProtobuf
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// One message for each defect, naming the file, the key and what to do about it.
@Suite struct MalformedTests {
  struct Case: Sendable {
    let json: String
    let message: String

    init(_ json: String, _ message: String) {
      self.json = json
      self.message = message
    }
  }

  /// A small file that is right, with one member put in or replaced.
  private static func with(_ member: String, model: String? = nil) -> String {
    let model = model ?? #"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}"#
    return #"{"version":"1.0",\#(member.isEmpty ? "" : member + ",")"model":\#(model)}"#
  }

  private static func model(_ members: String) -> String { with("", model: "{\(members)}") }

  private static let cases: [Case] = [
    Case("", "invalid JSON: the text ends inside a value (truncated), at byte 0"),
    Case("[]", "must be a JSON object at the top level"),
    Case("{\"model\":", "invalid JSON: the text ends inside a value (truncated), at byte 9"),
    Case("{}", "'model': must be an object"),
    Case(#"{"model":7}"#, "'model': must be an object or null"),
    Case(
      String(repeating: "[", count: 100_000), "invalid JSON: values are nested more than 64 levels deep, at byte 64"),
    Case(
      with(#""version":"1.0""#), "invalid JSON: the key 'version' stands twice in one object (duplicate), at byte 17"),
    Case(#"{"version":"2.0","model":{}}"#, "'version': must be \"1.0\", the only version known"),
    Case(with(#""surprise":1"#), "'surprise': the key 'surprise' is not supported; known are version, truncation,"),
    // The model and its tables
    Case(model(#""vocab":{}"#), "'model.type': must be the name of the model"),
    Case(
      model(#""type":"Markov""#),
      "'model.type': the model 'Markov' is not supported; known are BPE, Unigram, WordLevel, WordPiece"),
    Case(model(#""type":3"#), "'model.type': must be a string"),
    Case(model(#""type":"BPE","merges":[]"#), "'model.vocab': must be an object of token ids"),
    Case(model(#""type":"BPE","vocab":[1,2],"merges":[]"#), "'model.vocab': must be an object of token ids"),
    Case(model(#""type":"BPE","vocab":{"a":0}"#), "'model.merges': must be an array of merges"),
    Case(
      model(#""type":"BPE","vocab":{"a":0,"a":1},"merges":[]"#),
      "'model.vocab': the token 'a' stands twice in the vocabulary (duplicate)"),
    Case(
      model(#""type":"BPE","vocab":{"a":0,"b":0},"merges":[]"#),
      "'model.vocab': the tokens 'a' and 'b' have the same id 0 (duplicate)"),
    Case(
      model(#""type":"BPE","vocab":{"a":-1},"merges":[]"#),
      "'model.vocab': the id -1 is out of range: ids are 0 to 65"),
    Case(model(#""type":"BPE","vocab":{"a":99999999},"merges":[]"#), "'model.vocab': the id 99999999 is out of range"),
    Case(
      model(#""type":"BPE","vocab":{"a":1e99},"merges":[]"#), "'model.vocab': must be whole numbers, found 1e99 for 'a'"
    ),
    Case(model(#""type":"BPE","vocab":{"a":"0"},"merges":[]"#), "invalid JSON: a number is expected, at byte 52"),
    Case(model(#""type":"BPE","vocab":{"a":01},"merges":[]"#), "invalid JSON: a number is expected, at byte 52"),
    Case(model(#""type":"BPE","vocab":{"a" 0},"merges":[]"#), "invalid JSON: ':' is expected, at byte 52"),
    Case(model(#""type":"BPE","vocab":{"a":0 "b":1},"merges":[]"#), "invalid JSON: ',' or '}' is expected, at byte 54"),
    Case(
      model(#""type":"BPE","vocab":{"\x":0},"merges":[]"#),
      "invalid JSON: this is not a JSON escape sequence, at byte 1 of the string at byte 48"),
    Case(
      model("\"type\":\"BPE\",\"vocab\":{\"\u{1}\":0},\"merges\":[]"),
      "invalid JSON: a string holds the unescaped control character 1, at byte 49"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":["a"]"#),
      "'model.merges': must be merges of two tokens with one space between, found 'a'"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":["a a a"]"#),
      "'model.merges': must be merges of two tokens with one space between, found 'a a a'"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":[["a"]]"#),
      "invalid JSON: a merge of two tokens is expected, at byte 69"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":["a b"]"#), "'model.merges': the token 'b' is not in the vocabulary"
    ),
    Case(
      model(#""type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]"#),
      "'model.merges': the token 'ab' is not in the vocabulary"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"?""#),
      "'model.unk_token': the token '?' is not in the vocabulary"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1"#),
      "'model.dropout': must be null or 0: with dropout the same text has many encodings"),
    Case(
      model(#""type":"BPE","vocab":{"a":0},"merges":[],"fuse_unk":"yes""#), "'model.fuse_unk': must be true or false"),
    Case(model(#""type":"WordPiece","vocab":{"a":0}"#), "'model.unk_token': must be a string"),
    Case(
      model(#""type":"WordPiece","vocab":{"a":0},"unk_token":"a","max_input_chars_per_word":-3"#),
      "'model.max_input_chars_per_word': must be a whole number, not negative"),
    Case(
      model(#""type":"WordLevel","vocab":{"a":0},"unk_token":"b""#),
      "'model.unk_token': the token 'b' is not in the vocabulary"),
    Case(
      model(#""type":"Unigram","vocab":{"a":0},"unk_id":0"#), "'model.vocab': must be an array of pieces and scores"),
    Case(
      model(#""type":"Unigram","vocab":[["a",0]],"unk_id":1"#),
      "'model.unk_id': the id 1 is out of range: ids are 0 to 0"),
    Case(model(#""type":"Unigram","vocab":[["a",0]]"#), "'model.unk_id': must be the id of the unknown token"),
    Case(
      model(#""type":"Unigram","vocab":[["a",1e999]],"unk_id":0"#), "'model.vocab': must be finite scores, found 1e999"),
    Case(model(#""type":"Unigram","vocab":[["a"]],"unk_id":0"#), "invalid JSON: ',' is expected, at byte 56"),
    Case(model(#""type":"Unigram","vocab":[],"unk_id":0"#), "'model.unk_id': the id 0 is out of range"),
    // The steps
    Case(with(#""normalizer":[]"#), "'normalizer': must be an object or null"),
    Case(
      with(#""normalizer":{"type":"Rot13"}"#),
      "'normalizer.type': the normalizer 'Rot13' is not supported; known are BertNormalizer,"),
    Case(
      with(#""normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},null]}"#),
      "'normalizer.normalizers[1]': must be an object"),
    Case(
      with(#""normalizer":{"type":"Sequence","normalizers":[{"type":"Nope"}]}"#),
      "'normalizer.normalizers[0].type': the normalizer 'Nope' is not supported"),
    Case(
      with(#""normalizer":{"type":"Replace","pattern":{"Regex":"(a)\\1"},"content":""}"#),
      #"'normalizer.pattern': the regular expression '(a)\1' is not supported"#),
    Case(
      with(#""normalizer":{"type":"Replace","pattern":"a","content":""}"#),
      "'normalizer.pattern': must be an object with 'String' or 'Regex'"),
    Case(
      with(#""normalizer":{"type":"Precompiled","precompiled_charsmap":"!"}"#),
      "'normalizer.precompiled_charsmap': the precompiled character map is damaged: it is not base64"),
    Case(
      with(#""normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAAAA=="}"#),
      "the precompiled character map is damaged: its trie claims 0 of 0 bytes"),
    Case(
      with(#""normalizer":{"type":"Precompiled","precompiled_charsmap":"/////wAA"}"#),
      "the precompiled character map is damaged: its trie claims 4294967295 of 2 bytes"),
    Case(
      with(#""pre_tokenizer":{"type":"Cut"}"#),
      "'pre_tokenizer.type': the pre-tokenizer 'Cut' is not supported; known are BertPreTokenizer,"),
    Case(
      with(#""pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\p{L}+|\\p{Greek}"},"behavior":"Isolated"}"#),
      #"'pre_tokenizer.pattern': the regular expression '\p{L}+|\p{Greek}' is not supported: its alternative '\p{Greek}' is not known"#
    ),
    Case(
      with(#""pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Sideways"}"#),
      "'pre_tokenizer.behavior': the split behavior 'Sideways' is not supported; known are Removed, Isolated,"),
    Case(
      with(#""pre_tokenizer":{"type":"Metaspace","replacement":"ab"}"#),
      "'pre_tokenizer.replacement': must be a string of one character"),
    Case(
      with(#""pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"maybe"}"#),
      "'pre_tokenizer.prepend_scheme': the prepend scheme 'maybe' is not supported; known are always, first, never"),
    Case(
      with(#""post_processor":{"type":"Frame"}"#),
      "'post_processor.type': the post-processor 'Frame' is not supported; known are BertProcessing,"),
    Case(
      with(
        #""post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],"special_tokens":{}}"#),
      "'post_processor.single[0]': the special token '<s>' is not in 'special_tokens'"),
    Case(
      with(#""post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}],"special_tokens":{}}"#),
      "'post_processor.single[0]': must be the sequence 'A'"),
    Case(
      with(
        #""post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"s"}}],"special_tokens":{"s":{"ids":[-1]}}}"#
      ), "'post_processor.special_tokens.s.ids': must be an array of token ids"),
    Case(
      with(#""post_processor":{"type":"BertProcessing","sep":["x"],"cls":["y",1]}"#),
      "'post_processor.sep': must be a token and its id"),
    Case(
      with(#""decoder":{"type":"CTC"}"#),
      "'decoder.type': the decoder 'CTC' is not supported; known are BPEDecoder, ByteFallback,"),
    Case(
      with(#""decoder":{"type":"Strip","content":" ","start":"1","stop":0}"#),
      "'decoder.start': must be a whole number, not negative"),
    // Members nobody knows
    Case(with(#""normalizer":{"type":"NFC","speed":9}"#), "'normalizer.speed': the key 'speed' is not supported"),
    Case(
      with(#""pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel","use_regexp":true}]}"#),
      "'pre_tokenizer.pretokenizers[0].use_regexp': the key 'use_regexp' is not supported; known are add_prefix_space,"),
    Case(
      model(#""type":"Unigram","vocab":[["a",0]],"unk_id":0,"nbest":4"#),
      "'model.nbest': the key 'nbest' is not supported"),
    Case(
      with(#""added_tokens":[{"id":3,"content":"x","colour":"red"}]"#), "'added_tokens[0].colour': the key 'colour'"),
    // Added tokens
    Case(with(#""added_tokens":{}"#), "'added_tokens': must be an array"),
    Case(
      with(#""added_tokens":[{"id":"3","content":"x"}]"#), "'added_tokens[0].id': must be a whole number, not negative"),
    Case(with(#""added_tokens":[{"id":3}]"#), "'added_tokens[0].content': must be a string"),
    Case(
      with(#""added_tokens":[{"id":3,"content":"a"}]"#),
      "'added_tokens[0]': the added token 'a' has id 3, but the vocabulary gives it 0"),
    Case(
      with(#""added_tokens":[{"id":1,"content":"x"}]"#),
      "'added_tokens[0]': the tokens 'b' and 'x' have the same id 1 (duplicate)"),
    Case(
      with(#""added_tokens":[{"id":3,"content":"x"},{"id":3,"content":"y"}]"#),
      "'added_tokens[1]': the tokens 'x' and 'y' have the same id 3 (duplicate)"),
    Case(
      with(#""added_tokens":[{"id":3000000000,"content":"x"}]"#),
      "'added_tokens[0].id': the id 3000000000 is out of range"),
    // A table for all ids up to this one would take 64 MB, from a file of 100 bytes.
    Case(
      with(#""added_tokens":[{"id":16000000,"content":"x"}]"#), "'added_tokens[0].id': the id 16000000 is out of range"),
    Case(model(#""type":"WordLevel","unk_token":"a","vocab":{"a":0,"b":16000000}"#), "the id 16000000 is out of range"),
    // Steps that each double the text
    Case(
      with(#""normalizer":{"type":"Sequence","normalizers":[\#(doublings(40))]}"#),
      "'normalizer': its steps can make a text more than 4096 times as long"),
    Case(
      with(#""decoder":{"type":"Sequence","decoders":[\#(doublings(40))]}"#),
      "'decoder': its steps can make a text more than 4096 times as long"),
    Case(
      with(
        #""post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"Sequence":{"id":"A"}}],"special_tokens":{}}"#
      ), "'post_processor.single': must be a template with the sequence 'A' once"),
    // Expressions that a backtracking engine never ends with (tokenizers' pull request 2060)
    Case(
      with(#""pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+"},"behavior":"Removed","invert":false}"#),
      "the regular expression '(a+)+' is not supported"),
  ]

  private static func doublings(_ count: Int) -> String {
    let step = #"{"type":"Replace","pattern":{"String":"a"},"content":"aa"}"#
    return Array(repeating: step, count: count).joined(separator: ",")
  }

  @Test func messages() throws {
    #expect(Self.cases.count >= 25)
    for item in Self.cases {
      let error = #expect(throws: TokenizerError.self) { try Tokenizer(json: Array(item.json.utf8), file: "x.json") }
      guard let error else { continue }
      #expect(error.description.hasPrefix("x.json: "), "\(item.json.prefix(200))")
      #expect(error.description.contains(item.message), "\(item.json.prefix(200)) gave: \(error.description)")
      #expect(!error.isMissingInput)
    }
  }

  @Test func theSmallFileIsRight() throws {
    let tokenizer = try Tokenizer(json: Array(Self.with("").utf8))
    #expect(tokenizer.encode("abba", addSpecialTokens: true) == [2, 1, 0])
  }

  /// Whatever byte is lost or changed, there is an error or a tokenizer, never a trap.
  @Test(arguments: ["words", "llama2", "xlm-roberta"]) func damagedFiles(kind: String) throws {
    let bytes = try readWhole(Fixtures.path("tokenizers/\(kind)/tokenizer.json"))
    var generator = SplitMix64(seed: 11)
    var refused = 0
    for _ in 0..<150 {
      var damaged = bytes
      if Bool.random(using: &generator) {
        damaged.removeLast(Int.random(in: 1..<bytes.count, using: &generator))
      } else {
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          damaged[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
      }
      do {
        _ = try Tokenizer(json: damaged).encode("Hello <s> wörld", addSpecialTokens: true)
      } catch {
        refused += 1
      }
    }
    #expect(refused > 50)
  }

  @Test(arguments: ["sp-bpe", "sp-unigram"]) func damagedModels(kind: String) throws {
    let bytes = try readWhole(Fixtures.path("tokenizers/\(kind)/tokenizer.model"))
    var generator = SplitMix64(seed: 12)
    var refused = 0
    for _ in 0..<300 {
      var damaged = bytes
      if Bool.random(using: &generator) { damaged.removeLast(Int.random(in: 1..<bytes.count, using: &generator)) }
      for _ in 0..<Int.random(in: 0...3, using: &generator) {
        damaged[Int.random(in: 0..<damaged.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      do {
        let tokenizer = try Tokenizer(sentencePiece: damaged)
        let ids = tokenizer.encode("Hello <s> wörld", addSpecialTokens: true)
        _ = tokenizer.decode(ids, skipSpecialTokens: false)
      } catch {
        refused += 1
      }
    }
    #expect(refused > 50)
  }

  @Test func folders() throws {
    let folder = try TemporaryFolder()
    func failure() -> TokenizerError? { #expect(throws: TokenizerError.self) { try Tokenizer(folder: folder.path) } }
    let none = try #require(failure())
    #expect(
      none.description.hasSuffix(
        ": the folder holds neither tokenizer.json nor tokenizer.model: fetch one of them with the model"))
    #expect(none.isMissingInput)
    try folder.write(Array("not a model".utf8), to: "tokenizer.model")
    let damaged = try #require(failure())
    #expect(damaged.description.contains("tokenizer.model: not a SentencePiece model: "))
    #expect(!damaged.isMissingInput)
    try folder.write([], to: "tokenizer.model")
    #expect(try #require(failure()).description.contains("'pieces': must be a list that is not empty"))
    // tokenizer.json comes first.
    try folder.write(Array("{}".utf8), to: "tokenizer.json")
    #expect(try #require(failure()).description.contains("tokenizer.json: 'model': must be an object"))
  }

  private static func proto(_ change: (inout SentencePiece_Model) -> Void) throws -> String {
    let bytes = try readWhole(Fixtures.path("tokenizers/sp-bpe/tokenizer.model"))
    var model = try SentencePiece_Model(serializedBytes: bytes)
    change(&model)
    let changed: [UInt8] = try model.serializedBytes()
    let error = #expect(throws: TokenizerError.self) { try Tokenizer(sentencePiece: changed, file: "t.model") }
    return error?.description ?? ""
  }

  /// Recursion over the length of a piece once overflowed the stack of the SentencePiece library (its issue 1263).
  @Test func aVeryLongPieceIsAPieceLikeOthers() throws {
    let long = String(repeating: "ab", count: 200_000)
    for kind in ["sp-bpe", "sp-unigram"] {
      var model = try SentencePiece_Model(
        serializedBytes: readWhole(Fixtures.path("tokenizers/\(kind)/tokenizer.model")))
      model.pieces[model.pieces.count - 1].text = long
      let bytes: [UInt8] = try model.serializedBytes()
      let tokenizer = try Tokenizer(sentencePiece: bytes)
      #expect(tokenizer.decode(tokenizer.encode("abab", addSpecialTokens: false), skipSpecialTokens: true) == "abab")
    }
  }

  @Test func sentencePieceModels() throws {
    #expect(
      try Self.proto { $0.trainer.kind = .word }
        == "t.model: 'trainer': the model type 'WORD' is not supported; known are BPE, UNIGRAM")
    #expect(try Self.proto { $0.trainer.kind = .char }.contains("the model type 'CHAR' is not supported"))
    #expect(try Self.proto { $0.pieces[300].text = $0.pieces[301].text }.contains("'pieces[301]': the token"))
    #expect(try Self.proto { $0.pieces[300].text = "" } == "t.model: 'pieces[300]': must be a piece that is not empty")
    #expect(
      try Self.proto { $0.pieces[300].score = .nan } == "t.model: 'pieces[300]': must be a piece with a finite score")
    #expect(
      try Self.proto { $0.pieces[0].kind = .normal } == "t.model: 'pieces': must be a list with one unknown piece")
    #expect(
      try Self.proto { $0.pieces[400].kind = .unused }.contains(
        "the piece type 'UNUSED in a BPE model' is not supported"))
    #expect(
      try Self.proto { $0.normalizer.charsmap.append(contentsOf: [1, 2, 3]) }.contains(
        "the precompiled character map is damaged: 3 bytes are too few"))
    #expect(
      try Self.proto {
        $0.denormalizer.name = "x"
        $0.denormalizer.charsmap.append(1)
      }.contains("'denormalizer': the denormalizer 'x' is not supported"))
  }
}
