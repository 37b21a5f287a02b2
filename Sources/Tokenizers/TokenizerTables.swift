import Checkpoints
import OrderedCollections
import SwiftProtobuf
import SystemPackage

/// A tokenizer as the lists that GGUF files hold: tokens by id with their kinds, and what says how they are made of text.
///
/// Only the two kinds of tokenizer that language models have there: byte-level BPE with merges, and SentencePiece BPE with
/// scores.
package struct TokenizerTables: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    /// Merges of two tokens with one space between; the pre-tokenizer by llama.cpp's name.
    case bytePair(merges: [String], preTokenizer: String)
    /// A score for each token: of two possible merges the higher goes first.
    case sentencePiece(scores: [Float], addsSpacePrefix: Bool)
  }

  /// What a token is for; the numbers are SentencePiece's.
  package enum TokenType: Int32, Sendable { case normal = 1, unknown, control, userDefined, unused, byte }

  package var kind: Kind
  package var tokens: [String]
  package var types: [TokenType]
  /// Whether begin and end tokens go around a text; nil: not known.
  package var addsBegin: Bool?
  package var addsEnd: Bool?

  /// llama.cpp's names of the split expressions of pre-tokenizers, and where there are several, of their spellings.
  private static let expressions: [(name: String, expression: String)] = [
    (
      "llama-bpe",
      #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    ),
    (
      "qwen2",
      #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    ),
    ("gpt-2", #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
  ]

  /// Reads the tokenizer of a folder.
  /// - Parameter size: how many tokens the model knows; ids without a token get a name of their own.
  package init(folder: FilePath, size: Int) throws(TokenizerError) {
    let json = folder.appending("tokenizer.json")
    let model = folder.appending("tokenizer.model")
    let document = try Self.bytes(json).map { bytes throws(TokenizerError) in
      try TokenizerDocument(bytes, file: json.string)
    }
    let proto = try Self.bytes(model).map { bytes throws(TokenizerError) in try Self.pieces(bytes, model.string) }
    guard document != nil || proto != nil else { throw TokenizerError(file: folder.string, .noTokenizer) }
    let fallsBackToBytes = document?.root["model"]?["byte_fallback"]?.bool ?? true
    if let proto, fallsBackToBytes {
      self.init(pieces: proto)
      try add(try document.map(Self.addedTokens) ?? [])
    } else if let document {
      try self.init(document)
    } else {
      throw TokenizerError(file: folder.string, .noTokenizer)
    }
    if let document { readTemplate(document.root["post_processor"]) }
    while tokens.count < size {
      let name = "[PAD\(tokens.count)]"
      append(name, .unused)
    }
  }

  private init(kind: Kind) {
    self.kind = kind
    tokens = []
    types = []
  }

  private static func bytes(_ path: FilePath) throws(TokenizerError) -> [UInt8]? {
    do {
      return try readWhole(path)
    } catch {
      if case .notFound = error.reason { return nil }
      throw TokenizerError(file: path.string, .notReadable("\(error)"))
    }
  }

  private static func pieces(_ bytes: [UInt8], _ file: String) throws(TokenizerError) -> SentencePiece_Model {
    do {
      let proto = try SentencePiece_Model(serializedBytes: bytes)
      guard proto.trainer.kind == .bpe || proto.trainer.kind == .unigram else {
        throw TokenizerError(
          file: file, .unsupported(kind: "model type", name: "\(proto.trainer.kind)", known: ["BPE", "UNIGRAM"]))
      }
      return proto
    } catch let error as TokenizerError {
      throw error
    } catch {
      throw TokenizerError(file: file, .invalidProtobuf("\(error)"))
    }
  }

  private init(pieces proto: SentencePiece_Model) {
    self.init(
      kind: .sentencePiece(
        scores: proto.pieces.map(\.score), addsSpacePrefix: proto.normalizer.addDummyPrefix))
    tokens = proto.pieces.map(\.text)
    types = proto.pieces.map { TokenType(rawValue: Int32($0.kind.rawValue)) ?? .normal }
  }

  private static func addedTokens(_ document: TokenizerDocument) throws(TokenizerError) -> [AddedToken] {
    try AddedTokens(document.root["added_tokens"], of: document, vocabulary: Vocabulary(), normalizer: nil).tokens
  }

  /// The byte-pair model of a tokenizer.json.
  private init(_ document: TokenizerDocument) throws(TokenizerError) {
    let model = document.root["model"]
    guard model?["type"]?.string ?? "BPE" == "BPE" else {
      throw document.error(
        "model.type", .unsupported(kind: "model for GGUF", name: model?["type"]?.string ?? "", known: ["BPE"]))
    }
    let vocabulary = try document.readVocabulary()
    let isSentencePiece = model?["byte_fallback"]?.bool ?? false
    var merges: [String] = []
    var ranks: [[UInt8]: Int] = [:]
    try document.forEachMerge { left, right in
      if isSentencePiece {
        if ranks[left + right] == nil { ranks[left + right] = ranks.count }
      } else {
        // A space inside a token stands as the byte alphabet has it.
        let sides = [left, right].map { side in String(decoding: side, as: UTF8.self).replacing(" ", with: "\u{120}") }
        merges.append(sides[0] + " " + sides[1])
      }
    }
    var contents = [String?](repeating: nil, count: vocabulary.idBound)
    var scores = [Float](repeating: 0, count: vocabulary.idBound)
    vocabulary.forEach { token, id in
      contents[Int(id)] = String(decoding: token, as: UTF8.self)
      // Rank for score: merges come in the same order.
      scores[Int(id)] = ranks[Array(token)].map { -Float($0 + 1) } ?? -Float(ranks.count + 1)
    }
    let unknown = model?["unk_token"]?.string
    self.init(
      kind: isSentencePiece
        ? .sentencePiece(scores: scores, addsSpacePrefix: Self.addsPrefix(document.root))
        : .bytePair(merges: merges, preTokenizer: try Self.preTokenizer(document)))
    for (id, content) in contents.enumerated() {
      tokens.append(content ?? "[PAD\(id)]")
      let isByte = isSentencePiece && content.map { TokenDecoder.byteValue(Array($0.utf8)) != nil } ?? false
      types.append(
        content == nil ? .unused : isByte ? .byte : isSentencePiece && content == unknown ? .unknown : .normal)
    }
    try add(try Self.addedTokens(document))
  }

  private static func addsPrefix(_ root: JSONValue) -> Bool {
    let normalizers = root["normalizer"]?["normalizers"]?.array ?? [root["normalizer"] ?? .null]
    if normalizers.contains(where: { $0["type"] == "Prepend" }) { return true }
    let scheme = root["pre_tokenizer"]?["prepend_scheme"]?.string
    return root["pre_tokenizer"]?["type"] == "Metaspace" && scheme != "never"
  }

  private static func preTokenizer(_ document: TokenizerDocument) throws(TokenizerError) -> String {
    let root = document.root["pre_tokenizer"] ?? .null
    let steps = root["pretokenizers"]?.array ?? [root]
    let expressions = steps.compactMap { $0["pattern"]?["Regex"]?.string }
    if expressions.isEmpty, steps.count == 1, steps[0]["type"] == "ByteLevel", steps[0]["use_regex"]?.bool ?? true {
      return "gpt-2"
    }
    if expressions.count == 1, let known = Self.expressions.first(where: { $0.expression == expressions[0] }) {
      return known.name
    }
    throw document.error(
      "pre_tokenizer",
      .unsupported(
        kind: "pre-tokenizer for GGUF", name: expressions.first ?? root["type"]?.string ?? "none",
        known: Self.expressions.map(\.name)))
  }

  private mutating func append(_ token: String, _ type: TokenType) {
    tokens.append(token)
    types.append(type)
    guard case .sentencePiece(var scores, let prefix) = kind else { return }
    scores.append(type == .unused ? -10_000 : -1000)
    kind = .sentencePiece(scores: scores, addsSpacePrefix: prefix)
  }

  private mutating func add(_ added: [AddedToken]) throws(TokenizerError) {
    for token in added.sorted(by: { $0.id < $1.id }) {
      let id = Int(token.id)
      while tokens.count < id { append("[PAD\(tokens.count)]", .unused) }
      if id == tokens.count { append(token.content, .control) }
      if tokens[id].utf8.elementsEqual(token.content.utf8), types[id] == .unknown || types[id] == .byte { continue }
      let isControl = token.isSpecial || token.content.hasPrefix("<|") && token.content.hasSuffix("|>")
      types[id] = isControl ? .control : .userDefined
      tokens[id] = isControl ? token.content : token.content.replacing("\u{2581}", with: " ")
    }
  }

  /// Whether the template of a tokenizer.json puts a token before a text, and one after.
  private mutating func readTemplate(_ processor: JSONValue?) {
    let steps = processor?["processors"]?.array ?? [processor ?? .null]
    guard let items = steps.first(where: { $0["type"] == "TemplateProcessing" })?["single"]?.array else { return }
    addsBegin = items.first?["SpecialToken"] != nil
    addsEnd = items.last?["SpecialToken"] != nil
  }
}

// MARK: - Back

extension Tokenizer {
  /// A tokenizer that encodes as these tables say.
  package init(_ tables: TokenizerTables, begin: Int32?, end: Int32?, file: String) throws(TokenizerError) {
    let bytes = try tables.file(begin: begin, end: end, file: file).bytes
    if case .bytePair = tables.kind {
      try self.init(json: bytes, file: file)
    } else {
      try self.init(sentencePiece: bytes, file: file)
    }
  }
}

extension TokenizerTables {
  /// The tables as a file that a checkpoint's folder has: tokenizer.json, or tokenizer.model.
  /// - Parameter file: where they come from, for messages.
  package func file(begin: Int32?, end: Int32?, file: String) throws(TokenizerError) -> (name: String, bytes: [UInt8]) {
    switch kind {
    case .bytePair(let merges, let preTokenizer):
      return ("tokenizer.json", Array(try document(merges, preTokenizer, file: file).utf8))
    case .sentencePiece(let scores, let addsSpacePrefix):
      var proto = SentencePiece_Model()
      for (id, token) in tokens.enumerated() {
        var piece = SentencePiece_Model.Piece()
        piece.text = token
        piece.score = id < scores.count ? scores[id] : 0
        // What no text gives is no piece to merge.
        piece.kind = types[id] == .unused ? .control : .init(rawValue: Int(types[id].rawValue)) ?? .normal
        proto.pieces.append(piece)
      }
      proto.trainer.kind = .bpe
      proto.trainer.byteFallback = types.contains(.byte)
      proto.trainer.beginID = begin ?? -1
      proto.trainer.endID = end ?? -1
      proto.normalizer.name = "identity"
      proto.normalizer.addDummyPrefix = addsSpacePrefix
      proto.normalizer.removeExtraWhiteSpace = false
      proto.normalizer.escapeWhiteSpace = true
      do {
        return ("tokenizer.model", try proto.serializedBytes())
      } catch {
        throw TokenizerError(file: file, .invalidProtobuf("\(error)"))
      }
    }
  }
}

extension TokenizerTables {
  /// A tokenizer.json. Its large tables are written as text, since keys of a `JSONValue` are not told apart by bytes.
  fileprivate func document(_ merges: [String], _ name: String, file: String) throws(TokenizerError) -> String {
    guard let expression = Self.expressions.first(where: { $0.name == name })?.expression else {
      throw TokenizerError(
        file: file, place: "tokenizer.ggml.pre",
        .unsupported(kind: "pre-tokenizer", name: name, known: Self.expressions.map(\.name)))
    }
    func quoted(_ text: String) -> String { JSONValue.string(text).text() }
    var vocabulary: [String] = []
    var added: [String] = []
    for (id, token) in tokens.enumerated() {
      switch types[id] {
      case .control, .userDefined:
        added.append(
          """
          {"id":\(id),"content":\(quoted(token)),"special":\(types[id] == .control),"normalized":false,\
          "single_word":false,"lstrip":false,"rstrip":false}
          """)
        vocabulary.append("\(quoted(token)):\(id)")
      default: vocabulary.append("\(quoted(token)):\(id)")
      }
    }
    return """
      {"version":"1.0","added_tokens":[\(added.joined(separator: ","))],"normalizer":null,"pre_tokenizer":\
      {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":\(quoted(expression))},\
      "behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,\
      "use_regex":false}]},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,\
      "trim_offsets":true,"use_regex":true},"model":{"type":"BPE","vocab":{\(vocabulary.joined(separator: ","))},\
      "merges":[\(merges.map(quoted).joined(separator: ","))]}}
      """
  }

  /// Tables that were read from a file.
  package init(
    kind: Kind, tokens: [String], types: [TokenType], addsBegin: Bool?, addsEnd: Bool?
  ) {
    self.kind = kind
    self.tokens = tokens
    self.types = types
    self.addsBegin = addsBegin
    self.addsEnd = addsEnd
  }
}
