import Checkpoints
import Packing
import Synchronization
import SystemPackage

/// Checks that every stored byte of a packed folder is the one that was written: sizes, and the SHA-256 of each tensor.
package struct Verification: Sendable {
  private let packed: PackedCheckpoint
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    guard PackedCheckpoint.isPacked(path) else { throw ConversionError.notPacked(path.string) }
    packed = try PackedCheckpoint(path)
    self.workers = workers
  }

  package struct Result: Hashable, Sendable {
    package let tensorCount: Int
    /// Stored tensors whose bytes differ from what the manifest says.
    package let damaged: [String]
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  package func run(goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> Result {
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
    return Result(tensorCount: members.count, damaged: damaged.withLock { $0.sorted() })
  }
}
