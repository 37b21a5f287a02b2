/// The unigram language model (Kudo 2018): of all ways to cut a piece into vocabulary entries, the most probable.
struct UnigramModel: Sendable {
  /// What an unknown character costs more than the least probable piece; SentencePiece's constant.
  private static let unknownPenalty = 10.0

  struct Scratch {
    fileprivate struct Node {
      var score = 0.0
      var id: Int32 = 0
      var start: Int32 = -1
    }
    fileprivate var nodes: [Node] = []
    fileprivate var path: [(range: Range<Int>, id: Int32)] = []
    init() {}
  }

  let vocabulary: Vocabulary
  private let scores: [Double]
  private let trie: ByteTrie
  private let unknownID: Int32?
  private let unknownScore: Double
  private let byteIDs: [Int32]
  /// SentencePiece adds scores as 32-bit floats, `tokenizers` as doubles; ties may differ.
  private let isSinglePrecision: Bool

  init(_ fields: TokenizerFields) throws(TokenizerError) {
    let (vocabulary, scores) = try fields.document.readScoredPieces()
    var unknownID: Int32?
    if !fields.isAbsent("unk_id") {
      let id = try fields.count("unk_id")
      guard id < vocabulary.count else { throw fields.error("unk_id", .idOutOfRange(id, limit: vocabulary.count)) }
      unknownID = Int32(id)
    }
    guard !scores.isEmpty else { throw fields.error("vocab", .expected("at least one piece")) }
    // Without an unknown token the reference fails on the first character it does not know; that is no text's fault.
    guard let unknownID else {
      throw fields.error("unk_id", .expected("the id of the unknown token: a text may hold characters without a piece"))
    }
    self.init(
      vocabulary: vocabulary, scores: scores, unknownID: unknownID,
      fallsBackToBytes: try fields.flag("byte_fallback", default: false), isSinglePrecision: false,
      isMatched: { _ in true })
  }

  /// - Parameter isMatched: which pieces may be found in text.
  init(
    vocabulary: Vocabulary, scores: [Double], unknownID: Int32, fallsBackToBytes: Bool, isSinglePrecision: Bool,
    leastScore: Double? = nil, isMatched: (Int32) -> Bool
  ) {
    self.vocabulary = vocabulary
    self.scores = scores
    self.unknownID = unknownID
    self.isSinglePrecision = isSinglePrecision
    unknownScore = (leastScore ?? scores.min() ?? 0) - Self.unknownPenalty
    let byteIDs = fallsBackToBytes ? vocabulary.byteFallbackIDs() : []
    // The reference falls back where all bytes of the string have tokens; a table with holes never is one in practice.
    self.byteIDs = byteIDs.map { $0 ?? -1 }
    var trie = ByteTrie()
    vocabulary.forEach { token, id in if isMatched(id) { trie.insert(token, value: id) } }
    self.trie = trie
  }

  /// Appends the ids of one piece (Viterbi over the ends of characters).
  func encode(_ bytes: [UInt8], _ piece: Range<Int>, _ scratch: inout Scratch, to output: inout [Int32]) {
    let size = piece.count
    scratch.nodes.removeAll(keepingCapacity: true)
    scratch.nodes.append(contentsOf: repeatElement(Scratch.Node(), count: size + 1))
    var start = 0
    while start < size {
      let scoreHere = scratch.nodes[start].score
      let length = decodeScalar(bytes, piece.lowerBound + start, piece.upperBound).length
      var hasSingle = false
      var node: Int32 = 0
      var index = start
      while index < size {
        node = trie.child(of: node, bytes[piece.lowerBound + index])
        if node == 0 { break }
        index += 1
        let id = trie.value(at: node)
        if id >= 0 {
          relax(&scratch.nodes[index], scores[Int(id)], scoreHere, id, start)
          if index - start == length { hasSingle = true }
        }
      }
      if !hasSingle, let unknownID {
        relax(&scratch.nodes[start + length], unknownScore, scoreHere, unknownID, start)
      }
      start += length
    }
    collect(piece, &scratch)
    for (range, id) in scratch.path.reversed() {
      if id != unknownID {
        output.append(id)
      } else {
        appendUnknown(bytes, range, to: &output)
      }
    }
  }

  @inline(__always)
  private func relax(_ node: inout Scratch.Node, _ score: Double, _ before: Double, _ id: Int32, _ start: Int) {
    let candidate = isSinglePrecision ? Double(Float(score) + Float(before)) : score + before
    if node.start < 0 || candidate > node.score { node = Scratch.Node(score: candidate, id: id, start: Int32(start)) }
  }

  /// The best path from its end to its start, neighbouring unknown characters as one.
  private func collect(_ piece: Range<Int>, _ scratch: inout Scratch) {
    scratch.path.removeAll(keepingCapacity: true)
    var end = piece.count
    while end > 0 {
      let node = scratch.nodes[end]
      let start = max(0, Int(node.start))
      let range = (piece.lowerBound + start)..<(piece.lowerBound + end)
      if node.id == unknownID, let last = scratch.path.last, last.id == unknownID {
        scratch.path[scratch.path.count - 1].range = range.lowerBound..<last.range.upperBound
      } else {
        scratch.path.append((range, node.id))
      }
      end = start
    }
  }

  private func appendUnknown(_ bytes: [UInt8], _ range: Range<Int>, to output: inout [Int32]) {
    // Unknown characters together may happen to spell a piece.
    if let id = vocabulary.id(of: bytes, range) { return output.append(id) }
    if !byteIDs.isEmpty, range.allSatisfy({ byteIDs[Int(bytes[$0])] >= 0 }) {
      for index in range { output.append(byteIDs[Int(bytes[index])]) }
    } else if let unknownID {
      output.append(unknownID)
    }
  }
}
