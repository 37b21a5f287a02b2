import Kernels
import OrderedCollections

/// One tensor of a safetensors file, as its header describes it.
package struct TensorEntry: Hashable, Sendable {
  package let name: String
  package let type: ElementType
  package let shape: [Int]
  /// Byte range relative to the start of the file.
  package let bytes: Range<Int>

  package init(name: String, type: ElementType, shape: [Int], bytes: Range<Int>) {
    self.name = name
    self.type = type
    self.shape = shape
    self.bytes = bytes
  }

  package var elementCount: Int { shape.reduce(1, *) }
}

/// The header of a safetensors file, parsed and validated as a whole before any data is touched.
///
/// At least as strict as the reference reader (safetensors 0.8), which besides accepts duplicate names.
package struct SafetensorsHeader: Hashable, Sendable {
  /// `__metadata__`, empty if the file has none.
  package let metadata: OrderedDictionary<String, String>
  /// In the order of their data.
  package let tensors: [TensorEntry]
  /// Bytes before the data: the length field and the header text.
  package let dataStart: Int
  package let fileSize: Int

  package static let sizeLimit = 100_000_000
  static let metadataKey = "__metadata__"

  /// - Parameters:
  ///   - text: the header's JSON, without the length field.
  ///   - fileSize: bytes of the whole file.
  ///   - file: the name for error messages.
  package init(text: [UInt8], fileSize: Int, file: String) throws(CheckpointError) {
    if let first = text.first, first != UInt8(ascii: "{") { throw CheckpointError(file: file, .headerStart(first)) }
    let document: JSONValue
    do {
      document = try JSONParser.parse(text)
    } catch {
      throw CheckpointError(file: file, .invalidJSON("the header: \(error)"))
    }
    guard let members = document.object else { throw CheckpointError(file: file, .notAnObject) }
    dataStart = 8 + text.count
    self.fileSize = fileSize
    metadata = try Self.metadata(members[Self.metadataKey], file: file)
    var entries: [TensorEntry] = []
    entries.reserveCapacity(members.count)
    for (name, description) in members where name != Self.metadataKey {
      entries.append(try Self.entry(name, description, dataStart: dataStart, file: file))
    }
    // Zero-size tensors share their offset with a neighbour, and come before it.
    entries.sort { ($0.bytes.lowerBound, $0.bytes.upperBound) < ($1.bytes.lowerBound, $1.bytes.upperBound) }
    tensors = entries
    try validateRanges(file: file)
  }

  private static func metadata(
    _ value: JSONValue?, file: String
  ) throws(CheckpointError) -> OrderedDictionary<String, String> {
    guard let value, value != .null else { return [:] }
    guard let members = value.object else { throw CheckpointError(file: file, .metadata("it is not an object")) }
    var result: OrderedDictionary<String, String> = [:]
    for (key, value) in members {
      guard let text = value.string else {
        throw CheckpointError(file: file, .metadata("the value of '\(key.printable)' is not a string"))
      }
      result[key] = text
    }
    return result
  }

  private static func entry(
    _ name: String, _ description: JSONValue, dataStart: Int, file: String
  ) throws(CheckpointError) -> TensorEntry {
    func fault(_ reason: CheckpointError.Reason) -> CheckpointError {
      CheckpointError(file: file, tensor: name, reason)
    }
    guard let fields = description.object else { throw fault(.field("the entry", expected: "an object")) }
    guard let typeName = fields["dtype"]?.string else { throw fault(.field("dtype", expected: "a string")) }
    guard let type = ElementType(rawValue: typeName) else { throw fault(.unknownType(typeName)) }
    let sizes = "a list of integers from 0 to 2^64 - 1"
    guard let shape = unsignedList(fields["shape"]) else { throw fault(.field("shape", expected: sizes)) }
    guard let offsets = unsignedList(fields["data_offsets"]), offsets.count == 2 else {
      throw fault(.field("data_offsets", expected: "two integers from 0 to 2^64 - 1"))
    }
    guard let bits = bitCount(shape, type) else { throw fault(.shapeOverflow(shape)) }
    guard bits % 8 == 0 else { throw fault(.partialByte(bits: bits)) }
    // Limits keep every later sum of offsets within range; no file is that large.
    guard let begin = Int(exactly: offsets[0]), let end = Int(exactly: offsets[1]), max(begin, end) < 1 << 62 else {
      throw fault(.field("data_offsets", expected: "offsets within the file (2^62 at most)"))
    }
    guard begin <= end else { throw fault(.reversedOffsets(begin: begin, end: end)) }
    guard end - begin == bits / 8 else {
      let shape = shape.map { Int($0) }
      throw fault(.sizeMismatch(type: typeName, shape: shape, expected: bits / 8, found: end - begin))
    }
    return TensorEntry(
      name: name, type: type, shape: shape.map { Int($0) }, bytes: (dataStart + begin)..<(dataStart + end))
  }

  /// Bits of a tensor; nil where the product of its sizes, taken without zeros so that none hides an overflow, is beyond
  /// what any file can hold. What passes can be multiplied in any order.
  private static func bitCount(_ shape: [UInt64], _ type: ElementType) -> Int? {
    var bits = UInt64(type.bitWidth)
    for size in shape {
      let (product, overflow) = bits.multipliedReportingOverflow(by: max(size, 1))
      guard !overflow, product < 1 << 60 else { return nil }
      bits = product
    }
    return shape.contains(0) ? 0 : Int(bits)
  }

  private static func unsignedList(_ value: JSONValue?) -> [UInt64]? {
    guard let items = value?.array else { return nil }
    let numbers = items.compactMap(\.unsigned)
    return numbers.count == items.count ? numbers : nil
  }

  /// Ranges must follow one another from the start of the data to the end of the file.
  private func validateRanges(file: String) throws(CheckpointError) {
    var end = dataStart
    var previous = ""
    for entry in tensors {
      let begin = entry.bytes.lowerBound
      if begin < end { throw CheckpointError(file: file, tensor: entry.name, .overlap(with: previous)) }
      if begin > end {
        throw CheckpointError(file: file, tensor: entry.name, .gap(from: end - dataStart, to: begin - dataStart))
      }
      end = entry.bytes.upperBound
      previous = entry.name
    }
    if end > fileSize {
      throw CheckpointError(file: file, .dataTruncated(expected: end - dataStart, found: fileSize - dataStart))
    }
    if end < fileSize { throw CheckpointError(file: file, .trailingData(bytes: fileSize - end)) }
  }
}
