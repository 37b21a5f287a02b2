import Checkpoints
import Crypto
import Foundation
import Kernels
import OrderedCollections
import SystemPackage

/// What decides the bytes of an output. A run is taken up only by one that has the same.
package struct ConversionIdentity: Hashable, Sendable {
  /// By what they are, in words for a message.
  private let facts: OrderedDictionary<String, String>

  /// - Parameters:
  ///   - recipe: everything that was asked for.
  ///   - kernels: the family of OpenBLAS's kernels, where results depend on it.
  package init(
    toolVersion: String, recipe: JSONValue, source: Checkpoint, kernels: String?
  ) throws(CheckpointError) {
    var facts: OrderedDictionary<String, String> = ["version": toolVersion]
    Self.flatten(recipe, as: "recipe", into: &facts)
    if let kernels { facts["OpenBLAS kernels"] = kernels }
    var files = source.files.map(\.path)
    let configuration = source.folder.appending("config.json")
    if FileManager.default.fileExists(atPath: configuration.string) { files.append(configuration) }
    try Self.add(files, to: &facts)
    for file in source.files {
      facts["header of \(file.path.lastComponent?.string ?? "")"] = try Self.headerHash(of: file.path)
    }
    self.facts = facts
  }

  /// Of an output that is made of whole files.
  package init(
    toolVersion: String, recipe: JSONValue, files: [FilePath], kernels: String? = nil
  ) throws(CheckpointError) {
    var facts: OrderedDictionary<String, String> = ["version": toolVersion]
    Self.flatten(recipe, as: "recipe", into: &facts)
    if let kernels { facts["OpenBLAS kernels"] = kernels }
    try Self.add(files, to: &facts)
    self.facts = facts
  }

  init?(_ json: JSONValue) {
    guard let members = json.object else { return nil }
    facts = members.compactMapValues(\.string)
  }

  var json: JSONValue { .object(facts.mapValues { .string($0) }) }

  /// What the other was made of, and this one is not; by line.
  func differences(from other: ConversionIdentity) -> [String] {
    let names = OrderedSet(other.facts.keys).union(facts.keys)
    return names.compactMap { name in
      let (old, new) = (other.facts[name], facts[name])
      return old == new ? nil : "\(name.printable): \((old ?? "none").printable), now \((new ?? "none").printable)"
    }
  }

  /// Size and time of the last change: the bytes of a large checkpoint would take as long to hash as to convert.
  private static func add(
    _ files: [FilePath], to facts: inout OrderedDictionary<String, String>
  ) throws(CheckpointError) {
    for file in files {
      do {
        let status = try Stat(file)
        let changed = status.st_mtim
        facts["source \(file.string)"] = "\(status.size) bytes, changed at \(changed.tv_sec).\(changed.tv_nsec)"
      } catch {
        throw CheckpointError(file: file.string, .notReadable("\(error)"))
      }
    }
  }

  private static func headerHash(of file: FilePath) throws(CheckpointError) -> String {
    do {
      let descriptor = try FileDescriptor.open(file, .readOnly, options: .closeOnExec)
      defer { try? descriptor.close() }
      var bytes = [UInt8](repeating: 0, count: 1 << 20)
      let count = try descriptor.readFully(at: 0, count: bytes.count, into: &bytes)
      return hexadecimal(SHA256.hash(data: bytes[..<count]))
    } catch {
      throw CheckpointError(file: file.string, .notReadable("\(error)"))
    }
  }

  static func hash(_ tokens: [Int32]) -> String {
    var hasher = SHA256()
    var bytes: [UInt8] = []
    for token in tokens {
      for shift in stride(from: 0, to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: token >> shift)) }
    }
    hasher.update(data: bytes)
    return hexadecimal(hasher.finalize())
  }

  private static func flatten(
    _ json: JSONValue, as name: String, into facts: inout OrderedDictionary<String, String>
  ) {
    if case .object(let members) = json {
      for (key, value) in members { flatten(value, as: "\(name), \(key)", into: &facts) }
    } else {
      facts[name] = json.string ?? json.text()
    }
  }
}
