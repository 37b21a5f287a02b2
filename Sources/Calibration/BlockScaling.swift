import Kernels
import Models
import Quantization

/// How the input of a layer was scaled before the layer was quantized.
package struct LayerScaling: Hashable, Codable, Sendable {
  /// Of the input, such as `model.layers.0. attention input`.
  package let group: String
  /// The tensors that take the division; empty where nothing was scaled.
  package let absorber: [String]
  package let found: FeatureScales?
  /// What the layer's columns were multiplied by; nil where nothing was scaled.
  package let factors: [Float]?
  /// Why nothing was scaled.
  package let obstacle: String?
}

/// What a conversion wants scaled.
package struct ScalingRequest {
  package let method: Scaling
  /// Why a group is to stay as it is, beyond what its architecture says; nil: it is scaled.
  package let obstacle: (ScaleGroup) -> String?
  /// How a layer will be quantized; nil where it is kept.
  package let scheme: (LinearDescription) -> WeightScheme?
  /// The type that a tensor will be stored in as it is; nil where it is quantized.
  package let storage: (String) -> ElementType?
  /// Whether layers are handed out with the evidence that the scales came from: enough for rounding to nearest. Else
  /// evidence is gathered anew, layer after layer.
  package let handsOut: Bool
  /// Receives the values of tensors that are kept, but changed: name, first element, values.
  package let rewrite: (String, Int, [Float]) throws -> Void

  package init(
    method: Scaling, obstacle: @escaping (ScaleGroup) -> String?,
    scheme: @escaping (LinearDescription) -> WeightScheme?, storage: @escaping (String) -> ElementType?,
    handsOut: Bool, rewrite: @escaping (String, Int, [Float]) throws -> Void
  ) {
    self.method = method
    self.obstacle = obstacle
    self.scheme = scheme
    self.storage = storage
    self.handsOut = handsOut
    self.rewrite = rewrite
  }
}

/// Scales the inputs of a block's layers: one pass of the tokens through the block's own weights for the evidence, a search
/// per input, and the scales folded into the weights in memory. The block computes what it did before.
struct BlockScaling {
  let block: BlockDescription
  let tokens: [BlockCalibration.Group]
  /// The inputs of the block, which are not changed.
  let states: HiddenStates
  let tables: RotaryTables?
  let pool: MatrixPool
  let workers: Int
  let request: ScalingRequest
  let handOut: LayerHandOut
  let makeStates: (_ width: Int) throws -> HiddenStates
  let meter: CalibrationMeter

  private typealias Scalings = [LinearDescription: LayerScaling]

  /// - Parameter tracks: the weights of the quantized model, and of the original one where it runs along: the same values.
  /// - Returns: for each layer how its input was scaled.
  func run(_ tracks: inout [BlockWeights]) throws -> [LinearDescription: LayerScaling] {
    let groups = Dictionary(block.scaleGroups.map { ($0.place, $0) }) { first, _ in first }
    var scalings: Scalings = [:]
    let attentionInput = evidence(groups[.attentionInput], block.attention.input.linears)
    let attentionOutput = evidence(groups[.attentionOutput], [block.attention.output])
    let feedForward = evidence(groups[.feedForwardInput], isMixture ? [] : experts[0].input.linears)
    let inputs = try makeStates(states.width)
    let routes = try gather(tracks[0], attentionInput, attentionOutput, feedForward, inputs)
    try meter.add(meter.costs.scalingPass(block))

    // All searches look at weights that no other scale has changed yet.
    let outer = try [
      (groups[.attentionInput], attentionInput), (groups[.attentionOutput], attentionOutput),
      (groups[.feedForwardInput], feedForward),
    ].map { group, evidence in try group.map { try find($0, evidence, tracks[0]) } }
    let attention = (input: outer[0]?.divided(&tracks, request), output: outer[1]?.divided(&tracks, request))
    let inner = outer[2]?.divided(&tracks, request)
    attention.input?.record(in: &scalings)
    attention.output?.record(in: &scalings)
    inner?.record(in: &scalings)
    for track in tracks {
      if let factors = attention.input?.factors {
        track.multiplyReaders(at: .attentionInput, by: factors, workers: workers)
      }
      if let factors = attention.output?.factors {
        track.multiplyReaders(at: .attentionOutput, by: factors, workers: workers)
      }
    }
    try hand(block.attention.input, tracks[0].attentionInput, attentionInput, scalings)
    try hand(ProjectionDescription([block.attention.output]), tracks[0].attentionOutput, attentionOutput, scalings)

    for (index, expert) in experts.enumerated() {
      let group = groups[.feedForwardOutput(expert: index)]
      let output = evidence(group, [expert.output])
      let input = isMixture ? evidence(nil, expert.input.linears) : feedForward
      try gather(tracks[0], expert: index, routes, inputs, isMixture ? input : nil, output)
      try meter.add(meter.costs.scalingPass(expert, of: block))
      let found = try group.map { try find($0, output, tracks[0]) }?.divided(&tracks, request)
      found?.record(in: &scalings)
      for track in tracks {
        if let factors = inner?.factors {
          scaleColumns(track.feedForward[index].input.weight, by: factors, workers: workers)
        }
        if let factors = found?.factors {
          track.multiplyReaders(at: .feedForwardOutput(expert: index), by: factors, workers: workers)
        }
      }
      try hand(expert.input, tracks[0].feedForward[index].input, input, scalings)
      try hand(ProjectionDescription([expert.output]), tracks[0].feedForward[index].output, output, scalings)
    }
    if let factors = inner?.factors {
      for router in tracks.compactMap(\.router) { scaleColumns(router.weight, by: factors, workers: workers) }
    }
    let changed = Set(groups.values.filter { $0.absorber != nil && request.obstacle($0) == nil }.flatMap(\.allTensors))
    try tracks[0].store(block, storage: { changed.contains($0) ? request.storage($0) : nil }, request.rewrite)
    return scalings
  }

