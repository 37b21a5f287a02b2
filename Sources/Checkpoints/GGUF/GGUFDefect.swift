import Kernels

/// What can be wrong with a GGUF file; the reason of a `CheckpointError`, which names file and tensor.
package enum GGUFDefect: Hashable, Sendable, CustomStringConvertible {
  case notGGUF
  case bigEndian
  case version(UInt32)
  case truncated(what: String)
  case metadataTooLarge(limit: Int)
  case tooManyElements(key: String, limit: Int)
  case count(what: String, UInt64, room: Int)
  case emptyKey
  case keyNotText
  case duplicateKey(String)
  case unknownValueType(key: String, UInt32)
  case nestedArray(key: String)
  case boolean(key: String, UInt8)
  case alignment(String)
  case nameNotText
  case nameTooLong(Int)
  case duplicateTensor
  case dimensionCount(UInt32)
  case dimensionOverflow([UInt64])
  case unknownType(UInt32)
  case partialBlock(type: BlockType, columns: Int)
  case offset(found: UInt64, expected: Int)
  case dataBeyondEnd(expected: Int, found: Int)
  case unreadableType(BlockType)

  package var description: String {
    let again = "The file looks damaged or incomplete: fetch it again"
    return switch self {
    case .notGGUF: "does not begin with 'GGUF': this is no GGUF file"
    case .bigEndian:
      "is a big-endian GGUF file; only little-endian ones are read. Convert it first with llama.cpp's"
        + " gguf-convert-endian"
    case .version(let version): "is GGUF version \(version); versions 2 and 3 are read"
    case .truncated(let what): "ends within \(what). \(again)"
    case .metadataTooLarge(let limit): "metadata and tensor descriptions exceed the limit of \(limit) bytes. \(again)"
    case .tooManyElements(let key, let limit):
      "the arrays of the metadata have more than \(limit) elements at key '\(key.printable)'. \(again)"
    case .count(let what, let count, let room):
      "claims \(count) \(what), for which the \(room) bytes that follow have no room. \(again)"
    case .emptyKey: "a metadata key is empty. \(again)"
    case .keyNotText: "a metadata key is not text in UTF-8. \(again)"
    case .duplicateKey(let key): "the metadata key '\(key.printable)' occurs twice"
    case .unknownValueType(let key, let type):
      "the metadata key '\(key.printable)' has the unknown value type \(type); known are 0 to 12"
    case .nestedArray(let key): "the metadata key '\(key.printable)' holds an array of arrays, which the format lacks"
    case .boolean(let key, let byte): "the metadata key '\(key.printable)' holds a boolean that is \(byte), not 0 or 1"
    case .alignment(let found): "'general.alignment' is \(found), expected a power of two from 1 to 65536"
    case .nameNotText: "the name of a tensor is not text in UTF-8. \(again)"
    case .nameTooLong(let count): "the name of a tensor has \(count) bytes, the limit is 63"
    case .duplicateTensor: "two tensors have this name"
    case .dimensionCount(let count): "has \(count) dimensions, expected 1 to 4"
    case .dimensionOverflow(let dimensions):
      "dimensions \(dimensions) overflow: it has more elements than any file can hold"
    case .unknownType(let type): "has the unknown type number \(type). A newer program may have written it"
    case .partialBlock(let type, let columns):
      "rows of \(columns) values are no whole number of \(type.name) blocks of \(type.blockLength)"
    case .offset(let found, let expected):
      "its data begin at \(found), expected \(expected): tensors must follow one another without gaps"
    case .dataBeyondEnd(let expected, let found):
      "truncated: the tensors take \(expected) bytes, the file has \(found) after its metadata. \(again)"
    case .unreadableType(let type):
      "values of type \(type.name) cannot be decoded here; readable are"
        + " \(BlockType.known.map(\.name).joined(separator: ", "))"
    }
  }
}
