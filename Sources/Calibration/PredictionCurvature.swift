import Kernels
import Models
import Quantization
import SystemPackage

/// What the outputs of linear layers count for the model's predictions: one backward pass of the original model, from the
/// loss of tokens drawn from its own predictions (the Fisher information, arXiv 1503.05671, §5).
///
/// Block by block, with one block's weights in memory; the stream before each block is kept, in a file if need be.
///
/// Where there are files to keep them in, so are streams on the way forwards, and on the way backwards the gradient after
/// each block with what was found in it: a pass that is taken up does no block twice.
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

  /// Where the pass is: blocks and what of them is known.
  private struct Place {
    /// The streams before this many blocks are known.
    var streams = 0
    /// The gradient after block `top` − 1 is known, and what outputs count in blocks from `top` on; nil: neither.
    var top: Int?
  }

  private func stream(_ index: Int) -> String { "stream-\(index)" }
  private func gradient(_ index: Int) -> String { "gradient-\(index)" }
  private func curvature(_ index: Int) -> String { "curvature-\(index)" }

  private func place(in kept: (any KeptFiles)?, blocks: Int) -> Place {
    guard let kept else { return Place() }
    var top = blocks
    while top > 0, kept.has(curvature(top - 1)) { top -= 1 }
    let streams = (0..<blocks).prefix { kept.has(stream($0)) }.count
    let isBackward = top == 0 || kept.has(gradient(top)) && streams >= top
    return Place(streams: streams, top: isBackward ? top : nil)
  }

  /// - Parameters:
  ///   - isWanted: the layers of interest.
  ///   - kept: where the pass is kept, and taken up.
  /// - Returns: empty where the model has no head to predict with. Layers whose rows run in another order than they are
  ///   stored in are left out.
  package func run(
    isWanted: (LinearDescription) -> Bool, kept: (any KeptFiles)? = nil, onProgress: (Double) -> Bool
  ) throws -> [LinearDescription: OutputCurvature] {
    let description = forward.model.description
    guard description.head.linear != nil else { return [:] }
    let groups = groups()
    let count = groups.last?.rows.upperBound ?? 0
    let tables = ModelRotaryTables(description, length: groups.map(\.batch.longest).max() ?? 1)
    let blocks = description.blocks
    let place = place(in: kept, blocks: blocks.count)
    // In the time of a block forwards, its output written: the head with its gradients, a block backwards with the sums.
    let (head, backwards) = (1.5, 2.3)
    var done =
      place.top.map { Double(blocks.count) + head + backwards * Double(blocks.count - $0) }
      ?? Double(max(0, place.streams - 1))
    func step(_ cost: Double) throws {
      done += cost
      guard onProgress(done / (Double(blocks.count) * (1 + backwards) + head)) else { throw CancellationError() }
    }
    func states(_ name: String) throws -> HiddenStates {
      if let kept {
        return try HiddenStates(
          tokens: count, width: description.hiddenSize, at: kept.path(of: name), pool: forward.pool,
          workers: forward.workers)
      }
      return try HiddenStates(
        tokens: count, width: description.hiddenSize, memoryLimit: memoryLimit / (blocks.count + 2),
        folder: spillFolder, pool: forward.pool, workers: forward.workers)
    }
    try step(0)
    // The streams before each block.
    var streams = try (0..<(place.top ?? place.streams)).map { try states(stream($0)) }
    var found: [LinearDescription: OutputCurvature] = [:]
    for block in blocks {
      for linear in Self.layers(of: block, isWanted) { found[linear] = OutputCurvature(outputs: linear.outputs) }
    }
    var top = blocks.count
    var after: HiddenStates
    if let known = place.top {
      top = known
      for index in top..<blocks.count {
        guard let kept else { break }
        try StateReader(kept.path(of: curvature(index))).read(
          into: Self.layers(of: blocks[index], isWanted).flatMap { found[$0]?.sums ?? [] })
      }
      guard top > 0 else { return found }
      after = try states(gradient(top))
    } else {
      if streams.isEmpty {
        let first = try states(blocks.isEmpty ? gradient(0) : stream(0))
        for group in groups {
          try first.update(group.rows) { try forward.embed(group.tokens, group.batch, into: $0) }
        }
        streams.append(first)
        if !blocks.isEmpty { try kept?.keep(stream(0)) }
      }
      for (index, block) in blocks.enumerated().dropFirst(streams.count - 1) {
        let isLast = index + 1 == blocks.count
        let next = try states(isLast ? gradient(index + 1) : stream(index + 1))
        let weights = try forward.weights(ofBlock: index)
        for group in groups {
          try next.update(group.rows) { hidden in
            try streams[index].read(group.rows) {
              copyColumns(MatrixColumns($0, from: 0), into: hidden, at: 0, count: hidden.rows)
            }
            forward.run(block: index, weights, hidden, group.batch, tables: tables[block])
          }
        }
        forward.pool.give(weights.matrices)
        streams.append(next)
        if !isLast { try kept?.keep(stream(index + 1)) }
        try step(1)
      }
      after = streams.removeLast()
      try startGradients(after, groups)
      try kept?.keep(gradient(blocks.count))
      try step(head)
    }
    for index in (0..<top).reversed() {
      let block = blocks[index]
      let places = Self.places(of: block, isWanted)
      let weights = try forward.weights(ofBlock: index)
      let before = index > 0 ? try states(gradient(index)) : nil
      for group in groups {
        try gather(streams[index], after, into: before, group, block, weights, tables[block]) { place, gradient in
          for (linear, first) in places[place] ?? [] {
            found[linear]?.add(gradient, from: first, workers: forward.workers)
          }
        }
      }
      forward.pool.give(weights.matrices)
      streams.removeLast()
      if let before { after = before }
      if let kept {
        if before != nil { try kept.keep(gradient(index)) }
        try StateWriter(kept.path(of: curvature(index))).write(
          Self.layers(of: block, isWanted).flatMap { found[$0]?.sums ?? [] })
        try kept.keep(curvature(index))
        kept.discard(stream(index))
        kept.discard(gradient(index + 1))
      }
      try step(backwards)
    }
    return found
  }

  /// The wanted layers, in the order of the data.
  private static func layers(
    of block: BlockDescription, _ isWanted: (LinearDescription) -> Bool
  ) -> [LinearDescription] {
    block.projections.filter { $0.projection.rowOrder == nil }.flatMap(\.projection.linears).filter(isWanted)
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

  /// Takes the gradient after a block to before it.
  /// - Parameters:
  ///   - stream: before the block.
  ///   - before: nil where that gradient is not wanted.
  private func gather(
    _ stream: HiddenStates, _ after: HiddenStates, into before: HiddenStates?, _ group: Group,
    _ block: BlockDescription, _ weights: BlockWeights, _ tables: RotaryTables?,
    _ observer: @escaping BlockBackward.Observer
  ) throws {
    let gradient = forward.pool.take(rows: group.rows.count, columns: stream.width)
    defer { forward.pool.give(gradient) }
    try after.read(group.rows) {
      copyColumns(MatrixColumns($0, from: 0), into: gradient, at: 0, count: gradient.rows)
    }
    try stream.read(group.rows) { hidden in
      let tape = BlockForward(block, weights, pool: forward.pool, workers: forward.workers)
        .record(hidden, group.batch, tables: tables)
      BlockBackward(block, weights, pool: forward.pool, workers: forward.workers)
        .run(tape, gradient, into: BlockGradients(), wantsInput: before != nil, observer: observer)
      tape.release()
    }
    try before?.update(group.rows) {
      copyColumns(MatrixColumns(gradient, from: 0), into: $0, at: 0, count: gradient.rows)
    }
  }
}
