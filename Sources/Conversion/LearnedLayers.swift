import Calibration
import Checkpoints
import Kernels
import Models
import Quantization

/// What learning did for a block, or for the whole model.
package struct LearningRecord: Hashable, Codable, Sendable {
  /// nil: the whole model.
  package let block: Int?
  package let outcome: LearningOutcome

  var json: JSONValue {
    [
      "block": block.map { .integer($0) } ?? "all",
      "loss": block == nil ? "mean KL divergence per token" : "relative squared error of the block's output",
      "loss_before": .real(outcome.before), "loss_after": .real(outcome.after), "steps": .integer(outcome.steps),
    ]
  }
}

extension CalibratedLayers {
  /// A layer quantized by itself, before it is learned.
  private struct Start {
    let weight: AffineWeight
    let goal: Matrix
    let tensor: Plan.Tensor
    let scheme: WeightScheme
  }

  /// Quantizes layer by layer, learns block by block or over the whole model, then writes.
  func learn(
    _ calibration: BlockCalibration, _ wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)],
    into record: CalibrationRecord, milestones: BlockCalibration.Milestones?,
    onProgress: @escaping (WorkProgress) -> Bool,
    write: @escaping TileWriter
  ) throws {
    let options = plan.recipe.calibration.learning
    try requireMemory(wanted)
    func isLearned(_ linear: LinearDescription) -> Bool { wanted[linear.weight]?.scheme.method == .learned }
    let length = Double(windows.windows.map(\.count).max() ?? 1)
    let step = Double(options.method(iterations: 1).batchSize) * length
    let learned = step * Double(options.iterations)
    // Operations of the parts before and after the blocks, of which the forward pass is run for both models.
    var work = calibration.plannedWork(
      from: milestones?.first ?? 0, isWanted: { wanted[$0.weight] != nil }, learned: learned)
    let forward = (work[.run] ?? 0) / 2
    if options.coupledSweeps > 0 { work[.curvature] = 25 * forward }
    if options.distillation > 0 {
      work[.distill] = 3 * forward / Double(max(1, windows.tokenCount)) * step * Double(options.distillation)
    }
    var done: [WorkProgress.Kind: Double] = [:]
    func tell(_ progress: WorkProgress) -> Bool {
      var progress = progress
      progress.total = work
      progress.done.merge(done) { first, _ in first }
      return onProgress(progress)
    }
    func tell(_ kind: WorkProgress.Kind, share: Double) -> Bool {
      done[kind] = share * (work[kind] ?? 0)
      return tell(WorkProgress())
    }
    var curvatures: [LinearDescription: OutputCurvature] = [:]
    if options.coupledSweeps > 0, milestones.map({ $0.first < model.description.blocks.count }) ?? true {
      curvatures = try PredictionCurvature(
        model, windows: tokens(windows.windows), memoryLimit: resources.activationMemory,
        spillFolder: resources.spillFolder, workers: workers
      ).run(isWanted: isLearned) { tell(.curvature, share: $0) }
    }
    var starts: [LinearDescription: Start] = [:]
    var blocks: [[LearnedLayer]] = []
    try calibration.run(
      isWanted: { wanted[$0.weight] != nil }, onProgress: tell,
      // What is learned over the whole model is written only after the last block: such a run has no milestones.
      milestones: options.distillation > 0 ? nil : milestones, learned: learned,
      finish: { problem, index, onStep in
        let layers = LearnedLayer.layers(of: problem.block) { linear in starts[linear].map(learnable) }
        var norms: [NormPlace: LoadedNorm] = [:]
        if options.iterations > 0, layers.contains(where: { isLearned($0.linear) }) {
          let found = try BlockTuning(options.method(iterations: options.iterations), seed: UInt64(index))
            .run(problem, layers, workers: workers, onStep: onStep)
          record.learning.append(LearningRecord(block: index, outcome: found.outcome))
          norms = found.norms
        }
        if options.distillation > 0 {
          blocks.append(layers)
        } else {
          try self.write(layers, wanted, write)
        }
        starts = [:]
        return norms
      }
    ) { problem in
      guard let (tensor, scheme) = wanted[problem.linear.weight] else { return }
      let found = try quantize(problem, scheme, tensor.source, curvature: curvatures[problem.linear])
      record.layers.append(found.outcome)
      starts[problem.linear] = Start(weight: found.weight, goal: found.goal, tensor: tensor, scheme: scheme)
      found.weight.decode(into: problem.weight, workers: workers)
    }
    if options.distillation > 0 {
      let distillation = Distillation(
        options.method(iterations: options.distillation), model, windows: tokens(windows.windows),
        heldOut: tokens(windows.heldOut), memoryLimit: resources.activationMemory, spillFolder: resources.spillFolder,
        workers: workers)
      let outcome = try distillation.run(blocks) { share in
        guard tell(.distill, share: share) else { throw CancellationError() }
      }
      if let outcome { record.learning.append(LearningRecord(block: nil, outcome: outcome)) }
      for layers in blocks { try self.write(layers, wanted, write) }
    }
  }

  private func tokens(_ ranges: [Range<Int>]) -> [[Int32]] { ranges.map { Array(windows.tokens[$0]) } }

  private func learnable(_ start: Start) -> LearnedWeight {
    LearnedWeight(
      from: start.weight, goal: start.goal, scaleType: start.scheme.scaleType, isSymmetric: start.scheme.isSymmetric,
      hasMomentum: true, isFixed: start.scheme.method != .learned,
      keepsCodes: plan.recipe.calibration.learning.rate == 0)
  }

  private func write(
    _ layers: [LearnedLayer], _ wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)],
    _ write: TileWriter
  ) throws {
    for layer in layers {
      guard let (tensor, scheme) = wanted[layer.linear.weight] else { continue }
      try Self.write(
        layer.weight.quantized(workers: workers), of: tensor, scheme, first: Self.firstElement(of: layer.linear), write)
    }
  }

  /// Refuses to learn over the whole model where it does not fit.
  private func requireMemory(
    _ wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)]
  ) throws(ConversionError) {
    guard plan.recipe.calibration.learning.distillation > 0 else { return }
    let weights = wanted.values.reduce(0) { $0 + $1.tensor.source.entry.elementCount }
    let needed = weights * Distillation.bytesPerWeight
    guard needed <= resources.activationMemory else {
      throw .tooLargeToDistill(weights: weights, needed: needed, limit: resources.activationMemory)
    }
  }
}
