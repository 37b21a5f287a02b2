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

/// The normalizer of SentencePiece: character map, white space, dummy prefix.
struct SentencePieceNormalizer: Sendable {
  private let charsmap: PrecompiledCharsmap?
  private let userDefined: ByteTrie
  private let addsDummyPrefix: Bool
  private let removesExtraSpace: Bool
  private let marksSuffix: Bool
  private let space: [UInt8]

  init(
    _ specification: SentencePiece_Normalizer, userDefined: [[UInt8]], marksSuffix: Bool, file: String
  ) throws(TokenizerError) {
    if specification.charsmap.isEmpty {
      charsmap = nil
    } else {
      do {
        charsmap = try PrecompiledCharsmap(Array(specification.charsmap))
      } catch {
        throw TokenizerError(file: file, place: "normalizer", .invalidCharsmap(error.what))
      }
    }
    var trie = ByteTrie()
    for piece in userDefined { trie.insert(piece, value: 0) }
    self.userDefined = trie
    addsDummyPrefix = specification.addDummyPrefix
    removesExtraSpace = specification.removeExtraWhiteSpace
    self.marksSuffix = marksSuffix
    space = specification.escapeWhiteSpace ? [0xe2, 0x96, 0x81] : [0x20]
  }

  /// What the text at `index` becomes, and where it goes on.
  private func step(_ bytes: [UInt8], _ index: Int) -> (text: ArraySlice<UInt8>, end: Int) {
    if !userDefined.isEmpty, let match = userDefined.longestMatch(bytes, index, bytes.count) {
      return (bytes[index..<match.end], match.end)
    }
    if let charsmap, let found = charsmap.longestMatch(bytes, index) { return (found.replacement, found.end) }
    let end = index + decodeScalar(bytes, index, bytes.count).length
    return (bytes[index..<end], end)
  }

  func apply(to bytes: [UInt8]) -> [UInt8] {
    var index = 0
    while removesExtraSpace, index < bytes.count {
      let (text, end) = step(bytes, index)
      guard text.elementsEqual([0x20]) else { break }
      index = end
    }
    guard index < bytes.count else { return [] }
    var output: [UInt8] = []
    output.reserveCapacity(bytes.count + bytes.count / 2)
    if !marksSuffix, addsDummyPrefix { output += space }
    var afterSpace = removesExtraSpace
    while index < bytes.count {
      var (text, end) = step(bytes, index)
      index = end
      while afterSpace, text.first == 0x20 { text = text.dropFirst() }
      if let last = text.last {
        for byte in text { if byte == 0x20 { output += space } else { output.append(byte) } }
        afterSpace = last == 0x20
      }
      if !removesExtraSpace { afterSpace = false }
    }
    if removesExtraSpace {
      while output.suffix(space.count).elementsEqual(space) { output.removeLast(space.count) }
    }
    if marksSuffix, addsDummyPrefix { output += space }
    return output
  }
}

/// Byte-pair encoding where a piece's score says how early it is made: SentencePiece keeps no merges.
struct ScoredBytePairModel: Sendable {
  private struct Ranking: Sendable, MergeRanking {
    let vocabulary: Vocabulary
    /// By id: the number of higher scores, or -1 for pieces that are never made by merging.
    let ranks: [Int32]

    @inline(__always)
    func candidate(_ left: MergeSymbol, _ right: MergeSymbol, _ bytes: [UInt8]) -> (rank: Int32, id: Int32)? {
      guard let id = vocabulary.id(of: bytes, Int(left.start)..<Int(right.end)), ranks[Int(id)] >= 0 else { return nil }
      return (ranks[Int(id)], id)
    }
  }

  private let ranking: Ranking
  private let userDefined: ByteTrie
  private let unknownID: Int32
  private let byteIDs: [Int32?]
  private let cutsBeforeMetaspace: Bool

  init(
    _ pieces: [SentencePiece_Model.Piece], vocabulary: Vocabulary, unknownID: Int32, userDefined: [[UInt8]],
    fallsBackToBytes: Bool
  ) {
    func merges(_ piece: SentencePiece_Model.Piece) -> Bool { piece.kind == .normal || piece.kind == .userDefined }
    var rankOfScore: [Float: Int32] = [:]
    for score in Set(pieces.filter(merges).map(\.score)).sorted(by: >) {
      rankOfScore[score] = Int32(rankOfScore.count)
    }
    ranking = Ranking(
      vocabulary: vocabulary, ranks: pieces.map { merges($0) ? rankOfScore[$0.score] ?? -1 : -1 })
    var trie = ByteTrie()
    for piece in userDefined { trie.insert(piece, value: vocabulary.id(of: piece) ?? 0) }
    self.userDefined = trie
    self.unknownID = unknownID
    byteIDs = fallsBackToBytes ? vocabulary.byteFallbackIDs() : []
    let metaspace: [UInt8] = [0xe2, 0x96, 0x81]
    let crosses = pieces.contains { piece in
      var cuts = 0
      let bytes = Array(piece.text.utf8)
      forEachMetaspaceWord(bytes, 0..<bytes.count) { _ in cuts += 1 }
      return merges(piece) && cuts > 1
    }
    cutsBeforeMetaspace = !crosses && vocabulary.id(of: metaspace).map { pieces[Int($0)].kind == .normal } ?? false
  }

  func encode(_ bytes: [UInt8], to ids: inout [Int32]) {
    var merging = PairMerging()
    var cache = WordCache(byteCount: bytes.count)
    guard cutsBeforeMetaspace else { return encode(bytes, 0..<bytes.count, &merging, to: &ids) }
    forEachMetaspaceWord(bytes, 0..<bytes.count) { word in
      cache.append(bytes, word, to: &ids) { encode(bytes, word, &merging, to: &$0) }
    }
  }

  private func encode(_ bytes: [UInt8], _ piece: Range<Int>, _ merging: inout PairMerging, to ids: inout [Int32]) {
    merging.symbols.removeAll(keepingCapacity: true)
    var index = piece.lowerBound
    while index < piece.upperBound {
      let match = userDefined.isEmpty ? nil : userDefined.longestMatch(bytes, index, piece.upperBound)
      let end = match?.end ?? index + decodeScalar(bytes, index, piece.upperBound).length
      merging.symbols.append(
        MergeSymbol(
          id: ranking.vocabulary.id(of: bytes, index..<end) ?? -1, start: Int32(index), end: Int32(end),
          isFrozen: match != nil))
      index = end
    }
    merging.merge(bytes, by: ranking)
    var wasUnknown = false
    for symbol in merging.symbols {
      let isKnown = symbol.id >= 0 && ranking.ranks[Int(symbol.id)] >= 0
      if isKnown {
        ids.append(symbol.id)
      } else if !byteIDs.isEmpty {
        for place in Int(symbol.start)..<Int(symbol.end) { ids.append(byteIDs[Int(bytes[place])] ?? unknownID) }
      } else if !wasUnknown {
        ids.append(unknownID)
      }
      wasUnknown = !isKnown
    }
  }
}
