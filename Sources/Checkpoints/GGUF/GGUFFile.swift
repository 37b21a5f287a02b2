import Kernels
import SystemPackage

/// An open GGUF file: its validated header, and its data read by range.
package final class GGUFFile: Sendable {
  package let path: FilePath
  package let header: GGUFHeader
  package let fileSize: Int
  private let descriptor: FileDescriptor
  private let positions: [String: Int]

  package init(_ path: FilePath) throws(CheckpointError) {
    let (descriptor, size) = try openForReading(path)
    do {
      header = try GGUFHeader(fileSize: size, file: path.string) { (offset, count) throws(CheckpointError) in
        var bytes = [UInt8](repeating: 0, count: count)
        try readExactly(descriptor, at: offset, count: count, into: &bytes, file: path.string, tensor: nil)
        return bytes
      }
    } catch {
      try? descriptor.close()
      throw error
    }
    self.path = path
    self.descriptor = descriptor
    fileSize = size
    positions = Dictionary(uniqueKeysWithValues: header.tensors.enumerated().map { ($1.name, $0) })
  }

  deinit { try? descriptor.close() }

  /// Whether a file begins as GGUF files do; false where it cannot be read.
  package static func isGGUF(_ path: FilePath) -> Bool {
    guard let (descriptor, size) = try? openForReading(path) else { return false }
    defer { try? descriptor.close() }
    var start = [UInt8](repeating: 0, count: 4)
    return size >= 4 && (try? descriptor.readFully(at: 0, count: 4, into: &start)) == 4 && start == Array("GGUF".utf8)
  }

  package subscript(name: String) -> GGUFTensor? { positions[name].map { header.tensors[$0] } }

  /// Reads a part of a tensor into the front of a reused buffer, which grows if it must.
  /// - Parameter range: bytes relative to the tensor's first.
  package func read(_ range: Range<Int>, of tensor: GGUFTensor, into buffer: inout [UInt8]) throws(CheckpointError) {
    precondition(range.lowerBound >= 0 && range.upperBound <= tensor.bytes.count)
    if buffer.count < range.count { buffer = [UInt8](repeating: 0, count: range.count) }
    try readExactly(
      descriptor, at: tensor.bytes.lowerBound + range.lowerBound, count: range.count, into: &buffer, file: path.string,
      tensor: tensor.name)
  }
}
