import Checkpoints
import Kernels
import Models
import Packing
import Quantization
import SystemPackage

/// A packed checkpoint as a source of weights: decoded as they are read.
package struct PackedSource: WeightSource {
  private let packed: PackedCheckpoint
  private let records: [String: PackedManifest.Record]

  package init(_ packed: PackedCheckpoint) {
    self.packed = packed
    records = Dictionary(packed.manifest.records.map { ($0.name, $0) }) { first, _ in first }
  }

  package var place: String { packed.checkpoint.folder.string }
  package var tensorNames: [String] { packed.manifest.records.map(\.name) }
  package func shape(of tensor: String) -> [Int]? { records[tensor]?.shape }
  package func makeReader() -> any WeightReader { Reader(packed: packed, records: records) }

  package func makeIntegerReader(of tensor: String) -> (any IntegerReader)? {
    guard let record = records[tensor], let encoding = record.encoding, encoding.isIntegerRows,
      case .plain(let type) = encoding.scales
    else { return nil }
    return Integers(
      packed: packed, record: record, outlierColumns: packed.outlierColumns(of: record), scaleType: type)
  }

  private struct Integers: IntegerReader {
    let packed: PackedCheckpoint
    let record: PackedManifest.Record
    let outlierColumns: [Int32]
    let scaleType: ElementType
    var isTransposed: Bool { record.isTransposed }
    var workspace = PackedCheckpoint.Workspace()

    mutating func read(
      _ rows: Range<Int>, into integers: inout [Float], scales: inout [Float], outliers: inout [Float]
    ) throws {
      try packed.decodeIntegers(
        record, rows, into: &integers, scales: &scales, outliers: &outliers, using: &workspace)
    }
  }

  private struct Reader: WeightReader {
    let packed: PackedCheckpoint
    let records: [String: PackedManifest.Record]
    var workspace = PackedCheckpoint.Workspace()

    init(packed: PackedCheckpoint, records: [String: PackedManifest.Record]) {
      self.packed = packed
      self.records = records
    }

    mutating func read(_ tensor: String, _ elements: Range<Int>, into values: inout [Float]) throws {
      guard let record = records[tensor] else {
        throw CheckpointError(file: packed.checkpoint.folder.string, tensor: tensor, .notFound)
      }
      try packed.decode(record, elements, into: &values, using: &workspace)
    }
  }
}

/// A folder in the layout of a runtime as a source of weights: decoded as they are read.
package struct LayoutSource: WeightSource {
  private let layout: LayoutCheckpoint

  package init(_ layout: LayoutCheckpoint) { self.layout = layout }

  package var place: String { layout.checkpoint.folder.string }
  package var tensorNames: [String] { layout.records.map(\.name) }
  package func shape(of tensor: String) -> [Int]? { layout[tensor]?.shape }
  package func makeReader() -> any WeightReader { Reader(layout: layout) }

  private struct Reader: WeightReader {
    let layout: LayoutCheckpoint
    var bytes: [UInt8] = []

    mutating func read(_ tensor: String, _ elements: Range<Int>, into values: inout [Float]) throws {
      guard let record = layout[tensor] else {
        throw CheckpointError(file: layout.checkpoint.folder.string, tensor: tensor, .notFound)
      }
      try layout.decode(record, elements, into: &values, bytes: &bytes)
    }
  }
}

extension Model {
  /// The folder with the tokenizer and the other files.
  package var folder: FilePath {
    source is GGUFSource ? FilePath(source.place).removingLastComponent() : FilePath(source.place)
  }

  /// The tokens that end a text: `eos_token_id` of generation_config.json, or of config.json.
  package func endTokens() throws(CheckpointError) -> Set<Int32> {
    if source is GGUFSource {
      return Set([configuration["eos_token_id"]?.integer.flatMap { Int32(exactly: $0) }].compactMap { $0 })
    }
    for name in ["generation_config.json", "config.json"] {
      let path = folder.appending(name)
      let document: JSONValue
      do {
        document = try readJSONObject(path)
      } catch {
        if case .notFound = error.reason { continue }
        throw error
      }
      guard let value = document["eos_token_id"] else { continue }
      return Set((value.array ?? [value]).compactMap { $0.integer.flatMap { Int32(exactly: $0) } })
    }
    return []
  }

  /// Opens a folder or file, packed, in a runtime's layout or of full precision, as a model that can be run.
  package init(_ path: FilePath) throws {
    if GGUFFile.isGGUF(path) {
      let source = try GGUFSource(GGUFFile(path))
      try self.init(source, configuration: source.configuration)
    } else if PackedCheckpoint.isPacked(path) {
      let packed = try PackedCheckpoint(path)
      try self.init(PackedSource(packed), configuration: packed.checkpoint.configuration)
    } else {
      let checkpoint = try Checkpoint(path)
      if let layout = try LayoutCheckpoint(checkpoint) {
        try self.init(LayoutSource(layout), configuration: checkpoint.configuration)
      } else {
        try self.init(checkpoint, configuration: checkpoint.configuration)
      }
    }
  }
}
