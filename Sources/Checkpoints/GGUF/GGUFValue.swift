import OrderedCollections

/// The types of metadata values, with the numbers that stand for them in a file.
package enum GGUFValueType: UInt32, CaseIterable, Hashable, Sendable {
  case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

  /// Bytes of a value; for strings and arrays the fewest that one can have.
  var leastByteCount: Int {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64, .string: 8
    case .array: 12
    }
  }
}

/// A metadata value of a GGUF file.
package enum GGUFValue: Hashable, Sendable {
  case uint8(UInt8)
  case int8(Int8)
  case uint16(UInt16)
  case int16(Int16)
  case uint32(UInt32)
  case int32(Int32)
  case float32(Float)
  case bool(Bool)
  case string(String)
  case array(GGUFArray)
  case uint64(UInt64)
  case int64(Int64)
  case float64(Double)

  package static func strings(_ values: [String]) -> GGUFValue { .array(GGUFArray(texts: values)) }
  package static func booleans(_ values: [Bool]) -> GGUFValue { numbers(.bool, values.map { .bool($0) }) }
  package static func integers(_ values: [Int32]) -> GGUFValue { numbers(.int32, values.map { .int32($0) }) }
  package static func floats(_ values: [Float]) -> GGUFValue { numbers(.float32, values.map { .float32($0) }) }

  private static func numbers(_ type: GGUFValueType, _ values: [GGUFValue]) -> GGUFValue {
    var bytes: [UInt8] = []
    for value in values { value.write(to: &bytes) }
    return .array(GGUFArray(type, bytes: bytes))
  }

  package var type: GGUFValueType {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .float32: .float32
    case .bool: .bool
    case .string: .string
    case .array: .array
    case .uint64: .uint64
    case .int64: .int64
    case .float64: .float64
    }
  }

  /// The value of any integer type; nil for others, and for what does not fit.
  package var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(value)
    default: nil
    }
  }

  /// The value of any number type.
  package var double: Double? {
    switch self {
    case .float32(let value): Double(value)
    case .float64(let value): value
    default: integer.map { Double($0) }
    }
  }

  package var string: String? { if case .string(let text) = self { text } else { nil } }
  package var bool: Bool? { if case .bool(let flag) = self { flag } else { nil } }
  package var elements: GGUFArray? { if case .array(let elements) = self { elements } else { nil } }
}

/// Metadata in the order of the file.
package typealias GGUFMetadata = OrderedDictionary<String, GGUFValue>

extension GGUFValue {
  /// Adds the value as a file has it, without its type.
  func write(to bytes: inout [UInt8]) {
    switch self {
    case .uint8(let value): bytes.append(value)
    case .int8(let value): bytes.append(UInt8(bitPattern: value))
    case .uint16(let value): bytes.append(littleEndian: value)
    case .int16(let value): bytes.append(littleEndian: value)
    case .uint32(let value): bytes.append(littleEndian: value)
    case .int32(let value): bytes.append(littleEndian: value)
    case .float32(let value): bytes.append(littleEndian: value.bitPattern)
    case .bool(let value): bytes.append(value ? 1 : 0)
    case .string(let text): bytes.append(gguf: text)
    case .array(let elements): elements.write(to: &bytes)
    case .uint64(let value): bytes.append(littleEndian: value)
    case .int64(let value): bytes.append(littleEndian: value)
    case .float64(let value): bytes.append(littleEndian: value.bitPattern)
    }
  }
}

extension [UInt8] {
  mutating func append(littleEndian value: some FixedWidthInteger) {
    for byte in 0..<(value.bitWidth / 8) { append(UInt8(truncatingIfNeeded: value >> (byte * 8))) }
  }

  /// A string: its length in bytes, then its UTF-8.
  mutating func append(gguf text: String) {
    append(littleEndian: UInt64(text.utf8.count))
    append(contentsOf: text.utf8)
  }
}
