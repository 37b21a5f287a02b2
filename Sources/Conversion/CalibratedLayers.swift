import Calibration
import Checkpoints
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import SystemPackage

/// What a calibrated method made of one tensor, or of one expert in it.
package struct LayerOutcome: Hashable, Codable, Sendable {
  package let tensor: String
  /// Position among the experts that the tensor stacks.
  package let expert: Int?
  /// Features of the layer's input; with fewer tokens its Hessian is singular.
  package let inputs: Int
  /// Calibration tokens that reached the layer.
  package let tokens: Int
  /// Of an expert that was sent too few tokens, and calibrated on all of its mixture: how many it was sent.
  package let routedTokens: Int?
  /// Share added to the diagonal of the Hessian; nil where the layer was rounded to nearest.
  package let dampening: Double?
  /// The share that was to be added; less than `dampening` where the Hessian could not be factored with it.
  package let askedDampening: Double?
  package let deadColumns: Int
  /// Why the layer was rounded to nearest instead.
  package let fallback: String?
  /// On tokens that were not calibrated on; nil where none reached the layer.
  package let heldOut: HeldOutErrors?
  /// Of the input as the layer reads it; nil where no token reached it.
  package let features: FeatureStrengths?
  /// How the layer's input was scaled; nil where scaling was not asked for.
  package var scaling: LayerScaling?
}

/// Quantizes the tensors of a plan that need calibration, block by block, and hands out their tiles.
struct CalibratedLayers {
  let plan: Plan
  let model: Model
  let windows: CalibrationWindows
  let resources: RunResources
  let workers: Int

  /// Rows of a tile, a multiple of eight so that every member begins on a whole byte.
  private static func tileRows(_ columns: Int) -> Int { max(1, 65_536 / max(1, columns) / 8) * 8 }

  /// Receives each tile of a tensor with its first element.
  typealias TileWriter =
    (_ tensor: Plan.Tensor, _ scheme: WeightScheme, _ tile: QuantizedTile, _ first: Int) throws -> Void

  /// Receives the values of a tensor that is kept, but changed, with their first element.
  typealias TensorRewriter = (_ tensor: Plan.Tensor, _ first: Int, _ values: [Float]) throws -> Void

  /// Hands out the tiles of a weight whose first element stands at `first` of its tensor.
  static func write(
    _ weight: AffineWeight, of tensor: Plan.Tensor, _ scheme: WeightScheme, first: Int, _ write: TileWriter
  ) throws {
    let height = tileRows(weight.columns)
    for row in stride(from: 0, to: weight.rows, by: height) {
      let rows = row..<min(weight.rows, row + height)
      try write(
        tensor, scheme, QuantizedTile(weight, rows: rows, scheme, withIndex: row == 0), first + row * weight.columns)
    }
  }

