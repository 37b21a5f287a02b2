import Kernels
import OrderedCollections

/// One tensor of a GGUF file.
package struct GGUFTensor: Hashable, Sendable {
  package let name: String
  package let type: BlockType
  /// As elsewhere in this program: the last dimension is the one that lies together. The file has them reversed.
  package let shape: [Int]
  /// Byte range relative to the start of the file.
  package let bytes: Range<Int>

  package var elementCount: Int { shape.reduce(1, *) }
  package var columns: Int { shape.last ?? 1 }

  /// A part of it, of whole blocks, as a tensor.
  /// - Parameter bytes: relative to its first.
  package func slice(shape: [Int], bytes part: Range<Int>) -> GGUFTensor {
    precondition(part.lowerBound >= 0 && part.upperBound <= bytes.count)
    return GGUFTensor(
      name: name, type: type, shape: shape,
      bytes: bytes.lowerBound + part.lowerBound..<bytes.lowerBound + part.upperBound)
  }
}

/// Everything of a GGUF file but the data, validated as a whole before any data is touched.
///
/// The GGUF specification (ggml/docs/gguf.md), versions 2 and 3, which differ in the byte order that they allow.
package struct GGUFHeader: Sendable {
  package let version: UInt32
  package let metadata: GGUFMetadata
  /// In the order of the file, which is that of the data.
  package let tensors: [GGUFTensor]
  package let dataStart: Int

  package static let defaultAlignment = 32
  /// Bytes of metadata and tensor descriptions; a vocabulary of a quarter million tokens takes some ten million.
  package static let sizeLimit = 1 << 28
  /// Elements of all arrays together.
  package static let elementLimit = 1 << 24
  package static let nameLimit = 63

  /// - Parameters:
  ///   - fileSize: bytes of the whole file.
  ///   - file: the name for messages.
  ///   - read: reads a part of the file that lies within it.
  init(
    fileSize: Int, file: String, read: @escaping (_ offset: Int, _ count: Int) throws(CheckpointError) -> [UInt8]
  ) throws(CheckpointError) {
    var cursor = GGUFCursor(fileSize: fileSize, file: file, read: read)
    guard fileSize >= 4, try cursor.bytes(4, "the mark").elementsEqual("GGUF".utf8) else {
      throw cursor.error(.notGGUF)
    }
    let version = try cursor.number(UInt32.self, "the version")
    if version.byteSwapped <= 3, version != 0 { throw cursor.error(.bigEndian) }
    guard (2...3).contains(version) else { throw cursor.error(.version(version)) }
    self.version = version
    let tensorCount = try cursor.number(UInt64.self, "the number of tensors")
    let keyCount = try cursor.number(UInt64.self, "the number of metadata keys")
    // The least that an entry takes: its length, type and one byte of value; name, dimensions, type and offset.
    let keys = try cursor.checked(keyCount, "metadata keys", least: 13)
    let count = try cursor.checked(tensorCount, "tensors", least: 32)
    metadata = try Self.metadata(&cursor, keys)
    let alignment = try Self.alignment(metadata["general.alignment"], cursor)
    let descriptions = try Self.descriptions(&cursor, count)
    dataStart = (cursor.position + alignment - 1) / alignment * alignment
    tensors = try Self.place(descriptions, from: dataStart, alignment, cursor)
  }

  private static func metadata(_ cursor: inout GGUFCursor, _ count: Int) throws(CheckpointError) -> GGUFMetadata {
    var metadata: GGUFMetadata = [:]
    for _ in 0..<count {
      let bytes = try cursor.string("a metadata key")
      guard let key = String(validating: bytes, as: UTF8.self) else { throw cursor.error(.keyNotText) }
      guard !key.isEmpty else { throw cursor.error(.emptyKey) }
      guard metadata[key] == nil else { throw cursor.error(.duplicateKey(key)) }
      let type = try cursor.valueType(key)
      metadata[key] = try cursor.value(type, key)
    }
    return metadata
  }

  private static func alignment(_ value: GGUFValue?, _ cursor: GGUFCursor) throws(CheckpointError) -> Int {
    guard let value else { return defaultAlignment }
    guard case .uint32(let number) = value, number > 0, number & (number - 1) == 0, number <= 1 << 16 else {
      throw cursor.error(.alignment(value.integer.map { "\($0)" } ?? "of type \(value.type)"))
    }
    return Int(number)
  }

  private struct Description {
    let name: String
    let type: BlockType
    let shape: [Int]
    let offset: UInt64
  }

  private static func descriptions(_ cursor: inout GGUFCursor, _ count: Int) throws(CheckpointError) -> [Description] {
    var result: [Description] = []
    var names: Set<String> = []
    for _ in 0..<count {
      let bytes = try cursor.string("the name of a tensor")
      guard let name = String(validating: bytes, as: UTF8.self) else { throw cursor.error(.nameNotText) }
      guard bytes.count <= nameLimit else { throw cursor.error(.nameTooLong(bytes.count)) }
      guard names.insert(name).inserted else { throw cursor.error(.duplicateTensor, name) }
      let what = "the description of tensor '\(name)'"
      let dimensionCount = try cursor.number(UInt32.self, what)
      guard (1...4).contains(dimensionCount) else { throw cursor.error(.dimensionCount(dimensionCount), name) }
      var dimensions: [UInt64] = []
      for _ in 0..<dimensionCount { dimensions.append(try cursor.number(UInt64.self, what)) }
      let id = try cursor.number(UInt32.self, what)
      let offset = try cursor.number(UInt64.self, what)
      guard let type = BlockType.with(id: id) else { throw cursor.error(.unknownType(id), name) }
      var elements: UInt64 = 1
      for size in dimensions {
        // Empty tensors count as if they were not, so that no order of the sizes overflows.
        let (product, overflows) = elements.multipliedReportingOverflow(by: max(size, 1))
        guard !overflows, product < 1 << 56, size < 1 << 56 else {
          throw cursor.error(.dimensionOverflow(dimensions), name)
        }
        elements = product
      }
      let shape = dimensions.reversed().map { Int($0) }
      guard let columns = shape.last, columns % type.blockLength == 0 else {
        throw cursor.error(.partialBlock(type: type, columns: shape.last ?? 0), name)
      }
      result.append(Description(name: name, type: type, shape: shape, offset: offset))
    }
    return result
  }

  private static func place(
    _ descriptions: [Description], from start: Int, _ alignment: Int, _ cursor: GGUFCursor
  ) throws(CheckpointError) -> [GGUFTensor] {
    var tensors: [GGUFTensor] = []
    var position = 0
    var end = 0
    for description in descriptions {
      guard description.offset == UInt64(position) else {
        throw cursor.error(.offset(found: description.offset, expected: position), description.name)
      }
      // Below 2^56 elements of at most eight bytes each, so no sum overflows before it passes the end of the file.
      let count = description.type.byteCount(of: description.shape.reduce(1, *))
      end = position + count
      guard end <= cursor.fileSize - start else {
        throw cursor.error(.dataBeyondEnd(expected: end, found: max(0, cursor.fileSize - start)), description.name)
      }
      tensors.append(
        GGUFTensor(
          name: description.name, type: description.type, shape: description.shape,
          bytes: (start + position)..<(start + end)))
      position = (end + alignment - 1) / alignment * alignment
    }
    return tensors
  }
}

