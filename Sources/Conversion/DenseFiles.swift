import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// The weight files of an ordinary checkpoint, written part by part, with a journal of tensors that are done.
struct DenseFiles: Sendable {
  struct Tensor: Sendable {
    let specification: TensorSpecification
    /// The name of the file that gets it.
    let file: String
    /// What takes about as long for each byte.
    let kind: String
  }

  private let tensors: [Tensor]
  private let layouts: OrderedDictionary<String, SafetensorsLayout>

  /// Bytes: a multiple of every type's size and of every block's elements.
  private static let partLength = 1 << 19

  /// - Parameter files: names, in the order of the shards.
  init(_ tensors: [Tensor], files: [String]) {
    self.tensors = tensors
    var specifications = OrderedDictionary(files.map { ($0, [TensorSpecification]()) }, uniquingKeysWith: { $1 })
    for tensor in tensors { specifications[tensor.file, default: []].append(tensor.specification) }
    layouts = specifications.mapValues { SafetensorsLayout($0, metadata: ["format": "pt"]) }
  }

  private var byteCount: Int { layouts.values.reduce(0) { $0 + $1.fileSize } }

  /// Whether the files are in a folder already, as far as sizes and headers tell.
  func isWritten(at folder: FilePath) -> Bool {
    layouts.allSatisfy { name, layout in
      guard let file = try? FileDescriptor.open(folder.appending(name), .readOnly, options: .closeOnExec) else {
        return false
      }
      defer { try? file.close() }
      var head = [UInt8](repeating: 0, count: layout.head.count)
      return (try? file.stat().size) == Int64(layout.fileSize)
        && (try? file.readFully(at: 0, count: head.count, into: &head)) == head.count && head == layout.head
    }
  }

  /// Writes the tensors that an interrupted run has not, and the index.
  /// - Parameters:
  ///   - earlier: the journal's entries of that run.
  ///   - onProgress: called from any thread, one call at a time; false stops the work.
  ///   - body: puts a range of a tensor's bytes, the tensor being given by its position.
  func write<State>(
    to output: OutputFolder, goingOnFrom earlier: [JSONValue], workers: Int,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool, makeState: @Sendable () -> State,
    body:
      @Sendable (
        _ tensor: Int, _ part: Range<Int>, _ state: inout State, _ put: ([UInt8], _ count: Int) throws -> Void
      ) throws -> Void
  ) throws {
    if let free = output.freeBytes, free + output.writtenBytes < byteCount {
      throw ConversionError.cannotCreate(
        output.path.string, "the output takes \(byteCount) bytes, the file system has \(free) left")
    }
    let finished = try finishedTensors(earlier, in: output, workers: workers, onProgress: onProgress)
    let left = tensors.map { finished.contains($0.specification.name) ? 0 : $0.specification.byteCount }
    var targets: OrderedDictionary<String, TargetFile> = [:]
    for (name, layout) in layouts {
      let hashed = tensors.filter { tensor in
        tensor.file == name && tensor.specification.byteCount > 0 && !finished.contains(tensor.specification.name)
      }
      targets[name] = try TargetFile(name, layout: layout, in: output, hashing: hashed.map(\.specification)) {
        (tensor, hash) throws(ConversionError) in
        try output.journal?.append([
          FinishedWork.Key.tensor: .string(tensor), FinishedWork.Key.hashes: [tensor: .string(hash)],
        ])
      }
    }
    let progress = ProgressCounter(
      total: left.reduce(0, +), kinds: zip(tensors, left).reduce(into: [:]) { $0[$1.0.kind, default: 0] += $1.1 },
      report: onProgress)
    let files = targets
    let schedule = Schedule(
      tileCounts: left.map { $0 > 0 ? [($0 + Self.partLength - 1) / Self.partLength] : [] },
      files: tensors.map { layouts.index(forKey: $0.file) ?? 0 })
    try flushing(Array(targets.values), if: output.isDurable) {
      try schedule.run(workers: workers, makeState: makeState) { item, state in
        let tensor = tensors[item.tensor]
        let start = item.tile * Self.partLength
        let part = start..<min(start + Self.partLength, tensor.specification.byteCount)
        guard let target = files[tensor.file] else { return }
        try body(item.tensor, part, &state) { bytes, count in
          try target.write(tensor.specification.name, offset: start, bytes, count)
        }
        try progress.add(part.count, tensor.kind)
      }
    }
    if layouts.count > 1 {
      try output.write(fileBytes(shardIndex(layouts.map { ($0, $1) })), to: Checkpoint.indexName)
    }
  }

  /// The tensors that an interrupted run has written, as the bytes on disk bear out.
  private func finishedTensors(
    _ entries: [JSONValue], in output: OutputFolder, workers: Int,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> Set<String> {
    let recorded = RecordedMember.hashes(in: entries)
    let members = tensors.compactMap { tensor -> RecordedMember? in
      let name = tensor.specification.name
      guard let hash = recorded[name]?[name], let start = layouts[tensor.file]?.offsets[name] else { return nil }
      return RecordedMember(
        tensor: name, file: output.work.appending(tensor.file),
        range: start..<start + tensor.specification.byteCount, hash: hash)
    }
    return try RecordedMember.confirmedTensors(members, workers: workers, onProgress: onProgress)
  }
}