  /// - Parameters:
  ///   - record: receives what came of the layers.
  ///   - log: where a run is taken up; nil: it begins, and cannot be.
  ///   - kept: what it has come to within blocks, and before and after them; nil as well.
  ///   - onProgress: how far it is; false stops the work.
  ///   - rewrite: receives the values of tensors that are kept, but changed, with their first element.
  func run(
    into record: CalibrationRecord, log: BlockLog?, kept: KeptWork?,
    onProgress: @escaping (WorkProgress) -> Bool,
    rewrite: @escaping TensorRewriter,
    write: @escaping TileWriter
  ) throws {
    let options = plan.recipe.calibration
    var wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)] = [:]
    for tensor in plan.tensors {
      if case .calibrate(let scheme) = tensor.work { wanted[tensor.source.name] = (tensor, scheme) }
    }
    let correction = options.correction(usesLayerEvidence: plan.recipe.needsLayerEvidence)
    let calibration = BlockCalibration(
      model, windows: windows.windows.map { Array(windows.tokens[$0]) },
      heldOut: windows.heldOut.map { Array(windows.tokens[$0]) },
      BlockCalibration.Options(
        workers: workers, memoryLimit: resources.activationMemory, spillFolder: resources.spillFolder,
        usesOriginalInputs: options.usesOriginalInputs && !plan.recipe.needsLearning,
        runsOriginal: correction != OutputCorrection.none || plan.recipe.needsLearning,
        correctsStream: correction == .layer))
    if plan.recipe.needsLearning {
      return try learn(
        calibration, wanted, into: record, log: log, kept: kept, onProgress: onProgress, rewrite: rewrite, write: write)
    }
    try calibration.run(
      isWanted: { wanted[$0.weight] != nil },
      scaling: scalingRequest(
        { wanted[$0.weight]?.scheme }, handsOut: !plan.recipe.needsLayerEvidence && correction == OutputCorrection.none,
        rewrite),
      onProgress: onProgress, milestones: log?.milestones(record)
    ) { problem in
      guard let (tensor, scheme) = wanted[problem.linear.weight] else { return }
      var (weight, outcome): (AffineWeight, LayerOutcome)
      if scheme.method == .gptq {
        let found = try quantize(problem, scheme, tensor.source, curvature: nil)
        (weight, outcome) = (found.weight, found.outcome)
      } else {
        (weight, outcome) = try round(problem, scheme, tensor.source)
      }
      outcome.scaling = problem.scaling
      record.layers.append(outcome)
      try Self.write(weight, of: tensor, scheme, first: Self.firstElement(of: problem.linear), write)
      weight.decode(into: problem.weight, workers: workers)
    }
  }

  /// Where a layer's weight begins in its tensor.
  static func firstElement(of linear: LinearDescription) -> Int {
    guard case .expert(let index, _) = linear.storage else { return 0 }
    return index * linear.outputs * linear.inputs
  }

  /// - Parameter curvature: what the layer's outputs count, where that is known.
  /// - Returns: also what the codes were chosen to be near to.
  func quantize(
    _ problem: LayerProblem, _ scheme: WeightScheme, _ source: CheckpointTensor, curvature: OutputCurvature?
  ) throws -> (weight: AffineWeight, goal: Matrix, outcome: LayerOutcome) {
    let options = plan.recipe.calibration
    do {
      let dampening = options.dampening(inputs: problem.weight.columns, tokens: problem.hessian.tokens)
      let method = try GPTQ(
        scheme: scheme.rounding, order: options.order, groupRanges: GPTQ.GroupRanges(scheme.groupOrder),
        dampening: dampening, sweeps: options.sweeps)
      let weight = problem.weight
      let goal = Matrix(rows: weight.rows, columns: weight.columns)
      copyColumns(MatrixColumns(weight, from: 0), into: goal, at: 0, count: weight.rows)
      var asymmetry: Asymmetry?
      if plan.recipe.calibration.correction == .columns, case .inputs(let shift) = problem.target?.evidence {
        asymmetry = Asymmetry(shift: shift)
      } else if options.correction(usesLayerEvidence: true) != OutputCorrection.none {
        _ = problem.target?.shift(goal, hessian: problem.hessian, dampening: dampening, workers: workers)
      }
      let result = try method.quantize(
        goal, hessian: problem.hessian, asymmetry: asymmetry, weighsRanges: true, workers: workers)
      var quantized = result.weight
      if let curvature, result.fallback == nil, asymmetry == nil, let share = result.dampening,
        let h = CoupledDescent.h(problem.hessian, dampening: share, workers: workers)
      {
        _ = CoupledDescent(
          sweeps: options.learning.coupledSweeps, scaleType: scheme.scaleType,
          dampening: options.learning.coupledDampening
        ).improve(
          &quantized, towards: goal, h: h, curvature: curvature, dead: result.deadColumns, workers: workers)
      }
      var fallback = result.fallback?.description
      var errors: HeldOutErrors?
      if let heldOut = problem.heldOut, heldOut.inputs.rows > 0 {
        let found = HeldOutErrors(
          weight, goal: goal, quantized,
          plain: try plainRounding(weight, scheme, factors: problem.scaling?.factors), heldOut, workers: workers)
        errors = found
        if options.fallsBack, result.fallback == nil, found.error > found.plainError {
          quantized = try AffineWeight(roundingToNearest: weight, scheme.plain, importance: nil, workers: workers)
          fallback = "its error on held-out tokens was above that of rounding to nearest"
        }
      }
      var expert: Int?
      if case .expert(let index, _) = problem.linear.storage { expert = index }
      return (
        quantized, goal,
        LayerOutcome(
          tensor: problem.linear.weight, expert: expert, inputs: weight.columns, tokens: problem.hessian.tokens,
          routedTokens: problem.routedTokens, dampening: result.dampening, askedDampening: dampening,
          deadColumns: result.deadColumns.count, fallback: fallback, heldOut: errors,
          features: FeatureStrengths(meanSquares: problem.hessian.importance))
      )
    } catch let error as QuantizationError {
      throw explained(error, source)
    }
  }
}

extension QuantizedTile {
  /// Whole rows of a weight that was quantized in memory.
  fileprivate init(_ weight: AffineWeight, rows: Range<Int>, _ scheme: WeightScheme, withIndex: Bool) {
    let groups = weight.groupsPerRow
    let ranges = weight.ranges[rows.lowerBound * groups..<rows.upperBound * groups]
    self.init(
      codes: Array(weight.codes[rows.lowerBound * weight.columns..<rows.upperBound * weight.columns]),
      scales: ranges.map(\.scale), zeroPoints: scheme.isSymmetric ? [] : ranges.map(\.zeroPoint),
      groupIndex: withIndex && scheme.encoding.hasGroupIndex
        ? (0..<weight.columns).map { Int32(weight.group(ofColumn: $0)) } : [])
  }
}

/// What a conversion that runs the model may use.
package struct RunResources: Sendable {
  /// Bytes of activations to keep in memory.
  package var activationMemory: Int
  /// Where others go.
  package var spillFolder: FilePath

  package init(activationMemory: Int, spillFolder: FilePath) {
    self.activationMemory = activationMemory
    self.spillFolder = spillFolder
  }
}
