import Models
import Quantization

/// What is done to a block's layers besides quantizing them, by which progress is weighed.
package struct LearningWork: Hashable, Sendable {
  /// Tokens that gradient steps see, over all steps of a block.
  package var stepTokens = 0.0
  package var coupledSweeps = 0

  package init(stepTokens: Double = 0, coupledSweeps: Int = 0) {
    (self.stepTokens, self.coupledSweeps) = (stepTokens, coupledSweeps)
  }
}

/// What a run over calibration windows costs, in floating-point operations, block by block: estimates by which progress
/// is told.
struct CalibrationCosts {
  /// Tokens to calibrate on and held out.
  let tokens: Double
  let heldOut: Double
  /// Tokens of a window, the longest.
  let length: Double
  /// The quantized model, and the original one where it runs along.
  let tracks: Double
  let sumsHessians: Bool
  /// Whether layers are handed out to be quantized, rather than only observed.
  let quantizes: Bool
  let scales: Bool
  /// Whether layers are handed out with the evidence that their scales came from, to be rounded.
  let roundsAfterScaling: Bool
  let learning: LearningWork
  let isWanted: (LinearDescription) -> Bool

  typealias Amounts = [WorkProgress.Kind: Double]

  /// What reading, changing and writing an element costs, beside its products, as operations of those: memory is slow.
  private static let element = 1000.0

  /// - Parameter share: of the tokens that reach the layers.
  func gather(_ projection: ProjectionDescription, share: Double = 1) -> Double {
    guard projection.linears.contains(where: isWanted), !roundsAfterScaling else { return 0 }
    return gathering(projection, share: share, tracks: tracks)
  }

  private func gathering(_ projection: ProjectionDescription, share: Double, tracks: Double) -> Double {
    let inputs = Double(projection.inputs)
    let products = sumsHessians ? inputs * inputs * (tracks > 1 ? 1.6 : 0.6) : 0
    return share * (tokens * products + (tokens + heldOut) * inputs * Self.element * tracks)
  }

  /// What a pass for scales takes up to the feed-forward layer's inputs, by kind.
  func scalingPass(_ block: BlockDescription) -> Amounts {
    guard searches else { return [:] }
    let inputs = [block.attention.input, ProjectionDescription([block.attention.output])]
    return [
      .run: (attend(block) + product(block.attention.output)) / tracks,
      .gather: inputs.reduce(0) { $0 + gathering($1, share: 1, tracks: 1) },
    ]
  }

  /// And within the feed-forward layer, or an expert.
  func scalingPass(_ expert: ExpertDescription, of block: BlockDescription) -> Amounts {
    guard searches else { return [:] }
    let share = share(of: block)
    return [
      .run: share * inner(expert.input, expert.output) / tracks,
      .gather: gathering(expert.input, share: share, tracks: 1)
        + gathering(ProjectionDescription([expert.output]), share: share, tracks: 1),
    ]
  }

  private var searches: Bool { scales || roundsAfterScaling }

  func quantize(_ linear: LinearDescription) -> Double {
    guard quantizes, isWanted(linear) else { return 0 }
    let (inputs, outputs) = (Double(linear.inputs), Double(linear.outputs))
    // Nothing to calibrate on: what is measured is products with 8-bit weights and inputs, and without.
    if tokens == 0 { return heldOut * inputs * outputs * 8 }
    // The search for scales among it: it comes before the first of a block's layers.
    if roundsAfterScaling { return inputs * outputs * (15_000 + 20 * inputs) }
    // Factors of the Hessian; feedback along the columns; ranges and sweeps, which take most of it, as measured; errors
    // on held-out tokens.
    return inputs * inputs * inputs * 2 + outputs * inputs * inputs * 4 + outputs * inputs * 37_000
      + heldOut * inputs * outputs * 6 + outputs * inputs * Double(learning.coupledSweeps) * 10_000
  }

  func attend(_ block: BlockDescription) -> Double {
    let input = block.attention.input
    // Scores and what becomes of them run at a fifth of the rate of products.
    let scores = length * Double(block.attention.output.inputs) * 20
    return tracks * (tokens + heldOut) * (Double(input.inputs * input.outputs) * 2 + scores)
  }

  func product(_ linear: LinearDescription) -> Double {
    tracks * (tokens + heldOut) * Double(linear.inputs) * Double(linear.outputs) * 2
  }

  func product(_ projection: ProjectionDescription) -> Double { projection.linears.reduce(0) { $0 + product($1) } }

  /// What a feed-forward layer's output reads.
  func inner(_ input: ProjectionDescription, _ output: LinearDescription) -> Double {
    product(input) + tracks * (tokens + heldOut) * Double(output.inputs) * Self.element
  }

  /// The share of the tokens that reach an expert.
  func share(of block: BlockDescription) -> Double {
    guard case .mixture(let mixture) = block.feedForward else { return 1 }
    return Double(mixture.chosen) / Double(max(1, mixture.experts.count))
  }

