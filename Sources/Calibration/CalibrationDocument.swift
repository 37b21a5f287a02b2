import Checkpoints
import OrderedCollections
import SystemPackage

/// One document of a source: text to be encoded, or tokens that are already.
package enum CalibrationDocument: Hashable, Sendable {
  case text(String)
  case tokens([Int32])
}

extension CalibrationSource {
  /// The largest file that is read as one text.
  package static let textLimit = 1 << 30

  /// The endings of files that are read as JSON lines; all other files are one text each.
  static let lineExtensions: Set = ["json", "jsonl", "ndjson"]

  /// Reads the source's documents in order until `body` returns false. Documents without text are left out; a byte
  /// order mark at the start of a file is, too.
  ///
  /// A file of JSON lines is read line by line, and not beyond the last document that `body` takes.
  /// - Parameters:
  ///   - vocabulary: the size that token ids must be below.
  ///   - write: has the model write windows, where it is the source.
  ///   - body: is given each document and, in JSON lines, its line.
  /// - Returns: the bytes of the source.
  /// - Throws: `CheckpointError` where the file cannot be read, `CalibrationError` where its content is wrong, and what
  ///   `body` throws.
  package func read(
    vocabulary: Int, write: () throws -> [[Int32]] = { [] },
    _ body: (CalibrationDocument, _ line: Int?) throws -> Bool
  ) throws -> Int {
    switch origin {
    case .model:
      for window in try write() { guard try body(.tokens(window), nil) else { break } }
      return 0
    case .defaultText:
      for part in DefaultText.parts { guard try body(.text(part), nil) else { break } }
      return DefaultText.byteCount
    case .file(let path):
      let isLines = path.extension.map { Self.lineExtensions.contains($0.lowercased()) } ?? false
      return try isLines ? readLines(path, vocabulary, body) : readText(path, body)
    }
  }

  private func readText(
    _ path: FilePath, _ body: (CalibrationDocument, _ line: Int?) throws -> Bool
  ) throws -> Int {
    let bytes = try readWhole(path, limit: Self.textLimit)
    guard let text = String(validating: bytes.dropByteOrderMark(), as: UTF8.self) else {
      throw CalibrationError(file: path.string, .invalidUTF8(byte: firstInvalidUTF8(in: bytes) ?? 0))
    }
    if !text.isBlank { _ = try body(.text(text), nil) }
    return bytes.count
  }

  private func readLines(
    _ path: FilePath, _ vocabulary: Int, _ body: (CalibrationDocument, _ line: Int?) throws -> Bool
  ) throws -> Int {
    var reader = try LineReader(path)
    while let line = try reader.next() {
      let bytes = line.number == 1 ? line.bytes.dropByteOrderMark() : line.bytes[...]
      if bytes.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }) { continue }
      let record: JSONValue
      do {
        record = try JSONParser.parse(Array(bytes))
      } catch {
        if error.reason == .invalidUTF8, let place = firstInvalidUTF8(in: line.bytes) {
          throw CalibrationError(
            file: path.string, line: line.number, .invalidUTF8(byte: line.offset + place))
        }
        throw CalibrationError(file: path.string, line: line.number, .invalidJSON(error.description))
      }
      let place = RecordPlace(file: path.string, line: line.number, vocabulary: vocabulary)
      guard let document = try place.document(record) else { continue }
      guard try body(document, line.number) else { break }
    }
    return reader.size
  }
}

extension Array<UInt8> {
  fileprivate func dropByteOrderMark() -> ArraySlice<UInt8> {
    starts(with: [0xef, 0xbb, 0xbf]) ? dropFirst(3) : self[...]
  }
}

extension String {
  fileprivate var isBlank: Bool { unicodeScalars.allSatisfy(\.properties.isWhitespace) }
}

/// Where a record stands, for what is wrong with it.
private struct RecordPlace {
  let file: String
  let line: Int
  let vocabulary: Int

  /// The document of a line; nil if it holds no text. Text goes before tokens, which may be another tokenizer's.
  func document(_ record: JSONValue) throws(CalibrationError) -> CalibrationDocument? {
    if let items = record.array { return try tokens(items, of: "the list") }
    if let text = record["text"] {
      guard let text = text.string else { throw error("text", text, "a string") }
      return text.isBlank ? nil : .text(text)
    }
    if let messages = record["messages"] {
      guard let items = messages.array else { throw error("messages", messages, "a list of objects") }
      let text = try contents(items).joined(separator: "\n")
      return text.isBlank ? nil : .text(text)
    }
    for key in ["input_ids", "tokens"] {
      guard let list = record[key] else { continue }
      guard let items = list.array else { throw error(key, list, "a list of integers") }
      return try tokens(items, of: key)
    }
    throw CalibrationError(file: file, line: line, .unknownRecord(found: kind(of: record)))
  }

  private func contents(_ messages: [JSONValue]) throws(CalibrationError) -> [String] {
    var contents: [String] = []
    for message in messages {
      guard message.object != nil else { throw error("messages", message, "a list of objects") }
      switch message["content"] {
      case .string(let text)?: contents.append(text)
      // A message that only calls a tool has none.
      case .null?: continue
      case let other?: throw error("content", other, "a string")
      case nil:
        throw CalibrationError(
          file: file, line: line, .field("content", found: "no such key", expected: "in every message"))
      }
    }
    return contents
  }

  private func tokens(_ items: [JSONValue], of key: String) throws(CalibrationError) -> CalibrationDocument? {
    var tokens: [Int32] = []
    tokens.reserveCapacity(items.count)
    for item in items {
      guard case .number(let text) = item, let value = Int(text) else { throw error(key, item, "a list of integers") }
      guard let token = Int32(exactly: value), token >= 0, value < vocabulary else {
        throw CalibrationError(file: file, line: line, .tokenOutOfRange(token: text, vocabulary: vocabulary))
      }
      tokens.append(token)
    }
    return tokens.isEmpty ? nil : .tokens(tokens)
  }

  private func error(_ key: String, _ found: JSONValue, _ expected: String) -> CalibrationError {
    CalibrationError(file: file, line: line, .field(key, found: kind(of: found), expected: expected))
  }

  private func kind(of value: JSONValue) -> String {
    switch value {
    case .null: "null"
    case .bool(let flag): "\(flag)"
    case .number(let text): "the number \(text.prefix(40))"
    case .string: "a string"
    case .array: "a list"
    case .object(let members):
      members.isEmpty
        ? "an empty object"
        : "an object with \(members.keys.prefix(8).map { "'\($0.prefix(40).description.printable)'" }.joined(separator: ", "))"
    }
  }
}
