import Checkpoints
import Crypto
import Kernels
import SystemPackage

extension Checkpoint {
  private static let sampleLength = 4096

  /// What tells a model from others: SHA-256, in lower-case hexadecimal, over every tensor in order of its name: its name,
  /// type and shape, and its first and last 4096 bytes. How tensors are spread over files does not matter.
  ///
  /// A sample, so that a large model is not read once more: models trained apart differ in it, a few weights changed in
  /// the middle of a tensor do not show.
  package func identity() throws(CheckpointError) -> String {
    var hasher = SHA256()
    var buffer: [UInt8] = []
    for tensor in tensors.sorted(by: { $0.name < $1.name }) {
      let entry = tensor.entry
      hasher.update(data: Array("\(entry.name)\n\(entry.type.rawValue) \(entry.shape)\n".utf8))
      let size = entry.bytes.count
      let head = 0..<min(size, Self.sampleLength)
      for range in [head, max(head.upperBound, size - Self.sampleLength)..<size] where !range.isEmpty {
        try tensor.file.read(range, of: entry, into: &buffer)
        hasher.update(data: buffer[..<range.count])
      }
    }
    return hexadecimal(hasher.finalize())
  }
}
