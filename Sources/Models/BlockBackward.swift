import Kernels

/// The vector-Jacobian product of a block: from the gradient of a loss by the block's output to the gradients by its
/// input and its parameters. Reads a tape, backwards; a block is a straight line, so that no graph is needed.
///
/// The choice of experts and their shares are taken as fixed.
package struct BlockBackward: Sendable {
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

  /// Sees the gradient of each linear layer's output, `[tokens, outputs]`.
  package typealias Observer = (LinearPlace, Matrix) -> Void

  /// - Parameters:
  ///   - gradient: by the output, `[tokens, hidden]`; becomes that by the input.
  ///   - gradients: grow by those of the parameters that they hold.
  ///   - wantsInput: false leaves out what only the input's gradient needs, and then `gradient` is undefined.
  package func run(
    _ tape: BlockTape, _ gradient: Matrix, into gradients: BlockGradients, wantsInput: Bool = true,
    observer: Observer? = nil
  ) {
    var pass = Pass(self, tape, gradients, observer)
    pass.wantsInput = wantsInput
    let branch = pool.take(rows: gradient.rows, columns: gradient.columns)
    defer { pool.give(branch) }
    if block.isParallel {
      // Both branches read the input and end in the same sum.
      let input = pool.take(rows: gradient.rows, columns: gradient.columns)
      copyColumns(MatrixColumns(gradient, from: 0), into: input, at: 0, count: gradient.rows)
      pass.feedForward(gradient, into: input)
      pass.open(gradient, into: branch, tape.attentionBranch, tape.attentionSum, .attentionAfter, .attentionSum)
      pass.attention(branch, into: input)
      copyColumns(MatrixColumns(input, from: 0), into: gradient, at: 0, count: gradient.rows)
      pool.give(input)
      return
    }
    pass.open(
      gradient, into: branch, tape.feedForwardBranch, tape.feedForwardSum, .feedForwardAfter, .feedForwardSum)
    pass.feedForward(branch, into: gradient)
    pass.open(gradient, into: branch, tape.attentionBranch, tape.attentionSum, .attentionAfter, .attentionSum)
    pass.attention(branch, into: gradient)
  }

  /// One run.
  private struct Pass {
    let weights: BlockWeights
    let block: BlockDescription
    let pool: MatrixPool
    let workers: Int
    let tape: BlockTape
    let gradients: BlockGradients
    let observer: Observer?
    var wantsInput = true

    init(_ own: BlockBackward, _ tape: BlockTape, _ gradients: BlockGradients, _ observer: Observer?) {
      (block, weights, pool, workers) = (own.block, own.weights, own.pool, own.workers)
      (self.tape, self.gradients, self.observer) = (tape, gradients, observer)
    }

    /// From the stream after a branch was added to the branch and the stream before.
    /// - Parameters:
    ///   - stream: becomes the gradient by the stream before.
    ///   - branch: becomes the gradient by what the output projection gave.
    func open(
      _ stream: Matrix, into branch: Matrix, _ before: Matrix?, _ sum: Matrix?, _ after: NormPlace, _ onSum: NormPlace
    ) {
      if let sum { norm(onSum, sum, stream, into: stream) }
      if let before {
        norm(after, before, stream, into: branch)
      } else {
        copyColumns(MatrixColumns(stream, from: 0), into: branch, at: 0, count: stream.rows)
      }
    }

    private func norm(_ place: NormPlace, _ x: Matrix, _ gradient: Matrix, into dx: Matrix, adding: Bool = false) {
      guard let norm = weights[place] else { return }
      let parameters = gradients.norms[place]
      switch norm.description.kind {
      case .rootMeanSquare:
        normalizeRootMeanSquareBackward(
          x, weight: norm.weight, epsilon: norm.description.epsilon, gradient: gradient, into: dx, adding: adding,
          parameters: parameters, workers: workers)
      case .layer:
        normalizeLayerBackward(
          x, weight: norm.weight, epsilon: norm.description.epsilon, gradient: gradient, into: dx, adding: adding,
          parameters: parameters, workers: workers)
      }
    }

    /// - Parameters:
    ///   - x: what the layer read.
    ///   - gradient: by what it gave.
    ///   - dx: set to the gradient by x; nil where that is not wanted.
    private func linear(_ place: LinearPlace, _ x: Matrix, _ gradient: Matrix, into dx: Matrix?) {
      observer?(place, gradient)
      if let sum = gradients.weights[place] { accumulateCrossProduct(gradient, x, into: sum, workers: workers) }
      if let sum = gradients.biases[place] { addColumnSums(gradient, to: sum, workers: workers) }
      if let dx { multiply(gradient, by: weights[place].weight, into: dx, workers: workers) }
    }

    /// Adds to `stream` the gradient by what the norm before the branch, if any, read.
    private func enter(_ place: NormPlace, _ read: Matrix, _ gradient: Matrix, into stream: Matrix) {
      if weights[place] != nil {
        norm(place, read, gradient, into: stream, adding: true)
      } else {
        add(gradient, to: stream, workers: workers)
      }
    }

    // MARK: Feed-forward

    func feedForward(_ branch: Matrix, into stream: Matrix) {
      let read = pool.take(rows: branch.rows, columns: branch.columns)
      defer { pool.give(read) }
      if block.feedForward.isMixture {
        clear(read)
        for (index, expert) in tape.experts {
          guard let route = expert.route else { continue }
          let part = pool.take(rows: route.tokens.count, columns: branch.columns)
          gatherRows(route.tokens, of: branch, into: part)
          scaleRows(part, by: route.shares)
          self.expert(index, expert, part, into: part)
          addRows(part, times: [Float](repeating: 1, count: part.rows), to: route.tokens, of: read)
          pool.give(part)
        }
      } else if let (_, expert) = tape.experts.first {
        self.expert(0, expert, branch, into: read)
      }
      enter(.feedForwardBefore, tape.middle, read, into: stream)
    }

    /// - Parameter read: becomes the gradient by what the expert read; may be `gradient`.
    private func expert(_ index: Int, _ tape: BlockTape.ExpertTape, _ gradient: Matrix, into read: Matrix) {
      let inner = pool.take(rows: gradient.rows, columns: tape.inner.columns)
      linear(.feedForwardOutput(index), tape.inner, gradient, into: inner)
      // The gradient by what the activation read takes its place: the tape is read once.
      switch block.feedForward {
      case .gated(_, _, let activation):
        activateGatedBackward(tape.preActivation, activation, gradient: inner, workers: workers)
        linear(.feedForwardInput(index), tape.read, tape.preActivation, into: read)
      case .mixture(let mixture):
        activateGatedBackward(tape.preActivation, mixture.activation, gradient: inner, workers: workers)
        linear(.feedForwardInput(index), tape.read, tape.preActivation, into: read)
      case .plain(_, _, let activation):
        activateBackward(tape.preActivation, activation, gradient: inner, workers: workers)
        linear(.feedForwardInput(index), tape.read, inner, into: read)
      }
      pool.give(inner)
    }

    // MARK: Attention

    func attention(_ branch: Matrix, into stream: Matrix) {
      let form = block.attention.form
      let (keys, values) = form.keyAndValueColumns
      let attended = pool.take(rows: branch.rows, columns: tape.attended.columns)
      linear(.attentionOutput, tape.attended, branch, into: attended)
      let projected = pool.take(rows: branch.rows, columns: tape.projected.columns)
      attendBackward(
        queries: MatrixColumns(tape.projected, from: 0), keys: MatrixColumns(tape.projected, from: keys),
        values: MatrixColumns(tape.projected, from: values),
        tape.batch.sequences.map { AttentionSpan(queries: $0, keys: $0) }, form,
        bias: BlockForward(block, weights, pool: pool, workers: workers).relativeBias(reach: tape.batch.longest - 1),
        gradient: attended,
        into: AttentionGradients(
          queries: MatrixColumns(projected, from: 0), keys: MatrixColumns(projected, from: keys),
          values: MatrixColumns(projected, from: values)), workers: workers)
      pool.give(attended)
      if let tables = tape.tables {
        // The transpose of a rotation turns the other way.
        rotate(
          projected, firstColumn: 0, heads: form.heads + form.keyValueHeads, headDimension: form.headDimension,
          positions: tape.batch.positions, cosines: tables.cosines, sines: tables.negatedSines, workers: workers)
      }
      if let x = tape.unnormalized {
        headNorm(.query, x, projected, NormSlice(firstColumn: 0, count: form.heads))
        headNorm(.key, x, projected, NormSlice(firstColumn: keys, count: form.keyValueHeads))
      }
      let needsRead = wantsInput || gradients.norms[.attentionBefore] != nil
      let read = needsRead ? pool.take(rows: branch.rows, columns: branch.columns) : nil
      linear(.attentionInput, tape.attentionRead, projected, into: read)
      pool.give(projected)
      if let read {
        enter(.attentionBefore, tape.input, read, into: stream)
        pool.give(read)
      }
    }

    private func headNorm(_ place: NormPlace, _ x: Matrix, _ gradient: Matrix, _ slice: NormSlice) {
      guard let norm = weights[place] else { return }
      normalizeRootMeanSquareBackward(
        x, slice, weight: norm.weight, epsilon: norm.description.epsilon, gradient: gradient, into: gradient,
        parameters: gradients.norms[place], workers: workers)
    }
  }
}
