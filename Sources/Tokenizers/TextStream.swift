/// Decodes ids one by one, as text generation gives them, into the pieces of text that are certain.
///
/// A token may hold part of a character; its bytes wait until the rest has come. The pieces together are what
/// `Tokenizer.decode` gives for all ids, as long as the ids spell valid UTF-8: of byte tokens that spell none, a
/// stretch may have been given out before the run of bytes turned out to be damaged.
package struct TextStream {
  /// No character needs more byte tokens; after that many, what is there goes out as it is.
  private static let waitLimit = 8

  private let tokenizer: Tokenizer
  private let skipsSpecialTokens: Bool
  /// The ids since the last place where text was certain: first those for context, whose text is out already.
  private var ids: [Int32] = []
  private var contextCount = 0

  package init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
    self.tokenizer = tokenizer
    skipsSpecialTokens = skipSpecialTokens
  }

  /// The text that becomes certain with this id; often empty.
  package mutating func append(_ id: Int32) -> String {
    ids.append(id)
    return advance(finishes: ids.count - contextCount >= Self.waitLimit)
  }

  /// The text that still waits, damaged or not.
  package mutating func finish() -> String {
    defer {
      ids = []
      contextCount = 0
    }
    return contextCount < ids.count ? advance(finishes: true) : ""
  }

  private mutating func advance(finishes: Bool) -> String {
    // Decoders look at what is before a token, such as the blank a text does not begin with; so the context is
    // decoded along and its text cut off.
    let known = tokenizer.decode(ids[..<contextCount], skipSpecialTokens: skipsSpecialTokens)
    let whole = tokenizer.decode(ids, skipSpecialTokens: skipsSpecialTokens)
    let fresh = Array(whole.utf8.dropFirst(known.utf8.count))
    let isCut = fresh.suffix(3).elementsEqual("\u{fffd}".utf8)
    guard finishes || !isCut else { return "" }
    // A token without text, or white space that a decoder may drop at the start, is too little context.
    if !fresh.isEmpty {
      ids.removeFirst(contextCount)
    }
    contextCount = ids.count
    return String(decoding: fresh, as: UTF8.self)
  }
}
