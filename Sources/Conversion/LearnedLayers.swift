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
  /// Names of files that are kept.
  private static func tuningName(_ block: Int) -> String { "tuning-\(block)" }
  private static func partName(_ block: Int) -> String { "learned-\(block)" }
  private static let distillationName = "distillation"

  /// Quantizes layer by layer, learns block by block or over the whole model, then writes.
  func learn(
    _ calibration: BlockCalibration, _ wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)],
    into record: CalibrationRecord, log: BlockLog?, kept: KeptWork?,
    onProgress: @escaping (WorkProgress) -> Bool,
    rewrite: @escaping TensorRewriter, write: @escaping TileWriter
  ) throws {
    let options = plan.recipe.calibration.learning
    try requireMemory(wanted)
    // What is learned over the whole model is written after the last block: until then, blocks are kept in files.
    let keepsParts = options.distillation > 0
    let milestones = log?.milestones(record) { count in
      !keepsParts || (0..<count).allSatisfy { kept?.has(Self.partName($0)) ?? false }
    }
    let firstBlock = milestones?.first ?? 0
    func isLearned(_ linear: LinearDescription) -> Bool { wanted[linear.weight]?.scheme.method == .learned }
    let length = Double(windows.windows.map(\.count).max() ?? 1)
    let step = Double(options.method(iterations: 1).batchSize) * length
    let learning = LearningWork(
      stepTokens: step * Double(options.iterations), coupledSweeps: options.coupledSweeps)
    func planned(from first: Int) -> [WorkProgress.Kind: Double] {
      calibration.plannedWork(from: first, isWanted: { wanted[$0.weight] != nil }, learning: learning)
    }
    // Operations of the parts before and after the blocks, of which the forward pass is run for both models.
    var work = planned(from: firstBlock)
    let forward = (planned(from: 0)[.run] ?? 0) / 2
    if options.coupledSweeps > 0, firstBlock < model.description.blocks.count { work[.curvature] = 2.4 * forward }
    if options.distillation > 0 {
      work[.reference] = forward
      work[.distill] = 3 * forward / Double(max(1, windows.tokenCount)) * step * Double(options.distillation)
    }
    var done: [WorkProgress.Kind: Double] = [:]
    func tell(_ progress: WorkProgress) -> Bool {
      var progress = progress
      progress.total = work
      progress.done.merge(done) { first, _ in first }
      return onProgress(progress)
    }
    func tell(_ kind: WorkProgress.Kind, share: Double, loss: WorkProgress.Loss? = nil) -> Bool {
      done[kind] = share * (work[kind] ?? 0)
      var progress = WorkProgress()
      progress.loss = loss
      return tell(progress)
    }
    var curvatures: [LinearDescription: OutputCurvature] = [:]
    if options.coupledSweeps > 0, firstBlock < model.description.blocks.count {
      curvatures = try PredictionCurvature(
        model, windows: tokens(windows.windows), memoryLimit: resources.activationMemory,
        spillFolder: resources.spillFolder, workers: workers
      ).run(isWanted: isLearned, kept: kept) { tell(.curvature, share: $0) }
    }
    let tuned = Dictionary(uniqueKeysWithValues: plan.tensors.filter(\.isTuned).map { ($0.source.name, $0) })
    func vectors(of block: BlockDescription) -> [(tensor: Plan.Tensor, vector: BlockVector)] {
      block.vectors.compactMap { vector in tuned[vector.tensor].map { ($0, vector) } }
    }
    var starts: [LinearDescription: LearningStart] = [:]
    var parts: [Int: Distillation.Part] = [:]
    try calibration.run(
      isWanted: { wanted[$0.weight] != nil }, onProgress: tell, milestones: milestones, learning: learning,
      finish: { block, weights, problem, index, onStep in
        defer { starts = [:] }
        let layers = LearnedLayer.layers(of: block) { starts[$0].map(learnable) }
        let tuned = vectors(of: block)
        var weights = weights
        if index > 0 { kept.map { LearningState($0, Self.tuningName(index - 1)).discard() } }
        if let problem, layers.contains(where: { isLearned($0.linear) }) {
          let found = try BlockTuning(options.method(iterations: options.iterations), seed: UInt64(index))
            .run(
              problem, layers, tuned.map { TunedVector($0.vector, storedAs: $0.tensor.source.entry.type) },
              kept: kept.map { LearningState($0, Self.tuningName(index)) }, workers: workers, onStep: onStep)
          record.learning.append(LearningRecord(block: index, outcome: found.outcome))
          weights = found.weights
        }
        guard keepsParts else {
          try self.write(layers, wanted, write)
          for (tensor, vector) in tuned { try rewrite(tensor, 0, weights[vector]) }
          return weights
        }
        // Over the whole model it is learned anew, from what was found.
        for layer in layers { starts[layer.linear]?.weight = layer.quantized(workers: workers) }
        let part = part(
          of: block, starts,
          tuned.map { TunedVector($0.vector, storedAs: $0.tensor.source.entry.type, from: weights[$0.vector]) })
        parts[index] = part
        if let kept { try save(part, starts, to: kept, Self.partName(index)) }
        return weights
      }
    ) { problem in
      guard let (tensor, scheme) = wanted[problem.linear.weight] else { return }
      let found = try quantize(problem, scheme, tensor.source, curvature: curvatures[problem.linear])
      record.layers.append(found.outcome)
      starts[problem.linear] = LearningStart(weight: found.weight, goal: found.goal, scheme: scheme)
      found.weight.decode(into: problem.weight, workers: workers)
    }
    guard keepsParts else { return }
    let all = try model.description.blocks.enumerated().map { index, block in
      if let part = parts[index] { return part }
      // Of an earlier run.
      guard let kept else { return Distillation.Part(layers: [], vectors: []) }
      return try load(
        block, wanted.mapValues(\.scheme), vectors(of: block).map { ($0.vector, $0.tensor.source.entry.type) },
        from: kept.path(of: Self.partName(index)))
    }
    parts = [:]
    let distillation = Distillation(
      options.method(iterations: options.distillation), model, windows: tokens(windows.windows),
      heldOut: tokens(windows.heldOut), memoryLimit: resources.activationMemory, spillFolder: resources.spillFolder,
      workers: workers)
    let found = try distillation.run(
      all, kept: kept.map { LearningState($0, Self.distillationName) },
      onOriginal: { guard tell(.reference, share: $0) else { throw CancellationError() } },
      onStep: { share, loss in guard tell(.distill, share: share, loss: loss) else { throw CancellationError() } })
    if let found { record.learning.append(LearningRecord(block: nil, outcome: found.outcome)) }
    for (index, part) in all.enumerated() {
      try self.write(part.layers, wanted, write)
      for vector in part.vectors {
        guard let tensor = tuned[vector.vector.tensor] else { continue }
        try rewrite(tensor, 0, found?.weights[index][vector.vector] ?? vector.values ?? [])
      }
    }
  }

  private func tokens(_ ranges: [Range<Int>]) -> [[Int32]] { ranges.map { Array(windows.tokens[$0]) } }

  private func write(
    _ layers: [LearnedLayer], _ wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)],
    _ write: TileWriter
  ) throws {
    for layer in layers {
      guard let (tensor, scheme) = wanted[layer.linear.weight] else { continue }
      try Self.write(
        layer.quantized(workers: workers), of: tensor, scheme, first: Self.firstElement(of: layer.linear), write)
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
