import Checkpoints
import Evaluation
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Looks into files and folders: headers first, values only when asked.
package struct Inspector: Sendable {
  private let path: FilePath
  private let contents: Contents

  private enum Contents {
    /// `oddity`: why it is not the quantized layout that its tensors or its configuration suggest.
    case readable(DecodableCheckpoint, oddity: String?)
    /// A folder that cannot be read as a whole.
    case broken(BrokenCheckpoint)
    /// Not safetensors: listed with what its first bytes say.
    case unknown(String)
  }

  package init(_ path: FilePath) throws {
    self.path = path
    contents = try Self.open(path)
  }

  private static func open(_ path: FilePath) throws -> Contents {
    if GGUFFile.isGGUF(path) { return .readable(try DecodableCheckpoint(path, ggufNames: true), oddity: nil) }
    if PackedCheckpoint.isPacked(path) { return .readable(try DecodableCheckpoint(path), oddity: nil) }
    do {
      let checkpoint = try Checkpoint(path)
      do {
        let layout = try LayoutCheckpoint(checkpoint)
        return .readable(layout.map { .quantized(.layout($0)) } ?? .dense(checkpoint), oddity: nil)
      } catch {
        // What is odd about it is said; its tensors are listed as they are stored.
        return .readable(.dense(checkpoint), oddity: "\(error)")
      }
    } catch {
      if let broken = BrokenCheckpoint(path, error) { return .broken(broken) }
      if error.reason == .noSafetensors { return .unknown("a folder without safetensors files") }
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
    case .readable(.gguf(let file, _), _): return Inspection(file)
    case .readable(let checkpoint, let oddity): return try inspection(of: checkpoint, oddity)
    case .broken(let broken):
      var found = Inspection(
        path: path.string, kind: "safetensors, which cannot be loaded as a whole", modelType: nil,
        files: try files(beside: broken.files),
        tensors: broken.tensors.map { Self.listed($0) }.sorted { $0.name.naturallyPrecedes($1.name) },
        sourceByteCount: nil)
      found.oddities = broken.oddities
      return found
    case .unknown(let kind):
      return Inspection(
        path: path.string, kind: kind, modelType: nil, files: try files(beside: []), tensors: [], sourceByteCount: nil)
    }
  }

  private func inspection(of decodable: DecodableCheckpoint, _ oddity: String?) throws -> Inspection {
    let checkpoint: Checkpoint
    let kind: String
    var auxiliary: [Inspection.Tensor] = []
    switch decodable {
    case .gguf(let file, _): return Inspection(file)
    case .dense(let dense):
      checkpoint = dense
      let method = dense.configuration?["quantization_config"]?["quant_method"]?.string
      kind =
        method.map { "safetensors, quantized by \($0.printable) (its tensors are listed as they are stored)" }
        ?? "safetensors"
    case .quantized(.packed(let packed)):
      checkpoint = packed.checkpoint
      kind =
        "packed by convert-model \(packed.manifest.toolVersion.printable), format version \(packed.manifest.version)"
      auxiliary = packed.manifest.codebooks.map {
        Inspection.Tensor(
          name: $0.tensor, shape: [$0.byteCount / 4], format: "F32", role: "codebook", elementCount: 0,
          byteCount: $0.byteCount)
      }
    case .quantized(.layout(let layout)):
      checkpoint = layout.checkpoint
      kind = "safetensors, quantized in the layout of \(layout.family.name)"
      auxiliary = layout.auxiliary.map {
        Inspection.Tensor(
          name: $0.name, shape: $0.entry.shape, format: $0.entry.type.rawValue, role: "activations", elementCount: 0,
          byteCount: $0.entry.bytes.count)
      }
    }
    let tensors = decodable.tensors
    let listed = tensors.map { Self.listed($0) }.sorted { $0.name.naturallyPrecedes($1.name) } + auxiliary
    let isQuantized = tensors.contains(where: \.isQuantized)
    var found = Inspection(
      path: path.string, kind: kind, modelType: checkpoint.configuration?["model_type"]?.string,
      files: try files(beside: checkpoint.files), tensors: listed,
      sourceByteCount: isQuantized ? tensors.reduce(0) { $0 + $1.sourceByteCount } : nil)
    found.provenance = Provenance(decodable).rows
    found.oddities = HeaderOddities(decodable, checkpoint, listed, isFolder: isFolder).found
    if let oddity { found.oddities.insert(Inspection.Oddity("its layout cannot be read: \(oddity)"), at: 0) }
    return found
  }

  static func listed(_ tensor: DecodableCheckpoint.Tensor) -> Inspection.Tensor {
    let entry = TensorEntry(name: tensor.name, type: tensor.type ?? .f32, shape: tensor.shape, bytes: 0..<0)
    return Inspection.Tensor(
      name: tensor.name, shape: tensor.shape, format: tensor.format, role: TensorRole(entry).rawValue,
      elementCount: tensor.elementCount, byteCount: tensor.storedByteCount, isQuantized: tensor.isQuantized)
  }

  private static func listed(_ entry: TensorEntry) -> Inspection.Tensor {
    Inspection.Tensor(
      name: entry.name, shape: entry.shape, format: entry.type.rawValue, role: TensorRole(entry).rawValue,
      elementCount: entry.elementCount, byteCount: entry.bytes.count)
  }

  private var isFolder: Bool { (try? Stat(path))?.type == .directory }

  /// The files of the folder, or the one file that was named.
  private func files(beside opened: [SafetensorsFile]) throws -> [(name: String, byteCount: Int, note: String)] {
    let opened = Set(opened.compactMap { $0.path.lastComponent?.string })
    guard isFolder else {
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

  // MARK: Values

  /// Reads all values, codes and scales. One tensor's parts are in memory for each thread; a weight in the layout of a
  /// runtime is held whole.
  /// - Parameter goOn: called from any thread, one call at a time; false stops the work.
  package func depth(
    workers: Int, goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> DeepInspection {
    guard case .readable(let checkpoint, _) = contents else { return DeepInspection([]) }
    let tensors = checkpoint.tensors.filter { $0.isReadable && $0.elementCount > 0 }
      .sorted { $0.name.naturallyPrecedes($1.name) }
    let progress = ProgressCounter(total: tensors.reduce(0) { $0 + $1.storedByteCount }, stage: "reading", report: goOn)
    let found = Mutex([TensorInspection?](repeating: nil, count: tensors.count))
    try runParallel(count: tensors.count, workers: workers, makeState: { checkpoint.makeReader() }) { index, reader in
      let tensor = tensors[index]
      try progress.add(0)
      var survey = TensorSurvey(
        Self.listed(tensor), form: try checkpoint.codeForm(of: tensor), isTransposed: tensor.isTransposed)
      try survey.run(original: nil, isWhole: false) { elements, values in
        try reader.readCodes(tensor, elements, into: &values)
      }
      let result = survey.result()
      found.withLock { $0[index] = result }
      try progress.add(tensor.storedByteCount)
    }
    return DeepInspection(found.withLock { $0.compactMap(\.self) })
  }

  /// - Parameters:
  ///   - source: an ordinary checkpoint to list the largest errors against.
  ///   - slice: which values to show; nil: none.
  package func tensor(
    _ name: String, against source: Checkpoint?, slice: TensorSlice? = nil
  ) throws -> TensorInspection {
    var original: CheckpointTensor?
    if let source {
      guard let found = source[name] else { throw missing(name, among: source.tensors.map(\.name), in: source.folder) }
      original = found
    }
    if let original { try Self.requireReadable(original.entry.type, name, in: original.file.path) }
    guard case .readable(let checkpoint, _) = contents else {
      if case .broken(let broken) = contents { throw broken.error }
      throw missing(name, among: [], in: path)
    }
    let tensors = checkpoint.tensors
    guard let tensor = tensors.first(where: { $0.name == name }) else {
      throw missing(name, among: tensors.map(\.name), in: path)
    }
    if !tensor.isReadable {
      if case .gguf(let stored) = tensor.content {
        throw CheckpointError(file: path.string, tensor: name, .gguf(.unreadableType(stored.type)))
      }
      try Self.requireReadable(tensor.type ?? .c64, name, in: path)
    }
    var reader = checkpoint.makeReader()
    let ranges = try slice.map { slice in
      guard let ranges = slice.ranges(in: tensor.shape) else {
        throw ConversionError.noSuchValues(tensor: name, slice: slice.text, shape: tensor.shape)
      }
      return ranges
    }
    // As the codes run; a source that has the weight the other way round is read so, too.
    if let own = original, tensor.isTransposed, own.entry.shape.count >= 2 { original = own.transposed }
    var survey = TensorSurvey(
      Self.listed(tensor), form: try checkpoint.codeForm(of: tensor), isTransposed: tensor.isTransposed)
    try survey.run(original: original) { elements, values in
      try reader.readCodes(tensor, elements, into: &values)
    }
    var found = survey.result()
    if let ranges { found.excerpt = try excerpt(ranges, of: tensor, original, &reader) }
    return found
  }

  /// Some of the values, row by row.
  private func excerpt(
    _ ranges: [Range<Int>], of tensor: DecodableCheckpoint.Tensor, _ original: CheckpointTensor?,
    _ reader: inout DecodableCheckpoint.Reader
  ) throws -> TensorInspection.Excerpt {
    var (values, codes, source) = ([Float](), [Int](), [Float]())
    var (run, bytes): ([Float], [UInt8]) = ([], [])
    for part in Self.runs(ranges, of: tensor) {
      let elements = part.lowerBound / 8 * 8..<part.upperBound
      let parts = try reader.readCodes(tensor, elements, into: &run)
      values += run.suffix(part.count)
      if let parts { codes += parts.codes.suffix(part.count).map { Int($0) } }
      if let original {
        _ = try readValues(original, elements, bytes: &bytes, values: &run)
        source += run.suffix(part.count)
      }
    }
    return TensorInspection.Excerpt(ranges: ranges, values: values, codes: codes, source: source)
  }

  /// The values of an excerpt, in their order, as runs of elements of the weight as its codes run.
  private static func runs(_ ranges: [Range<Int>], of tensor: DecodableCheckpoint.Tensor) -> [Range<Int>] {
    // The first element of each row of the excerpt.
    var starts = [0]
    for (range, size) in zip(ranges.dropLast(), tensor.shape.dropLast()) {
      starts = starts.flatMap { start in range.map { start * size + $0 } }
    }
    let columns = ranges.last ?? 0..<1
    guard tensor.isTransposed else {
      return starts.map { start in
        let first = start * (tensor.shape.last ?? 1) + columns.lowerBound
        return first..<first + columns.count
      }
    }
    let (inputs, outputs) = (tensor.shape[tensor.shape.count - 2], tensor.shape[tensor.shape.count - 1])
    return starts.flatMap { start in
      columns.map { column in
        let element = (start / inputs * outputs + column) * inputs + start % inputs
        return element..<element + 1
      }
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
