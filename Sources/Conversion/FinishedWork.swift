import Checkpoints
import Crypto
import Kernels
import OrderedCollections
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
    /// The first block that is not done.
    var next = 0
    var layers: [LayerOutcome] = []
    var learning: [LearningRecord] = []
    /// By track, the files with what goes into that block.
    var states: [String] = []
  }

  /// SHA-256 of the members of tensors that are done.
  private(set) var hashes: [String: String] = [:]
  private(set) var tensors: Set<String> = []
  /// Of quantized tensors that are done.
  private(set) var sums: [String: WrittenSums.Sums] = [:]
  private(set) var blocks = Blocks()
  /// Layers that were quantized one by one.
  private(set) var layers: [LayerKey: LayerOutcome] = [:]
  private(set) var splits: [SplitOutcome]?

  enum Key {
    static let tensor = "tensor"
    static let hashes = "hashes"
    static let codeSum = "code_sum"
    static let loss = "loss"
    static let block = "next_block"
    static let layers = "layers"
    static let learning = "learning"
    static let tensors = "tensors"
    static let states = "states"
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
    var recorded: [String: [String: String]] = [:]
    for entry in entries {
      guard let name = entry[Key.tensor]?.string, let found = entry[Key.hashes]?.object else { continue }
      recorded[name] = Dictionary(uniqueKeysWithValues: found.compactMapValues(\.string).map { ($0, $1) })
    }
    try believe(recorded, plan, output, workers, onProgress)
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
      if let found = entry[Key.splits] { splits = try? found.decoded(as: [SplitOutcome].self) }
    }
    blocks = finishedBlocks(entries, output)
  }

  /// Takes in tensors whose bytes have the hashes that were recorded.
  private mutating func believe(
    _ recorded: [String: [String: String]], _ plan: Plan, _ output: OutputFolder, _ workers: Int,
    _ onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    struct Item: Sendable {
      let tensor: String
      let member: TensorSpecification
      let file: FilePath
      let offset: Int
      let hash: String
    }
    var items: [Item] = []
    for tensor in plan.tensors {
      guard let hashes = recorded[tensor.source.name] else { continue }
      let file = plan.files[tensor.source.fileIndex]
      for member in tensor.members.map(\.specification) where member.byteCount > 0 {
        items.append(
          Item(
            tensor: tensor.source.name, member: member, file: output.work.appending(file.name),
            offset: file.layout.offsets[member.name] ?? 0, hash: hashes[member.name] ?? ""))
      }
    }
    let list = items
    let found = Mutex([Bool](repeating: false, count: list.count))
    let progress = ProgressCounter(
      total: list.reduce(0) { $0 + $1.member.byteCount }, stage: "checking", report: onProgress)
    try runParallel(count: list.count, workers: workers, makeState: { [UInt8]() }) { index, buffer in
      let item = list[index]
      let range = item.offset..<item.offset + item.member.byteCount
      let isAsRecorded = sha256(ofFile: item.file, range, using: &buffer) == item.hash
      found.withLock { $0[index] = isAsRecorded }
      try progress.add(item.member.byteCount)
    }
    let results = found.withLock { $0 }
    let broken = Set(zip(list, results).filter { !$1 }.map(\.0.tensor))
    for item in list where !broken.contains(item.tensor) {
      tensors.insert(item.tensor)
      hashes[item.member.name] = item.hash
    }
  }

  /// A block counts if all that it wrote is there, as well as all before it.
  private func finishedBlocks(_ entries: [JSONValue], _ output: OutputFolder) -> Blocks {
    var blocks = Blocks()
    var states: [(file: String, hash: String)] = []
    for entry in entries {
      guard let next = entry[Key.block]?.integer else { continue }
      // A run that began the calibration anew told of its first block again.
      if next <= blocks.next { (blocks, states) = (Blocks(), []) }
      guard next == blocks.next + 1, let written = entry[Key.tensors]?.array?.compactMap(\.string),
        tensors.isSuperset(of: written),
        let layers = try? entry[Key.layers]?.decoded(as: [LayerOutcome].self),
        let learning = try? entry[Key.learning]?.decoded(as: [LearningRecord].self)
      else { return Blocks() }
      blocks.next = next
      blocks.layers += layers
      blocks.learning += learning
      states =
        entry[Key.states]?.array?.compactMap { state in
          guard let file = state.array?.first?.string, let hash = state.array?.last?.string else { return nil }
          return (file, hash)
        } ?? []
    }
    var buffer: [UInt8] = []
    for (file, hash) in states {
      let path = output.temporary(file)
      guard let size = try? Stat(path).size, sha256(ofFile: path, 0..<Int(size), using: &buffer) == hash else {
        return Blocks()
      }
    }
    blocks.states = states.map(\.file)
    return blocks
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
