import Kernels
import Models
import Quantization
import SystemPackage

/// Runs a model block by block over calibration windows and hands out each linear layer with the evidence of its inputs.
///
/// Within a block the order is that of the data: queries, keys and values; the attention's output; the feed-forward
/// layer's inputs; its output. What a method makes of a layer takes the layer's place before the next inputs are
/// computed, so that later layers see, and can make up for, the errors of earlier ones (sequential evidence). With
/// `isParallel` the original weights stay.
package struct BlockCalibration {
  package struct Options: Sendable {
    package var workers: Int
    /// Bytes up to which hidden states stay in memory.
    package var memoryLimit: Int
    package var spillFolder: FilePath
    /// Whether layers see the inputs that the original model gives.
    package var usesOriginalInputs: Bool
    /// Whether the original model runs along, so that layers can make up for what earlier ones changed.
    package var runsOriginal: Bool
    /// Whether layers whose output is added to the residual stream are to set the stream right, not their output alone.
    package var correctsStream: Bool

    package init(
      workers: Int, memoryLimit: Int, spillFolder: FilePath, usesOriginalInputs: Bool = false,
      runsOriginal: Bool = false, correctsStream: Bool = true
    ) {
      self.workers = workers
      self.memoryLimit = memoryLimit
      self.spillFolder = spillFolder
      self.usesOriginalInputs = usesOriginalInputs
      self.runsOriginal = runsOriginal && !usesOriginalInputs
      self.correctsStream = correctsStream
    }
  }

  /// Changes the weight of a problem to what was made of it; called for each layer in turn.
  package typealias Quantizer = (LayerProblem) throws -> Void

  /// Where a run is taken up that was interrupted, and what is told to be able to.
  package struct Milestones {
    /// The first block that is not done.
    package let first: Int
    let restore: (_ states: HiddenStates, _ track: Int) throws -> Void
    let onBlock: (_ next: Int, _ states: [HiddenStates]) throws -> Void

    /// - Parameters:
    ///   - first: the first block that is not done.
    ///   - restore: fills the states that go into that block, of each track in turn; called where `first` is above 0.
    ///   - onBlock: a block is done; gets the states that go into the next, none after the last.
    package init(
      first: Int, restore: @escaping (_ states: HiddenStates, _ track: Int) throws -> Void,
      onBlock: @escaping (_ next: Int, _ states: [HiddenStates]) throws -> Void
    ) {
      (self.first, self.restore, self.onBlock) = (first, restore, onBlock)
    }
  }

  /// What is done at each input of linear layers.
  enum Purpose {
    /// Before it, inputs may be scaled.
    case quantize(Quantizer, ScalingRequest?)
    /// The weights stay as they are.
    case observe(EvidenceOptions, (InputEvidence) throws -> Void)
  }

  private let forward: Forward
  private let windows: [[Int32]]
  private var heldOut: [[Int32]]
  private var options: Options
  /// States of earlier blocks, whose memory is used again.
  private let storage = MatrixPool()

  /// - Parameters:
  ///   - windows: tokens to calibrate on.
  ///   - heldOut: tokens that are never calibrated on, to measure errors with.
  package init(_ model: Model, windows: [[Int32]], heldOut: [[Int32]], _ options: Options) {
    forward = Forward(model, workers: options.workers)
    self.windows = windows
    self.heldOut = heldOut
    self.options = options
  }

  /// The same run of the model as it is: alone, and over the windows to calibrate on only.
  var asGiven: BlockCalibration {
    var copy = self
    copy.heldOut = []
    copy.options.runsOriginal = false
    return copy
  }

  /// Tokens that go through a step together.
  package static let groupTokens = 4096

  /// Windows that go through the steps together, and their rows in the states.
  struct Group: Sendable {
    let batch: TokenBatch
    let rows: Range<Int>
    let tokens: [Int32]
    let isHeldOut: Bool
  }

  private func groups() -> [Group] {
    var groups: [Group] = []
    var row = 0
    for (part, isHeldOut) in [(windows, false), (heldOut, true)] {
      var pending: [[Int32]] = []
      func close() {
        guard !pending.isEmpty else { return }
        let batch = TokenBatch(lengths: pending.map(\.count))
        groups.append(
          Group(
            batch: batch, rows: row..<(row + batch.tokenCount), tokens: pending.flatMap { $0 }, isHeldOut: isHeldOut))
        row += batch.tokenCount
        pending = []
      }
      for window in part where !window.isEmpty {
        let count = pending.reduce(0) { $0 + $1.count }
        if count > 0, count + window.count > Self.groupTokens { close() }
        pending.append(window)
      }
      close()
    }
    return groups
  }

  /// Groups cut into parts for threads of their own; nil where windows are too long, or too few.
  private static func parts(of groups: [Group], _ block: BlockDescription) -> [TokenBatch.Part]? {
    var parts: [TokenBatch.Part] = []
    for group in groups {
      guard let more = group.batch.parts(tokens: block.partTokens, from: group.rows.lowerBound) else { return nil }
      parts += more
    }
    return parts.count < BlockDescription.fewestParts ? nil : parts
  }

  /// Works on a block whose layers are quantized, and gives the weights that it is to run with: those that it got where
  /// there is no problem, since no gradient steps are planned.
  package typealias Finisher = (
    _ block: BlockDescription, _ weights: BlockWeights, _ problem: BlockTuning.Problem?, _ index: Int,
    _ onStep: @escaping LearningObserver
  ) throws -> BlockWeights

  /// - Parameters:
  ///   - isWanted: whether a layer is to be quantized; the others run as they are.
  ///   - scaling: what is to be scaled before; nil: nothing.
  ///   - onProgress: how far it is; returns false to stop.
  ///   - learning: what `quantize` and `finish` do beyond what a scheme says.
  ///   - finish: called for each block in turn, where the original model runs along.
  package func run(
    isWanted: @escaping (LinearDescription) -> Bool, scaling: ScalingRequest? = nil,
    onProgress: @escaping (WorkProgress) -> Bool, milestones: Milestones? = nil,
    learning: LearningWork = LearningWork(), finish: Finisher? = nil, quantize: @escaping Quantizer
  ) throws {
    try walk(
      isWanted: isWanted, onProgress: onProgress, .quantize(quantize, scaling), milestones: milestones,
      learning: learning, finish: finish)
  }

  func walk(
    isWanted: @escaping (LinearDescription) -> Bool, onProgress: @escaping (WorkProgress) -> Bool, _ given: Purpose,
    milestones: Milestones? = nil, learning: LearningWork = LearningWork(), finish: Finisher? = nil
  ) throws {
    let description = forward.model.description
    let firstBlock = milestones?.first ?? 0
    guard firstBlock < description.blocks.count else { return }
    let meter = CalibrationMeter(
      description.blocks, from: firstBlock, costs(isWanted: isWanted, given, learning), report: onProgress)
    let purpose = Self.metered(given, meter)
    let groups = groups()
    let count = groups.last?.rows.upperBound ?? 0
    let trackCount = options.runsOriginal ? 2 : 1
    let tunes = finish != nil && learning.stepTokens > 0
    let states = try (0..<trackCount).map { _ in try self.states(tokens: count, width: description.hiddenSize) }
    let tables = ModelRotaryTables(description, length: groups.map(\.batch.longest).max() ?? 1)
    for (track, states) in states.enumerated() {
      if let milestones, firstBlock > 0 {
        try milestones.restore(states, track)
        continue
      }
      for group in groups {
        try states.update(group.rows) { hidden in try forward.embed(group.tokens, group.batch, into: hidden) }
      }
    }
    // The first block would take longer than those after it, whose time is told by it.
    var widths = keptWidths(description.blocks[firstBlock])
    if case .quantize(_, let scaling?) = purpose {
      // A search for scales keeps what the feed-forward layer reads; if it hands out the layers, that is all.
      widths = [description.hiddenSize] + (scaling.handsOut ? [] : widths)
    }
    try widths.map { try self.states(tokens: count, width: $0) }.forEach { $0.touch() }
    func end(_ block: Int) throws {
      try milestones?.onBlock(block + 1, block + 1 < description.blocks.count ? states : [])
    }
    for (index, block) in description.blocks.enumerated().dropFirst(firstBlock) {
      try meter.begin(block: index)
      // States of a width that this block has no use for would be in memory besides its own.
      if index > firstBlock, keptWidths(block) != keptWidths(description.blocks[index - 1]) { storage.clear() }
      let inputs = try tunes ? self.states(tokens: count, width: description.hiddenSize) : nil
      if let inputs { try copy(states[0], to: inputs, groups) }
      var weights = try states.map { _ in try forward.weights(ofBlock: index) }
      var scalings: [LinearDescription: LayerScaling] = [:]
      if case .quantize(let quantize, let scaling?) = purpose {
        let handOut = LayerHandOut(
          pool: forward.pool, keepsWeights: options.usesOriginalInputs, isWanted: isWanted, quantize: quantize)
        scalings = try BlockScaling(
          block: block, tokens: groups, states: states[0], tables: tables[block], pool: forward.pool,
          workers: options.workers, request: scaling, handOut: handOut,
          makeStates: { try self.states(tokens: count, width: $0) }, meter: meter
        ).run(&weights)
        try meter.set(.scale, share: 1)
        if scaling.handsOut {
          // The layers are quantized already; what is left is to go through the block.
          for group in groups where index + 1 < description.blocks.count {
            try states[0].update(group.rows) {
              forward.run(block: index, weights[0], $0, group.batch, tables: tables[block])
            }
          }
          for weights in weights { forward.pool.give(weights.matrices) }
          try end(index)
          try meter.endBlock()
          continue
        }
      }
      let tracks = zip(states, weights).enumerated().map { number, pair in
        Track(
          index: number,
          forward: BlockForward(block, pair.1, pool: forward.pool, workers: options.workers), weights: pair.1,
          states: pair.0)
      }
      let run = BlockRun(
        block: block, quantized: tracks[0], original: tracks.count > 1 ? tracks[1] : nil, groups: groups,
        parts: Self.parts(of: groups, block), tables: tables[block],
        pool: forward.pool, options: options, place: forward.model.source.place,
        isWanted: isWanted, purpose: purpose, scalings: scalings,
        isLast: !tunes && index + 1 == description.blocks.count,
        makeStates: { try self.states(tokens: count, width: $0) },
        meter: meter)
      try run.run()
      if let finish, !tunes {
        _ = try finish(block, tracks[0].weights, nil, index) { _, _ in }
      } else if let finish, let inputs, states.count > 1 {
        storage.clear()
        let problem = BlockTuning.Problem(
          block: block, weights: tracks[0].weights, inputs: inputs, targets: states[1],
          windows: windowRows(groups, heldOut: false), heldOut: windowRows(groups, heldOut: true),
          tables: tables[block], pool: forward.pool)
        let weights = try finish(block, tracks[0].weights, problem, index) {
          try meter.set(.learn, share: $0, loss: $1)
        }
        try copy(inputs, to: states[0], groups)
        for group in groups {
          try states[0].update(group.rows) {
            forward.run(block: index, weights, $0, group.batch, tables: tables[block])
          }
        }
      }
      for track in tracks { forward.pool.give(track.weights.matrices) }
      try end(index)
      try meter.endBlock()
    }
  }

  var blocks: [BlockDescription] { forward.model.description.blocks }

  /// The same with each layer that is handed out told to a meter, before and after.
  private static func metered(_ purpose: Purpose, _ meter: CalibrationMeter) -> Purpose {
    guard case .quantize(let quantize, let scaling) = purpose else { return purpose }
    return .quantize(
      { problem in
        try meter.begin(problem.linear)
        try quantize(problem)
        try meter.end(problem.linear)
      }, scaling)
  }

  func costs(
    isWanted: @escaping (LinearDescription) -> Bool, _ purpose: Purpose, _ learning: LearningWork
  ) -> CalibrationCosts {
    var (sumsHessians, quantizes, scales, rounds) = (true, true, false, false)
    switch purpose {
    case .observe(let evidence, _): (sumsHessians, quantizes) = (evidence.sumsHessians, false)
    case .quantize(_, let scaling): (scales, rounds) = (scaling != nil, scaling?.handsOut ?? false)
    }
    func count(_ windows: [[Int32]]) -> Double { Double(windows.reduce(0) { $0 + $1.count }) }
    return CalibrationCosts(
      tokens: count(windows), heldOut: count(heldOut), length: Double((windows + heldOut).map(\.count).max() ?? 1),
      tracks: options.runsOriginal ? 2 : 1, sumsHessians: sumsHessians, quantizes: quantizes, scales: scales,
      roundsAfterScaling: rounds,
      learning: learning, isWanted: isWanted)
  }

  private func windowRows(_ groups: [Group], heldOut: Bool) -> [Range<Int>] {
    groups.filter { $0.isHeldOut == heldOut }.flatMap { group in
      group.batch.sequences.map {
        ($0.lowerBound + group.rows.lowerBound)..<($0.upperBound + group.rows.lowerBound)
      }
    }
  }

  private func copy(_ source: HiddenStates, to target: HiddenStates, _ groups: [Group]) throws {
    for group in groups {
      try target.update(group.rows) { target in
        try source.read(group.rows) { copyColumns(MatrixColumns($0, from: 0), into: target, at: 0, count: $0.rows) }
      }
    }
  }

  /// Widths of what is kept of all tokens within a block, of each track that it is kept of: what the attention's output
  /// reads, and a feed-forward layer's that is no mixture.
  private func keptWidths(_ block: BlockDescription) -> [Int] {
    func widths(_ layers: [LinearDescription], _ norms: BranchNorms) -> [Int] {
      let tracks = options.runsOriginal && !(options.correctsStream && block.addsUnchanged(norms)) ? 2 : 1
      return layers.flatMap { Array(repeating: $0.inputs, count: tracks) }
    }
    return widths([block.attention.output], block.attentionNorms)
      + (block.feedForward.isMixture ? [] : widths(block.feedForward.experts.map(\.output), block.feedForwardNorms))
  }

  /// Memory comes from the storage, to which it goes back.
  private func states(tokens: Int, width: Int) throws -> HiddenStates {
    try HiddenStates(
      tokens: tokens, width: width, memoryLimit: options.memoryLimit / (options.runsOriginal ? 6 : 3),
      folder: options.spillFolder, pool: forward.pool, storage: storage, workers: options.workers)
  }
}