  private var isMixture: Bool { block.feedForward.isMixture }

  private var experts: [ExpertDescription] { block.feedForward.experts }

  private func isScaled(_ group: ScaleGroup?) -> Bool {
    guard let group, group.absorber != nil else { return false }
    return request.obstacle(group) == nil
  }

  private func evidence(_ group: ScaleGroup?, _ linears: [LinearDescription]) -> ScalingEvidence {
    let keeps = request.handsOut && linears.contains(where: handOut.isWanted)
    let count = tokens.filter { !$0.isHeldOut }.reduce(0) { $0 + $1.rows.count }
    return ScalingEvidence(
      isScaled(group) || keeps ? linears.first?.inputs ?? group?.inputs ?? 0 : 0, keeps: keeps,
      sampling: isScaled(group) && request.method == .smooth(strength: nil) ? count : nil)
  }

  // MARK: Evidence

  /// The first pass: what attention and the feed-forward layer read; the latter is kept in `inputs`.
  private func gather(
    _ weights: BlockWeights, _ attentionInput: ScalingEvidence, _ attentionOutput: ScalingEvidence,
    _ feedForward: ScalingEvidence, _ inputs: HiddenStates
  ) throws -> [[ExpertRoute]] {
    let forward = BlockForward(block, weights, pool: pool, workers: workers)
    var routes: [[ExpertRoute]] = []
    for group in tokens {
      guard !group.isHeldOut || request.handsOut else {
        routes.append([])
        continue
      }
      let hidden = pool.take(rows: group.rows.count, columns: states.width)
      let x = pool.take(rows: group.rows.count, columns: states.width)
      let attended = pool.take(rows: group.rows.count, columns: block.attention.output.inputs)
      try states.read(group.rows) {
        copyColumns(MatrixColumns($0, from: 0), into: hidden, at: 0, count: hidden.rows)
      }
      forward.attentionInput(hidden, into: x)
      try attentionInput.add(x, group, workers: workers)
      forward.attend(x, group.batch, tables: tables, cache: nil, into: attended)
      try attentionOutput.add(attended, group, workers: workers)
      if !block.isParallel { forward.addAttention(attended, to: hidden) }
      try inputs.update(group.rows) { x in
        forward.feedForwardInput(hidden, into: x)
        try feedForward.add(x, group, workers: workers)
        if case .mixture(let mixture) = block.feedForward { routes.append(forward.routes(x, mixture)) }
      }
      pool.give(hidden, x, attended)
    }
    return routes
  }

  /// What one expert, or the feed-forward layer, reads inside.
  private func gather(
    _ weights: BlockWeights, expert index: Int, _ routes: [[ExpertRoute]], _ inputs: HiddenStates,
    _ input: ScalingEvidence?, _ output: ScalingEvidence
  ) throws {
    guard output.isWanted || input?.isWanted ?? false else { return }
    let forward = BlockForward(block, weights, pool: pool, workers: workers)
    for (number, group) in tokens.enumerated() where !group.isHeldOut || request.handsOut {
      let chosen = isMixture ? routes[number][index].tokens : nil
      guard chosen?.count != 0 else { continue }
      let x = pool.take(rows: chosen?.count ?? group.rows.count, columns: states.width)
      try inputs.read(group.rows) { all in
        if let chosen {
          gatherRows(chosen, of: all, into: x)
        } else {
          copyColumns(MatrixColumns(all, from: 0), into: x, at: 0, count: x.rows)
        }
      }
      try input?.add(x, group, chosen: chosen, workers: workers)
      if output.isWanted {
        let inner = pool.take(rows: x.rows, columns: experts[index].output.inputs)
        forward.inner(x, expert: index, into: inner)
        try output.add(inner, group, chosen: chosen, workers: workers)
        pool.give(inner)
      }
      pool.give(x)
    }
  }

  // MARK: Search

  /// Scales on their way into the weights.
  private struct Found {
    let group: ScaleGroup
    let name: String
    let scales: FeatureScales?
    let obstacle: String?
    /// What the readers' columns are multiplied by, once the absorber has been divided.
    var factors: [Float]?

