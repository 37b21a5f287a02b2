import Calibration
import Checkpoints
import Foundation
import Models
import OrderedCollections
import SystemPackage

/// A pass over the blocks of a model that is recorded in the journal as it goes: after each block, or several that took
/// less time together than the journal's interval, what was found, and the states that go into the next.
enum BlockPass: String, Sendable {
  case quantizing = "next_block"
  case observing = "next_observed_block"
  case splitting = "next_split_block"

  private static let states = "states"

  /// Begins the names of files with states.
  private var fileName: String {
    switch self {
    case .quantizing: "states"
    case .observing: "observed-states"
    case .splitting: "split-states"
    }
  }

  /// How far an interrupted run came.
  struct Finished: Sendable {
    /// The first block that is not done.
    var next = 0
    /// What was recorded, which tells of one block or more each.
    var entries: [JSONValue] = []
    /// By track, the files with what goes into that block.
    var states: [String] = []
  }

  /// A block counts if all that it wrote is there, as well as all before it.
  /// - Parameters:
  ///   - entries: of the journal.
  ///   - isWhole: whether the rest of what an entry tells of is there.
  func finished(
    _ entries: [JSONValue], in output: any ResumableOutput, workers: Int, isWhole: (JSONValue) -> Bool = { _ in true }
  ) -> Finished {
    var finished = Finished()
    var states: [(file: String, hash: String)] = []
    for entry in entries {
      guard let next = entry[rawValue]?.integer else { continue }
      // A run that began the pass anew told of its first block again.
      if next <= finished.next { (finished, states) = (Finished(), []) }
      guard isWhole(entry) else { return Finished() }
      finished.next = next
      finished.entries.append(entry)
      states =
        entry[Self.states]?.array?.compactMap { state in
          guard let file = state.array?.first?.string, let hash = state.array?.last?.string else { return nil }
          return (file, hash)
        } ?? []
    }
    for (file, hash) in states {
      let path = output.temporary(file)
      guard let size = try? Stat(path).size, hashOfParts(ofFile: path, size: Int(size), workers: workers) == hash else {
        return Finished()
      }
    }
    finished.states = states.map(\.file)
    return finished
  }

  /// What tells the journal of blocks.
  /// - Parameter found: what there is to say of the blocks since it was last called, beside number and states.
  func milestones(
    of output: any ResumableOutput, _ journal: Journal, goingOnFrom finished: Finished, workers: Int,
    found: @escaping () throws -> OrderedDictionary<String, JSONValue>
  ) -> BlockCalibration.Milestones {
    var files = finished.states
    var recorded = ContinuousClock.now
    return BlockCalibration.Milestones(
      first: finished.next,
      restore: { states, track in try states.restore(from: output.temporary(files[track])) },
      onBlock: { next, states in
        // States take about as long to write and hash as short blocks to be done. After the last there are none.
        guard states.isEmpty || ContinuousClock.now - recorded >= journal.interval else { return }
        defer { recorded = .now }
        var names: [String] = []
        var written: [JSONValue] = []
        for (track, states) in states.enumerated() {
          let name = "\(fileName)-\(next)-\(track)"
          names.append(name)
          written.append([.string(name), .string(try Self.save(states, to: output.temporary(name), workers: workers))])
        }
        var entry: OrderedDictionary<String, JSONValue> = [rawValue: .integer(next)]
        entry.merge(try found()) { $1 }
        entry[Self.states] = .array(written)
        try journal.append(.object(entry))
        for name in files { try? FileManager.default.removeItem(atPath: output.temporary(name).string) }
        files = names
      })
  }

  /// - Returns: the hash of what was written.
  private static func save(_ states: HiddenStates, to path: FilePath, workers: Int) throws -> String {
    try states.save(to: path, workers: workers)
    let size = states.tokens * states.width * MemoryLayout<Float>.stride
    guard let hash = hashOfParts(ofFile: path, size: size, workers: workers) else {
      throw ConversionError.writeFailed(path.string, "it cannot be read back")
    }
    return hash
  }
}
