import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// Turns a packed folder, or one in the layout of a runtime, into an ordinary safetensors checkpoint: decoded weights in
/// the source's types and files.
package struct Unpacker: Sendable {
  private let packed: QuantizedCheckpoint
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    packed = try QuantizedCheckpoint(path)
    self.workers = workers
  }

  package var folder: FilePath { packed.checkpoint.folder }

  private struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
    var workspace = QuantizedCheckpoint.Workspace()
  }

  private static let partLength = 1 << 18

  /// Writes the folder.
  /// - Parameter onProgress: called from any thread, one call at a time; false stops the work and removes the output.
  package func run(
    into output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary {
    do {
      try output.beginIfNeeded()
      try write(to: output, onProgress: onProgress)
      try output.commit()
      let tensors = packed.tensors
      return UnpackSummary(
        tensorCount: tensors.count, decodedCount: tensors.count { $0.isQuantized },
        byteCount: tensors.reduce(0) { $0 + $1.byteCount })
    } catch {
      output.abandon()
      throw error
    }
  }

  private func write(to output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool) throws {
    let tensors = packed.tensors
    var byFile: OrderedDictionary<String, [TensorSpecification]> = [:]
    for name in packed.fileNames { byFile[name] = [] }
    for tensor in tensors {
      let specification = TensorSpecification(name: tensor.name, type: tensor.type, shape: tensor.shape)
      byFile[tensor.file, default: []].append(specification)
    }
    let layouts = byFile.elements.map { ($0.key, SafetensorsLayout($0.value, metadata: ["format": "pt"])) }
    let needed = layouts.reduce(0) { $0 + $1.1.fileSize }
    if let free = output.freeBytes, free < needed {
      throw ConversionError.cannotCreate(
        output.path.string, "the output takes \(needed) bytes, the file system has \(free) left")
    }
    var targets: [String: TargetFile] = [:]
    for (name, layout) in layouts { targets[name] = try TargetFile(name, layout: layout, in: output) }

    let progress = ProgressCounter(
      total: tensors.reduce(0) { $0 + $1.byteCount },
      kinds: tensors.reduce(into: [:]) { $0[$1.workKind, default: 0] += $1.byteCount }, report: onProgress)
    let files = targets
    let positions = Dictionary(uniqueKeysWithValues: byFile.keys.enumerated().map { ($1, $0) })
    let schedule = Schedule(
      tileCounts: tensors.map { [($0.sourceLength + Self.partLength - 1) / Self.partLength] },
      files: tensors.map { positions[$0.file] ?? 0 })
    try flushing(Array(targets.values), if: output.isDurable) {
      try schedule.run(workers: workers, makeState: { Buffers() }) { item, buffers in
        let tensor = tensors[item.tensor]
        let start = item.tile * Self.partLength
        let part = start..<min(start + Self.partLength, tensor.sourceLength)
        guard let target = files[tensor.file] else { return }
        try progress.add(try write(tensor, part, to: target, &buffers), tensor.workKind)
      }
    }
    try SideFiles(of: packed.checkpoint).copy(to: output.work)
    if let configuration = packed.checkpoint.configuration {
      try output.write(fileBytes(Self.restored(configuration)), to: SideFiles.configuration)
    }
    if layouts.count > 1 { try output.write(fileBytes(shardIndex(layouts)), to: Checkpoint.indexName) }
  }

  /// Writes a part of a tensor: of elements if it was quantized, else of bytes.
  /// - Returns: the bytes written.
  private func write(
    _ tensor: QuantizedCheckpoint.Tensor, _ part: Range<Int>, to target: TargetFile, _ buffers: inout Buffers
  ) throws -> Int {
    guard tensor.isQuantized else {
      guard let stored = packed.stored(tensor) else { return 0 }
      try stored.file.read(part, of: stored.entry, into: &buffers.bytes)
      try target.write(tensor.name, offset: part.lowerBound, buffers.bytes, part.count)
      return part.count
    }
    try packed.decode(tensor, part, into: &buffers.values, using: &buffers.workspace)
    let width = tensor.type.bitWidth / 8
    let count = encodeElements(buffers.values, as: tensor.type, into: &buffers.bytes)
    try target.write(tensor.name, offset: part.lowerBound * width, buffers.bytes, count)
    return count
  }

  /// The configuration without the quantization; the source's own comes back.
  private static func restored(_ configuration: JSONValue) -> JSONValue {
    guard var members = configuration.object else { return configuration }
    let ours = members[ConfigurationKeys.quantization]
    for key in [ConfigurationKeys.quantization, "quantization", "compression_config"] { members[key] = nil }
    if let earlier = ours?[ConfigurationKeys.earlier] { members[ConfigurationKeys.quantization] = earlier }
    return .object(members)
  }
}

extension QuantizedCheckpoint.Tensor {
  /// Elements of a quantized tensor, bytes of a kept one: what parts are counted in.
  fileprivate var sourceLength: Int { isQuantized ? elementCount : byteCount }
  /// What takes about as long for each byte.
  fileprivate var workKind: String { isQuantized ? "decode" : "copy" }
}
