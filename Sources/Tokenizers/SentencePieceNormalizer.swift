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
