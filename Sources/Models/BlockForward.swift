import Kernels

/// Keys and values of the tokens so far, of one block.
package final class KeyValueCache: Sendable {
  let keys: Matrix
  let values: Matrix

  package init(_ attention: AttentionDescription, capacity: Int) {
    let width = attention.form.keyValueHeads * attention.form.headDimension
    keys = Matrix(rows: capacity, columns: width)
    values = Matrix(rows: capacity, columns: width)
  }
}

/// Runs one block. Every step is one operation over all tokens, parallel inside.
package struct BlockForward: Sendable {
  let block: BlockDescription
  let weights: BlockWeights
  let pool: MatrixPool
  let workers: Int

  package init(_ block: BlockDescription, _ weights: BlockWeights, pool: MatrixPool, workers: Int) {
    self.block = block
    self.weights = weights
    self.pool = pool
    self.workers = workers
  }

  /// Tokens that go through the feed-forward layer at once, so that its width does not multiply a long window's memory.
  private static let feedForwardRows = 4096

  /// Changes hidden states `[tokens, hidden]` from the block's input to its output.
  ///
  /// Short sequences go through it in parts, each on a thread of its own.
  /// - Parameter tables: of the block's rotation, for positions up to the longest sequence's.
  package func run(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?, cache: KeyValueCache? = nil) {
    if cache == nil, !block.feedForward.isMixture, let parts = batch.parts(tokens: block.partTokens),
      parts.count >= BlockDescription.fewestParts
    {
      let forward = BlockForward(block, weights, pool: pool, workers: 1)
      return runTiles(count: parts.count, workers: workers) { index in
        let part = parts[index]
        forward.runTogether(Matrix(sharing: hidden, rows: part.rows), part.batch, tables: tables, cache: nil)
      }
    }
    runTogether(hidden, batch, tables: tables, cache: cache)
  }

  private func runTogether(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?, cache: KeyValueCache?) {
    guard block.isParallel else {
      runAttention(hidden, batch, tables: tables, cache: cache)
      return runFeedForward(hidden)
    }
    let attended = pool.take(rows: hidden.rows, columns: block.attention.output.inputs)
    let branch = pool.take(rows: hidden.rows, columns: hidden.columns)
    attentionInput(hidden, into: branch)
    attend(branch, batch, tables: tables, cache: cache, into: attended)
    feedForward(hidden, into: branch)
    addAttention(attended, to: hidden)
    add(branch, to: hidden, workers: workers)
    pool.give(attended, branch)
  }

  /// The attention of a block whose branches are not parallel.
  package func runAttention(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?, cache: KeyValueCache? = nil) {
    let attended = pool.take(rows: hidden.rows, columns: block.attention.output.inputs)
    let x = pool.take(rows: hidden.rows, columns: hidden.columns)
    attentionInput(hidden, into: x)
    attend(x, batch, tables: tables, cache: cache, into: attended)
    addAttention(attended, to: hidden)
    pool.give(attended, x)
  }

  /// And its feed-forward layer.
  package func runFeedForward(_ hidden: Matrix) {
    let branch = pool.take(rows: hidden.rows, columns: hidden.columns)
    feedForward(hidden, into: branch)
    addFeedForward(branch, to: hidden)
    pool.give(branch)
  }

  /// Adds the attention to the stream.
  /// - Parameter attended: what its output projection reads.
  package func addAttention(_ attended: Matrix, to hidden: Matrix) {
    let branch = pool.take(rows: hidden.rows, columns: hidden.columns)
    weights.attentionOutput.apply(attended, into: branch, workers: workers)
    finish(branch, weights.attentionNorms, hidden)
    pool.give(branch)
  }

  /// Adds the output of a feed-forward layer that is no mixture to the stream.
  /// - Parameter inner: its activations.
  package func addFeedForward(ofInner inner: Matrix, to hidden: Matrix) {
    let branch = pool.take(rows: hidden.rows, columns: hidden.columns)
    weights.feedForward[0].output.apply(inner, into: branch, workers: workers)
    finish(branch, weights.feedForwardNorms, hidden)
    pool.give(branch)
  }

  /// Adds the feed-forward layer's output to the stream; changes the output where a norm follows it.
  package func addFeedForward(_ branch: Matrix, to hidden: Matrix) { finish(branch, weights.feedForwardNorms, hidden) }

  /// What the projection to queries, keys and values reads.
  package func attentionInput(_ hidden: Matrix, into x: Matrix) { prepare(hidden, weights.attentionNorms, into: x) }

  /// What the feed-forward layer reads.
  package func feedForwardInput(_ hidden: Matrix, into x: Matrix) { prepare(hidden, weights.feedForwardNorms, into: x) }

  private func prepare(_ hidden: Matrix, _ norms: BlockWeights.Norms, into x: Matrix) {
    if let norm = norms.before {
      norm.apply(hidden, into: x, workers: workers)
    } else {
      copyColumns(MatrixColumns(hidden, from: 0), into: x, at: 0, count: hidden.rows)
    }
  }

  /// Adds a branch's output to the stream.
  private func finish(_ branch: Matrix, _ norms: BlockWeights.Norms, _ hidden: Matrix) {
    if let norm = norms.after { norm.apply(branch, into: branch, workers: workers) }
    add(branch, to: hidden, workers: workers)
    if let norm = norms.onSum { norm.apply(hidden, into: hidden, workers: workers) }
  }

  /// From what the attention reads to what its output projection reads, `[tokens, heads · headDimension]`.
  package func attend(
    _ x: Matrix, _ batch: TokenBatch, tables: RotaryTables?, cache: KeyValueCache?, into attended: Matrix
  ) {
    let form = block.attention.form
    let queryColumns = form.heads * form.headDimension
    let keyColumns = form.keyValueHeads * form.headDimension
    let projected = pool.take(rows: x.rows, columns: queryColumns + 2 * keyColumns)
    defer { pool.give(projected) }
    weights.attentionInput.apply(x, into: projected, workers: workers)
    place(projected, batch, tables: tables)
    var keys = MatrixColumns(projected, from: queryColumns)
    var values = MatrixColumns(projected, from: queryColumns + keyColumns)
    var spans = batch.sequences.map { AttentionSpan(queries: $0, keys: $0) }
    if let cache {
      copyColumns(keys, into: cache.keys, at: batch.past, count: x.rows)
      copyColumns(values, into: cache.values, at: batch.past, count: x.rows)
      keys = MatrixColumns(cache.keys, from: 0)
      values = MatrixColumns(cache.values, from: 0)
      spans = [AttentionSpan(queries: 0..<x.rows, keys: 0..<(batch.past + x.rows))]
    }
    Kernels.attend(
      queries: MatrixColumns(projected, from: 0), keys: keys, values: values, spans, form,
      bias: relativeBias(reach: batch.longest - 1), into: attended, workers: workers)
  }

  /// Normalizes and rotates queries and keys, where the block does.
  /// - Parameter projected: `[tokens, …]`: all query heads, all key heads, all value heads.
  func place(_ projected: Matrix, _ batch: TokenBatch, tables: RotaryTables?) {
    let form = block.attention.form
    if let norm = weights.queryNorm { norm.applyToHeads(projected, from: 0, heads: form.heads, workers: workers) }
    if let norm = weights.keyNorm {
      norm.applyToHeads(
        projected, from: form.heads * form.headDimension, heads: form.keyValueHeads, workers: workers)
    }
    guard let tables else { return }
    // Queries and keys stand side by side: heads of both are rotated in one go.
    rotate(
      projected, firstColumn: 0, heads: form.heads + form.keyValueHeads, headDimension: form.headDimension,
      positions: batch.positions, cosines: tables.cosines, sines: tables.sines, workers: workers)
  }

  func relativeBias(reach: Int) -> Matrix? {
    guard let description = block.attention.relativeBias, let table = weights.relativeBias else { return nil }
    let buckets = (-reach...reach).map(description.bucket)
    return Matrix(
      rows: table.count, columns: buckets.count, table.flatMap { biases in buckets.map { biases[$0] } })
  }

  private func feedForward(_ hidden: Matrix, into output: Matrix) {
    for start in stride(from: 0, to: hidden.rows, by: Self.feedForwardRows) {
      let rows = start..<min(hidden.rows, start + Self.feedForwardRows)
      feedForwardPart(Matrix(sharing: hidden, rows: rows), into: Matrix(sharing: output, rows: rows))
    }
  }

  private func feedForwardPart(_ hidden: Matrix, into output: Matrix) {
    let x = pool.take(rows: hidden.rows, columns: hidden.columns)
    defer { pool.give(x) }
    feedForwardInput(hidden, into: x)
    switch block.feedForward {
    case .gated, .plain: expert(0, x, into: output)
    case .mixture(let description): mixture(x, description, into: output)
    }
  }

  private func expert(_ index: Int, _ x: Matrix, into output: Matrix) {
    let inner = pool.take(rows: x.rows, columns: weights.feedForward[index].output.weight.columns)
    self.inner(x, expert: index, into: inner)
    weights.feedForward[index].output.apply(inner, into: output, workers: workers)
    pool.give(inner)
  }

  /// What the output of the feed-forward layer, or of one of its experts, reads: its activations.
  package func inner(_ x: Matrix, expert index: Int, into inner: Matrix) {
    let input = weights.feedForward[index].input
    switch block.feedForward {
    case .gated(_, _, let activation): gated(x, input, activation, into: inner)
    case .mixture(let mixture): gated(x, input, mixture.activation, into: inner)
    case .plain(_, _, let activation):
      input.apply(x, into: inner, workers: workers)
      activate(inner, activation, workers: workers)
    }
  }

  private func gated(_ x: Matrix, _ input: LoadedLinear, _ activation: Activation, into inner: Matrix) {
    let both = pool.take(rows: x.rows, columns: input.weight.rows)
    input.apply(x, into: both, workers: workers)
    activateGated(both, activation, into: inner, workers: workers)
    pool.give(both)
  }

  /// Σ over a token's experts of probability · expert(x) (arXiv 2401.04088, §2.1), expert by expert.
  package func mixture(_ x: Matrix, _ description: MixtureDescription, into output: Matrix) {
    clear(output)
    for (index, route) in routes(x, description).enumerated() where !route.tokens.isEmpty {
      let part = pool.take(rows: route.tokens.count, columns: x.columns)
      let result = pool.take(rows: route.tokens.count, columns: output.columns)
      gatherRows(route.tokens, of: x, into: part)
      expert(index, part, into: result)
      addRows(result, times: route.shares, to: route.tokens, of: output)
      pool.give(part, result)
    }
  }

  /// Which tokens each expert gets.
  package func routes(_ x: Matrix, _ description: MixtureDescription) -> [ExpertRoute] {
    guard let router = weights.router else { return [] }
    let scores = pool.take(rows: x.rows, columns: description.experts.count)
    defer { pool.give(scores) }
    router.apply(x, into: scores, workers: workers)
    return scores.readRows(0..<x.rows) { scores in
      ExpertRouting.routes(scores, experts: description.experts.count, description)
    }
  }
}

extension LoadedLinear {
  package func apply(_ x: Matrix, into y: Matrix, workers: Int) {
    if let integers {
      integers.apply(x, weight: weight, bias: bias, into: y, workers: workers)
    } else {
      multiply(x, transposed: weight, bias: bias, into: y, workers: workers)
    }
  }
}

extension LoadedNorm {
  package func apply(_ x: Matrix, into y: Matrix, workers: Int) {
    switch description.kind {
    case .rootMeanSquare:
      normalizeRootMeanSquare(x, weight: weight, epsilon: description.epsilon, into: y, workers: workers)
    case .layer:
      normalizeLayer(x, weight: weight, bias: bias, epsilon: description.epsilon, into: y, workers: workers)
    }
  }

  func applyToHeads(_ x: Matrix, from column: Int, heads: Int, workers: Int) {
    normalizeHeads(
      x, firstColumn: column, heads: heads, weight: weight, epsilon: description.epsilon, workers: workers)
  }
}
