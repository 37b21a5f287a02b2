import Foundation
import Kernels
import OrderedCollections
import SystemPackage

/// A tensor of a checkpoint and the file that holds it.
package struct CheckpointTensor: Sendable {
  package let entry: TensorEntry
  package let file: SafetensorsFile
  /// Position of the file in `Checkpoint.files`.
  package let fileIndex: Int
  /// Whether `entry.shape` has the last two dimensions the other way round than the file.
  package var isTransposed = false
  /// Where the tensor is the transpose of a part of a stored one.
  var columnRun: ColumnRun?

  package var name: String { entry.name }
}

/// A model on disk: one safetensors file, or shards with an index, with the configuration beside them.
///
/// Opening validates everything that headers and index can tell; no tensor data is read.
package struct Checkpoint: Sendable {
  /// The folder of the files, also where a single file was named.
  package let folder: FilePath
  package let files: [SafetensorsFile]
  /// In file order, within a file in data order.
  package let tensors: [CheckpointTensor]
  /// `config.json`, nil where there is none.
  package let configuration: JSONValue?
  private let positions: [String: Int]

  package static let indexName = "model.safetensors.index.json"
  package static let singleName = "model.safetensors"

  /// - Parameter path: a folder, a `.safetensors` file, or an index file.
  package init(_ path: FilePath) throws(CheckpointError) {
    let location = try Self.locate(path)
    folder = location.folder
    let shards: OrderedDictionary<String, [String]>?
    switch location.kind {
    case .single(let name):
      files = [try SafetensorsFile(folder.appending(name))]
      shards = nil
    case .index(let name):
      let map = try Self.readIndex(folder.appending(name))
      var opened: [SafetensorsFile] = []
      for shard in map.keys {
        do {
          opened.append(try SafetensorsFile(folder.appending(shard)))
        } catch  where error.reason == .notFound {
          throw CheckpointError(file: folder.appending(name).string, .missingShard(shard))
        }
      }
      files = opened
      shards = map
    }
    var tensors: [CheckpointTensor] = []
    var positions: [String: Int] = [:]
    for (fileIndex, file) in files.enumerated() {
      for entry in file.header.tensors {
        if let other = positions[entry.name] {
          let first = tensors[other].file.path.lastComponent?.string ?? ""
          let second = file.path.lastComponent?.string ?? ""
          throw CheckpointError(file: folder.string, tensor: entry.name, .inTwoShards(first, second))
        }
        positions[entry.name] = tensors.count
        tensors.append(CheckpointTensor(entry: entry, file: file, fileIndex: fileIndex))
      }
    }
    if let shards { try Self.compare(shards, files: files, index: location.path.string) }
    self.tensors = tensors
    self.positions = positions
    let configurationPath = folder.appending("config.json")
    configuration =
      FileManager.default.fileExists(atPath: configurationPath.string) ? try readJSONObject(configurationPath) : nil
  }

  private init(_ other: Checkpoint, tensors: [CheckpointTensor]) {
    (folder, files, configuration) = (other.folder, other.files, other.configuration)
    self.tensors = tensors
    positions = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($1.name, $0) })
  }

  /// The same files seen as other tensors.
  /// - Precondition: their names differ, and their bytes are of these files.
  func viewing(_ tensors: [CheckpointTensor]) -> Checkpoint { Checkpoint(self, tensors: tensors) }

  package subscript(name: String) -> CheckpointTensor? { positions[name].map { tensors[$0] } }

  // MARK: Finding the files

  private enum Kind {
    case single(String)
    case index(String)
  }

  private static func locate(_ path: FilePath) throws(CheckpointError) -> (folder: FilePath, path: FilePath, kind: Kind)
  {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path.string, isDirectory: &isDirectory) else {
      throw CheckpointError(file: path.string, .notFound)
    }
    if isDirectory.boolValue {
      // As transformers does, a single file is preferred to an index beside it.
      for (name, kind) in [(singleName, Kind.single(singleName)), (indexName, Kind.index(indexName))]
      where FileManager.default.fileExists(atPath: path.appending(name).string) {
        return (path, path.appending(name), kind)
      }
      let names: [String]
      do {
        names = try FileManager.default.contentsOfDirectory(atPath: path.string)
      } catch {
        throw CheckpointError(file: path.string, .notReadable("\(error.localizedDescription)"))
      }
      let candidates = names.filter { $0.hasSuffix(".safetensors") }
      let indices = names.filter { $0.hasSuffix(".safetensors.index.json") }
      if candidates.count == 1 { return (path, path.appending(candidates[0]), .single(candidates[0])) }
      if indices.count == 1 { return (path, path.appending(indices[0]), .index(indices[0])) }
      throw CheckpointError(file: path.string, .noSafetensors)
    }
    let folder = path.removingLastComponent()
    let name = path.lastComponent?.string ?? path.string
    return (folder.isEmpty ? "." : folder, path, name.hasSuffix(".json") ? .index(name) : .single(name))
  }

  /// Shard names in order of name, each with the tensors the index places in it.
  private static func readIndex(_ path: FilePath) throws(CheckpointError) -> OrderedDictionary<String, [String]> {
    let document = try readJSONObject(path)
    guard let map = document["weight_map"]?.object else { throw CheckpointError(file: path.string, .noWeightMap) }
    guard !map.isEmpty else { throw CheckpointError(file: path.string, .emptyWeightMap) }
    var shards: OrderedDictionary<String, [String]> = [:]
    for (tensor, value) in map {
      guard let name = value.string else {
        throw CheckpointError(file: path.string, tensor: tensor, .field("weight_map", expected: "a shard's name"))
      }
      // By bytes: a combining mark after a slash would hide it from a comparison of characters.
      let isPlain = name.hasSuffix(".safetensors") && !name.utf8.contains { "/\\\0".utf8.contains($0) }
      guard isPlain else { throw CheckpointError(file: path.string, tensor: tensor, .unsafeShardName(name)) }
      shards[name, default: []].append(tensor)
    }
    shards.sort { $0.key < $1.key }
    return shards
  }

  private static func compare(
    _ shards: OrderedDictionary<String, [String]>, files: [SafetensorsFile], index: String
  ) throws(CheckpointError) {
    for (shard, file) in zip(shards, files) {
      let present = Set(file.header.tensors.map(\.name))
      for name in shard.value where !present.contains(name) {
        throw CheckpointError(file: index, tensor: name, .notInShard(shard.key))
      }
      let listed = Set(shard.value)
      for entry in file.header.tensors where !listed.contains(entry.name) {
        throw CheckpointError(file: index, tensor: entry.name, .notInIndex(shard: shard.key))
      }
    }
  }
}
