import Checkpoints
import Crypto
import Kernels
import OrderedCollections
import Packing
import Synchronization
import SystemPackage

/// What an interrupted run has done of a conversion, by its journal, as far as the bytes on disk bear it out.
struct FinishedWork: Sendable {
  /// A layer of a tensor, or of one expert in it.
  struct LayerKey: Hashable, Sendable {
    let tensor: String
    let expert: Int?
  }

  /// A calibration that goes block by block.
  struct Blocks: Sendable {
    var pass = BlockPass.Finished()
    var layers: [LayerOutcome] = []
    var learning: [LearningRecord] = []
  }

  /// A measurement of layers with outlier columns, block by block.
  struct Splits: Sendable {
    var pass = BlockPass.Finished()
    var outcomes: [SplitOutcome] = []
  }

  /// SHA-256 of the members of tensors that are done.
  private(set) var hashes: [String: String] = [:]
  private(set) var tensors: Set<String> = []
  /// Of quantized tensors that are done.
  private(set) var sums: [String: WrittenSums.Sums] = [:]
  private(set) var blocks = Blocks()
  /// Layers that were quantized one by one.
  private(set) var layers: [LayerKey: LayerOutcome] = [:]
  private(set) var splits = Splits()

  enum Key {
    static let tensor = "tensor"
    static let hashes = "hashes"
    static let codeSum = "code_sum"
    static let loss = "loss"
    static let layers = "layers"
    static let learning = "learning"
    static let tensors = "tensors"
    static let layer = "layer"
    static let splits = "splits"
  }

  init() {}

  /// - Parameters:
  ///   - entries: of the journal, after the first.
  ///   - onProgress: bytes on disk that were checked; called from any thread, one call at a time; false stops.
  init(
    _ entries: [JSONValue], of plan: Plan, in output: OutputFolder, workers: Int,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    try believe(RecordedMember.hashes(in: entries), plan, output, workers, onProgress)
    for entry in entries {
      if let name = entry[Key.tensor]?.string, tensors.contains(name), let codes = entry[Key.codeSum]?.integer,
        let loss = entry[Key.loss]?.array?.compactMap(\.double), loss.count == 3
      {
        sums[name] = WrittenSums.Sums(
          codes: codes, loss: LossSums(source: loss[0], decoded: loss[1], error: loss[2]))
      }
      if let layer = try? entry[Key.layer]?.decoded(as: LayerOutcome.self), tensors.contains(layer.tensor) {
        layers[LayerKey(tensor: layer.tensor, expert: layer.expert)] = layer
      }
    }
    blocks = finishedBlocks(entries, output, workers)
    splits = finishedSplits(entries, output, workers)
  }

  /// Takes in tensors whose bytes have the hashes that were recorded.
  private mutating func believe(
    _ recorded: [String: [String: String]], _ plan: Plan, _ output: OutputFolder, _ workers: Int,
    _ onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    var members: [RecordedMember] = []
    var names: [(tensor: String, member: String, hash: String)] = []
    for tensor in plan.tensors {
      guard let hashes = recorded[tensor.source.name] else { continue }
      let file = plan.files[tensor.source.fileIndex]
      for member in tensor.members.map(\.specification) where member.byteCount > 0 {
        let (start, hash) = (file.layout.offsets[member.name] ?? 0, hashes[member.name] ?? "")
        names.append((tensor.source.name, member.name, hash))
        members.append(
          RecordedMember(
            tensor: tensor.source.name, file: output.work.appending(file.name),
            range: start..<start + member.byteCount, hash: hash))
      }
    }
    tensors = try RecordedMember.confirmedTensors(members, workers: workers, onProgress: onProgress)
    for (tensor, member, hash) in names where tensors.contains(tensor) { hashes[member] = hash }
  }

  private func finishedBlocks(_ entries: [JSONValue], _ output: OutputFolder, _ workers: Int) -> Blocks {
    var blocks = Blocks()
    blocks.pass = BlockPass.quantizing.finished(entries, in: output, workers: workers) { entry in
      entry[Key.tensors]?.array.map { tensors.isSuperset(of: $0.compactMap(\.string)) } ?? false
    }
    for entry in blocks.pass.entries {
      guard let layers = try? entry[Key.layers]?.decoded(as: [LayerOutcome].self),
        let learning = try? entry[Key.learning]?.decoded(as: [LearningRecord].self)
      else { return Blocks() }
      blocks.layers += layers
      blocks.learning += learning
    }
    return blocks
  }

