/// A list in the metadata of a GGUF file. Numbers stay the bytes that the file has, so that a list takes no more memory
/// than its file.
package struct GGUFArray: RandomAccessCollection, Hashable, Sendable {
  private enum Storage: Hashable {
    case texts([String])
    /// Little-endian, one after another.
    case numbers([UInt8])
  }

  /// Of every element; no array.
  package let type: GGUFValueType
  private let storage: Storage

  init(texts: [String]) {
    type = .string
    storage = .texts(texts)
  }

  /// - Parameter bytes: whole numbers of the type.
  init(_ type: GGUFValueType, bytes: [UInt8]) {
    precondition(type != .string && type != .array && bytes.count % type.leastByteCount == 0)
    self.type = type
    storage = .numbers(bytes)
  }

  package var startIndex: Int { 0 }
  package var endIndex: Int {
    switch storage {
    case .texts(let texts): texts.count
    case .numbers(let bytes): bytes.count / type.leastByteCount
    }
  }

  package subscript(position: Int) -> GGUFValue {
    switch storage {
    case .texts(let texts): return .string(texts[position])
    case .numbers(let bytes):
      let width = type.leastByteCount
      let word = bytes[position * width..<(position + 1) * width].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      return type.value(word)
    }
  }

  /// Adds the list as a file has it.
  func write(to bytes: inout [UInt8]) {
    bytes.append(littleEndian: type.rawValue)
    bytes.append(littleEndian: UInt64(count))
    switch storage {
    case .texts(let texts): for text in texts { bytes.append(gguf: text) }
    case .numbers(let numbers): bytes += numbers
    }
  }
}

extension GGUFValueType {
  /// The number whose bytes, little-endian, are the low ones of a word; a boolean is true unless it is 0.
  /// - Precondition: a type of numbers or the boolean.
  func value(_ word: UInt64) -> GGUFValue {
    switch self {
    case .uint8: .uint8(UInt8(truncatingIfNeeded: word))
    case .int8: .int8(Int8(truncatingIfNeeded: word))
    case .uint16: .uint16(UInt16(truncatingIfNeeded: word))
    case .int16: .int16(Int16(truncatingIfNeeded: word))
    case .uint32: .uint32(UInt32(truncatingIfNeeded: word))
    case .int32: .int32(Int32(truncatingIfNeeded: word))
    case .float32: .float32(Float(bitPattern: UInt32(truncatingIfNeeded: word)))
    case .bool: .bool(word != 0)
    case .uint64: .uint64(word)
    case .int64: .int64(Int64(bitPattern: word))
    case .float64: .float64(Double(bitPattern: word))
    case .string, .array: preconditionFailure("not a number")
    }
  }
}
