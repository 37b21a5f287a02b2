import Checkpoints
import SystemPackage

/// Text to token ids and back, as the tokenizer.json or tokenizer.model of a checkpoint says.
///
/// Ids equal those of Hugging Face `tokenizers` for tokenizer.json, and those of SentencePiece for tokenizer.model.
/// Whole texts are encoded: the `truncation` and `padding` of a file describe batches and are not applied.
package struct Tokenizer: Sendable {
  private enum Engine: Sendable {
    case pipeline(TokenizerPipeline)
    case sentencePiece(SentencePieceTokenizer)
  }

  private let engine: Engine
  /// The file it was read from.
  package let file: FilePath

  /// Reads the tokenizer of a checkpoint's folder: tokenizer.json, or without it tokenizer.model.
  package init(folder: FilePath) throws(TokenizerError) {
    let json = folder.appending("tokenizer.json")
    let model = folder.appending("tokenizer.model")
    if let bytes = try Self.read(json) {
      self.init(file: json, engine: .pipeline(try TokenizerPipeline(json: bytes, file: json.string)))
    } else if let bytes = try Self.read(model) {
      var tokenizer = try SentencePieceTokenizer(protobuf: bytes, file: model.string)
      let settings = try Self.settings(folder.appending("tokenizer_config.json"))
      tokenizer.addSpecialTokens(
        begin: settings["add_bos_token"]?.bool ?? true, end: settings["add_eos_token"]?.bool ?? false)
      self.init(file: model, engine: .sentencePiece(tokenizer))
    } else {
      throw TokenizerError(file: folder.string, .noTokenizer)
    }
  }

  /// Reads the text of a tokenizer.json; `file` names it in errors.
  package init(json: [UInt8], file: String = "tokenizer.json") throws(TokenizerError) {
    self.init(file: FilePath(file), engine: .pipeline(try TokenizerPipeline(json: json, file: file)))
  }

  /// Reads the bytes of a SentencePiece tokenizer.model.
  package init(sentencePiece: [UInt8], file: String = "tokenizer.model") throws(TokenizerError) {
    self.init(
      file: FilePath(file),
      engine: .sentencePiece(try SentencePieceTokenizer(protobuf: sentencePiece, file: file)))
  }

  private init(file: FilePath, engine: Engine) {
    self.file = file
    self.engine = engine
  }

  /// The bytes of a file, or nil if there is none.
  private static func read(_ path: FilePath) throws(TokenizerError) -> [UInt8]? {
    do {
      return try readWhole(path)
    } catch {
      if case .notFound = error.reason { return nil }
      throw TokenizerError(file: path.string, .notReadable("\(error)"))
    }
  }

  /// The members of tokenizer_config.json, which says what a tokenizer.model cannot; none if there is no such file.
  private static func settings(_ path: FilePath) throws(TokenizerError) -> JSONValue {
    guard let bytes = try read(path) else { return [:] }
    do {
      return try JSONParser.parse(bytes)
    } catch {
      throw TokenizerError(file: path.string, .invalidJSON("\(error)"))
    }
  }

  /// The largest token id plus one; ids below it may be unused.
  package var vocabularySize: Int {
    switch engine {
    case .pipeline(let pipeline): pipeline.vocabularySize
    case .sentencePiece(let tokenizer): tokenizer.vocabulary.idBound
    }
  }

  /// The id of a token by its exact content, such as `</s>`; nil if there is none.
  package func id(of content: String) -> Int32? {
    switch engine {
    case .pipeline(let pipeline): pipeline.id(of: Array(content.utf8))
    case .sentencePiece(let tokenizer): tokenizer.vocabulary.id(of: content)
    }
  }

  /// The content of a token; nil if the id has none.
  package func content(of id: Int32) -> String? {
    tokenBytes(id).map { String(decoding: $0, as: UTF8.self) }
  }

  private func tokenBytes(_ id: Int32) -> [UInt8]? {
    switch engine {
    case .pipeline(let pipeline): pipeline.tokenBytes(id)
    case .sentencePiece(let tokenizer): tokenizer.vocabulary.bytes(of: Int(id))
    }
  }

  /// The bytes of text a token stands for by itself, where it stands for bytes; else its content.
  func rawBytes(of id: Int32) -> [UInt8] {
    guard let token = tokenBytes(id) else { return [] }
    switch engine {
    case .pipeline(let pipeline): return pipeline.rawBytes(of: token)
    case .sentencePiece: return TokenDecoder.byteValue(token).map { [$0] } ?? token
    }
  }

  /// True for tokens such as the end of a text, which a decoder may skip.
  package func isSpecial(_ id: Int32) -> Bool {
    switch engine {
    case .pipeline(let pipeline): pipeline.isSpecial(id)
    case .sentencePiece(let tokenizer): tokenizer.isSpecial(id)
    }
  }

  /// The ids of a text. Special tokens written out in the text are found either way (in a tokenizer.json);
  /// `addSpecialTokens` decides about those that the post-processor puts around it.
  package func encode(_ text: String, addSpecialTokens: Bool) -> [Int32] {
    encode(bytes: Array(text.utf8), addSpecialTokens: addSpecialTokens)
  }

  /// The ids of a text as UTF-8; what is not valid counts as U+FFFD.
  package func encode(utf8: some Sequence<UInt8>, addSpecialTokens: Bool) -> [Int32] {
    encode(bytes: repaired(Array(utf8)), addSpecialTokens: addSpecialTokens)
  }

  private func encode(bytes: [UInt8], addSpecialTokens: Bool) -> [Int32] {
    switch engine {
    case .pipeline(let pipeline): pipeline.encode(bytes, addSpecialTokens: addSpecialTokens)
    case .sentencePiece(let tokenizer): tokenizer.encode(bytes, addSpecialTokens: addSpecialTokens)
    }
  }

  /// The text of ids; ids without a token are left out.
  package func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> String {
    let bytes =
      switch engine {
      case .pipeline(let pipeline): pipeline.decode(ids, skipSpecialTokens: skipSpecialTokens)
      case .sentencePiece(let tokenizer): tokenizer.decode(ids, skipSpecialTokens: skipSpecialTokens)
      }
    return String(decoding: bytes, as: UTF8.self)
  }
}
