import Kernels
import Models
import Quantization
import SystemPackage

/// A linear layer to be quantized, with what is known of its inputs.
package struct LayerProblem {
  package let linear: LinearDescription
  /// `[outputs, inputs]`, in the order of the rows that the checkpoint has.
  package let weight: Matrix
  /// Sums over the calibration tokens that reached the layer; layers that read the same input share one.
  package let hessian: Hessian
  /// The layer's inputs for the tokens held out, `[tokens, inputs]`, by window; nil where none are held out.
  package let heldOut: HeldOutInputs?
}

package struct HeldOutInputs: Sendable {
  package let inputs: Matrix
  /// The first row of each window, and the end.
  package let bounds: [Int]
}

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

    package init(workers: Int, memoryLimit: Int, spillFolder: FilePath, usesOriginalInputs: Bool = false) {
      self.workers = workers
      self.memoryLimit = memoryLimit
      self.spillFolder = spillFolder
      self.usesOriginalInputs = usesOriginalInputs
    }
  }

  /// Changes the weight of a problem to what was made of it; called for each layer in turn.
  package typealias Quantizer = (LayerProblem) throws -> Void

  private let forward: Forward
  private let windows: [[Int32]]
  private let heldOut: [[Int32]]
  private let options: Options

  /// - Parameters:
  ///   - windows: tokens to calibrate on.
  ///   - heldOut: tokens that are never calibrated on, to measure errors with.
  package init(_ model: Model, windows: [[Int32]], heldOut: [[Int32]], _ options: Options) {
    forward = Forward(model, workers: options.workers)
    self.windows = windows
    self.heldOut = heldOut
    self.options = options
  }

  /// Tokens that go through a step together.
  private static let groupTokens = 4096

  /// Windows that go through the steps together, and their rows in the states.
  private struct Group {
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
        // The held-out windows are one group: their inputs are kept while a layer is worked on.
        let count = pending.reduce(0) { $0 + $1.count }
        if !isHeldOut, count > 0, count + window.count > Self.groupTokens { close() }
        pending.append(window)
      }
      close()
    }
    return groups
  }

  /// - Parameters:
  ///   - isWanted: whether a layer is to be quantized; the others run as they are.
  ///   - onProgress: the share of the blocks' steps that are done; returns false to stop.
  package func run(
    isWanted: @escaping (LinearDescription) -> Bool, onProgress: @escaping (Double) -> Bool,
    quantize: @escaping Quantizer
  ) throws {
    let description = forward.model.description
    let groups = groups()
    let count = groups.last?.rows.upperBound ?? 0
    let states = try states(tokens: count, width: description.hiddenSize)
    let tables = ModelRotaryTables(description, length: groups.map(\.batch.longest).max() ?? 1)
    for group in groups {
      try states.update(group.rows) { hidden in try forward.embed(group.tokens, group.batch, into: hidden) }
    }
    for (index, block) in description.blocks.enumerated() {
      let weights = try forward.weights(ofBlock: index)
      let attended = try self.states(tokens: count, width: block.attention.output.inputs)
      let run = BlockRun(
        forward: BlockForward(block, weights, pool: forward.pool, workers: options.workers), block: block,
        weights: weights, groups: groups, states: states, attended: attended, tables: tables[block],
        pool: forward.pool, options: options, isWanted: isWanted, quantize: quantize,
        step: { stage in
          guard onProgress((Double(index) + Double(stage) / 5) / Double(description.blocks.count)) else {
            throw CancellationError()
          }
        })
      try run.run()
      forward.pool.give(weights.matrices)
    }
  }

  private func states(tokens: Int, width: Int) throws -> HiddenStates {
    try HiddenStates(
      tokens: tokens, width: width, memoryLimit: options.memoryLimit / 2, folder: options.spillFolder,
      pool: forward.pool)
  }

  /// One block's turn.
  private struct BlockRun {
    let forward: BlockForward
    let block: BlockDescription
    let weights: BlockWeights
    let groups: [Group]
    let states: HiddenStates
    /// What the attention's output projection reads.
    let attended: HiddenStates
    let tables: RotaryTables?
    let pool: MatrixPool
    let options: Options
    let isWanted: (LinearDescription) -> Bool
    let quantize: Quantizer
    let step: (Int) throws -> Void

    func run() throws {
      let hidden = states.width
      try work(on: block.attention.input, weights.attentionInput, width: hidden) { group, x in
        try states.read(group.rows) { forward.attentionInput($0, into: x) }
      }
      try step(1)
      let attention = ProjectionDescription([block.attention.output])
      for group in groups {
        let x = pool.take(rows: group.rows.count, columns: hidden)
        try states.read(group.rows) { forward.attentionInput($0, into: x) }
        try attended.update(group.rows) {
          forward.attend(x, group.batch, tables: tables, cache: nil, into: $0)
        }
        pool.give(x)
      }
      try work(on: attention, weights.attentionOutput, width: attended.width) { group, x in
        try attended.read(group.rows) { copyColumns(MatrixColumns($0, from: 0), into: x, at: 0, count: x.rows) }
      }
      try step(2)
      if !block.isParallel { try addAttention() }
      switch block.feedForward {
      case .gated(let input, let output, _): try feedForward(input, output)
      case .plain(let input, let output, _): try feedForward(ProjectionDescription([input]), output)
      case .mixture(let mixture): try self.mixture(mixture)
      }
      if block.isParallel { try addAttention() }
      try step(5)
    }

    private func addAttention() throws {
      for group in groups {
        try states.update(group.rows) { hidden in
          try attended.read(group.rows) { forward.addAttention($0, to: hidden) }
        }
      }
    }

    private func feedForward(_ input: ProjectionDescription, _ output: LinearDescription) throws {
      let expert = weights.feedForward[0]
      try work(on: input, expert.input, width: states.width) { group, x in
        try states.read(group.rows) { forward.feedForwardInput($0, into: x) }
      }
      try step(3)
      try work(on: ProjectionDescription([output]), expert.output, width: output.inputs) { group, inner in
        try self.inner(group) { forward.inner($0, expert: 0, into: inner) }
      }
      try step(4)
      for group in groups {
        let inner = pool.take(rows: group.rows.count, columns: output.inputs)
        let branch = pool.take(rows: group.rows.count, columns: states.width)
        try self.inner(group) { forward.inner($0, expert: 0, into: inner) }
        expert.output.apply(inner, into: branch, workers: options.workers)
        try states.update(group.rows) { forward.addFeedForward(branch, to: $0) }
        pool.give(inner, branch)
      }
    }

    /// Gives a body what the feed-forward layer reads.
    private func inner(_ group: Group, _ body: (Matrix) -> Void) throws {
      let x = pool.take(rows: group.rows.count, columns: states.width)
      try states.read(group.rows) { forward.feedForwardInput($0, into: x) }
      body(x)
      pool.give(x)
    }

    /// Each expert sees the tokens that the router sends it.
    private func mixture(_ mixture: MixtureDescription) throws {
      // The router is never quantized, so that routes stay those of the first pass.
      var routes: [[ExpertRoute]] = []
      for group in groups { try inner(group) { routes.append(forward.routes($0, mixture)) } }
      for (index, description) in mixture.experts.enumerated() {
        let expert = weights.feedForward[index]
        let tokens = routes.map { $0[index].tokens }
        try work(on: description.input, expert.input, width: states.width, rows: tokens) { group, x in
          let chosen = tokens[group]
          try self.inner(groups[group]) { gatherRows(chosen, of: $0, into: x) }
        }
        try work(
          on: ProjectionDescription([description.output]), expert.output, width: description.output.inputs,
          rows: tokens
        ) { group, inner in
          let chosen = tokens[group]
          let x = pool.take(rows: chosen.count, columns: states.width)
          try self.inner(groups[group]) { gatherRows(chosen, of: $0, into: x) }
          forward.inner(x, expert: index, into: inner)
          pool.give(x)
        }
      }
      try step(4)
      for group in groups {
        let branch = pool.take(rows: group.rows.count, columns: states.width)
        try inner(group) { forward.mixture($0, mixture, into: branch) }
        try states.update(group.rows) { forward.addFeedForward(branch, to: $0) }
        pool.give(branch)
      }
    }

    private func work(
      on projection: ProjectionDescription, _ loaded: LoadedLinear, width: Int,
      fill: (Group, Matrix) throws -> Void
    ) throws {
      try work(on: projection, loaded, width: width, rows: groups.map { Array(0..<$0.rows.count) }) {
        try fill(groups[$0], $1)
      }
    }

    /// Collects the evidence of one input, and has the layers that read it quantized.
    /// - Parameter rows: for each group the tokens that reach the layers.
    private func work(
      on projection: ProjectionDescription, _ loaded: LoadedLinear, width: Int, rows: [[Int]],
      fill: (Int, Matrix) throws -> Void
    ) throws {
      guard projection.linears.contains(where: isWanted) else { return }
      var hessian = Hessian(dimension: width)
      var heldOut: HeldOutInputs?
      for (index, group) in groups.enumerated() where !rows[index].isEmpty {
        let x = pool.take(rows: rows[index].count, columns: width)
        try fill(index, x)
        if group.isHeldOut {
          let bounds = group.batch.sequences.map { range in rows[index].count { $0 < range.lowerBound } }
          heldOut = HeldOutInputs(inputs: x, bounds: bounds + [rows[index].count])
        } else {
          try hessian.add(x, workers: options.workers)
          pool.give(x)
        }
      }
      let order = projection.rowOrder
      let stored = order.map { order in
        let matrix = pool.take(rows: loaded.weight.rows, columns: loaded.weight.columns)
        scatterRows(loaded.weight, to: order, of: matrix)
        return matrix
      }
      let source = stored ?? loaded.weight
      var first = 0
      for linear in projection.linears {
        let rows = first..<(first + linear.outputs)
        first = rows.upperBound
        guard isWanted(linear) else { continue }
        let weight = Matrix(sharing: source, rows: rows)
        if options.usesOriginalInputs {
          let copy = pool.take(rows: rows.count, columns: width)
          copyColumns(MatrixColumns(weight, from: 0), into: copy, at: 0, count: rows.count)
          try quantize(LayerProblem(linear: linear, weight: copy, hessian: hessian, heldOut: heldOut))
          pool.give(copy)
        } else {
          try quantize(LayerProblem(linear: linear, weight: weight, hessian: hessian, heldOut: heldOut))
        }
      }
      if let order, let stored {
        gatherRows(order, of: stored, into: loaded.weight)
        pool.give(stored)
      }
      if let heldOut { pool.give(heldOut.inputs) }
    }
  }
}
