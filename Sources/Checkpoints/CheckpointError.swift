import Kernels

/// A defect of a checkpoint or a failure to read it: which file, which tensor, what was found, what to do.
package struct CheckpointError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    // Finding and reading
    case notFound
    case notReadable(String)
    case isDirectory
    case noSafetensors
    case readFailed(String)
    case fileShrank(expected: Int, found: Int)
    // JSON
    case invalidJSON(String)
    case notAnObject
    // Safetensors
    case tooShort(bytes: Int)
    case headerTooLarge(bytes: UInt64, limit: Int)
    case headerBeyondEnd(header: UInt64, file: Int)
    case headerStart(UInt8)
    case metadata(String)
    case field(String, expected: String)
    case unknownType(String)
    case shapeOverflow([UInt64])
    case partialByte(bits: Int)
    case sizeMismatch(type: String, shape: [Int], expected: Int, found: Int)
    case reversedOffsets(begin: Int, end: Int)
    case overlap(with: String)
    case gap(from: Int, to: Int)
    case dataTruncated(expected: Int, found: Int)
    case trailingData(bytes: Int)
    // Index
    case noWeightMap
    case emptyWeightMap
    case unsafeShardName(String)
    case missingShard(String)
    case notInShard(String)
    case notInIndex(shard: String)
    case inTwoShards(String, String)
    // Values
    case unreadableType(ElementType)
    case gguf(GGUFDefect)
  }

  /// The file as the user may find it.
  package let file: String
  package let tensor: String?
  package let reason: Reason

  package init(file: String, tensor: String? = nil, _ reason: Reason) {
    self.file = file
    self.tensor = tensor
    self.reason = reason
  }

  /// True where the file is missing or unreadable, as opposed to malformed.
  package var isMissingInput: Bool {
    switch reason {
    case .notFound, .notReadable: true
    default: false
    }
  }

  /// True where the device or the file system failed.
  package var isReadFailure: Bool { if case .readFailed = reason { true } else { false } }

  package var description: String {
    let place = tensor.map { "\(file.printable): tensor '\($0.printable)': " } ?? "\(file.printable): "
    return place + explanation
  }

  private var explanation: String {
    let again = "The file looks damaged or incomplete: fetch it again"
    return switch reason {
    case .notFound: "no such file or folder"
    case .notReadable(let why): "cannot be opened: \(why)"
    case .isDirectory: "is a folder where a file is expected"
    case .noSafetensors:
      "the folder holds no safetensors checkpoint: expected model.safetensors, model.safetensors.index.json or one"
        + " .safetensors file"
    case .readFailed(let why): "reading failed: \(why)"
    case .fileShrank(let expected, let found):
      "the file changed while it was read: expected \(expected) bytes at this place, found \(found)"
    case .invalidJSON(let what): "invalid JSON: \(what)"
    case .notAnObject: "expected a JSON object at the top level, found something else"
    case .tooShort(let bytes):
      "truncated: \(bytes) bytes, too short for a safetensors file, which begins with an 8-byte header length. \(again)"
    case .headerTooLarge(let bytes, let limit):
      "the header claims \(bytes) bytes, more than the limit of \(limit): this is not a safetensors file, or a damaged one"
    case .headerBeyondEnd(let header, let file):
      "truncated: the header claims \(header) bytes, but the file ends after \(max(0, file - 8)). \(again)"
    case .headerStart(let byte): "the header must start with '{', found byte \(byte): this is not a safetensors file"
    case .metadata(let what): "'__metadata__' must be an object of strings: \(what)"
    case .field(let name, let expected): "'\(name)' must be \(expected)"
    case .unknownType(let name):
      "unknown dtype '\(name)'; known are \(ElementType.allCases.map(\.rawValue).joined(separator: ", "))"
    case .shapeOverflow(let shape): "shape \(shape) overflows: it has more elements than any file can hold"
    case .partialByte(let bits): "its size of \(bits) bits is not divisible by 8"
    case .sizeMismatch(let type, let shape, let expected, let found):
      "size mismatch: \(type) \(shape) takes \(expected) bytes, its data_offsets span \(found)"
    case .reversedOffsets(let begin, let end): "data_offsets end (\(end)) before they begin (\(begin))"
    case .overlap(let other): "its bytes overlap those of tensor '\(other.printable)'"
    case .gap(let from, let to):
      "a gap: bytes \(from) to \(to) of the data belong to no tensor (offsets must be contiguous and start at 0)"
    case .dataTruncated(let expected, let found):
      "truncated: the header describes \(expected) bytes of data, the file holds \(found). \(again)"
    case .trailingData(let bytes): "\(bytes) trailing bytes follow the last tensor. \(again)"
    case .noWeightMap: "the index has no 'weight_map' object"
    case .emptyWeightMap: "the 'weight_map' of the index is empty"
    case .unsafeShardName(let name):
      "the index names the shard '\(name.printable)'; a shard must be a plain .safetensors file name in the"
        + " folder of the index"
    case .missingShard(let name):
      "the index names the shard '\(name.printable)', which is missing. Fetch it, and try again"
    case .notInShard(let shard):
      "the index places it in shard '\(shard.printable)', which has no such tensor: index and shards do not belong together"
    case .notInIndex(let shard):
      "it is in shard '\(shard.printable)' but not in the index: index and shards do not belong together"
    case .inTwoShards(let first, let second):
      "duplicate: it is in shard '\(first.printable)' and again in '\(second.printable)'"
    case .unreadableType(let type): "values of dtype \(type.rawValue) cannot be read as numbers here"
    case .gguf(let defect): defect.description
    }
  }
}

extension String {
  /// The text on one line: control characters, line separators among them, are shown as escapes.
  package var printable: String {
    var result = ""
    for scalar in unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .lineSeparator, .paragraphSeparator, .format: result += scalar.escaped(asASCII: true)
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