/// Reads the front of a file piece by piece, so that a length that lies allocates nothing.
private struct GGUFCursor {
  let fileSize: Int
  let file: String
  let read: (_ offset: Int, _ count: Int) throws(CheckpointError) -> [UInt8]
  private(set) var position = 0
  private var buffer: [UInt8] = []
  private var bufferStart = 0
  private var elementCount = 0

  private static let step = 1 << 16

  init(fileSize: Int, file: String, read: @escaping (Int, Int) throws(CheckpointError) -> [UInt8]) {
    self.fileSize = fileSize
    self.file = file
    self.read = read
  }

  func error(_ defect: GGUFDefect, _ tensor: String? = nil) -> CheckpointError {
    CheckpointError(file: file, tensor: tensor, .gguf(defect))
  }

  /// Makes sure that the next bytes are in the buffer, and passes them.
  /// - Returns: where in the buffer they are.
  private mutating func take(_ count: Int, _ what: String) throws(CheckpointError) -> Int {
    guard count <= fileSize - position else { throw error(.truncated(what: what)) }
    guard position + count <= GGUFHeader.sizeLimit else { throw error(.metadataTooLarge(limit: GGUFHeader.sizeLimit)) }
    if position + count > bufferStart + buffer.count {
      buffer = try read(position, min(max(count, Self.step), fileSize - position))
      bufferStart = position
    }
    defer { position += count }
    return position - bufferStart
  }

