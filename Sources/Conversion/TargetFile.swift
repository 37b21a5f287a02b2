import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// A safetensors file being written by several threads, each to places of its own.
final class TargetFile: Sendable {
  private let name: String
  private let layout: SafetensorsLayout
  private let descriptor: FileDescriptor
  /// By tensor; empty if hashes are not asked for.
  private let hashes: OrderedDictionary<String, WrittenHash>

  /// Creates the file in its full size, with its header.
  /// - Parameter hashing: whether to hash the tensors as they are written.
  init(
    _ name: String, layout: SafetensorsLayout, in folder: OutputFolder, hashing: Bool = false
  ) throws(ConversionError) {
    self.name = folder.path.appending(name).string
    self.layout = layout
    hashes = hashing ? layout.offsets.mapValues { _ in WrittenHash() } : [:]
    descriptor = try folder.create(name)
    do {
      try descriptor.allocate(layout.fileSize)
    } catch {
      throw .writeFailed(self.name, error.description)
    }
    try write(layout.head, count: layout.head.count, at: 0)
  }

  deinit { try? descriptor.close() }

  /// Writes `bytes[0..<count]` at an offset within a tensor.
  func write(_ tensor: String, offset: Int, _ bytes: [UInt8], _ count: Int) throws(ConversionError) {
    let start = start(of: tensor)
    try write(bytes, count: count, at: start + offset)
    try hashes[tensor]?.add(bytes, count, at: offset) { (part, buffer) throws(ConversionError) in
      try readBack(start + part.lowerBound, part.count, into: &buffer)
    }
  }

  private func write(_ bytes: [UInt8], count: Int, at offset: Int) throws(ConversionError) {
    do {
      try descriptor.writeFully(bytes, count: count, at: offset)
    } catch {
      throw .writeFailed(name, error.description)
    }
  }

  private func readBack(_ offset: Int, _ count: Int, into buffer: inout [UInt8]) throws(ConversionError) {
    let got: Int
    do {
      got = try descriptor.readFully(at: offset, count: count, into: &buffer)
    } catch {
      throw .writeFailed(name, "reading it back: \(error.description)")
    }
    guard got == count else { throw .writeFailed(name, "it was cut while it was written") }
  }

  /// The SHA-256 of every tensor by name, once all their bytes have been written.
  func finishedHashes() -> [String: String] {
    Dictionary(uniqueKeysWithValues: hashes.map { ($0, $1.value()) })
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
