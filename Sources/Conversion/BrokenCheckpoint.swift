import Checkpoints
import Foundation
import OrderedCollections
import Reports
import SystemPackage

/// A folder with safetensors files that is no whole checkpoint: shards are missing or damaged, or index and shards do not
/// belong together. What can be read of it is listed.
struct BrokenCheckpoint: Sendable {
  let error: CheckpointError
  let files: [SafetensorsFile]
  let oddities: [Inspection.Oddity]

  var tensors: [TensorEntry] { files.flatMap(\.header.tensors) }

  /// Nil for a single file, and where nothing in the folder can be read.
  init?(_ path: FilePath, _ error: CheckpointError) {
    guard (try? Stat(path))?.type == .directory,
      let names = try? FileManager.default.contentsOfDirectory(atPath: path.string).sorted()
    else { return nil }
    var files: [SafetensorsFile] = []
    var oddities: [Inspection.Oddity] = []
    for name in names where name.hasSuffix(".safetensors") {
      do {
        files.append(try SafetensorsFile(path.appending(name)))
      } catch {
        oddities.append(Inspection.Oddity("\(error)", isDefect: true))
      }
    }
    guard !files.isEmpty else { return nil }
    self.error = error
    self.files = files
    oddities += Self.compare(files, path)
    self.oddities =
      oddities.contains(where: \.isDefect) ? oddities : [Inspection.Oddity("\(error)", isDefect: true)] + oddities
  }

  /// What index and shards say of each other.
  private static func compare(_ files: [SafetensorsFile], _ path: FilePath) -> [Inspection.Oddity] {
    var oddities: [Inspection.Oddity] = []
    var places: OrderedDictionary<String, [String]> = [:]
    for file in files {
      for entry in file.header.tensors {
        places[entry.name, default: []].append(file.path.lastComponent?.string ?? "")
      }
    }
    let twice = places.filter { $0.value.count > 1 }
    if let first = twice.elements.first {
      oddities.append(
        Inspection.Oddity(
          "in two files or more: \(twice.count) of the tensors, such as '\(first.key.printable)' in"
            + " \(first.value.map(\.printable).joined(separator: " and "))", isDefect: true))
    }
    guard let map = (try? readJSONObject(path.appending(Checkpoint.indexName)))?["weight_map"]?.object else {
      if files.count > 1 {
        oddities.append(
          Inspection.Oddity("\(files.count) safetensors files without \(Checkpoint.indexName)", isDefect: true))
      }
      return oddities
    }
    let present = Set(files.compactMap { $0.path.lastComponent?.string })
    let missing = Set(map.values.compactMap(\.string)).subtracting(present).sorted()
    for shard in missing {
      let count = map.values.count { $0.string == shard }
      oddities.append(
        Inspection.Oddity(
          "\(shard.printable), where the index has \(count) of the tensors, is missing or cannot be read",
          isDefect: true
        ))
    }
    let absent = map.filter { places[$0.key] == nil && !missing.contains($0.value.string ?? "") }
    if let first = absent.elements.first {
      oddities.append(
        Inspection.Oddity(
          "in no file: \(absent.count) of the tensors of the index, such as '\(first.key.printable)'", isDefect: true))
    }
    let orphans = places.filter { map[$0.key] == nil }
    if let first = orphans.elements.first {
      oddities.append(
        Inspection.Oddity(
          "not in the index: \(orphans.count) of the tensors, such as '\(first.key.printable)' in"
            + " \(first.value[0].printable)", isDefect: true))
    }
    return oddities
  }
}
