import Kernels

/// What a block computed on its way from input to output, as its backward pass needs it.
///
/// Made by `BlockForward.record`, read by `BlockBackward`. Its matrices are the pool's; `release` gives them back.
package final class BlockTape {
  /// One expert's part, or the whole feed-forward layer where there is one.
  struct ExpertTape {
    /// The tokens it gets, and their shares of its output; nil: all, whole.
    let route: ExpertRoute?
    /// What its input projection reads.
    let read: Matrix
    /// What the activation reads.
    let preActivation: Matrix
    /// What its output projection reads.
    let inner: Matrix
  }

  let batch: TokenBatch
  let tables: RotaryTables?
  /// The residual stream before the block.
  package let input: Matrix
  let attentionRead: Matrix
  /// Queries, keys and values before their norms; nil where there are none.
  var unnormalized: Matrix?
  /// Queries, keys and values as the attention reads them.
  let projected: Matrix
  let attended: Matrix
  var attentionBranch: Matrix?
  var attentionSum: Matrix?
  /// The stream after the attention; the input where both branches read it.
  let middle: Matrix
  let feedForwardRead: Matrix
  var experts: [(index: Int, tape: ExpertTape)] = []
  var feedForwardBranch: Matrix?
  var feedForwardSum: Matrix?
  /// The residual stream after the block.
  package let output: Matrix
  private let pool: MatrixPool
  private var owned: [Matrix] = []

  fileprivate init(
    _ block: BlockDescription, _ input: Matrix, _ batch: TokenBatch, tables: RotaryTables?, pool: MatrixPool
  ) {
    self.batch = batch
    self.tables = tables
    self.pool = pool
    self.input = input
    let form = block.attention.form
    let width = (form.heads + 2 * form.keyValueHeads) * form.headDimension
    var taken: [Matrix] = []
    func take(_ columns: Int) -> Matrix {
      let matrix = pool.take(rows: input.rows, columns: columns)
      taken.append(matrix)
      return matrix
    }
    attentionRead = take(input.columns)
    projected = take(width)
    attended = take(form.heads * form.headDimension)
    middle = block.isParallel ? input : take(input.columns)
    feedForwardRead = take(input.columns)
    output = take(input.columns)
    owned = taken
  }

  fileprivate func take(rows: Int? = nil, columns: Int) -> Matrix {
    let matrix = pool.take(rows: rows ?? input.rows, columns: columns)
    owned.append(matrix)
    return matrix
  }

  fileprivate func copy(_ matrix: Matrix) -> Matrix {
    let target = take(rows: matrix.rows, columns: matrix.columns)
    copyColumns(MatrixColumns(matrix, from: 0), into: target, at: 0, count: matrix.rows)
    return target
  }

  /// Gives the memory back; the tape, its output too, must not be used afterwards.
  package func release() {
    pool.give(owned)
    owned = []
  }
}

extension BlockForward {
  /// Runs the block as `run` does, to the bit, and keeps what the backward pass reads.
  /// - Parameter hidden: the block's input, which is left as it is and kept by the tape.
  package func record(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?) -> BlockTape {
    let tape = BlockTape(block, hidden, batch, tables: tables, pool: pool)
    attentionInput(hidden, into: tape.attentionRead)
    attend(tape)
    copyColumns(MatrixColumns(hidden, from: 0), into: tape.output, at: 0, count: hidden.rows)
    let branch = pool.take(rows: hidden.rows, columns: hidden.columns)
    defer { pool.give(branch) }
    func addAttention() {
      weights.attentionOutput.apply(tape.attended, into: branch, workers: workers)
      if weights.attentionNorms.after != nil { tape.attentionBranch = tape.copy(branch) }
      tape.attentionSum = finish(branch, weights.attentionNorms, tape)
    }
    if block.isParallel {
      feedForward(tape, into: branch)
      let other = pool.take(rows: hidden.rows, columns: hidden.columns)
      copyColumns(MatrixColumns(branch, from: 0), into: other, at: 0, count: hidden.rows)
      addAttention()
      add(other, to: tape.output, workers: workers)
      pool.give(other)
      return tape
    }
    addAttention()
    copyColumns(MatrixColumns(tape.output, from: 0), into: tape.middle, at: 0, count: hidden.rows)
    feedForward(tape, into: branch)
    if weights.feedForwardNorms.after != nil { tape.feedForwardBranch = tape.copy(branch) }
    tape.feedForwardSum = finish(branch, weights.feedForwardNorms, tape)
    return tape
  }

