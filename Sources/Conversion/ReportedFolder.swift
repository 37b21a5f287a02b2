import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Reports
import Synchronization
import SystemPackage

extension ConversionRecord {
  /// How the output in a folder, or a GGUF file, was made, as far as its files tell, with the hash of every file with weights and of those
  /// that say what they are.
  /// - Parameters:
  ///   - reporter: the program that measures, with its version.
  ///   - goOn: called from any thread; false stops the work.
  /// - Throws: if a file cannot be read.
  package init(
    of folder: FilePath, source: Checkpoint, calibration: CalibrationReport?, reporter: String, workers: Int,
    goOn: @escaping @Sendable () -> Bool
  ) throws {
    var (producer, recipe, form) = (String?.none, JSONValue.null, "")
    let output = try DecodableCheckpoint(folder)
    switch output {
    case .quantized(.packed(let packed)):
      producer = "convert-model \(packed.manifest.toolVersion)"
      recipe = packed.manifest.recipe
      form = "packed folder, version \(packed.manifest.version)"
    case .quantized(.layout(let layout)): form = "\(layout.family.name) layout"
    case .gguf(let file, _):
      form = "GGUF file, version \(file.header.version)"
      recipe = Self.recipe(file.header.metadata)
    case .dense: throw ConversionError.notPacked(folder.string)
    }
    var paths = output.files.map { (Side.output, $0) }
    for name in [SideFiles.configuration, PackedManifest.fileName, CalibrationReport.fileName] {
      guard let path = output.folder?.appending(name) else { continue }
      if (try? Stat(path)) != nil { paths.append((Side.output, path)) }
    }
    paths += source.files.map { (Side.source, $0.path) }
    self.init(
      producer: producer, reporter: reporter, form: form, recipe: recipe, windows: calibration?.windows ?? .null,
      evidence: calibration?.evidence ?? .null, files: try Self.hashed(paths, workers: workers, goOn: goOn))
  }

  /// What a GGUF file tells of how it was made.
  private static func recipe(_ metadata: GGUFMetadata) -> JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [:]
    if let number = metadata["general.file_type"]?.integer {
      fields["mix"] =
        GGUFMix.allCases.first { Int($0.fileType) == number }.map { .string($0.rawValue) }
        ?? .string("file type \(number)")
    }
    for (key, value) in metadata where key.hasPrefix("quantize.imatrix.") {
      let name = "imatrix_" + key.dropFirst("quantize.imatrix.".count)
      fields[name] = value.string.map { .string($0) } ?? value.integer.map { .integer($0) }
    }
    return fields.isEmpty ? .null : .object(fields)
  }

  private static func hashed(
    _ paths: [(side: Side, path: FilePath)], workers: Int, goOn: @escaping @Sendable () -> Bool
  ) throws -> [File] {
    let found = Mutex([File?](repeating: nil, count: paths.count))
    try runParallel(count: paths.count, workers: workers, makeState: { [UInt8]() }) { index, buffer in
      let (side, path) = paths[index]
      let (hash, count) = try sha256(ofFile: path, using: &buffer, goOn: goOn)
      let file = File(side: side, name: path.lastComponent?.string ?? "", byteCount: count, sha256: hash)
      found.withLock { $0[index] = file }
    }
    return found.withLock { $0.compactMap(\.self) }
  }
}

extension CalibrationReport {
  /// What stands beside the weights of a folder; nil if nothing does.
  /// - Throws: if it is there and damaged.
  package init?(beside folder: FilePath) throws {
    // Nothing stands beside the weights of a GGUF file.
    guard !GGUFFile.isGGUF(folder) else { return nil }
    let file = folder.appending(Self.fileName)
    let document: JSONValue
    do {
      document = try readJSONObject(file)
    } catch {
      if case .notFound = error.reason { return nil }
      throw error
    }
    guard let found = CalibrationReport(document) else {
      throw CheckpointError(file: file.string, tensor: nil, .field("layers", expected: "a list of layers"))
    }
    self = found
  }
}
