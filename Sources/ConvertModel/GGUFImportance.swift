import Calibration
import Checkpoints
import Conversion
import Evaluation
import Models
import Packing
import SystemPackage

extension Convert {
  /// How much the columns of weights matter, by evidence or by a text; nil where neither is given.
  func gatherImportance() throws -> (ImportanceMatrix, String)? {
    if let path = calibration.evidence {
      let checkpoint = try Checkpoint(FilePath(source))
      let evidence = try openEvidence(path, for: checkpoint)
      let inputs = try evidence.inputs.indices.map {
        try evidence.evidence(ofInput: $0, withHessian: false, workers: running.workers)
      }
      let name = FilePath(path).lastComponent?.string ?? path
      return (
        try ImportanceMatrix(inputs, of: checkpoint, configuration: checkpoint.configuration, datasets: [name]), name
      )
    }
    guard let texts = calibration.text.calibration else { return nil }
    let opened = try OpenedWeights(FilePath(source))
    let model = try Model(opened.source, configuration: opened.configuration)
    let interruption = Interruption()
    let display = ProgressDisplay(progress, verb: "Calibrating")
    defer { display.finish() }
    var options = CalibrationOptions()
    try calibration.text.set(&options)
    options.heldOut = 0
    let text = calibrationText(model, options, interruption, display)
    let windows = try text.windows()
    let evidence = try text.gather(windows, memory: memory.limit / 2, spillFolder: memory.spillFolder)
    var matrix = try ImportanceMatrix(
      evidence.inputs, of: opened.source, configuration: opened.configuration, datasets: [texts])
    matrix.chunkCount = windows.windows.count
    return (matrix, texts)
  }
}