    func divided(_ tracks: inout [BlockWeights], _ request: ScalingRequest) -> Found {
      guard let scales else { return self }
      var result = self
      for index in tracks.indices {
        result.factors = tracks[index].divide(group, by: scales.scales, storage: request.storage)
      }
      return result
    }

    func record(in scalings: inout Scalings) {
      let scaling = LayerScaling(
        group: name, absorber: scales == nil ? [] : group.absorber?.tensors ?? [], found: scales, factors: factors,
        obstacle: obstacle)
      for reader in group.readers { scalings[reader] = scaling }
    }
  }

  private func find(_ group: ScaleGroup, _ evidence: ScalingEvidence, _ weights: BlockWeights) throws -> Found {
    let name = "\(block.prefix) \(group.place)"
    guard isScaled(group) else {
      return Found(
        group: group, name: name, scales: nil, obstacle: group.obstacle?.rawValue ?? request.obstacle(group))
    }
    let layers = self.layers(group, weights)
    let scales: FeatureScales
    switch request.method {
    case .activationAware:
      scales = try ActivationAwareScales.search(
        layers, hessian: evidence.hessian, statistics: evidence.statistics, sets: group.sets, workers: workers)
    case .smooth(let strength?):
      scales = SmoothingScales.scales(
        layers, statistics: evidence.statistics, strength: strength, sets: group.sets, workers: workers)
    case .smooth(nil):
      scales = try SmoothingScales.search(
        layers, tokens: evidence.sample, statistics: evidence.statistics, sets: group.sets, workers: workers)
    }
    return Found(group: group, name: name, scales: scales, obstacle: nil)
  }

  private func layers(_ group: ScaleGroup, _ weights: BlockWeights) -> [ScaledLayer] {
    var linears = group.readers[...]
    var layers: [ScaledLayer] = []
    for loaded in weights.readers(at: group.place) {
      var first = 0
      while first < loaded.weight.rows, let linear = linears.popFirst() {
        let rows = first..<(first + linear.outputs)
        layers.append(
          ScaledLayer(weight: Matrix(sharing: loaded.weight, rows: rows), scheme: request.scheme(linear)))
        first = rows.upperBound
      }
    }
    return layers
  }

  private func hand(
    _ projection: ProjectionDescription, _ loaded: LoadedLinear, _ evidence: ScalingEvidence,
    _ scalings: [LinearDescription: LayerScaling]
  ) throws {
    guard request.handsOut, let first = projection.linears.first, projection.linears.contains(where: handOut.isWanted)
    else { return }
    var hessian = evidence.hessian
    if let factors = scalings[first]?.factors {
      let reciprocals = factors.map { 1 / $0 }
      hessian = hessian.scaled(by: reciprocals, workers: workers)
      if let heldOut = evidence.heldOut { scaleColumns(heldOut.inputs, by: reciprocals, workers: workers) }
    }
    try handOut(projection, loaded, hessian, nil, evidence.heldOut, scalings)
  }
}

/// What is gathered of one input of a block.
private final class ScalingEvidence {
  private(set) var hessian: Hessian
  private(set) var statistics: FeatureStatistics
  private(set) var heldOut: HeldOutInputs?
  private let keeps: Bool
  /// One token in so many is kept for a search.
  private let stride: Int?
  private var kept: [Float] = []

  /// - Parameters:
  ///   - dimension: 0 where nothing is to be gathered.
  ///   - keeps: whether held-out inputs are kept.
  ///   - sampling: the number of tokens out of which some are kept; nil: none.
  init(_ dimension: Int, keeps: Bool, sampling: Int? = nil) {
    hessian = Hessian(dimension: dimension)
    statistics = FeatureStatistics(dimension: dimension)
    self.keeps = keeps
    stride = sampling.map { max(1, $0 / SmoothingScales.sampledTokens) }
  }

  var isWanted: Bool { hessian.dimension > 0 }

  var sample: Matrix { Matrix(rows: kept.count / max(1, hessian.dimension), columns: hessian.dimension, kept) }

  /// - Parameter chosen: the tokens of the group that reach the layer; nil: all.
  func add(_ x: Matrix, _ group: BlockCalibration.Group, chosen: [Int]? = nil, workers: Int) throws {
    guard isWanted, x.rows > 0 else { return }
    if group.isHeldOut {
      guard keeps else { return }
      let inputs = Matrix(rows: x.rows, columns: x.columns)
      copyColumns(MatrixColumns(x, from: 0), into: inputs, at: 0, count: x.rows)
      let bounds = group.batch.sequences.map { range in
        chosen.map { $0.count { $0 < range.lowerBound } } ?? range.lowerBound
      }
      heldOut = HeldOutInputs(inputs: inputs, originals: nil, aim: nil, bounds: bounds + [x.rows])
      return
    }
    if let stride {
      for row in 0..<x.rows where (hessian.tokens + row) % stride == 0 {
        kept += x.values(ofRows: row..<(row + 1))
      }
    }
    try hessian.add(x, workers: workers)
    statistics.add(x, workers: workers)
  }
}
