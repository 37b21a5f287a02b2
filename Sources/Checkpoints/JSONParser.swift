import OrderedCollections

/// What is wrong with a JSON text, and at which byte.
package struct JSONError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    case truncated
    case unexpected(UInt8, expected: String)
    case invalidNumber
    case invalidEscape
    case loneSurrogate
    case controlCharacter(UInt8)
    case invalidUTF8
    case duplicateKey(String)
    case tooDeep(limit: Int)
    case trailingBytes
  }

  package let reason: Reason
  package let offset: Int

  package var description: String {
    let what =
      switch reason {
      case .truncated: "the text ends inside a value (truncated)"
      case .unexpected(let byte, let expected): "found \(Self.name(of: byte)) where \(expected) is expected"
      case .invalidNumber: "this is not a JSON number"
      case .invalidEscape: "this is not a JSON escape sequence"
      case .loneSurrogate: "an escape names half of a surrogate pair"
      case .controlCharacter(let byte): "a string holds the unescaped control character \(byte)"
      case .invalidUTF8: "a string is not valid UTF-8"
      case .duplicateKey(let key): "the key '\(key)' stands twice in one object (duplicate)"
      case .tooDeep(let limit): "values are nested more than \(limit) levels deep"
      case .trailingBytes: "something follows the end of the document"
      }
    return "\(what), at byte \(offset)"
  }

  private static func name(of byte: UInt8) -> String {
    (0x21...0x7e).contains(byte) ? "'\(Character(UnicodeScalar(byte)))'" : "byte \(byte)"
  }
}

