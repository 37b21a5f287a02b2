import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// A safetensors file being written by several threads, each to places of its own.
final class TargetFile: Sendable {
  private let name: String
  private let layout: SafetensorsLayout
  private let descriptor: FileDescriptor

  /// Creates the file in its full size, with its header.
  init(_ name: String, layout: SafetensorsLayout, in folder: OutputFolder) throws(ConversionError) {
    self.name = folder.path.appending(name).string
    self.layout = layout
    descriptor = try folder.create(name)
    do {
      try descriptor.resize(to: Int64(layout.fileSize))
    } catch {
      throw .writeFailed(self.name, "\(error)")
    }
    try write(layout.head, count: layout.head.count, at: 0)
  }

  deinit { try? descriptor.close() }

  /// Writes `bytes[0..<count]` at an offset within a tensor.
  func write(_ tensor: String, offset: Int, _ bytes: [UInt8], _ count: Int) throws(ConversionError) {
    try write(bytes, count: count, at: start(of: tensor) + offset)
  }

  private func write(_ bytes: [UInt8], count: Int, at offset: Int) throws(ConversionError) {
    do {
      try descriptor.writeFully(bytes, count: count, at: offset)
    } catch {
      throw .writeFailed(name, error.description)
    }
  }

  /// SHA-256 of a tensor as the file holds it, read back.
  func hash(_ tensor: TensorSpecification) throws(ConversionError) -> String {
    let start = start(of: tensor.name)
    do {
      return try sha256(of: descriptor, start..<(start + tensor.byteCount))
    } catch {
      throw .writeFailed(name, "reading it back: \(error.description)")
    }
  }

  private func start(of tensor: String) -> Int {
    guard let start = layout.offsets[tensor] else { preconditionFailure("'\(tensor)' is not in the layout of \(name)") }
    return start
  }

  func flush() throws(ConversionError) {
    do {
      try descriptor.flush()
    } catch {
      throw .writeFailed(name, error.description)
    }
  }
}
