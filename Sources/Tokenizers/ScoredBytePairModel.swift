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
