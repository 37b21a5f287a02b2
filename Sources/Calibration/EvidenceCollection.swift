import Kernels
import Models
import Quantization

extension BlockCalibration {
  /// Runs the model as it is, once over the windows to calibrate on, and hands out what it learns of each input of
  /// linear layers: in the order of the blocks, and within one of the data. Routers are not among the layers.
  ///
  /// Nothing is quantized, so that the evidence serves any number of conversions. Without Hessians this costs little more
  /// than the forward pass; one input's evidence is in memory at a time, unless `receive` keeps it.
  /// - Parameters:
  ///   - isWanted: whether a layer's evidence is needed.
  ///   - onProgress: how far it is; returns false to stop.
  ///   - milestones: where a run is taken up; inputs of the blocks before are not handed out again.
  /// - Throws: `EvidenceError` naming the layer and the feature whose value is not finite.
  package func collect(
    _ evidence: EvidenceOptions, isWanted: @escaping (LinearDescription) -> Bool = { _ in true },
    onProgress: @escaping (WorkProgress) -> Bool, milestones: Milestones? = nil,
    receive: @escaping (InputEvidence) throws -> Void
  ) throws {
    try asGiven.walk(
      isWanted: isWanted, onProgress: onProgress, .observe(evidence, receive), milestones: milestones)
  }

  /// The evidence of all inputs at once.
  package func collect(_ evidence: EvidenceOptions, onProgress: @escaping (WorkProgress) -> Bool) throws -> Evidence {
    var result = Evidence()
    try collect(evidence, onProgress: onProgress) { result.append($0) }
    return result
  }
}

extension BlockCalibration.BlockRun {
  /// Gathers the evidence of one input.
  /// - Parameters:
  ///   - rows: for each group the tokens that reach the layers; nil: all.
  ///   - fill: writes the inputs of a group.
  func observe(
    _ layers: [EvidencedLayer], width: Int, rows chosen: [[Int]]?, _ evidence: EvidenceOptions,
    use: (_ group: Int, _ count: Int, _ body: (Matrix) throws -> Void) throws -> Void
  ) throws -> InputEvidence {
    var input = InputEvidence(layers, dimension: width, evidence)
    for (index, group) in groups.enumerated() where !group.isHeldOut {
      let count = chosen?[index].count ?? group.rows.count
      guard count > 0 else { continue }
      try use(index, count) { x in
        do throws(HessianError) {
          try input.add(x, workers: options.workers)
        } catch {
          throw EvidenceError(place, layers, error)
        }
      }
    }
    return input
  }
}
