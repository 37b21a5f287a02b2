import Checkpoints

/// A token that is found in the text itself, before the model sees it.
package struct AddedToken: Sendable, Hashable {
  package let id: Int32
  package let content: String
  /// Not inside a word.
  let isSingleWord: Bool
  /// Takes the white space before it.
  let stripsLeft: Bool
  /// Takes the white space after it.
  let stripsRight: Bool
  /// Looked for after the normalizer, in its own normalized form; otherwise in the text as given.
  let isNormalized: Bool
  /// Left out by a decoder that skips special tokens.
  package let isSpecial: Bool

  package init(
    id: Int32, content: String, isSingleWord: Bool = false, stripsLeft: Bool = false, stripsRight: Bool = false,
    isNormalized: Bool = false, isSpecial: Bool = true
  ) {
    self.id = id
    self.content = content
    self.isSingleWord = isSingleWord
    self.stripsLeft = stripsLeft
    self.stripsRight = stripsRight
    self.isNormalized = isNormalized
    self.isSpecial = isSpecial
  }

  fileprivate init(_ value: JSONValue, at place: String, of document: TokenizerDocument) throws(TokenizerError) {
    guard let fields = try document.fields(value, at: place) else {
      throw document.error(place, .expected("an object"))
    }
    try fields.allowMembers(of: "AddedToken")
    let id = try fields.count("id")
    let limit = fields.document.idLimit
    guard id < limit else { throw fields.error("id", .idOutOfRange(id, limit: limit)) }
    let isSpecial = try fields.flag("special", default: false)
    self.init(
      id: Int32(id), content: try fields.string("content"),
      isSingleWord: try fields.flag("single_word", default: false),
      stripsLeft: try fields.flag("lstrip", default: false), stripsRight: try fields.flag("rstrip", default: false),
      isNormalized: try fields.flag("normalized", default: !isSpecial), isSpecial: isSpecial)
  }
}

/// The added tokens of a tokenizer, ready to be found in text.
struct AddedTokens: Sendable {
  private(set) var tokens: [AddedToken] = []
  /// What each token reads when decoded: its content, normalized where it is looked for in normalized text.
  private var texts: [[UInt8]] = []
  private var indexOfID: [Int32: Int] = [:]
  /// By exact bytes; added tokens may differ from the vocabulary.
  private var idOfContent: [[UInt8]: Int32] = [:]
  private var plain = ByteTrie()
  private var normalized = ByteTrie()

  init() {}

  init(_ tokens: [AddedToken], normalizer: Normalizer?) {
    for token in tokens {
      let content = Array(token.content.utf8)
      if let index = indexOfID[token.id] {
        self.tokens[index] = token
      } else {
        indexOfID[token.id] = self.tokens.count
        self.tokens.append(token)
      }
      idOfContent[content] = token.id
    }
    for (index, token) in self.tokens.enumerated() {
      var text = NormalizedText(bytes: Array(token.content.utf8), keepsStart: true)
      if token.isNormalized {
        normalizer?.apply(to: &text)
        normalized.insert(text.bytes, value: Int32(index))
      } else {
        plain.insert(text.bytes, value: Int32(index))
      }
      texts.append(text.bytes)
    }
  }

  /// Reads `added_tokens`. The ids must be those the reference gives: the vocabulary's where it has the token, else the
  /// next free ones.
  init(
    _ value: JSONValue?, of document: TokenizerDocument, vocabulary: Vocabulary, normalizer: Normalizer?
  ) throws(TokenizerError) {
    guard let value, value != .null else {
      self.init()
      return
    }
    guard let items = value.array else { throw document.error("added_tokens", .expected("an array")) }
    var tokens: [AddedToken] = []
    var contents: [Int32: String] = [:]
    for (index, item) in items.enumerated() {
      let place = "added_tokens[\(index)]"
      let token = try AddedToken(item, at: place, of: document)
      guard !token.content.isEmpty else { continue }
      if let own = vocabulary.id(of: token.content), own != token.id {
        throw document.error(place, .wrongAddedID(token.content, found: Int(token.id), expected: Int(own)))
      }
      if let other = vocabulary.bytes(of: Int(token.id)), !other.elementsEqual(token.content.utf8) {
        throw document.error(
          place, .duplicateID(Int(token.id), String(decoding: other, as: UTF8.self), token.content))
      }
      if let other = contents[token.id], !other.utf8.elementsEqual(token.content.utf8) {
        throw document.error(place, .duplicateID(Int(token.id), other, token.content))
      }
      contents[token.id] = token.content
      tokens.append(token)
    }
    self.init(tokens, normalizer: normalizer)
  }

  func id(of content: [UInt8]) -> Int32? { idOfContent[content] }
  func token(of id: Int32) -> AddedToken? { indexOfID[id].map { tokens[$0] } }
  func text(of id: Int32) -> [UInt8]? { indexOfID[id].map { texts[$0] } }
  var idBound: Int { (tokens.map { Int($0.id) }.max() ?? -1) + 1 }

  /// A stretch of text, or an added token.
  struct Span {
    let range: Range<Int>
    let id: Int32?
  }

  /// Cuts the text at the tokens that are looked for at this stage; at each place the longest one counts.
  func spans(_ bytes: [UInt8], afterNormalizer: Bool) -> [Span] {
    let trie = afterNormalizer ? normalized : plain
    guard !bytes.isEmpty else { return [] }
    guard !trie.isEmpty else { return [Span(range: 0..<bytes.count, id: nil)] }
    var spans: [Span] = []
    var done = 0
    var index = 0
    while index < bytes.count {
      guard let match = trie.longestMatch(bytes, index, bytes.count) else {
        index += 1
        continue
      }
      var (start, end) = (index, match.end)
      index = match.end
      let token = tokens[Int(match.value)]
      if token.isSingleWord {
        let joinsLeft = start > 0 && isWord(decodeScalarBefore(bytes, start, 0).value)
        let joinsRight = end < bytes.count && isWord(decodeScalar(bytes, end, bytes.count).value)
        if joinsLeft || joinsRight { continue }
      }
      if token.stripsLeft {
        while start > done {
          let (value, length) = decodeScalarBefore(bytes, start, done)
          guard ScalarClasses.of(value).meets(.space) else { break }
          start -= length
        }
      }
      if token.stripsRight {
        while end < bytes.count {
          let (value, length) = decodeScalar(bytes, end, bytes.count)
          guard ScalarClasses.of(value).meets(.space) else { break }
          end += length
        }
      }
      // A token that begins with white space may lie in what the one before has taken.
      start = max(start, done)
      if done < start { spans.append(Span(range: done..<start, id: nil)) }
      spans.append(Span(range: start..<max(start, end), id: token.id))
      done = max(start, end)
    }
    if done < bytes.count { spans.append(Span(range: done..<bytes.count, id: nil)) }
    return spans
  }

  private func isWord(_ value: UInt32) -> Bool { ScalarClasses.of(value).meets(.word) }
}
