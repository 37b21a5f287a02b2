import Checkpoints
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import SystemPackage

/// Looks into files and folders: headers first, values only when asked.
package struct Inspector: Sendable {
  private let path: FilePath
  private let contents: Contents

  private enum Contents {
    case packed(PackedCheckpoint)
    /// In the layout of a runtime.
    case layout(LayoutCheckpoint)
    /// `oddity`: why it is not the quantized layout that its tensors or its configuration suggest.
    case plain(Checkpoint, oddity: String?)
    case gguf(GGUFFile)
    /// Not safetensors: listed with what its first bytes say.
    case unknown(String)
  }

  package init(_ path: FilePath) throws {
    self.path = path
    contents = try Self.open(path)
  }

  private static func open(_ path: FilePath) throws -> Contents {
    if GGUFFile.isGGUF(path) { return .gguf(try GGUFFile(path)) }
    if PackedCheckpoint.isPacked(path) { return .packed(try PackedCheckpoint(path)) }
    do {
      let checkpoint = try Checkpoint(path)
      do {
        return try LayoutCheckpoint(checkpoint).map { .layout($0) } ?? .plain(checkpoint, oddity: nil)
      } catch {
        // What is odd about it is said; its tensors are listed as they are stored.
        return .plain(checkpoint, oddity: "\(error)")
      }
    } catch  where error.reason == .noSafetensors {
      return .unknown("a folder without safetensors files")
    } catch {
      // A file with another format's mark is not a damaged safetensors file.
      if let format = try? format(of: path) { return .unknown(format) }
      throw error
    }
  }

  /// The format that a file's first bytes tell; nil if they are those of no format known here.
  private static func format(of path: FilePath) throws -> String? {
    let (descriptor, size) = try openForReading(path)
    defer { try? descriptor.close() }
    var start = [UInt8](repeating: 0, count: 4)
    let count = try descriptor.readFully(at: 0, count: min(4, size), into: &start)
    switch Array(start[..<count]) {
    case Array("PK\u{3}\u{4}".utf8): return "a zip archive (as PyTorch's .bin and .pt files are)"
    case let bytes where bytes.starts(with: [0x80, 0x02]): return "a pickle file"
    case let bytes where bytes.starts(with: [0x89, 0x48, 0x44, 0x46]): return "an HDF5 file"
    default: return nil
    }
  }

  // MARK: The whole

  package func inspection() throws -> Inspection {
    switch contents {
    case .packed(let packed): try packedInspection(packed)
    case .layout(let layout): try layoutInspection(layout)
    case .plain(let checkpoint, let oddity): try plainInspection(checkpoint, oddity)
    case .gguf(let file): Inspection(file)
    case .unknown(let kind):
      Inspection(
        path: path.string, kind: kind, modelType: nil, files: try files(beside: []), tensors: [], sourceByteCount: nil)
    }
  }

  private func packedInspection(_ packed: PackedCheckpoint) throws -> Inspection {
    let manifest = packed.manifest
    let tensors = manifest.records.map { Self.tensor($0) }.sorted { $0.name.naturallyPrecedes($1.name) }
    let codebooks = manifest.codebooks.map {
      Inspection.Tensor(
        name: $0.tensor, shape: [$0.byteCount / 4], format: "F32", role: "codebook", elementCount: 0,
        byteCount: $0.byteCount)
    }
    return Inspection(
      path: path.string,
      kind: "packed by convert-model \(manifest.toolVersion), format version \(PackedFormat.version)",
      modelType: packed.checkpoint.configuration?["model_type"]?.string,
      files: try files(beside: packed.checkpoint.files), tensors: tensors + codebooks,
      sourceByteCount: manifest.records.reduce(0) { $0 + $1.sourceByteCount })
  }

  private func layoutInspection(_ layout: LayoutCheckpoint) throws -> Inspection {
    let auxiliary = layout.auxiliary.map {
      Inspection.Tensor(
        name: $0.name, shape: $0.entry.shape, format: $0.entry.type.rawValue, role: "activations", elementCount: 0,
        byteCount: $0.entry.bytes.count)
    }
    return Inspection(
      path: path.string, kind: "safetensors, quantized in the layout of \(layout.family.name)",
      modelType: layout.checkpoint.configuration?["model_type"]?.string,
      files: try files(beside: layout.checkpoint.files),
      tensors: layout.records.map { Self.tensor($0) }.sorted { $0.name.naturallyPrecedes($1.name) } + auxiliary,
      sourceByteCount: layout.records.reduce(0) { $0 + $1.elementCount * $1.type.bitWidth / 8 })
  }

  private static func tensor(_ record: LayoutCheckpoint.Record) -> Inspection.Tensor {
    let entry = TensorEntry(name: record.name, type: record.type, shape: record.shape, bytes: 0..<0)
    return Inspection.Tensor(
      name: record.name, shape: record.shape, format: record.label ?? record.type.rawValue,
      role: TensorRole(entry).rawValue, elementCount: record.elementCount, byteCount: record.storedByteCount)
  }

  private func plainInspection(_ checkpoint: Checkpoint, _ oddity: String?) throws -> Inspection {
    let method = checkpoint.configuration?["quantization_config"]?["quant_method"]?.string
    let kind = method.map { "safetensors, quantized by \($0) (its tensors are listed as they are stored)" }
    return Inspection(
      path: path.string, kind: (kind ?? "safetensors") + (oddity.map { "; odd: \($0)" } ?? ""),
      modelType: checkpoint.configuration?["model_type"]?.string, files: try files(beside: checkpoint.files),
      tensors: checkpoint.tensors.map { Self.tensor($0.entry) }.sorted { $0.name.naturallyPrecedes($1.name) },
      sourceByteCount: nil)
  }

  private static func tensor(_ record: PackedManifest.Record) -> Inspection.Tensor {
    let entry = TensorEntry(
      name: record.name, type: record.type, shape: record.shape, bytes: 0..<record.sourceByteCount)
    return Inspection.Tensor(
      name: record.name, shape: record.shape, format: record.encoding?.label ?? record.type.rawValue,
      role: TensorRole(entry).rawValue, elementCount: record.elementCount, byteCount: record.storedByteCount)
  }

  private static func tensor(_ entry: TensorEntry) -> Inspection.Tensor {
    Inspection.Tensor(
      name: entry.name, shape: entry.shape, format: entry.type.rawValue, role: TensorRole(entry).rawValue,
      elementCount: entry.elementCount, byteCount: entry.bytes.count)
  }

  /// The files of the folder, or the one file that was named.
  private func files(beside opened: [SafetensorsFile]) throws -> [(name: String, byteCount: Int, note: String)] {
    let opened = Set(opened.compactMap { $0.path.lastComponent?.string })
    guard let status = try? Stat(path), status.type == .directory else {
      let size = (try? Stat(path).size).map { Int($0) } ?? 0
      return [(path.lastComponent?.string ?? path.string, size, opened.isEmpty ? "" : "weights")]
    }
    let names = try FileManager.default.contentsOfDirectory(atPath: path.string).sorted()
    return names.compactMap { name in
      guard let status = try? Stat(path.appending(name)) else { return nil }
      let note = opened.contains(name) ? "weights" : status.type == .directory ? "folder" : Self.note(name)
      return (name, Int(status.size), note)
    }
  }

  private static func note(_ name: String) -> String {
    switch name {
    case "config.json": "model configuration"
    case PackedManifest.fileName: "manifest"
    case Checkpoint.indexName: "index of shards"
    case _ where name.hasPrefix("tokenizer") || name.hasPrefix("vocab") || name == "merges.txt": "tokenizer"
    case _ where name.hasSuffix(".gguf") || name.hasSuffix(".bin") || name.hasSuffix(".pt"): "weights, not read"
    default: ""
    }
  }

  // MARK: One tensor

  /// - Parameter source: an ordinary checkpoint to list the largest errors against.
  package func tensor(_ name: String, against source: Checkpoint?) throws -> TensorInspection {
    var original: CheckpointTensor?
    if let source {
      guard let found = source[name] else { throw missing(name, among: source.tensors.map(\.name), in: source.folder) }
      original = found
    }
    if let original { try Self.requireReadable(original.entry.type, name, in: original.file.path) }
    switch contents {
    case .packed(let packed):
      guard let record = packed[name] else { throw missing(name, among: packed.manifest.records.map(\.name), in: path) }
      try Self.requireReadable(record.type, name, in: path)
      var survey = TensorSurvey(Self.tensor(record), encoding: record.encoding, shape: record.shape)
      var workspace = PackedCheckpoint.Workspace()
      try survey.run(type: record.type, original: original) { elements, values in
        try packed.decode(record, elements, into: &values, using: &workspace)
        return record.encoding == nil
          ? nil : (workspace.codes, workspace.scales, workspace.zeroPoints, workspace.firstGroup)
      }
      return survey.result()
    case .layout(let layout):
      guard let record = layout[name] else { throw missing(name, among: layout.records.map(\.name), in: path) }
      try Self.requireReadable(record.type, name, in: path)
      var survey = TensorSurvey(Self.tensor(record), encoding: nil, shape: record.shape)
      var bytes: [UInt8] = []
      try survey.run(type: record.type, original: original) { elements, values in
        try layout.decode(record, elements, into: &values, bytes: &bytes)
        return nil
      }
      return survey.result()
    case .plain(let checkpoint, _):
      guard let tensor = checkpoint[name] else { throw missing(name, among: checkpoint.tensors.map(\.name), in: path) }
      try Self.requireReadable(tensor.entry.type, name, in: tensor.file.path)
      var survey = TensorSurvey(Self.tensor(tensor.entry), encoding: nil, shape: tensor.entry.shape)
      var bytes: [UInt8] = []
      try survey.run(type: tensor.entry.type, original: original) { elements, values in
        _ = try readValues(tensor, elements, bytes: &bytes, values: &values)
        return nil
      }
      return survey.result()
    case .gguf(let file):
      throw missing(name, among: file.header.tensors.map(\.name), in: path)
    case .unknown: throw missing(name, among: [], in: path)
    }
  }

  /// Complex numbers are listed and kept, but not looked into.
  private static func requireReadable(
    _ type: ElementType, _ name: String, in path: FilePath
  ) throws(CheckpointError) {
    if type == .c64 { throw CheckpointError(file: path.string, tensor: name, .unreadableType(type)) }
  }

  private func missing(_ name: String, among names: [String], in path: FilePath) -> ConversionError {
    let similar = names.filter { $0.contains(name) || name.contains($0) }
    return .noSuchTensor(name, in: path.string, similar: Array(similar.prefix(3)))
  }
}
