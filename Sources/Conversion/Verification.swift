import Checkpoints
import Kernels
import Packing
import Quantization
import Synchronization
import SystemPackage

/// Checks that what is stored is whole.
///
/// - A packed folder: sizes, and the SHA-256 of each tensor, so that every byte is the one that was written.
/// - A folder in a runtime's layout, or a GGUF file, for which no hashes are recorded: names, types, shapes and sizes, which
///   opening checks, and that every tensor decodes to finite values.
package struct Verification: Sendable {
  private enum Content: Sendable {
    case packed(PackedCheckpoint)
    case layout(LayoutCheckpoint)
    case gguf(GGUFFile)
  }

  private let content: Content
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    self.workers = workers
    if GGUFFile.isGGUF(path) {
      content = .gguf(try GGUFFile(path))
      return
    }
    switch try QuantizedCheckpoint(path) {
    case .packed(let packed): content = .packed(packed)
    case .layout(let layout): content = .layout(layout)
    }
  }

  package struct Result: Hashable, Sendable {
    package let tensorCount: Int
    /// Whether bytes were compared with recorded hashes.
    package let hasHashes: Bool
    /// Stored tensors whose bytes differ from what the manifest says; without hashes, tensors that are not finite.
    package let damaged: [String]
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  /// - Throws: for tensors whose parts contradict each other.
  package func run(goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> Result {
    switch content {
    case .packed(let packed): try compareHashes(packed, goOn)
    case .layout(let layout): try decode(layout, goOn)
    case .gguf(let file): try decode(file, goOn)
    }
  }

  private func compareHashes(
    _ packed: PackedCheckpoint, _ goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> Result {
    let members = packed.manifest.codebooks + packed.manifest.records.flatMap(\.members)
    let progress = ProgressCounter(total: members.reduce(0) { $0 + $1.byteCount }, stage: "verifying", report: goOn)
    let damaged = Mutex<[String]>([])
    let schedule = Schedule(tileCounts: members.map { _ in [1] }, files: members.map { _ in 0 })
    try schedule.run(workers: workers, makeState: { [UInt8]() }) { item, buffer in
      let member = members[item.tensor]
      guard let tensor = packed.checkpoint[member.tensor] else { return }
      if try sha256(of: tensor, using: &buffer) != member.sha256 { damaged.withLock { $0.append(member.tensor) } }
      try progress.add(member.byteCount)
    }
    return Result(tensorCount: members.count, hasHashes: true, damaged: damaged.withLock { $0.sorted() })
  }

  /// Elements that are decoded at a time, a multiple of every block.
  private static let partLength = 1 << 20

  private func decode(
    _ layout: LayoutCheckpoint, _ goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> Result {
    let records = layout.records
    let progress = ProgressCounter(total: records.reduce(0) { $0 + $1.storedByteCount }, report: goOn)
    let damaged = Mutex<[String]>([])
    try runParallel(
      count: records.count, workers: workers, makeState: { (bytes: [UInt8](), values: [Float]()) }
    ) { index, state in
      let record = records[index]
      // Whole numbers, which transformers' checkpoints have for positions, are finite.
      let isFloat = record.tensor?.entry.type.isFloatingPoint ?? true
      for start in stride(from: 0, to: isFloat ? record.elementCount : 0, by: Self.partLength) {
        let part = start..<min(start + Self.partLength, record.elementCount)
        try layout.decode(record, part, into: &state.values, bytes: &state.bytes)
        if firstNonFinite(state.values.span.extracting(..<part.count)) != nil {
          damaged.withLock { $0.append(record.name) }
          break
        }
      }
      try progress.add(record.storedByteCount)
    }
    return Result(tensorCount: records.count, hasHashes: false, damaged: damaged.withLock { $0.sorted() })
  }

  private static func decode(_ bytes: [UInt8], _ count: Int, _ type: BlockType, into values: inout [Float]) {
    values.resize(to: count / type.blockBytes * type.blockLength)
    var target = values.mutableSpan
    decodeBlocks(bytes.span.extracting(..<count), as: type, into: &target)
  }

  private func decode(_ file: GGUFFile, _ goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> Result {
    // The others are listed by `inspect`; their sizes were checked with the header.
    let tensors = file.header.tensors.filter(\.type.isReadable)
    let progress = ProgressCounter(total: tensors.reduce(0) { $0 + $1.bytes.count }, report: goOn)
    let damaged = Mutex<[String]>([])
    try runParallel(
      count: tensors.count, workers: workers, makeState: { (bytes: [UInt8](), values: [Float]()) }
    ) { index, state in
      let tensor = tensors[index]
      let length = Self.partLength / tensor.type.blockLength * tensor.type.blockBytes
      for start in stride(from: 0, to: tensor.bytes.count, by: length) {
        let part = start..<min(start + length, tensor.bytes.count)
        try file.read(part, of: tensor, into: &state.bytes)
        let bytes = state.bytes
        Self.decode(bytes, part.count, tensor.type, into: &state.values)
        if firstNonFinite(state.values.span) != nil {
          damaged.withLock { $0.append(tensor.name) }
          break
        }
      }
      try progress.add(tensor.bytes.count)
    }
    return Result(
      tensorCount: file.header.tensors.count, hasHashes: false, damaged: damaged.withLock { $0.sorted() })
  }
}
