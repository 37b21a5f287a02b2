/// WordPiece as BERT uses it: from the left, the longest token that fits, tokens inside a word marked by a prefix
/// (Wu et al. 2016; the greedy search is that of BERT's tokenizer).
struct WordPieceModel: Sendable {
  let vocabulary: Vocabulary
  private let unknownID: Int32
  private let prefix: [UInt8]
  private let longestWord: Int

  init(_ fields: TokenizerFields) throws(TokenizerError) {
    vocabulary = try fields.document.readVocabulary()
    let unknown = try fields.string("unk_token")
    guard let id = vocabulary.id(of: unknown) else { throw fields.error("unk_token", .notInVocabulary(unknown)) }
    unknownID = id
    prefix = Array((try fields.optionalString("continuing_subword_prefix") ?? "##").utf8)
    longestWord = fields.isAbsent("max_input_chars_per_word") ? 100 : try fields.count("max_input_chars_per_word")
  }

  /// Appends the ids of one word; of one with a part that is no token, or too long a one, the unknown id alone.
  func encode(_ bytes: [UInt8], _ piece: Range<Int>, to output: inout [Int32]) {
    var scalarCount = 0
    for index in piece where bytes[index] & 0xc0 != 0x80 { scalarCount += 1 }
    guard scalarCount <= longestWord else { return output.append(unknownID) }
    let restart = output.count
    var start = piece.lowerBound
    var candidate: [UInt8] = []
    while start < piece.upperBound {
      candidate.removeAll(keepingCapacity: true)
      if start > piece.lowerBound { candidate += prefix }
      let prefixCount = candidate.count
      var end = min(piece.upperBound, start + max(0, vocabulary.longest - prefixCount))
      candidate += bytes[start..<end]
      var found: Int32?
      while end > start {
        if end == piece.upperBound || bytes[end] & 0xc0 != 0x80 {
          found = vocabulary.id(of: candidate, 0..<(prefixCount + end - start))
          if found != nil { break }
        }
        end -= 1
      }
      guard let found else {
        output.removeSubrange(restart...)
        return output.append(unknownID)
      }
      output.append(found)
      start = end
    }
  }
}