  mutating func bytes(_ count: Int, _ what: String) throws(CheckpointError) -> ArraySlice<UInt8> {
    let start = try take(count, what)
    return buffer[start..<(start + count)]
  }

  mutating func number<T: FixedWidthInteger>(_: T.Type, _ what: String) throws(CheckpointError) -> T {
    let width = T.bitWidth / 8
    let start = try take(width, what)
    var value: T = 0
    for index in 0..<width { value |= T(truncatingIfNeeded: buffer[start + index]) << (index * 8) }
    return value
  }

  mutating func string(_ what: String) throws(CheckpointError) -> ArraySlice<UInt8> {
    let count = try number(UInt64.self, what)
    guard count <= UInt64(fileSize - position) else { throw error(.truncated(what: what)) }
    return try bytes(Int(count), what)
  }

  /// A count of things that take at least so many bytes each.
  func checked(_ count: UInt64, _ what: String, least: Int) throws(CheckpointError) -> Int {
    let room = fileSize - position
    guard count <= UInt64(room / least) else { throw error(.count(what: what, count, room: room)) }
    return Int(count)
  }

  mutating func valueType(_ key: String) throws(CheckpointError) -> GGUFValueType {
    let number = try number(UInt32.self, "metadata key '\(key)'")
    guard let type = GGUFValueType(rawValue: number) else { throw error(.unknownValueType(key: key, number)) }
    return type
  }

  mutating func value(_ type: GGUFValueType, _ key: String) throws(CheckpointError) -> GGUFValue {
    let what = "metadata key '\(key)'"
    switch type {
    case .uint8: return .uint8(try number(UInt8.self, what))
    case .int8: return .int8(try number(Int8.self, what))
    case .uint16: return .uint16(try number(UInt16.self, what))
    case .int16: return .int16(try number(Int16.self, what))
    case .uint32: return .uint32(try number(UInt32.self, what))
    case .int32: return .int32(try number(Int32.self, what))
    case .float32: return .float32(Float(bitPattern: try number(UInt32.self, what)))
    case .bool:
      let byte = try number(UInt8.self, what)
      guard byte <= 1 else { throw error(.boolean(key: key, byte)) }
      return .bool(byte == 1)
    // A token may be a part of a character; what is not UTF-8 is shown as U+FFFD.
    case .string: return .string(String(decoding: try string(what), as: UTF8.self))
    case .uint64: return .uint64(try number(UInt64.self, what))
    case .int64: return .int64(try number(Int64.self, what))
    case .float64: return .float64(Double(bitPattern: try number(UInt64.self, what)))
    case .array:
      let elementType = try valueType(key)
      guard elementType != .array else { throw error(.nestedArray(key: key)) }
      let number = try number(UInt64.self, what)
      let count = try checked(number, "elements in \(what)", least: elementType.leastByteCount)
      elementCount += count
      guard elementCount <= GGUFHeader.elementLimit else {
        throw error(.tooManyElements(key: key, limit: GGUFHeader.elementLimit))
      }
      guard elementType == .string else { return .array(try numbers(elementType, count, key, what)) }
      var texts: [String] = []
      texts.reserveCapacity(count)
      for _ in 0..<count { texts.append(String(decoding: try string(what), as: UTF8.self)) }
      return .array(GGUFArray(texts: texts))
    }
  }

  /// Read in parts, so that the buffer stays small.
  private mutating func numbers(
    _ type: GGUFValueType, _ count: Int, _ key: String, _ what: String
  ) throws(CheckpointError) -> GGUFArray {
    let length = count * type.leastByteCount
    var numbers: [UInt8] = []
    numbers.reserveCapacity(length)
    while numbers.count < length { numbers += try bytes(min(Self.step, length - numbers.count), what) }
    if type == .bool, let byte = numbers.first(where: { $0 > 1 }) { throw error(.boolean(key: key, byte)) }
    return GGUFArray(type, bytes: numbers)
  }
}
