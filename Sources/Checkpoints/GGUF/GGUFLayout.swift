import Kernels
import OrderedCollections

/// A tensor to be written to a GGUF file.
package struct GGUFSpecification: Hashable, Sendable {
  package let name: String
  package let type: BlockType
  /// The last dimension lies together.
  package let shape: [Int]

  /// - Precondition: rows are whole blocks, there are one to four dimensions, and the name has at most 63 bytes.
  package init(name: String, type: BlockType, shape: [Int]) {
    precondition((1...4).contains(shape.count) && (shape.last ?? 0) % type.blockLength == 0)
    precondition(name.utf8.count <= GGUFHeader.nameLimit)
    self.name = name
    self.type = type
    self.shape = shape
  }

  package var byteCount: Int { type.byteCount(of: shape.reduce(1, *)) }
}

/// Where every byte of a GGUF file goes, known before the first is written. Version 3, little-endian.
package struct GGUFLayout: Sendable {
  /// Mark, counts, metadata and tensor descriptions, padded to where the data begin.
  package let head: [UInt8]
  /// Absolute offset of each tensor's first byte.
  package let offsets: OrderedDictionary<String, Int>
  package let fileSize: Int

  package init(_ tensors: [GGUFSpecification], metadata: GGUFMetadata) {
    let alignment = metadata["general.alignment"]?.integer ?? GGUFHeader.defaultAlignment
    func aligned(_ count: Int) -> Int { (count + alignment - 1) / alignment * alignment }
    var bytes = Array("GGUF".utf8)
    bytes.append(littleEndian: UInt32(3))
    bytes.append(littleEndian: UInt64(tensors.count))
    bytes.append(littleEndian: UInt64(metadata.count))
    for (key, value) in metadata {
      bytes.append(gguf: key)
      bytes.append(littleEndian: value.type.rawValue)
      value.write(to: &bytes)
    }
    var starts: OrderedDictionary<String, Int> = [:]
    var end = 0
    for tensor in tensors {
      starts[tensor.name] = end
      bytes.append(gguf: tensor.name)
      bytes.append(littleEndian: UInt32(tensor.shape.count))
      for size in tensor.shape.reversed() { bytes.append(littleEndian: UInt64(size)) }
      bytes.append(littleEndian: tensor.type.id)
      bytes.append(littleEndian: UInt64(end))
      end = aligned(end + tensor.byteCount)
    }
    bytes.append(contentsOf: repeatElement(0, count: aligned(bytes.count) - bytes.count))
    head = bytes
    let dataStart = bytes.count
    offsets = starts.mapValues { $0 + dataStart }
    fileSize = dataStart + end
  }
}
