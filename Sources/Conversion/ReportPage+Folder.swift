import Checkpoints
import Packing
import Reports
import SystemPackage

extension ReportPage {
  /// The page of a packed folder.
  /// - Parameters:
  ///   - report: of the same folder.
  ///   - run: what is known of the conversion's run, such as its time; first among what tells how it was made.
  /// - Throws: if the manifest cannot be read.
  package init(
    _ folder: FilePath, report: ModelReport, profiles: [String: TensorProfile], evaluation: JSONValue?,
    run: [(name: String, value: String)] = []
  ) throws {
    let manifest = try PackedCheckpoint(folder).manifest
    var rows = [(name: "program", value: "convert-model \(manifest.toolVersion)")] + run
    rows += Self.flattened(manifest.recipe, prefix: "")
    if let windows = report.calibration?.windows { rows += Self.flattened(windows, prefix: "calibration ") }
    rows += manifest.sourceFiles.map { ("source file", "\($0.name), \($0.byteCount) bytes") }
    rows += manifest.files.map { ("output file", "\($0.name), \($0.byteCount) bytes") }
    self.init(
      title: folder.lastComponent?.string ?? folder.string, report: report, profiles: profiles,
      evaluation: evaluation, provenance: rows)
  }

  /// Members of objects, one a row, their names joined.
  private static func flattened(_ value: JSONValue, prefix: String) -> [(name: String, value: String)] {
    guard let members = value.object else { return [] }
    return members.flatMap { key, value -> [(name: String, value: String)] in
      let name = prefix + key.replacing("_", with: " ")
      switch value {
      case .object: return flattened(value, prefix: name + " ")
      case .array(let items) where items.contains(where: { $0.object != nil }):
        return items.enumerated().flatMap { flattened($1, prefix: name + " \($0 + 1) ") }
      case .array(let items) where items.isEmpty: return []
      case .null: return []
      case .string(let text): return [(name, text.printable)]
      default: return [(name, value.text())]
      }
    }
  }
}

extension CalibrationReport {
  /// What stands beside the weights of a folder; nil if nothing does.
  /// - Throws: if it is there and damaged.
  package init?(beside folder: FilePath) throws {
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