/// A strict reader of JSON (RFC 8259): unlike the usual ones it refuses duplicate keys and deep nesting, and keeps
/// the order of keys and the text of numbers.
package struct JSONParser {
  private let bytes: [UInt8]
  private var position = 0
  private var depth = 0

  /// Deeper than any file of a checkpoint, and shallow enough for every thread's stack.
  package static let depthLimit = 64

  /// Parses a whole document; white space may surround it.
  package static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
    var parser = JSONParser(bytes: bytes)
    let value = try parser.value()
    parser.skipWhiteSpace()
    guard parser.position == bytes.count else { throw parser.error(.trailingBytes) }
    return value
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  private func error(_ reason: JSONError.Reason, at offset: Int? = nil) -> JSONError {
    JSONError(reason: reason, offset: offset ?? position)
  }

  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipWhiteSpace() {
    while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
  }

  private mutating func expect(_ byte: UInt8, _ name: String) throws(JSONError) {
    guard let found = current else { throw error(.truncated) }
    guard found == byte else { throw error(.unexpected(found, expected: name)) }
    position += 1
  }

  private mutating func value() throws(JSONError) -> JSONValue {
    skipWhiteSpace()
    guard let byte = current else { throw error(.truncated) }
    switch byte {
    case UInt8(ascii: "{"): return try nested { parser throws(JSONError) in try parser.object() }
    case UInt8(ascii: "["): return try nested { parser throws(JSONError) in try parser.array() }
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: throw error(.unexpected(byte, expected: "a value"))
    }
  }

  private mutating func nested(
    _ body: (inout JSONParser) throws(JSONError) -> JSONValue
  ) throws(JSONError) -> JSONValue {
    guard depth < Self.depthLimit else { throw error(.tooDeep(limit: Self.depthLimit)) }
    depth += 1
    defer { depth -= 1 }
    position += 1
    return try body(&self)
  }

  private mutating func word(_ text: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
    for byte in text.utf8 { try expect(byte, "'\(text)'") }
    return value
  }

  private mutating func object() throws(JSONError) -> JSONValue {
    var members: OrderedDictionary<String, JSONValue> = [:]
    skipWhiteSpace()
    if current == UInt8(ascii: "}") {
      position += 1
      return .object(members)
    }
    while true {
      skipWhiteSpace()
      let start = position
      guard current == UInt8(ascii: "\"") else {
        guard let found = current else { throw error(.truncated) }
        throw error(.unexpected(found, expected: "a key in quotes"))
      }
      let key = try string()
      guard members[key] == nil else { throw error(.duplicateKey(key), at: start) }
      skipWhiteSpace()
      try expect(UInt8(ascii: ":"), "':'")
      members[key] = try value()
      skipWhiteSpace()
      if current == UInt8(ascii: ",") {
        position += 1
        continue
      }
      try expect(UInt8(ascii: "}"), "',' or '}'")
      return .object(members)
    }
  }

  private mutating func array() throws(JSONError) -> JSONValue {
    var items: [JSONValue] = []
    skipWhiteSpace()
    if current == UInt8(ascii: "]") {
      position += 1
      return .array(items)
    }
    while true {
      items.append(try value())
      skipWhiteSpace()
      if current == UInt8(ascii: ",") {
        position += 1
        continue
      }
      try expect(UInt8(ascii: "]"), "',' or ']'")
      return .array(items)
    }
  }

  private mutating func number() throws(JSONError) -> String {
    let start = position
    func isDigit(_ byte: UInt8?) -> Bool { byte.map { (0x30...0x39).contains($0) } ?? false }
    if current == UInt8(ascii: "-") { position += 1 }
    guard isDigit(current) else { throw error(.invalidNumber, at: start) }
    if current == UInt8(ascii: "0") {
      position += 1
      if isDigit(current) { throw error(.invalidNumber, at: start) }
    }
    while isDigit(current) { position += 1 }
    if current == UInt8(ascii: ".") {
      position += 1
      guard isDigit(current) else { throw error(.invalidNumber, at: start) }
      while isDigit(current) { position += 1 }
    }
    if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      guard isDigit(current) else { throw error(.invalidNumber, at: start) }
      while isDigit(current) { position += 1 }
    }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  private mutating func string() throws(JSONError) -> String {
    position += 1
    let start = position
    // Most strings have no escapes and are taken as they stand.
    while let byte = current, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
    var text = try utf8(start..<position)
    while true {
      guard let byte = current else { throw error(.truncated) }
      if byte == UInt8(ascii: "\"") {
        position += 1
        return text
      }
      if byte < 0x20 { throw error(.controlCharacter(byte)) }
      if byte == UInt8(ascii: "\\") {
        text.unicodeScalars.append(try escape())
      } else {
        let run = position
        while let byte = current, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        text += try utf8(run..<position)
      }
    }
  }

  private func utf8(_ range: Range<Int>) throws(JSONError) -> String {
    guard let text = String(validating: bytes[range], as: UTF8.self) else {
      throw error(.invalidUTF8, at: range.lowerBound)
    }
    return text
  }

  private mutating func escape() throws(JSONError) -> UnicodeScalar {
    let start = position
    position += 1
    guard let byte = current else { throw error(.truncated) }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return UnicodeScalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{c}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): break
    default: throw error(.invalidEscape, at: start)
    }
    let unit = try fourDigits(of: start)
    if let scalar = UnicodeScalar(unit) { return scalar }
    guard unit < 0xdc00, current == UInt8(ascii: "\\") else { throw error(.loneSurrogate, at: start) }
    position += 1
    guard current == UInt8(ascii: "u") else { throw error(.loneSurrogate, at: start) }
    position += 1
    let low = try fourDigits(of: start)
    guard (0xdc00...0xdfff).contains(low),
      let scalar = UnicodeScalar(0x10000 + ((UInt32(unit) - 0xd800) << 10) + (UInt32(low) - 0xdc00))
    else { throw error(.loneSurrogate, at: start) }
    return scalar
  }

  private mutating func fourDigits(of start: Int) throws(JSONError) -> UInt16 {
    guard position + 4 <= bytes.count else { throw error(.truncated) }
    var unit: UInt16 = 0
    for byte in bytes[position..<(position + 4)] {
      guard let digit = Character(UnicodeScalar(byte)).hexDigitValue else { throw error(.invalidEscape, at: start) }
      unit = unit << 4 | UInt16(digit)
    }
    position += 4
    return unit
  }
}
