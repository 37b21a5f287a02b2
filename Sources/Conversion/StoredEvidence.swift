import Calibration
import Checkpoints
import Quantization
import SystemPackage

/// Evidence that was gathered before: from it a model is quantized without being run.
package protocol StoredEvidence: Sendable {
  /// The file or folder, for messages.
  var place: String { get }
  var inputs: [LinearInput] { get }
  /// Of each input.
  var tokens: [Int] { get }
  var hasHessians: Bool { get }
  /// What the manifest says of it.
  var record: JSONValue { get }

  /// Reads and validates what is known of one input, in memory for that input alone.
  /// - Parameter withHessian: only where there are Hessians.
  /// - Throws: `EvidenceFileError`, `EvidenceError` and `CheckpointError` for what is damaged.
  func evidence(ofInput index: Int, withHessian: Bool, workers: Int) throws -> InputEvidence
}

extension StoredEvidence {
  /// What is known of every input, without Hessians.
  package func statistics(workers: Int) throws -> [InputEvidence] {
    try inputs.indices.map { try evidence(ofInput: $0, withHessian: false, workers: workers) }
  }

  /// The statistics of every weight's inputs, by tensor name.
  package func columnStatistics(workers: Int) throws -> [String: FeatureStatistics] {
    var evidence = Evidence()
    for input in try statistics(workers: workers) { evidence.append(input) }
    return evidence.columnStatistics
  }

  /// The weights that can be calibrated: groups of codes run along their inputs, and each matrix of a tensor that stacks
  /// some is known and begins on a whole byte.
  /// - Throws: where there are none.
  func calibratedTensors(of source: Checkpoint) throws(EvidenceFileError) -> Set<String> {
    guard hasHessians else { throw EvidenceFileError(place, .noHessians) }
    var experts: [String: Set<Int>] = [:]
    for layer in inputs.flatMap(\.layers) {
      experts[layer.weight, default: []].insert(layer.expert ?? 0)
    }
    let names = experts.filter { name, known in
      guard let entry = source[name]?.entry else { return false }
      let shape = source.isTransposed(entry) ? exchangingLastTwo(entry.shape) : entry.shape
      return shape.count == 2 || shape.count == 3 && shape[1] % 8 == 0 && known == Set(0..<shape[0])
    }
    guard !names.isEmpty else { throw EvidenceFileError(place, .nothingToCalibrate) }
    return Set(names.keys)
  }
}

/// Opens evidence for a model: a file of `convert-model calibrate`, or activations captured elsewhere.
/// - Throws: `EvidenceFileError` where it is another model's.
package func openEvidence(_ path: String, for source: Checkpoint) throws -> any StoredEvidence {
  let checkpoint = try Checkpoint(FilePath(path))
  if checkpoint.files.count == 1, EvidenceFile.isEvidence(checkpoint.files[0]) {
    let file = try EvidenceFile(checkpoint.files[0])
    let model = try source.identity()
    guard file.header.model == model else {
      throw EvidenceFileError(path, .otherModel(found: file.header.model, expected: model))
    }
    return file
  }
  return try CapturedActivations(checkpoint, place: path, for: source)
}
