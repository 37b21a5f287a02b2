import Checkpoints
import Kernels
import OrderedCollections
import Synchronization
import SystemPackage

/// Bytes of a tensor that a journal tells of, at their place in a file of the run.
struct RecordedMember: Sendable {
  /// Whose member it is.
  let tensor: String
  let file: FilePath
  let range: Range<Int>
  /// SHA-256, as recorded; empty where nothing was.
  let hash: String

  /// The tensors all of whose members have the hashes that were recorded.
  /// - Parameter onProgress: bytes on disk that were checked; called from any thread, one call at a time; false stops.
  static func confirmedTensors(
    _ members: [RecordedMember], workers: Int, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> Set<String> {
    let broken = Mutex<Set<String>>([])
    let progress = ProgressCounter(
      total: members.reduce(0) { $0 + $1.range.count }, stage: "checking", report: onProgress)
    try runParallel(count: members.count, workers: workers, makeState: { [UInt8]() }) { index, buffer in
      let member = members[index]
      if sha256(ofFile: member.file, member.range, using: &buffer) != member.hash {
        broken.withLock { _ = $0.insert(member.tensor) }
      }
      try progress.add(member.range.count)
    }
    return Set(members.map(\.tensor)).subtracting(broken.withLock { $0 })
  }

  /// The hashes of tensors' members in a journal, by tensor and member.
  static func hashes(in entries: [JSONValue]) -> [String: [String: String]] {
    var recorded: [String: [String: String]] = [:]
    for entry in entries {
      guard let name = entry[FinishedWork.Key.tensor]?.string, let found = entry[FinishedWork.Key.hashes]?.object
      else { continue }
      recorded[name] = Dictionary(uniqueKeysWithValues: found.compactMapValues(\.string).map { ($0, $1) })
    }
    return recorded
  }
}
