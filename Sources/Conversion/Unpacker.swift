import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// Turns something quantized into an ordinary checkpoint.
package protocol DenseUnpacker: Sendable {
  /// The folder or file that is read.
  var source: FilePath { get }
  /// What is read of it, for the identity of a run.
  var files: [FilePath] { get }

  /// Whether a folder has what would be written, as far as its headers and configuration tell.
  func isWritten(at path: FilePath) -> Bool

  /// Writes the folder.
  /// - Parameters:
  ///   - earlier: the entries of an interrupted run that is taken up.
  ///   - onProgress: called from any thread, one call at a time; false stops the work.
  func run(
    into output: OutputFolder, goingOnFrom earlier: [JSONValue],
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary
}

extension DenseUnpacker {
  @discardableResult
  package func run(
    into output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary { try run(into: output, goingOnFrom: [], onProgress: onProgress) }
}

/// Turns a packed folder, or one in the layout of a runtime, into an ordinary safetensors checkpoint: decoded weights in
/// the source's types and files.
package struct Unpacker: DenseUnpacker {
  private let packed: QuantizedCheckpoint
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    packed = try QuantizedCheckpoint(path)
    self.workers = workers
  }

  package var source: FilePath { packed.checkpoint.folder }

  private struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
    var workspace = QuantizedCheckpoint.Workspace()
  }

  package var files: [FilePath] {
    let manifest = source.appending(PackedManifest.fileName)
    return packed.checkpoint.files.map(\.path) + (PackedCheckpoint.isPacked(source) ? [manifest] : [])
  }

  private var dense: DenseFiles {
    DenseFiles(
      packed.tensors.map { tensor in
        DenseFiles.Tensor(
          specification: TensorSpecification(name: tensor.name, type: tensor.type, shape: tensor.shape),
          file: tensor.file, kind: tensor.isQuantized ? "decode" : "copy")
      }, files: packed.fileNames)
  }

  package func isWritten(at path: FilePath) -> Bool {
    let configuration = packed.checkpoint.configuration.map { fileBytes(Self.restored($0)) }
    return dense.isWritten(at: path)
      && (configuration == nil || (try? readWhole(path.appending(SideFiles.configuration))) == configuration)
  }

  package func run(
    into output: OutputFolder, goingOnFrom earlier: [JSONValue],
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary {
    let tensors = packed.tensors
    do {
      try output.beginIfNeeded()
      try dense.write(
        to: output, goingOnFrom: earlier, workers: workers, onProgress: onProgress, makeState: { Buffers() }
      ) { index, part, buffers, put in
        let tensor = tensors[index]
        guard tensor.isQuantized else {
          guard let stored = packed.stored(tensor) else { return }
          try stored.file.read(part, of: stored.entry, into: &buffers.bytes)
          return try put(buffers.bytes, part.count)
        }
        let width = tensor.type.bitWidth / 8
        try packed.decode(
          tensor, part.lowerBound / width..<part.upperBound / width, into: &buffers.values, using: &buffers.workspace)
        let count = encodeElements(buffers.values, as: tensor.type, into: &buffers.bytes)
        try put(buffers.bytes, count)
      }
      try SideFiles(of: packed.checkpoint).copy(to: output.work)
      if let configuration = packed.checkpoint.configuration {
        try output.write(fileBytes(Self.restored(configuration)), to: SideFiles.configuration)
      }
      try output.commit()
    } catch {
      throw output.leave(error)
    }
    return UnpackSummary(
      tensorCount: tensors.count, decodedCount: tensors.count { $0.isQuantized },
      byteCount: tensors.reduce(0) { $0 + $1.byteCount })
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
