import Calibration
import Checkpoints
import Foundation
import SystemPackage

/// Files in the folder of a run that hold what long steps have come to, each told of in the journal with its hash.
final class KeptWork: KeptFiles {
  private let output: OutputFolder
  private let journal: Journal
  private let workers: Int
  private var hashes: [String: String] = [:]
  /// Written, or looked at, in this run.
  private var known: Set<String> = []
  private var lastKept = ContinuousClock.now

  private enum Key {
    static let file = "kept"
    static let hash = "hash"
  }

  init(_ output: OutputFolder, _ journal: Journal, workers: Int) {
    (self.output, self.journal, self.workers) = (output, journal, workers)
    for entry in journal.entries {
      guard let name = entry[Key.file]?.string, let hash = entry[Key.hash]?.string else { continue }
      hashes[name] = hash
    }
  }

  func path(of name: String) -> FilePath { output.temporary(name) }

  private func hash(of name: String) -> String? {
    guard let size = try? Stat(path(of: name)).size else { return nil }
    return hashOfParts(ofFile: path(of: name), size: Int(size), workers: workers)
  }

  func has(_ name: String) -> Bool {
    guard let expected = hashes[name] else { return false }
    if !known.contains(name), hash(of: name) == expected { known.insert(name) }
    return known.contains(name)
  }

  var isDue: Bool { ContinuousClock.now - lastKept >= journal.interval }

  func keep(_ name: String) throws {
    guard let hash = hash(of: name) else {
      throw ConversionError.writeFailed(path(of: name).string, "it cannot be read back")
    }
    try journal.append([Key.file: .string(name), Key.hash: .string(hash)])
    hashes[name] = hash
    known.insert(name)
    lastKept = .now
  }

  func discard(_ name: String) {
    hashes[name] = nil
    known.remove(name)
    try? FileManager.default.removeItem(atPath: path(of: name).string)
  }
}
