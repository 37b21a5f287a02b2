import Kernels

/// Runs a model over sequences of tokens, one block's weights in memory at a time.
package struct Forward: Sendable {
  package let model: Model
  package let workers: Int
  package let pool = MatrixPool()
  package let loader: WeightLoader

  package init(_ model: Model, workers: Int, arithmetic: LinearArithmetic = .float32) {
    self.model = model
    self.workers = workers
    loader = WeightLoader(model.source, pool: pool, workers: workers, arithmetic: arithmetic)
  }

  /// Looks up tokens (and positions): the input of the first block, `[tokens, hidden]`.
  /// - Throws: `ModelError` for a token outside the vocabulary or a window longer than the model has positions.
  package func embed(_ tokens: [Int32], _ batch: TokenBatch, into hidden: Matrix) throws {
    let embedding = model.description.embedding
    precondition(tokens.count == batch.tokenCount && hidden.rows == tokens.count)
    for token in tokens where token < 0 || token >= embedding.vocabulary {
      throw ModelError(
        file: model.source.place, .tokenOutOfRange(token: Int(token), vocabulary: embedding.vocabulary))
    }
    if let limit = model.description.positionLimit, batch.longest > limit {
      throw ModelError(file: model.source.place, .tooLong(tokens: batch.longest, limit: limit))
    }
    // Each token of the vocabulary that occurs is read once.
    let distinct = Set(tokens).sorted()
    let position = Dictionary(uniqueKeysWithValues: distinct.enumerated().map { ($1, $0) })
    let table = pool.take(rows: distinct.count, columns: embedding.width)
    try loader.rows(distinct.map { Int($0) }, of: embedding.tokens, width: embedding.width, into: table)
    if embedding.scale != 1 { scale(table, by: embedding.scale, workers: workers) }
    let indices = tokens.map { position[$0] ?? 0 }
    if let projection = embedding.projection {
      let linear = try loader.linear(projection)
      let projected = pool.take(rows: table.rows, columns: projection.outputs)
      linear.apply(table, into: projected, workers: workers)
      gatherRows(indices, of: projected, into: hidden, workers: workers)
      pool.give(projected, linear.weight)
    } else {
      gatherRows(indices, of: table, into: hidden, workers: workers)
    }
    pool.give(table)
    if let positions = embedding.positions {
      try addRows(of: positions.table.name, batch.positions.map { $0 + positions.offset }, to: hidden)
    }
    if let types = embedding.tokenType {
      try addRows(of: types.name, [Int](repeating: 0, count: tokens.count), to: hidden)
    }
    try loader.norm(embedding.norm)?.apply(hidden, into: hidden, workers: workers)
  }

  private func addRows(of table: String, _ indices: [Int], to hidden: Matrix) throws {
    let distinct = Set(indices).sorted()
    let rows = pool.take(rows: distinct.count, columns: hidden.columns)
    let gathered = pool.take(rows: indices.count, columns: hidden.columns)
    try loader.rows(distinct, of: table, width: hidden.columns, into: rows)
    let position = Dictionary(uniqueKeysWithValues: distinct.enumerated().map { ($1, $0) })
    gatherRows(indices.map { position[$0] ?? 0 }, of: rows, into: gathered)
    add(gathered, to: hidden, workers: workers)
    pool.give(rows, gathered)
  }

  /// Loads a block's weights.
  package func weights(ofBlock index: Int) throws -> BlockWeights {
    try BlockWeights(model.description.blocks[index], loader)
  }

  /// Runs a block whose weights are loaded.
  package func run(
    block index: Int, _ weights: BlockWeights, _ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?,
    cache: KeyValueCache? = nil
  ) {
    BlockForward(model.description.blocks[index], weights, pool: pool, workers: workers)
      .run(hidden, batch, tables: tables, cache: cache)
  }

  /// The last hidden states of sequences, `[tokens, hidden]`, with the final norm: what an encoder gives.
  package func lastHiddenStates(_ tokens: [Int32], _ batch: TokenBatch) throws -> Matrix {
    let hidden = try runBlocks(tokens, batch)
    try loader.norm(model.description.head.norm)?.apply(hidden, into: hidden, workers: workers)
    return hidden
  }

  /// The logits of sequences, `[tokens, vocabulary]`, for texts so short that they all fit into memory.
  package func logits(_ tokens: [Int32], _ batch: TokenBatch) throws -> Matrix {
    let hidden = try runBlocks(tokens, batch)
    let head = try loadHead()
    let result = Matrix(rows: hidden.rows, columns: head.vocabulary)
    logits(hidden, head, into: result)
    return result
  }

  private func runBlocks(_ tokens: [Int32], _ batch: TokenBatch) throws -> Matrix {
    let hidden = Matrix(rows: tokens.count, columns: model.description.hiddenSize)
    try embed(tokens, batch, into: hidden)
    let tables = ModelRotaryTables(model.description, length: batch.longest)
    for (index, block) in model.description.blocks.enumerated() {
      let weights = try weights(ofBlock: index)
      run(block: index, weights, hidden, batch, tables: tables[block])
      pool.give(weights.matrices)
    }
    return hidden
  }

  package func loadHead() throws -> LoadedHead {
    let head = model.description.head
    guard let linear = head.linear else { throw ModelError(file: model.source.place, .notGenerative) }
    return LoadedHead(
      norm: try loader.norm(head.norm), projection: try head.projection.map(loader.linear),
      linear: try loader.linear(linear), softCap: head.softCap)
  }

  /// The logits of hidden states, `[tokens, vocabulary]`. The hidden states are normalized in place.
  package func logits(_ hidden: Matrix, _ head: LoadedHead, into logits: Matrix) {
    if let norm = head.norm { norm.apply(hidden, into: hidden, workers: workers) }
    if let projection = head.projection {
      let projected = pool.take(rows: hidden.rows, columns: projection.weight.rows)
      projection.apply(hidden, into: projected, workers: workers)
      head.linear.apply(projected, into: logits, workers: workers)
      pool.give(projected)
    } else {
      head.linear.apply(hidden, into: logits, workers: workers)
    }
    if let cap = head.softCap { softCap(logits, at: cap, workers: workers) }
  }
}

package struct LoadedHead: Sendable {
  package var norm: LoadedNorm?
  let projection: LoadedLinear?
  package let linear: LoadedLinear
  let softCap: Float?

  package var vocabulary: Int { linear.weight.rows }
}

/// The rotation tables of a model's blocks for a length; equal rotations share one.
package struct ModelRotaryTables: Sendable {
  private let tables: [RotaryEmbedding: RotaryTables]

  package init(_ description: ModelDescription, length: Int, rows: Int? = nil) {
    var tables: [RotaryEmbedding: RotaryTables] = [:]
    for rotary in description.blocks.compactMap(\.attention.rotary) where tables[rotary] == nil {
      tables[rotary] = rotary.tables(length: length, rows: rows ?? length)
    }
    self.tables = tables
  }

  package subscript(block: BlockDescription) -> RotaryTables? { block.attention.rotary.flatMap { tables[$0] } }
}
