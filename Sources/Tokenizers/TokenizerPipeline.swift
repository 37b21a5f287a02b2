import Checkpoints
import OrderedCollections

/// The steps of a tokenizer.json: added tokens, normalizer, pre-tokenizer, model, post-processor, and the way back.
struct TokenizerPipeline: Sendable {
  enum Model: Sendable {
    case bytePair(BytePairModel)
    case wordPiece(WordPieceModel)
    case unigram(UnigramModel)
    case wordLevel(WordLevelModel)

    static let known = ["BPE", "Unigram", "WordLevel", "WordPiece"]

    init(_ fields: TokenizerFields) throws(TokenizerError) {
      switch try Self.type(fields) {
      case "BPE": self = .bytePair(try BytePairModel(fields))
      case "WordPiece": self = .wordPiece(try WordPieceModel(fields))
      case "Unigram": self = .unigram(try UnigramModel(fields))
      case "WordLevel": self = .wordLevel(try WordLevelModel(fields))
      case let name: throw fields.error("type", .unsupported(kind: "model", name: name, known: Self.known))
      }
    }

    /// Old files do not name the model; a member that only one kind has tells.
    private static func type(_ fields: TokenizerFields) throws(TokenizerError) -> String {
      if fields.members["type"] != nil { return try fields.type() }
      let marks = [("merges", "BPE"), ("unk_id", "Unigram"), ("max_input_chars_per_word", "WordPiece")]
      guard let name = marks.first(where: { fields.members[$0.0] != nil })?.1 else {
        throw fields.error("type", .expected("the name of the model"))
      }
      try fields.allowMembers(of: name)
      return name
    }

    var vocabulary: Vocabulary {
      switch self {
      case .bytePair(let model): model.vocabulary
      case .wordPiece(let model): model.vocabulary
      case .unigram(let model): model.vocabulary
      case .wordLevel(let model): model.vocabulary
      }
    }
  }

  private let addedTokens: AddedTokens
  private let normalizer: Normalizer?
  private let preTokenizer: PreTokenizer?
  private let model: Model
  private let postProcessor: PostProcessor?
  private let decoder: TokenDecoder?
  private let vocabulary: Vocabulary

  private static let keys = [
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model",
  ]

  init(json: [UInt8], file: String) throws(TokenizerError) {
    let document = try TokenizerDocument(json, file: file)
    for key in document.root.object?.keys ?? [] where !Self.keys.contains(key) {
      throw document.error(key, .unsupported(kind: "key", name: key, known: Self.keys))
    }
    if let version = document.root["version"], version != "1.0" {
      throw document.error("version", .expected("\"1.0\", the only version known"))
    }
    guard let fields = try document.fields(document.root["model"], at: "model") else {
      throw document.error("model", .expected("an object"))
    }
    model = try Model(fields)
    vocabulary = model.vocabulary
    normalizer = try Normalizer(document.root["normalizer"], at: "normalizer", of: document)
    if let growth = normalizer?.growth, growth > Normalizer.growthLimit {
      throw document.error("normalizer", .growth(limit: Int(Normalizer.growthLimit)))
    }
    preTokenizer = try PreTokenizer(document.root["pre_tokenizer"], at: "pre_tokenizer", of: document)
    postProcessor = try PostProcessor(document.root["post_processor"], at: "post_processor", of: document)
    decoder = try TokenDecoder(document.root["decoder"], at: "decoder", of: document)
    if let growth = decoder?.growth, growth > Normalizer.growthLimit {
      throw document.error("decoder", .growth(limit: Int(Normalizer.growthLimit)))
    }
    addedTokens = try AddedTokens(
      document.root["added_tokens"], of: document, vocabulary: vocabulary, normalizer: normalizer)
  }

  var vocabularySize: Int { max(vocabulary.idBound, addedTokens.idBound) }
  func id(of content: [UInt8]) -> Int32? { addedTokens.id(of: content) ?? vocabulary.id(of: content) }
  func isSpecial(_ id: Int32) -> Bool { addedTokens.token(of: id)?.isSpecial ?? false }

  func tokenBytes(_ id: Int32) -> [UInt8]? {
    addedTokens.token(of: id).map { Array($0.content.utf8) } ?? vocabulary.bytes(of: Int(id))
  }

  func rawBytes(of token: [UInt8]) -> [UInt8] { decoder?.rawBytes(of: token) ?? token }

