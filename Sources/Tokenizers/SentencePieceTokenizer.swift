import SwiftProtobuf

/// A tokenizer.model of SentencePiece (Kudo and Richardson 2018): its normalizer, its BPE or unigram model, its
/// decoder. Ids and texts equal those of the SentencePiece library.
struct SentencePieceTokenizer: Sendable {
  private enum Model: Sendable {
    case bytePair(ScoredBytePairModel)
    case unigram(UnigramModel)
  }

  let vocabulary: Vocabulary
  private let kinds: [SentencePiece_Model.Piece.Kind]
  private let normalizer: SentencePieceNormalizer
  private let model: Model
  private let unknownSurface: [UInt8]
  /// The special tokens before and after a text.
  private var prefix: [Int32] = []
  private var suffix: [Int32] = []
  private let stripsLeadingSpace: Bool
  private let removesExtraSpace: Bool
  private let beginID: Int32?
  private let endID: Int32?

  private static let metaspace: [UInt8] = [0xe2, 0x96, 0x81]

  init(protobuf: [UInt8], file: String) throws(TokenizerError) {
    func error(_ place: String, _ reason: TokenizerError.Reason) -> TokenizerError {
      TokenizerError(file: file, place: place, reason)
    }
    let proto: SentencePiece_Model
    do {
      proto = try SentencePiece_Model(serializedBytes: protobuf)
    } catch {
      throw TokenizerError(file: file, .invalidProtobuf("\(error)"))
    }
    guard !proto.pieces.isEmpty else { throw error("pieces", .expected("a list that is not empty")) }
    var vocabulary = Vocabulary()
    for (id, piece) in proto.pieces.enumerated() {
      guard !piece.text.isEmpty else { throw error("pieces[\(id)]", .expected("a piece that is not empty")) }
      guard piece.score.isFinite else { throw error("pieces[\(id)]", .expected("a piece with a finite score")) }
      switch vocabulary.insert(Array(piece.text.utf8), id: id) {
      case .inserted: break
      case .duplicateToken, .duplicateID: throw error("pieces[\(id)]", .duplicateToken(piece.text))
      case .idOutOfRange: throw error("pieces", .idOutOfRange(id, limit: Vocabulary.idLimit))
      }
    }
    self.vocabulary = vocabulary
    let kinds = proto.pieces.map(\.kind)
    self.kinds = kinds
    guard let unknown = kinds.firstIndex(of: .unknown), kinds.lastIndex(of: .unknown) == unknown else {
      throw error("pieces", .expected("a list with one unknown piece"))
    }
    if !proto.denormalizer.charsmap.isEmpty {
      throw error("denormalizer", .unsupported(kind: "denormalizer", name: proto.denormalizer.name, known: []))
    }
    let userDefined = proto.pieces.filter { $0.kind == .userDefined }.map { Array($0.text.utf8) }
    normalizer = try SentencePieceNormalizer(
      proto.normalizer, userDefined: userDefined, marksSuffix: proto.trainer.whiteSpaceAsSuffix, file: file)

    let normal = proto.pieces.filter { $0.kind == .normal }.map(\.score)
    let (least, greatest) = (normal.min() ?? 0, normal.max() ?? 0)
    switch proto.trainer.kind {
    case .unigram:
      let scores = proto.pieces.map { piece in
        Double(piece.kind == .userDefined ? Float(piece.text.utf8.count) * greatest - 0.1 : piece.score)
      }
      model = .unigram(
        UnigramModel(
          vocabulary: vocabulary, scores: scores, unknownID: Int32(unknown),
          fallsBackToBytes: proto.trainer.byteFallback, isSinglePrecision: true, leastScore: Double(least)
        ) { kinds[Int($0)] == .normal || kinds[Int($0)] == .userDefined })
    case .bpe:
      guard !kinds.contains(.unused) else {
        throw error("pieces", .unsupported(kind: "piece type", name: "UNUSED in a BPE model", known: []))
      }
      model = .bytePair(
        ScoredBytePairModel(
          proto.pieces, vocabulary: vocabulary, unknownID: Int32(unknown), userDefined: userDefined,
          fallsBackToBytes: proto.trainer.byteFallback))
    case .word: throw error("trainer", .unsupported(kind: "model type", name: "WORD", known: ["BPE", "UNIGRAM"]))
    case .char: throw error("trainer", .unsupported(kind: "model type", name: "CHAR", known: ["BPE", "UNIGRAM"]))
    }
    unknownSurface = Array(proto.trainer.unknownSurface.utf8)
    removesExtraSpace = proto.normalizer.removeExtraWhiteSpace
    stripsLeadingSpace = proto.normalizer.addDummyPrefix || removesExtraSpace
    func special(_ id: Int32) -> Int32? { kinds.indices.contains(Int(id)) ? id : nil }
    beginID = special(proto.trainer.beginID)
    endID = special(proto.trainer.endID)
    addSpecialTokens(begin: true, end: false)
  }

  /// Which of its own begin and end tokens go around a text. Without a word from outside the begin token alone does,
  /// as for Llama.
  mutating func addSpecialTokens(begin: Bool, end: Bool) {
    prefix = begin ? [beginID].compactMap { $0 } : []
    suffix = end ? [endID].compactMap { $0 } : []
  }

  /// Control pieces; the unknown piece has a text of its own, and SentencePiece shows it.
  func isSpecial(_ id: Int32) -> Bool { kinds.indices.contains(Int(id)) && kinds[Int(id)] == .control }

  func encode(_ bytes: [UInt8], addSpecialTokens: Bool) -> [Int32] {
    let text = normalizer.apply(to: bytes)
    var ids: [Int32] = addSpecialTokens ? prefix : []
    ids.reserveCapacity(text.count / 3 + 4)
    switch model {
    case .bytePair(let model): model.encode(text, to: &ids)
    case .unigram(let model):
      var scratch = UnigramModel.Scratch()
      if !text.isEmpty { model.encode(text, 0..<text.count, &scratch, to: &ids) }
    }
    if addSpecialTokens { ids += suffix }
    return ids
  }

  func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> [UInt8] {
    var output: [UInt8] = []
    var run: [UInt8] = []
    var sawLeadingSpace = false
    for id in ids {
      guard let token = vocabulary.bytes(of: Int(id)) else { continue }
      let kind = kinds[Int(id)]
      if kind == .byte, let byte = TokenDecoder.byteValue(token) {
        run.append(byte)
        continue
      }
      Self.flush(&run, to: &output)
      switch kind {
      case .control: if !skipSpecialTokens { output += token }
      case .unknown: output += unknownSurface
      default:
        var piece = token[...]
        if output.isEmpty, !sawLeadingSpace, stripsLeadingSpace, piece.starts(with: Self.metaspace) {
          piece = piece.dropFirst(Self.metaspace.count)
          sawLeadingSpace = !removesExtraSpace
        }
        output += SplitPattern(literal: Self.metaspace).replacing(Array(piece), with: [0x20])
      }
    }
    Self.flush(&run, to: &output)
    return output
  }

  /// Bytes as the characters they are, each byte that is in none as U+FFFD.
  private static func flush(_ run: inout [UInt8], to output: inout [UInt8]) {
    var index = 0
    while index < run.count {
      let lead = run[index]
      let length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2
      let end = index + length
      if end <= run.count, String(validating: run[index..<end], as: UTF8.self) != nil {
        output += run[index..<end]
        index = end
      } else {
        output += "\u{fffd}".utf8
        index += 1
      }
    }
    run.removeAll()
  }
}
