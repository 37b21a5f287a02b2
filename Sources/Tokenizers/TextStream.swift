/// Decodes ids one by one, as text generation gives them, into the pieces of text that are certain.
///
/// A token may hold part of a character; its bytes wait until the rest has come. The pieces together are what
/// `Tokenizer.decode` gives for all ids, as long as the ids spell valid UTF-8: of byte tokens that spell none, a part
/// may have been given out as text before the run of bytes turned out to be damaged.
package struct TextStream {
  /// No character has more bytes than four; tokens beyond that are damaged and go out as they are.
  private static let waitLimit = 8

  private let tokenizer: Tokenizer
  private let skipsSpecialTokens: Bool
  /// First the ids whose text was given out last, as context; then those that wait.
  private var ids: [Int32] = []
  private var contextCount = 0

  package init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
    self.tokenizer = tokenizer
    skipsSpecialTokens = skipSpecialTokens
  }

  /// The text that becomes certain with this id; often empty.
  package mutating func append(_ id: Int32) -> String {
    if skipsSpecialTokens, tokenizer.isSpecial(id) { return "" }
    ids.append(id)
    let bytes = ids[contextCount...].flatMap { tokenizer.rawBytes(of: $0) }
    if Self.endsInsideCharacter(bytes), ids.count - contextCount < Self.waitLimit { return "" }
    return advance()
  }

  /// The text that still waits, damaged or not.
  package mutating func finish() -> String {
    defer {
      ids = []
      contextCount = 0
    }
    return contextCount < ids.count ? advance() : ""
  }

  private mutating func advance() -> String {
    // Decoders look at what is before a token, such as the blank a text does not begin with; so the context is
    // decoded along and its text cut off.
    let known = Array(tokenizer.decode(ids[..<contextCount], skipSpecialTokens: skipsSpecialTokens).utf8)
    let whole = Array(tokenizer.decode(ids, skipSpecialTokens: skipsSpecialTokens).utf8)
    let fresh = whole.starts(with: known) ? String(decoding: whole.dropFirst(known.count), as: UTF8.self) : nil
    let alone = tokenizer.decode(ids[contextCount...], skipSpecialTokens: skipsSpecialTokens)
    // What reads as nothing by itself, as white space may at the start of a text, is no context for what follows.
    if !alone.isEmpty { ids.removeFirst(contextCount) }
    contextCount = ids.count
    return fresh ?? alone
  }

  /// True where the last byte leaves a UTF-8 sequence unfinished.
  private static func endsInsideCharacter(_ bytes: [UInt8]) -> Bool {
    for (offset, byte) in bytes.suffix(3).reversed().enumerated() {
      if byte >= 0xc0 { return offset + 1 < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) }
      if byte < 0x80 { return false }
    }
    return false
  }
}
