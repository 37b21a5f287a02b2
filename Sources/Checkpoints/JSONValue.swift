import OrderedCollections

/// A JSON document that keeps what a rewriting tool must keep: the order of keys, and numbers as they were written.
package indirect enum JSONValue: Hashable, Sendable {
  case null
  case bool(Bool)
  /// The number's own text, so that `1e-05` stays `1e-05` and 64-bit integers stay exact.
  case number(String)
  case string(String)
  case array([JSONValue])
  case object(OrderedDictionary<String, JSONValue>)

  package static func integer(_ value: Int) -> JSONValue { .number(String(value)) }

  /// A number with the shortest text that reads back as the same double; null for NaN and infinities, which JSON lacks.
  package static func real(_ value: Double) -> JSONValue { value.isFinite ? .number("\(value)") : .null }

  package var string: String? { if case .string(let text) = self { text } else { nil } }
  package var bool: Bool? { if case .bool(let flag) = self { flag } else { nil } }
  package var array: [JSONValue]? { if case .array(let items) = self { items } else { nil } }
  package var object: OrderedDictionary<String, JSONValue>? { if case .object(let items) = self { items } else { nil } }

  /// The number as an unsigned integer; nil if it has a sign, a fraction, an exponent, or does not fit.
  package var unsigned: UInt64? { if case .number(let text) = self { UInt64(text) } else { nil } }
  package var integer: Int? { if case .number(let text) = self { Int(text) } else { nil } }
  package var double: Double? { if case .number(let text) = self { Double(text) } else { nil } }

  package subscript(key: String) -> JSONValue? { object?[key] }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  package init(stringLiteral value: String) { self = .string(value) }
  package init(booleanLiteral value: Bool) { self = .bool(value) }
  package init(integerLiteral value: Int) { self = .integer(value) }
  package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
  package init(dictionaryLiteral elements: (String, JSONValue)...) {
    self = .object(OrderedDictionary(elements, uniquingKeysWith: { $1 }))
  }
}

extension JSONValue {
  /// The document as text. Compact without `indent`; otherwise one member per line, as Hugging Face writes its files.
  package func text(indent: Int? = nil) -> String {
    var output = ""
    write(to: &output, indent: indent, depth: 0)
    return output
  }

  private func write(to output: inout String, indent: Int?, depth: Int) {
    func newline(_ depth: Int) {
      guard let indent else { return }
      output += "\n" + String(repeating: " ", count: indent * depth)
    }
    switch self {
    case .null: output += "null"
    case .bool(let flag): output += flag ? "true" : "false"
    case .number(let text): output += text
    case .string(let text): Self.write(text, to: &output)
    case .array(let items):
      output += "["
      // Short lists of numbers read better on one line.
      let inline = items.allSatisfy { if case .number = $0 { true } else { false } }
      for (index, item) in items.enumerated() {
        if index > 0 { output += indent != nil && inline ? ", " : "," }
        if !inline { newline(depth + 1) }
        item.write(to: &output, indent: indent, depth: depth + 1)
      }
      if !items.isEmpty, !inline { newline(depth) }
      output += "]"
    case .object(let members):
      output += "{"
      for (index, member) in members.enumerated() {
        if index > 0 { output += "," }
        newline(depth + 1)
        Self.write(member.key, to: &output)
        output += indent == nil ? ":" : ": "
        member.value.write(to: &output, indent: indent, depth: depth + 1)
      }
      if !members.isEmpty { newline(depth) }
      output += "}"
    }
  }

  private static func write(_ text: String, to output: inout String) {
    output += "\""
    defer { output += "\"" }
    // Most texts stand as they are.
    guard text.utf8.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) else {
      output += text
      return
    }
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": output += "\\\""
      case "\\": output += "\\\\"
      case "\n": output += "\\n"
      case "\r": output += "\\r"
      case "\t": output += "\\t"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        output += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: output.unicodeScalars.append(scalar)
      }
    }
  }
}