  func feedForward(_ block: BlockDescription) -> Double {
    share(of: block) * block.feedForward.experts.reduce(0) { $0 + inner($1.input, $1.output) + product($1.output) }
  }

  func scale(_ block: BlockDescription) -> Double {
    guard scales, !roundsAfterScaling else { return 0 }
    return linears(block).reduce(0) {
      $0 + Double($1.outputs) * Double($1.inputs) * (80_000 + 20 * Double($1.inputs))
    }
  }

  /// Of gradient steps: forwards, and twice as much backwards.
  func learn(_ block: BlockDescription) -> Double { learning.stepTokens * block.operationsPerToken * 3 }

  private func linears(_ block: BlockDescription) -> [LinearDescription] {
    block.attention.input.linears + [block.attention.output]
      + block.feedForward.experts.flatMap { $0.input.linears + [$0.output] }
  }

  func amounts(_ block: BlockDescription) -> Amounts {
    let share = share(of: block)
    let experts = block.feedForward.experts
    let passes = [scalingPass(block)] + experts.map { scalingPass($0, of: block) }
    func searched(_ kind: WorkProgress.Kind) -> Double { passes.reduce(0) { $0 + ($1[kind] ?? 0) } }
    return [
      .run: searched(.run) + attend(block) + product(block.attention.output) + feedForward(block),
      .gather: searched(.gather) + gather(block.attention.input)
        + gather(ProjectionDescription([block.attention.output]))
        + experts.reduce(0) {
          $0 + gather($1.input, share: share) + gather(ProjectionDescription([$1.output]), share: share)
        },
      .quantize: linears(block).reduce(0) { $0 + quantize($1) },
      .scale: scale(block), .learn: learn(block),
    ].filter { $0.value > 0 }
  }
}

/// Adds up the work of a run over the blocks as it is done, and asks at each step whether to go on.
final class CalibrationMeter {
  let costs: CalibrationCosts
  private let blocks: [BlockDescription]
  private let report: (WorkProgress) -> Bool
  private var progress: WorkProgress
  /// Of this block, and what was done before it.
  private var planned: CalibrationCosts.Amounts = [:]
  private var before: CalibrationCosts.Amounts = [:]

  /// - Parameter first: the first block that is not done.
  init(
    _ blocks: [BlockDescription], from first: Int, _ costs: CalibrationCosts,
    report: @escaping (WorkProgress) -> Bool
  ) {
    self.costs = costs
    self.blocks = blocks
    self.report = report
    progress = WorkProgress(total: Self.total(blocks, from: first, costs), block: first, blockCount: blocks.count)
  }

  static func total(
    _ blocks: [BlockDescription], from first: Int, _ costs: CalibrationCosts
  ) -> CalibrationCosts.Amounts {
    blocks.dropFirst(first).reduce(into: [:]) { $0.merge(costs.amounts($1)) { $0 + $1 } }
  }

  func begin(block index: Int) throws {
    planned = costs.amounts(blocks[index])
    before = progress.done
    progress.block = index
    try tell()
  }

  func add(_ kind: WorkProgress.Kind, _ amount: Double) throws { try add([kind: amount]) }

  /// A step is done; of no kind does a block count for more than was planned.
  func add(_ amounts: CalibrationCosts.Amounts) throws {
    for (kind, amount) in amounts {
      guard let whole = planned[kind] else { continue }
      progress.done[kind] = min((before[kind] ?? 0) + whole, (progress.done[kind] ?? 0) + amount)
    }
    try tell()
  }

  /// A share of a kind of work in this block is done.
  func set(_ kind: WorkProgress.Kind, share: Double, loss: WorkProgress.Loss? = nil) throws {
    progress.loss = loss
    if let amount = planned[kind] { progress.done[kind] = (before[kind] ?? 0) + share * amount }
    try tell()
  }

  func begin(_ linear: LinearDescription) throws {
    progress.layer = linear.weight
    try tell()
  }

  func end(_ linear: LinearDescription) throws { try add(.quantize, costs.quantize(linear)) }

  func endBlock() throws {
    for (kind, amount) in planned { progress.done[kind] = (before[kind] ?? 0) + amount }
    (progress.layer, progress.loss) = (nil, nil)
    try tell()
  }

  private func tell() throws {
    func seconds(_ amounts: CalibrationCosts.Amounts) -> Double {
      amounts.reduce(0) { $0 + $1.value * $1.key.secondsPerOperation }
    }
    let whole = seconds(planned)
    progress.blockShare = whole > 0 ? min(1, max(0, (seconds(progress.done) - seconds(before)) / whole)) : 0
    guard report(progress) else { throw CancellationError() }
  }
}

extension BlockCalibration {
  /// The work that a run will be, before it begins.
  /// - Parameter first: the first block that is not done.
  package func plannedWork(
    from first: Int = 0, isWanted: @escaping (LinearDescription) -> Bool, learning: LearningWork = LearningWork()
  ) -> [WorkProgress.Kind: Double] {
    CalibrationMeter.total(
      blocks, from: first, costs(isWanted: isWanted, .quantize({ _ in }, nil), learning))
  }
}
