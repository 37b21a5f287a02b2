import Checkpoints
import OrderedCollections

/// A tokenizer.json, parsed: the small settings as `JSONValue`, the two large tables of its model apart.
///
/// The vocabulary and the merges of a large model are some 10 MB and half a million strings, and their keys must be
/// told apart by exact bytes, which keys of a `JSONValue` are not. So those two values are cut out, read straight into
/// tables, and the rest goes through the strict parser; blanks stand in their place, which keeps byte offsets right.
struct TokenizerDocument {
  let file: String
  let root: JSONValue
  private let bytes: [UInt8]
  /// Where the values of `model.vocab` and `model.merges` stand.
  private let tables: [String: Range<Int>]

  init(_ bytes: [UInt8], file: String) throws(TokenizerError) {
    self.file = file
    self.bytes = bytes
    var scanner = JSONScanner(bytes: bytes)
    var tables: [String: Range<Int>] = [:]
    scanner.forEachMember { key, scanner in
      guard key == Array("model".utf8) else { return scanner.skipValue() }
      scanner.forEachMember { key, scanner in
        let start = scanner.position
        scanner.skipValue()
        for name in ["vocab", "merges"] where key == Array(name.utf8) {
          let range = start..<scanner.position
          // Short values, such as null, are left to the parser, which complains best.
          if range.count >= 4, bytes[start] == UInt8(ascii: "{") || bytes[start] == UInt8(ascii: "[") {
            tables[name] = range
          }
        }
      }
    }
    var rest = bytes
    for range in tables.values {
      for index in range { rest[index] = 0x20 }
      rest.replaceSubrange(range.lowerBound..<(range.lowerBound + 4), with: Array("null".utf8))
    }
    self.tables = tables
    do {
      root = try JSONParser.parse(rest)
    } catch {
      throw TokenizerError(file: file, .invalidJSON("\(error)"))
    }
    guard root.object != nil else { throw TokenizerError(file: file, .expected("a JSON object at the top level")) }
  }

  func error(_ place: String, _ reason: TokenizerError.Reason) -> TokenizerError {
    TokenizerError(file: file, place: place, reason)
  }

  private func invalid(_ what: String, at offset: Int) -> TokenizerError {
    TokenizerError(file: file, .invalidJSON("\(what), at byte \(offset)"))
  }

  /// What ids must be below: a vocabulary has nearly as many tokens as ids, and each token takes bytes of the file, so
  /// that a larger id is there to have a table made for it.
  var idLimit: Int { min(Vocabulary.idLimit, bytes.count + 1 << 16) }

  /// The token and id of every member of `model.vocab`, an object.
  func readVocabulary() throws(TokenizerError) -> Vocabulary {
    let place = "model.vocab"
    var vocabulary = Vocabulary(idLimit: idLimit)
    guard let range = tables["vocab"], bytes[range.lowerBound] == UInt8(ascii: "{") else {
      // An empty or absent table: the parser has seen it.
      if let members = root["model"]?["vocab"]?.object, members.isEmpty { return vocabulary }
      throw error(place, .expected("an object of token ids"))
    }
    var reader = JSONTableReader(bytes: bytes, range: range, file: file)
    try reader.expect(UInt8(ascii: "{"), "'{'")
    if try reader.closes(UInt8(ascii: "}")) { return vocabulary }
    repeat {
      let token = try reader.string()
      try reader.expect(UInt8(ascii: ":"), "':'")
      let number = try reader.number()
      guard let id = Int(number) else {
        throw error(place, .expected("whole numbers, found \(number) for '\(String(decoding: token, as: UTF8.self))'"))
      }
      try add(token, id: id, to: &vocabulary, place: place)
    } while try reader.continues(until: UInt8(ascii: "}"))
    return vocabulary
  }

  func add(_ token: [UInt8], id: Int, to vocabulary: inout Vocabulary, place: String) throws(TokenizerError) {
    let text = String(decoding: token, as: UTF8.self)
    switch vocabulary.insert(token, id: id) {
    case .inserted: break
    case .duplicateToken: throw error(place, .duplicateToken(text))
    case .duplicateID(let other):
      throw error(place, .duplicateID(id, String(decoding: other, as: UTF8.self), text))
    case .idOutOfRange: throw error(place, .idOutOfRange(id, limit: vocabulary.idLimit))
    }
  }