  /// Adds a branch to the stream.
  /// - Returns: the sum before its norm, where it has one.
  private func finish(_ branch: Matrix, _ norms: BlockWeights.Norms, _ tape: BlockTape) -> Matrix? {
    if let norm = norms.after { norm.apply(branch, into: branch, workers: workers) }
    add(branch, to: tape.output, workers: workers)
    guard let norm = norms.onSum else { return nil }
    let sum = tape.copy(tape.output)
    norm.apply(tape.output, into: tape.output, workers: workers)
    return sum
  }

  private func attend(_ tape: BlockTape) {
    let form = block.attention.form
    weights.attentionInput.apply(tape.attentionRead, into: tape.projected, workers: workers)
    if weights.queryNorm != nil || weights.keyNorm != nil { tape.unnormalized = tape.copy(tape.projected) }
    place(tape.projected, tape.batch, tables: tape.tables)
    let (keys, values) = form.keyAndValueColumns
    Kernels.attend(
      queries: MatrixColumns(tape.projected, from: 0), keys: MatrixColumns(tape.projected, from: keys),
      values: MatrixColumns(tape.projected, from: values),
      tape.batch.sequences.map { AttentionSpan(queries: $0, keys: $0) }, form,
      bias: relativeBias(reach: tape.batch.longest - 1), into: tape.attended, workers: workers)
  }

  private func feedForward(_ tape: BlockTape, into output: Matrix) {
    let x = tape.feedForwardRead
    feedForwardInput(tape.middle, into: x)
    guard case .mixture(let description) = block.feedForward else {
      let expert = self.expert(0, x, route: nil, tape)
      weights.feedForward[0].output.apply(expert.inner, into: output, workers: workers)
      tape.experts = [(0, expert)]
      return
    }
    clear(output)
    for (index, route) in routes(x, description).enumerated() where !route.tokens.isEmpty {
      let part = tape.take(rows: route.tokens.count, columns: x.columns)
      gatherRows(route.tokens, of: x, into: part)
      let expert = self.expert(index, part, route: route, tape)
      let result = pool.take(rows: part.rows, columns: output.columns)
      weights.feedForward[index].output.apply(expert.inner, into: result, workers: workers)
      addRows(result, times: route.shares, to: route.tokens, of: output)
      pool.give(result)
      tape.experts.append((index, expert))
    }
  }

  private func expert(_ index: Int, _ x: Matrix, route: ExpertRoute?, _ tape: BlockTape) -> BlockTape.ExpertTape {
    let layers = weights.feedForward[index]
    let before = tape.take(rows: x.rows, columns: layers.input.weight.rows)
    layers.input.apply(x, into: before, workers: workers)
    let inner = tape.take(rows: x.rows, columns: layers.output.weight.columns)
    switch block.feedForward {
    case .gated(_, _, let activation): activateGated(before, activation, into: inner, workers: workers)
    case .mixture(let mixture): activateGated(before, mixture.activation, into: inner, workers: workers)
    case .plain(_, _, let activation):
      copyColumns(MatrixColumns(before, from: 0), into: inner, at: 0, count: x.rows)
      activate(inner, activation, workers: workers)
    }
    return BlockTape.ExpertTape(route: route, read: x, preActivation: before, inner: inner)
  }
}

extension AttentionForm {
  /// Where keys and values begin in a row of queries, keys and values.
  var keyAndValueColumns: (keys: Int, values: Int) {
    (heads * headDimension, (heads + keyValueHeads) * headDimension)
  }
}
