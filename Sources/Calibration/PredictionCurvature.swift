import Kernels
import Models
import Quantization
import SystemPackage

/// What the outputs of linear layers count for the model's predictions: one backward pass of the original model, from the
/// loss of tokens drawn from its own predictions (the Fisher information, arXiv 1503.05671, §5).
///
/// Block by block, with one block's weights in memory; the stream before each block is kept, in a file if need be.
package struct PredictionCurvature {
  private let forward: Forward
  private let windows: [[Int32]]
  private let memoryLimit: Int
  private let spillFolder: FilePath
  private let seed: UInt64

  package init(
    _ model: Model, windows: [[Int32]], seed: UInt64 = 0, memoryLimit: Int, spillFolder: FilePath, workers: Int
  ) {
    forward = Forward(model, workers: workers)
    self.windows = windows.filter { !$0.isEmpty }
    self.memoryLimit = memoryLimit
    self.spillFolder = spillFolder
    self.seed = seed
  }

  /// Tokens that go through a block together.
  private static let groupTokens = 2048

  private struct Group {
    let batch: TokenBatch
    let rows: Range<Int>
    let tokens: [Int32]
  }

  private func groups() -> [Group] {
    var groups: [Group] = []
    var pending: [[Int32]] = []
    func close() {
      guard !pending.isEmpty else { return }
      let batch = TokenBatch(lengths: pending.map(\.count))
      let first = groups.last?.rows.upperBound ?? 0
      groups.append(
        Group(batch: batch, rows: first..<(first + batch.tokenCount), tokens: pending.flatMap { $0 }))
      pending = []
    }
    for window in windows {
      if !pending.isEmpty, pending.reduce(0, { $0 + $1.count }) + window.count > Self.groupTokens { close() }
      pending.append(window)
    }
    close()
    return groups
  }

  /// - Parameter isWanted: the layers of interest.
  /// - Returns: empty where the model has no head to predict with. Layers whose rows run in another order than they are
  ///   stored in are left out.
  package func run(
    isWanted: (LinearDescription) -> Bool, onProgress: (Double) -> Bool
  ) throws -> [LinearDescription: OutputCurvature] {
    let description = forward.model.description
    guard description.head.linear != nil else { return [:] }
    let groups = groups()
    let count = groups.last?.rows.upperBound ?? 0
    let tables = ModelRotaryTables(description, length: groups.map(\.batch.longest).max() ?? 1)
    let blocks = description.blocks
    // A block forwards is one, the head and its gradients two, a block backwards with the sums six, about.
    var done = 0
    func step(_ cost: Int) throws {
      done += cost
      guard onProgress(Double(done) / Double(7 * blocks.count + 2)) else { throw CancellationError() }
    }
    // The streams before each block and after the last.
    let streams = try (0...blocks.count).map { _ in
      try HiddenStates(
        tokens: count, width: description.hiddenSize, memoryLimit: memoryLimit / (blocks.count + 1),
        folder: spillFolder, pool: forward.pool)
    }
    for group in groups {
      try streams[0].update(group.rows) { try forward.embed(group.tokens, group.batch, into: $0) }
    }
    for (index, block) in blocks.enumerated() {
      let weights = try forward.weights(ofBlock: index)
      for group in groups {
        try streams[index + 1].update(group.rows) { hidden in
          try streams[index].read(group.rows) {
            copyColumns(MatrixColumns($0, from: 0), into: hidden, at: 0, count: hidden.rows)
          }
          forward.run(block: index, weights, hidden, group.batch, tables: tables[block])
        }
      }
      forward.pool.give(weights.matrices)
      try step(1)
    }
    try startGradients(streams[blocks.count], groups)
    try step(2)
    var found: [LinearDescription: OutputCurvature] = [:]
    for (index, block) in blocks.enumerated().reversed() {
      let places = Self.places(of: block, isWanted)
      for (linear, _) in places.values.joined() { found[linear] = OutputCurvature(outputs: linear.outputs) }
      let weights = try forward.weights(ofBlock: index)
      for group in groups {
        try gather(streams, index, group, block, weights, tables[block]) { place, gradient in
          for (linear, first) in places[place] ?? [] {
            found[linear]?.add(gradient, from: first, workers: forward.workers)
          }
        }
      }
      forward.pool.give(weights.matrices)
      try step(6)
    }
    return found
  }

  /// The wanted layers at each place, with the column of their first output.
  private static func places(
    of block: BlockDescription, _ isWanted: (LinearDescription) -> Bool
  ) -> [LinearPlace: [(linear: LinearDescription, first: Int)]] {
    var result: [LinearPlace: [(linear: LinearDescription, first: Int)]] = [:]
    for (place, projection) in block.projections where projection.rowOrder == nil {
      var first = 0
      for linear in projection.linears {
        if isWanted(linear) { result[place, default: []].append((linear, first)) }
        first += linear.outputs
      }
    }
    return result
  }

  /// Replaces the last stream by the gradient of the loss by it.
  private func startGradients(_ last: HiddenStates, _ groups: [Group]) throws {
    let head = try forward.loadHead()
    var generator = SeededGenerator(seed: seed)
    for group in groups {
      let draws = group.rows.map { _ in Float.random(in: 0..<1, using: &generator) }
      try last.update(group.rows) { hidden in
        let gradient = forward.pool.take(rows: hidden.rows, columns: hidden.columns)
        forward.sampledLoss(hidden, head, draws: draws, into: gradient)
        copyColumns(MatrixColumns(gradient, from: 0), into: hidden, at: 0, count: hidden.rows)
        forward.pool.give(gradient)
      }
    }
  }

  /// Takes the gradient after a block to before it, where the last stream keeps it.
  private func gather(
    _ streams: [HiddenStates], _ index: Int, _ group: Group, _ block: BlockDescription, _ weights: BlockWeights,
    _ tables: RotaryTables?, _ observer: @escaping BlockBackward.Observer
  ) throws {
    guard let last = streams.last else { return }
    try streams[index].read(group.rows) { hidden in
      let tape = BlockForward(block, weights, pool: forward.pool, workers: forward.workers)
        .record(hidden, group.batch, tables: tables)
      try last.update(group.rows) { gradient in
        BlockBackward(block, weights, pool: forward.pool, workers: forward.workers)
          .run(tape, gradient, into: BlockGradients(), wantsInput: index > 0, observer: observer)
      }
      tape.release()
    }
  }
}