  /// The pieces and log probabilities of a Unigram model: `model.vocab` as an array of pairs.
  func readScoredPieces() throws(TokenizerError) -> (Vocabulary, [Double]) {
    let place = "model.vocab"
    var vocabulary = Vocabulary(idLimit: idLimit)
    var scores: [Double] = []
    guard let range = tables["vocab"], bytes[range.lowerBound] == UInt8(ascii: "[") else {
      if let items = root["model"]?["vocab"]?.array, items.isEmpty { return (vocabulary, scores) }
      throw error(place, .expected("an array of pieces and scores"))
    }
    var reader = JSONTableReader(bytes: bytes, range: range, file: file)
    try reader.expect(UInt8(ascii: "["), "'['")
    if try reader.closes(UInt8(ascii: "]")) { return (vocabulary, scores) }
    repeat {
      try reader.expect(UInt8(ascii: "["), "a pair of piece and score")
      let token = try reader.string()
      try reader.expect(UInt8(ascii: ","), "','")
      let number = try reader.number()
      guard let score = Double(number), score.isFinite else {
        throw error(place, .expected("finite scores, found \(number)"))
      }
      try reader.expect(UInt8(ascii: "]"), "']'")
      try add(token, id: scores.count, to: &vocabulary, place: place)
      scores.append(score)
    } while try reader.continues(until: UInt8(ascii: "]"))
    return (vocabulary, scores)
  }

  /// The two sides of every merge; written as `"a b"` or, by newer versions, as `["a", "b"]`.
  func forEachMerge(
    _ body: (_ left: [UInt8], _ right: [UInt8]) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    let place = "model.merges"
    guard let range = tables["merges"], bytes[range.lowerBound] == UInt8(ascii: "[") else {
      if let items = root["model"]?["merges"]?.array, items.isEmpty { return }
      throw error(place, .expected("an array of merges"))
    }
    var reader = JSONTableReader(bytes: bytes, range: range, file: file)
    try reader.expect(UInt8(ascii: "["), "'['")
    if try reader.closes(UInt8(ascii: "]")) { return }
    repeat {
      if reader.current == UInt8(ascii: "[") {
        try reader.expect(UInt8(ascii: "["), "'['")
        let left = try reader.string()
        try reader.expect(UInt8(ascii: ","), "a merge of two tokens")
        let right = try reader.string()
        try reader.expect(UInt8(ascii: "]"), "a merge of two tokens")
        try body(left, right)
      } else {
        let both = try reader.string()
        let sides = both.split(separator: 0x20, omittingEmptySubsequences: false)
        guard sides.count == 2 else {
          let text = String(decoding: both, as: UTF8.self)
          throw error(place, .expected("merges of two tokens with one space between, found '\(text)'"))
        }
        try body(Array(sides[0]), Array(sides[1]))
      }
    } while try reader.continues(until: UInt8(ascii: "]"))
  }
}

/// Finds where values begin and end, and checks nothing: what it cannot follow ends the scan.
private struct JSONScanner {
  let bytes: [UInt8]
  var position = 0

  private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

  private mutating func skipWhiteSpace() {
    while position < bytes.count, bytes[position] <= 0x20 { position += 1 }
  }

  private mutating func skipString() {
    position += 1
    while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
      position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
    }
    position = min(position + 1, bytes.count)
  }

  mutating func skipValue() {
    var depth = 0
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""):
        skipString()
        if depth == 0 { return }
        continue
      case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        if depth == 0 { return }
        depth -= 1
        if depth == 0 {
          position += 1
          return
        }
      case UInt8(ascii: ","): if depth == 0 { return }
      default: break
      }
      position += 1
    }
  }

  mutating func forEachMember(_ body: (_ key: [UInt8], _ scanner: inout JSONScanner) -> Void) {
    skipWhiteSpace()
    guard current == UInt8(ascii: "{") else { return skipValue() }
    position += 1
    while true {
      skipWhiteSpace()
      guard current == UInt8(ascii: "\"") else {
        if current == UInt8(ascii: "}") { position += 1 } else { position = bytes.count }
        return
      }
      let start = position + 1
      skipString()
      let key = Array(bytes[min(start, position)..<max(min(start, position), position - 1)])
      skipWhiteSpace()
      guard current == UInt8(ascii: ":") else { return position = bytes.count }
      position += 1
      skipWhiteSpace()
      body(key, &self)
      skipWhiteSpace()
      if current == UInt8(ascii: ",") { position += 1 }
    }
  }
}

/// Reads the strings and numbers of a table strictly, without building values.
struct JSONTableReader {
  private let bytes: [UInt8]
  private var position: Int
  private let end: Int
  private let file: String

