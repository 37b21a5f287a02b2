import Calibration
import Checkpoints
import Foundation
import Models
import SystemPackage

/// Records a calibration in a journal, block by block, with what goes into the next.
final class BlockLog {
  private let output: OutputFolder
  private let journal: Journal
  private var finished: FinishedWork.Blocks
  /// Tensors written to since the last block.
  private var tensors: [String] = []
  private var files: [String]

  init(_ output: OutputFolder, _ journal: Journal, finished: FinishedWork.Blocks) {
    (self.output, self.journal, self.finished) = (output, journal, finished)
    files = finished.states
  }

  /// A tile of a tensor was handed on.
  func note(_ tensor: String) {
    if tensors.last != tensor, !tensors.contains(tensor) { tensors.append(tensor) }
  }

  /// - Parameters:
  ///   - record: what is known of the layers and blocks so far, those of earlier runs among them.
  ///   - isUsable: whether what else is needed of so many finished blocks is there; if not, all are done again.
  func milestones(
    _ record: CalibrationRecord, isUsable: (_ blocks: Int) -> Bool = { _ in true }
  ) -> BlockCalibration.Milestones {
    if !isUsable(finished.next) { finished = FinishedWork.Blocks() }
    record.layers = finished.layers
    record.learning = finished.learning
    var (layers, learning) = (record.layers.count, record.learning.count)
    return BlockCalibration.Milestones(
      first: finished.next,
      restore: { states, track in try states.restore(from: self.output.temporary(self.files[track])) },
      onBlock: { next, states in
        try self.end(next, states, record.layers[layers...], record.learning[learning...])
        (layers, learning) = (record.layers.count, record.learning.count)
      })
  }

  private func end(
    _ next: Int, _ states: [HiddenStates], _ layers: ArraySlice<LayerOutcome>, _ learning: ArraySlice<LearningRecord>
  ) throws {
    var written: [JSONValue] = []
    var names: [String] = []
    var buffer: [UInt8] = []
    for (track, states) in states.enumerated() {
      let name = "states-\(next)-\(track)"
      let path = output.temporary(name)
      try states.save(to: path)
      let size = states.tokens * states.width * MemoryLayout<Float>.stride
      guard let hash = sha256(ofFile: path, 0..<size, using: &buffer) else {
        throw ConversionError.writeFailed(path.string, "it cannot be read back")
      }
      names.append(name)
      written.append([.string(name), .string(hash)])
    }
    try journal.append([
      FinishedWork.Key.block: .integer(next),
      FinishedWork.Key.layers: JSONValue(encoding: Array(layers)),
      FinishedWork.Key.learning: JSONValue(encoding: Array(learning)),
      FinishedWork.Key.tensors: .array(tensors.map { .string($0) }),
      FinishedWork.Key.states: .array(written),
    ])
    for name in files { try? FileManager.default.removeItem(atPath: output.temporary(name).string) }
    files = names
    tensors = []
  }
}

/// What a calibration has found so far.
final class CalibrationRecord {
  var layers: [LayerOutcome] = []
  var learning: [LearningRecord] = []
}
