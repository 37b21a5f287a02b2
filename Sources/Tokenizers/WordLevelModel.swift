/// A vocabulary of whole words.
struct WordLevelModel: Sendable {
  let vocabulary: Vocabulary
  private let unknownID: Int32?

  init(_ fields: TokenizerFields) throws(TokenizerError) {
    vocabulary = try fields.document.readVocabulary()
    unknownID = vocabulary.id(of: try fields.string("unk_token"))
    guard unknownID != nil else {
      throw fields.error("unk_token", .notInVocabulary(try fields.string("unk_token")))
    }
  }

  func encode(_ bytes: [UInt8], _ piece: Range<Int>, to output: inout [Int32]) {
    if let id = vocabulary.id(of: bytes, piece) ?? unknownID { output.append(id) }
  }
}