  init(bytes: [UInt8], range: Range<Int>, file: String) {
    self.bytes = bytes
    position = range.lowerBound
    end = range.upperBound
    self.file = file
  }

  private func invalid(_ what: String, at offset: Int? = nil) -> TokenizerError {
    TokenizerError(file: file, .invalidJSON("\(what), at byte \(offset ?? position)"))
  }

  private mutating func skipWhiteSpace() {
    while position < end {
      let byte = bytes[position]
      guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return }
      position += 1
    }
  }

  /// The next byte that is not white space; 0 at the end.
  var current: UInt8 {
    mutating get {
      skipWhiteSpace()
      return position < end ? bytes[position] : 0
    }
  }

  mutating func expect(_ byte: UInt8, _ name: String) throws(TokenizerError) {
    guard current == byte else { throw invalid("\(name) is expected") }
    position += 1
  }

  mutating func closes(_ byte: UInt8) throws(TokenizerError) -> Bool {
    guard current == byte else { return false }
    position += 1
    return true
  }

  /// After an element: true at a comma, false at the closing bracket.
  mutating func continues(until close: UInt8) throws(TokenizerError) -> Bool {
    if current == UInt8(ascii: ",") {
      position += 1
      return true
    }
    guard try closes(close) else { throw invalid("',' or '\(Character(UnicodeScalar(close)))' is expected") }
    return false
  }

  mutating func string() throws(TokenizerError) -> [UInt8] {
    guard current == UInt8(ascii: "\"") else { throw invalid("a string is expected") }
    let start = position
    position += 1
    var isASCII = true
    var hasEscapes = false
    while position < end, bytes[position] != UInt8(ascii: "\"") {
      let byte = bytes[position]
      if byte == UInt8(ascii: "\\") {
        hasEscapes = true
        position += 1
      } else if byte < 0x20 {
        throw invalid("a string holds the unescaped control character \(byte)")
      } else if byte >= 0x80 {
        isASCII = false
      }
      position += 1
    }
    guard position < end else { throw invalid("the text ends inside a string (truncated)", at: start) }
    position += 1
    if !hasEscapes {
      let content = bytes[(start + 1)..<(position - 1)]
      guard isASCII || String(validating: content, as: UTF8.self) != nil else {
        throw invalid("a string is not valid UTF-8", at: start)
      }
      return Array(content)
    }
    // Escapes are rare; the strict parser judges them.
    do {
      guard case .string(let text) = try JSONParser.parse(Array(bytes[start..<position])) else {
        throw invalid("a string is expected", at: start)
      }
      return Array(text.utf8)
    } catch let error as TokenizerError {
      throw error
    } catch let error as JSONError {
      throw TokenizerError(file: file, .invalidJSON("\(error) of the string at byte \(start)"))
    } catch {
      throw invalid("a string is expected", at: start)
    }
  }

  mutating func number() throws(TokenizerError) -> String {
    skipWhiteSpace()
    let start = position
    while position < end, isNumeric(bytes[position]) { position += 1 }
    guard Self.isNumber(bytes[start..<position]) else { throw invalid("a number is expected", at: start) }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  /// The grammar of RFC 8259: sign, digits without a leading zero, fraction, exponent.
  private static func isNumber(_ text: ArraySlice<UInt8>) -> Bool {
    var rest = text
    func dropDigits(_ rest: inout ArraySlice<UInt8>) -> Int {
      let tail = rest.drop { (0x30...0x39).contains($0) }
      defer { rest = tail }
      return rest.count - tail.count
    }
    if rest.first == UInt8(ascii: "-") { rest.removeFirst() }
    let leading = rest.first
    let count = dropDigits(&rest)
    guard count == 1 || (count > 1 && leading != 0x30) else { return false }
    if rest.first == UInt8(ascii: ".") {
      rest.removeFirst()
      guard dropDigits(&rest) > 0 else { return false }
    }
    if rest.first == UInt8(ascii: "e") || rest.first == UInt8(ascii: "E") {
      rest.removeFirst()
      if rest.first == UInt8(ascii: "+") || rest.first == UInt8(ascii: "-") { rest.removeFirst() }
      guard dropDigits(&rest) > 0 else { return false }
    }
    return rest.isEmpty
  }

  private func isNumeric(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "."),
      UInt8(ascii: "e"), UInt8(ascii: "E"):
      true
    default: false
    }
  }
}
