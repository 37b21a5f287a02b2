import Kernels

/// How far a model's predictions are from a reference's, and the gradient of that by its last hidden states.
extension Forward {
  /// - Parameters:
  ///   - hidden: the last hidden states, before the final norm; left as they are.
  ///   - reference: those of the reference, under `referenceHead`; left as they are.
  ///   - gradient: `[tokens, hidden]`; becomes factor · the gradient of the sum over tokens.
  ///   - norm: grows by the gradient of the final norm's parameters, `[2, hidden]`.
  /// - Returns: the sum over tokens of the divergence, in nats.
  package func divergence(
    _ hidden: Matrix, _ head: LoadedHead, from reference: Matrix, _ referenceHead: LoadedHead, factor: Float,
    into gradient: Matrix, norm: Matrix? = nil
  ) -> Double {
    precondition(hidden.rows == reference.rows)
    gradient.use(rows: hidden.rows)
    var total = 0.0
    forEachPart(hidden.rows, vocabulary: head.vocabulary) { rows in
      let other = pool.take(rows: rows.count, columns: head.vocabulary)
      let states = pool.take(rows: rows.count, columns: reference.columns)
      copyColumns(
        MatrixColumns(Matrix(sharing: reference, rows: rows), from: 0), into: states, at: 0, count: rows.count)
      logits(states, referenceHead, into: other)
      pool.give(states)
      let losses = Matrix(rows: rows.count, columns: 1)
      backward(Matrix(sharing: hidden, rows: rows), head, into: Matrix(sharing: gradient, rows: rows), norm: norm) {
        divergenceBackward($0, reference: other, factor: factor, divergences: losses, workers: workers)
      }
      pool.give(other)
      losses.readRows(0..<rows.count) { values in for index in 0..<values.count { total += Double(values[index]) } }
    }
    return total
  }

  /// The gradient of −log of the probability of a token drawn from the model's own predictions.
  /// - Parameter draws: a number in 0..<1 for each token.
  package func sampledLoss(_ hidden: Matrix, _ head: LoadedHead, draws: [Float], into gradient: Matrix) {
    gradient.use(rows: hidden.rows)
    forEachPart(hidden.rows, vocabulary: head.vocabulary) { rows in
      backward(Matrix(sharing: hidden, rows: rows), head, into: Matrix(sharing: gradient, rows: rows), norm: nil) {
        sampledLossBackward($0, draws: Array(draws[rows]), workers: workers)
      }
    }
  }

  /// Tokens in parts whose logits take about 64 MB.
  private func forEachPart(_ count: Int, vocabulary: Int, _ body: (Range<Int>) -> Void) {
    let height = min(4096, max(64, (1 << 24) / vocabulary))
    for start in stride(from: 0, to: count, by: height) { body(start..<min(count, start + height)) }
  }

  /// Runs the head and its vector-Jacobian product.
  /// - Parameter loss: turns logits into the gradient of a loss by them.
  private func backward(
    _ hidden: Matrix, _ head: LoadedHead, into gradient: Matrix, norm parameters: Matrix?, loss: (Matrix) -> Void
  ) {
    let width = head.linear.weight.columns
    let states = pool.take(rows: hidden.rows, columns: hidden.columns)
    let logits = pool.take(rows: hidden.rows, columns: head.vocabulary)
    copyColumns(MatrixColumns(hidden, from: 0), into: states, at: 0, count: hidden.rows)
    self.logits(states, head, into: logits)
    let capped = head.softCap.map { _ in
      let copy = pool.take(rows: logits.rows, columns: logits.columns)
      copyColumns(MatrixColumns(logits, from: 0), into: copy, at: 0, count: logits.rows)
      return copy
    }
    loss(logits)
    if let cap = head.softCap, let capped {
      softCapBackward(capped, at: cap, gradient: logits, workers: workers)
      pool.give(capped)
    }
    if let projection = head.projection {
      let projected = pool.take(rows: hidden.rows, columns: width)
      multiply(logits, by: head.linear.weight, into: projected, workers: workers)
      multiply(projected, by: projection.weight, into: gradient, workers: workers)
      pool.give(projected)
    } else {
      multiply(logits, by: head.linear.weight, into: gradient, workers: workers)
    }
    if let norm = head.norm {
      switch norm.description.kind {
      case .rootMeanSquare:
        normalizeRootMeanSquareBackward(
          hidden, weight: norm.weight, epsilon: norm.description.epsilon, gradient: gradient, into: gradient,
          parameters: parameters, workers: workers)
      case .layer:
        normalizeLayerBackward(
          hidden, weight: norm.weight, epsilon: norm.description.epsilon, gradient: gradient, into: gradient,
          parameters: parameters, workers: workers)
      }
    }
    pool.give(states, logits)
  }
}
