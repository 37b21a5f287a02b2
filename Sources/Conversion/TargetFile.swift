import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// A safetensors file being written by several threads, each to places of its own.
final class TargetFile: Sendable {
  private let name: String
  private let layout: SafetensorsLayout
  private let descriptor: FileDescriptor
  /// By tensor; of those that are hashed as they are written.
  private let hashes: OrderedDictionary<String, WrittenHash>
  private let onFinished: @Sendable (_ tensor: String, _ hash: String) throws(ConversionError) -> Void

  /// Creates the file in its full size, with its header, or opens one that an interrupted run has left.
  /// - Parameters:
  ///   - hashing: the tensors to hash as they are written.
  ///   - onFinished: called from any thread when every byte of such a tensor has been written.
  init(
    _ name: String, layout: SafetensorsLayout, in folder: OutputFolder, hashing: [TensorSpecification] = [],
    onFinished: @escaping @Sendable (_ tensor: String, _ hash: String) throws(ConversionError) -> Void = { _, _ in }
  ) throws(ConversionError) {
    self.name = folder.path.appending(name).string
    self.layout = layout
    self.onFinished = onFinished
    hashes = OrderedDictionary(
      uniqueKeysWithValues: hashing.map { ($0.name, WrittenHash(byteCount: $0.byteCount)) })
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
    guard let hash = hashes[tensor] else { return }
    let isFinished = try hash.add(bytes, count, at: offset) { (part, buffer) throws(ConversionError) in
      try readBack(start + part.lowerBound, part.count, into: &buffer)
    }
    if isFinished { try onFinished(tensor, hash.value()) }
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
