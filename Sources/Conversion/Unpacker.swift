import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// Turns a packed folder back into an ordinary safetensors checkpoint: decoded weights in the source's types and files.
package struct Unpacker: Sendable {
  private let packed: PackedCheckpoint
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    guard PackedCheckpoint.isPacked(path) else { throw ConversionError.notPacked(path.string) }
    packed = try PackedCheckpoint(path)
    self.workers = workers
  }

  package var folder: FilePath { packed.checkpoint.folder }

  private struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
    var workspace = PackedCheckpoint.Workspace()
  }

  private static let partLength = 1 << 18

  /// Writes the folder.
  /// - Parameter onProgress: called from any thread, one call at a time; false stops the work and removes the output.
  package func run(
    into output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary {
    do {
      try write(to: output, onProgress: onProgress)
      try output.commit()
      return UnpackSummary(
        tensorCount: packed.manifest.records.count,
        decodedCount: packed.manifest.records.count { $0.encoding != nil },
        byteCount: packed.manifest.records.reduce(0) { $0 + $1.sourceByteCount })
    } catch {
      output.abandon()
      throw error
    }
  }

  private func write(to output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool) throws {
    let records = packed.manifest.records
    var byFile: OrderedDictionary<String, [TensorSpecification]> = [:]
    for file in packed.manifest.files { byFile[file.name] = [] }
    for record in records {
      let specification = TensorSpecification(name: record.name, type: record.type, shape: record.shape)
      byFile[record.file, default: []].append(specification)
    }
    let layouts = byFile.elements.map { ($0.key, SafetensorsLayout($0.value, metadata: ["format": "pt"])) }
    let needed = layouts.reduce(0) { $0 + $1.1.fileSize }
    if let free = output.freeBytes, free < needed {
      throw ConversionError.cannotCreate(
        output.path.string, "the output takes \(needed) bytes, the file system has \(free) left")
    }
    var targets: [String: TargetFile] = [:]
    for (name, layout) in layouts { targets[name] = try TargetFile(name, layout: layout, in: output) }

    let progress = ProgressCounter(total: records.reduce(0) { $0 + $1.sourceByteCount }, report: onProgress)
    let files = targets
    let positions = Dictionary(uniqueKeysWithValues: byFile.keys.enumerated().map { ($1, $0) })
    let schedule = Schedule(
      tileCounts: records.map { [($0.sourceLength + Self.partLength - 1) / Self.partLength] },
      files: records.map { positions[$0.file] ?? 0 })
    try flushing(Array(targets.values), if: output.isDurable) {
      try schedule.run(workers: workers, makeState: { Buffers() }) { item, buffers in
        let record = records[item.tensor]
        let start = item.tile * Self.partLength
        let part = start..<min(start + Self.partLength, record.sourceLength)
        guard let target = files[record.file] else { return }
        try progress.add(try write(record, part, to: target, &buffers))
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
    _ record: PackedManifest.Record, _ part: Range<Int>, to target: TargetFile, _ buffers: inout Buffers
  ) throws -> Int {
    guard record.encoding != nil else {
      guard let stored = packed.checkpoint[record.name] else { return 0 }
      try stored.file.read(part, of: stored.entry, into: &buffers.bytes)
      try target.write(record.name, offset: part.lowerBound, buffers.bytes, part.count)
      return part.count
    }
    try packed.decode(record, part, into: &buffers.values, using: &buffers.workspace)
    let width = record.type.bitWidth / 8
    let count = encodeElements(buffers.values, as: record.type, into: &buffers.bytes)
    try target.write(record.name, offset: part.lowerBound * width, buffers.bytes, count)
    return count
  }

  /// The configuration without our quantization; the source's own comes back.
  private static func restored(_ configuration: JSONValue) -> JSONValue {
    guard var members = configuration.object else { return configuration }
    let ours = members[ConfigurationKeys.quantization]
    members[ConfigurationKeys.quantization] = nil
    if let earlier = ours?[ConfigurationKeys.earlier] { members[ConfigurationKeys.quantization] = earlier }
    return .object(members)
  }
}

extension PackedManifest.Record {
  /// Elements of a quantized tensor, bytes of a kept one: what parts are counted in.
  fileprivate var sourceLength: Int { encoding == nil ? sourceByteCount : elementCount }
}
