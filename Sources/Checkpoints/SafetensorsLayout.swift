import Kernels
import OrderedCollections

/// A tensor to be written: what a safetensors header says of it.
package struct TensorSpecification: Hashable, Sendable {
  package let name: String
  package let type: ElementType
  package let shape: [Int]

  package init(name: String, type: ElementType, shape: [Int]) {
    self.name = name
    self.type = type
    self.shape = shape
  }

  package var byteCount: Int { shape.reduce(1, *) * type.bitWidth / 8 }
}

/// Where every byte of a safetensors file goes, known before the first is written.
///
/// As the reference library does, the header is padded to a multiple of eight bytes and tensors stand in falling
/// order of their alignment, then by name, so that each is naturally aligned.
package struct SafetensorsLayout: Sendable {
  /// The length field and the header text.
  package let head: [UInt8]
  /// Absolute offset of each tensor's first byte.
  package let offsets: OrderedDictionary<String, Int>
  package let fileSize: Int

  package init(_ tensors: [TensorSpecification], metadata: OrderedDictionary<String, String>) {
    let ordered = tensors.sorted {
      ($1.type.bitWidth, $0.type.rawValue, $0.name) < ($0.type.bitWidth, $1.type.rawValue, $1.name)
    }
    var members: OrderedDictionary<String, JSONValue> = [:]
    members[SafetensorsHeader.metadataKey] = .object(metadata.mapValues { .string($0) })
    var end = 0
    var starts: OrderedDictionary<String, Int> = [:]
    for tensor in ordered {
      starts[tensor.name] = end
      members[tensor.name] = [
        "dtype": .string(tensor.type.rawValue),
        "shape": .array(tensor.shape.map { .integer($0) }),
        "data_offsets": [.integer(end), .integer(end + tensor.byteCount)],
      ]
      end += tensor.byteCount
    }
    var text = Array(JSONValue.object(members).text().utf8)
    text.append(contentsOf: repeatElement(0x20, count: (8 - text.count % 8) % 8))
    head = (0..<8).map { UInt8(truncatingIfNeeded: text.count >> ($0 * 8)) } + text
    let dataStart = head.count
    offsets = starts.mapValues { $0 + dataStart }
    fileSize = dataStart + end
  }
}
