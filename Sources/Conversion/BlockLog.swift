import Calibration
import Checkpoints
import OrderedCollections

/// Records a calibration in a journal, block by block, with what goes into the next.
final class BlockLog {
  private let output: OutputFolder
  private let journal: Journal
  private var finished: FinishedWork.Blocks
  private let workers: Int
  /// Tensors written to since the last block.
  private var tensors: [String] = []

  init(_ output: OutputFolder, _ journal: Journal, finished: FinishedWork.Blocks, workers: Int) {
    (self.output, self.journal, self.finished, self.workers) = (output, journal, finished, workers)
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
    if !isUsable(finished.pass.next) { finished = FinishedWork.Blocks() }
    record.layers = finished.layers
    record.learning = finished.learning
    var (layers, learning) = (record.layers.count, record.learning.count)
    return BlockPass.quantizing.milestones(of: output, journal, goingOnFrom: finished.pass, workers: workers) {
      defer {
        (layers, learning) = (record.layers.count, record.learning.count)
        self.tensors = []
      }
      return [
        FinishedWork.Key.layers: try JSONValue(encoding: Array(record.layers[layers...])),
        FinishedWork.Key.learning: try JSONValue(encoding: Array(record.learning[learning...])),
        FinishedWork.Key.tensors: .array(self.tensors.map { .string($0) }),
      ]
    }
  }
}

/// What a calibration has found so far.
final class CalibrationRecord {
  var layers: [LayerOutcome] = []
  var learning: [LearningRecord] = []
}