  private func finishedSplits(_ entries: [JSONValue], _ output: OutputFolder, _ workers: Int) -> Splits {
    var splits = Splits()
    splits.pass = BlockPass.splitting.finished(entries, in: output, workers: workers)
    for entry in splits.pass.entries {
      guard let outcomes = try? entry[Key.splits]?.decoded(as: [SplitOutcome].self) else { return Splits() }
      splits.outcomes += outcomes
    }
    return splits
  }
}

/// Records tensors in a journal when all their bytes have been written.
final class TensorLog: Sendable {
  private struct Unfinished {
    var left: Int
    var hashes: OrderedDictionary<String, JSONValue> = [:]
  }

  private let journal: Journal
  private let sums: WrittenSums
  private let owners: [String: String]
  private let unfinished: Mutex<[String: Unfinished]>

  init(_ plan: Plan, _ journal: Journal, _ sums: WrittenSums) {
    self.journal = journal
    self.sums = sums
    var owners: [String: String] = [:]
    var unfinished: [String: Unfinished] = [:]
    for tensor in plan.tensors {
      let members = tensor.members.map(\.specification).filter { $0.byteCount > 0 }
      for member in members { owners[member.name] = tensor.source.name }
      unfinished[tensor.source.name] = Unfinished(left: members.count)
    }
    self.owners = owners
    self.unfinished = Mutex(unfinished)
  }

  func finish(_ member: String, hash: String) throws(ConversionError) {
    guard let tensor = owners[member] else { return }
    let hashes = unfinished.withLock { unfinished -> OrderedDictionary<String, JSONValue>? in
      guard var entry = unfinished[tensor] else { return nil }
      entry.hashes[member] = .string(hash)
      entry.left -= 1
      unfinished[tensor] = entry.left == 0 ? nil : entry
      return entry.left == 0 ? entry.hashes : nil
    }
    guard let hashes else { return }
    var entry: OrderedDictionary<String, JSONValue> = [
      FinishedWork.Key.tensor: .string(tensor), FinishedWork.Key.hashes: .object(hashes),
    ]
    if let sums = sums[tensor] {
      entry[FinishedWork.Key.codeSum] = .integer(sums.codes)
      entry[FinishedWork.Key.loss] = .array([sums.loss.source, sums.loss.decoded, sums.loss.error].map { .real($0) })
    }
    try journal.append(.object(entry))
  }
}

/// SHA-256, in lower-case hexadecimal, of a range of a file; nil where the file does not have it.
func sha256(ofFile path: FilePath, _ range: Range<Int>, using buffer: inout [UInt8]) -> String? {
  guard let file = try? FileDescriptor.open(path, .readOnly, options: .closeOnExec) else { return nil }
  defer { try? file.close() }
  var hasher = SHA256()
  for start in stride(from: range.lowerBound, to: range.upperBound, by: hashBlock) {
    let count = min(hashBlock, range.upperBound - start)
    buffer.resize(to: count)
    guard (try? file.readFully(at: start, count: count, into: &buffer)) == count else { return nil }
    hasher.update(data: buffer)
  }
  return hexadecimal(hasher.finalize())
}

/// Of a file that is written and read by this program alone: SHA-256 over those of its parts, several of which are read
/// at once. Nil if some part cannot be.
func hashOfParts(ofFile path: FilePath, size: Int, workers: Int) -> String? {
  let length = 4 << 20
  let count = (size + length - 1) / length
  let hashes = Mutex([String?](repeating: nil, count: count))
  runTiles(count: count, workers: workers) { part in
    var buffer: [UInt8] = []
    let hash = sha256(ofFile: path, (part * length)..<min(size, (part + 1) * length), using: &buffer)
    hashes.withLock { $0[part] = hash }
  }
  let found = hashes.withLock { $0.compactMap(\.self) }
  guard found.count == count else { return nil }
  var hasher = SHA256()
  for hash in found { hasher.update(data: Array(hash.utf8)) }
  return hexadecimal(hasher.finalize())
}
