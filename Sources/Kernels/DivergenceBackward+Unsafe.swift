/// The Kullback-Leibler divergence of a model's predictions from a reference's, and its gradient: for each token
/// Σ p·log(p / q), whose gradient by the model's logits is q − p.
/// - Parameters:
///   - logits: `[tokens, vocabulary]` of the model; becomes factor · (q − p).
///   - reference: the same of the reference.
///   - divergences: `[tokens, 1]`, in nats; its rows in use are set.
package func divergenceBackward(
  _ logits: Matrix, reference: Matrix, factor: Float, divergences: Matrix, workers: Int
) {
  let vocabulary = logits.columns
  precondition(reference.columns == vocabulary && reference.rows == logits.rows && divergences.columns == 1)
  precondition(vocabulary > 0)
  divergences.use(rows: logits.rows)
  runRowTiles(logits.rows, columns: vocabulary, workers: workers) { rows in
    for row in rows {
      // Bounds: rows are in use in all matrices.
      let (q, p) = (logits.base + row * vocabulary, reference.base + row * vocabulary)
      let (totalQ, totalP) = (logarithmOfTotal(q, vocabulary), logarithmOfTotal(p, vocabulary))
      var sum = Floats.zero
      for index in stride(from: 0, to: vocabulary, by: 16) {
        let own = q.lanes(index, of: vocabulary, filling: -1e30) - totalQ
        let other = p.lanes(index, of: vocabulary, filling: -1e30) - totalP
        let probability = other.exponential
        sum += probability * (other - own)
        q.store(factor * (own.exponential - probability), at: index, of: vocabulary)
      }
      divergences.base[row] = sum.total
    }
  }
}

/// The gradient of −log q(y) for a token y drawn from the model's own predictions: q less one at y. Its outer products
/// sum up to the Fisher information of the logits (arXiv 1503.05671, §5).
/// - Parameters:
///   - logits: `[tokens, vocabulary]`; becomes the gradient.
///   - draws: a number in 0..<1 for each token.
package func sampledLossBackward(_ logits: Matrix, draws: [Float], workers: Int) {
  let vocabulary = logits.columns
  precondition(draws.count == logits.rows && vocabulary > 0)
  runRowTiles(logits.rows, columns: vocabulary, workers: workers) { rows in
    for row in rows {
      // Bounds: a row in use.
      let q = logits.base + row * vocabulary
      let total = logarithmOfTotal(q, vocabulary)
      for index in stride(from: 0, to: vocabulary, by: 16) {
        q.store((q.lanes(index, of: vocabulary, filling: -1e30) - total).exponential, at: index, of: vocabulary)
      }
      var remaining = draws[row]
      var token = 0
      while token < vocabulary - 1, remaining >= q[token] {
        remaining -= q[token]
        token += 1
      }
      q[token] -= 1
    }
  }
}

/// log Σ eˣ.
private func logarithmOfTotal(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
  var largest = Floats(repeating: -.infinity)
  for index in stride(from: 0, to: count, by: 16) {
    largest = largest.larger(x.lanes(index, of: count, filling: -.infinity))
  }
  let maximum = largest.largestLane
  var total = Floats.zero
  for index in stride(from: 0, to: count, by: 16) {
    // Lanes past the end have an exponential below 1e-37.
    total += (x.lanes(index, of: count, filling: -1e30) - maximum).exponential
  }
  return maximum + logarithm(total.total)
}
