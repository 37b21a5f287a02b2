import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import SystemPackage

/// The repository's own test data.
package enum Fixtures {
  package static let folder = FilePath(#filePath).removingLastComponent().removingLastComponent()
    .removingLastComponent().appending("Fixtures")

  package static func path(_ name: String) -> FilePath { folder.pushing(FilePath(name)) }

  package static func json(_ name: String) throws -> JSONValue {
    try JSONParser.parse(readWhole(path(name)))
  }

  /// A trained model outside the repository; nil where the machine does not have it, and then the test is skipped.
  package static func shared(_ name: String) -> FilePath? {
    let path = folder.removingLastComponent().removingLastComponent().appending("shared").pushing(FilePath(name))
    return FileManager.default.fileExists(atPath: path.string) ? path : nil
  }
}

/// A folder that is removed with the value.
package final class TemporaryFolder: Sendable {
  package let path: FilePath

  package init() throws {
    let name = FilePath(FileManager.default.temporaryDirectory.path).appending("convert-model-\(UUID().uuidString)")
    try FileManager.default.createDirectory(atPath: name.string, withIntermediateDirectories: true)
    path = name
  }

  deinit { try? FileManager.default.removeItem(atPath: path.string) }

  package func appending(_ name: String) -> FilePath { path.appending(name) }

  package func write(_ bytes: [UInt8], to name: String) throws {
    try Data(bytes).write(to: URL(fileURLWithPath: path.appending(name).string))
  }
}

/// A tensor for a test checkpoint.
package struct SampleTensor {
  package let specification: TensorSpecification
  package let bytes: [UInt8]

  /// A weight with these values, stored as `type`.
  package init(_ name: String, _ shape: [Int], _ values: [Float], as type: ElementType = .f32) {
    var bytes: [UInt8] = []
    let count = encodeElements(values, as: type, into: &bytes)
    specification = TensorSpecification(name: name, type: type, shape: shape)
    self.bytes = Array(bytes.prefix(count))
  }

  package init(_ name: String, _ shape: [Int], type: ElementType, bytes: [UInt8]) {
    specification = TensorSpecification(name: name, type: type, shape: shape)
    self.bytes = bytes
  }

  /// Writes a safetensors file of such tensors.
  package static func write(_ tensors: [SampleTensor], to path: FilePath) throws {
    let layout = SafetensorsLayout(tensors.map(\.specification), metadata: ["format": "pt"])
    var file = layout.head + [UInt8](repeating: 0, count: layout.fileSize - layout.head.count)
    for tensor in tensors {
      guard let start = layout.offsets[tensor.specification.name] else { continue }
      file.replaceSubrange(start..<(start + tensor.bytes.count), with: tensor.bytes)
    }
    try Data(file).write(to: URL(fileURLWithPath: path.string))
  }
}

/// All elements of a tensor of a checkpoint, as float32.
package func allValues(_ tensor: CheckpointTensor) throws -> [Float] {
  var bytes: [UInt8] = []
  try tensor.readBytes(0..<tensor.entry.bytes.count, into: &bytes)
  var values = [Float](repeating: 0, count: tensor.entry.elementCount)
  var span = values.mutableSpan
  decodeElements(bytes.span.bytes, as: tensor.entry.type, into: &span)
  return values
}

package func allBytes(_ tensor: CheckpointTensor) throws -> [UInt8] {
  var bytes: [UInt8] = []
  try tensor.file.read(0..<tensor.entry.bytes.count, of: tensor.entry, into: &bytes)
  return Array(bytes.prefix(tensor.entry.bytes.count))
}