  func encode(_ bytes: [UInt8], addSpecialTokens: Bool) -> [Int32] {
    var ids: [Int32] = []
    ids.reserveCapacity(bytes.count / 3 + 8)
    var run = ModelRun(byteCount: bytes.count)
    for span in addedTokens.spans(bytes, afterNormalizer: false) {
      if let id = span.id {
        ids.append(id)
      } else {
        let isWhole = span.range.count == bytes.count
        let text = NormalizedText(
          bytes: isWhole ? bytes : Array(bytes[span.range]), keepsStart: span.range.lowerBound == 0)
        encode(text, &run, to: &ids)
      }
    }
    return addSpecialTokens ? postProcessor?.apply(to: ids) ?? ids : ids
  }

  /// A stretch without added tokens of the first stage.
  private func encode(_ text: NormalizedText, _ run: inout ModelRun, to ids: inout [Int32]) {
    var text = text
    normalizer?.apply(to: &text)
    for span in addedTokens.spans(text.bytes, afterNormalizer: true) {
      if let id = span.id {
        ids.append(id)
        continue
      }
      let isWhole = span.range.count == text.bytes.count
      var pieces = Pieces(
        NormalizedText(
          bytes: isWhole ? text.bytes : Array(text.bytes[span.range]),
          keepsStart: text.keepsStart && span.range.lowerBound == 0))
      preTokenizer?.apply(to: &pieces)
      run.encode(model, pieces, to: &ids)
    }
  }

  func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> [UInt8] {
    var tokens: [[UInt8]] = []
    for id in ids {
      guard let token = addedTokens.text(of: id) ?? vocabulary.bytes(of: Int(id)), !(skipSpecialTokens && isSpecial(id))
      else { continue }
      tokens.append(token)
    }
    guard let decoder else { return Array(tokens.joined(separator: [0x20])) }
    return Array(decoder.apply(to: tokens).joined())
  }
}

/// The working memory of one call of `encode`.
private struct ModelRun {
  private var cache: WordCache
  private var merging = PairMerging()
  private var viterbi = UnigramModel.Scratch()

  init(byteCount: Int) { cache = WordCache(byteCount: byteCount) }

  mutating func encode(_ model: TokenizerPipeline.Model, _ pieces: Pieces, to ids: inout [Int32]) {
    switch model {
    case .bytePair(let model): Self.encode(model, pieces, &cache, &merging, to: &ids)
    case .wordPiece(let model):
      for piece in pieces.ranges {
        cache.append(pieces.bytes, piece, to: &ids) { model.encode(pieces.bytes, piece, to: &$0) }
      }
    case .unigram(let model): Self.encode(model, pieces, &cache, &viterbi, to: &ids)
    case .wordLevel(let model):
      for piece in pieces.ranges { model.encode(pieces.bytes, piece, to: &ids) }
    }
  }

  private static func encode(
    _ model: BytePairModel, _ pieces: Pieces, _ cache: inout WordCache, _ merging: inout PairMerging,
    to ids: inout [Int32]
  ) {
    let bytes = pieces.bytes
    for piece in pieces.ranges {
      guard model.cutsBeforeMetaspace else {
        cache.append(bytes, piece, to: &ids) { model.encode(bytes, piece, &merging, to: &$0) }
        continue
      }
      forEachMetaspaceWord(bytes, piece) { word in
        cache.append(bytes, word, to: &ids) { model.encode(bytes, word, &merging, to: &$0) }
      }
    }
  }

  private static func encode(
    _ model: UnigramModel, _ pieces: Pieces, _ cache: inout WordCache, _ viterbi: inout UnigramModel.Scratch,
    to ids: inout [Int32]
  ) {
    let bytes = pieces.bytes
    for piece in pieces.ranges {
      cache.append(bytes, piece, to: &ids) { model.encode(bytes, piece, &viterbi, to: &$0) }
    }
  }
}

/// Cuts before each run of "▁".
@inline(__always)
func forEachMetaspaceWord(_ bytes: [UInt8], _ piece: Range<Int>, _ body: (Range<Int>) -> Void) {
  var start = piece.lowerBound
  var index = start
  var wasMetaspace = true
  while index < piece.upperBound {
    let isMetaspace =
      bytes[index] == 0xe2 && index + 2 < piece.upperBound && bytes[index + 1] == 0x96 && bytes[index + 2] == 0x81
    if isMetaspace, !wasMetaspace {
      body(start..<index)
      start = index
    }
    wasMetaspace = isMetaspace
    index += isMetaspace ? 3 : 1
  }
  if start < piece.upperBound { body(start..<piece.upperBound) }
}
