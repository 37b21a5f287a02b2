/// Measures of a model's predictions, one row for each token.
package enum PredictionColumn {
  /// −log of the probability of the token that came, in nats.
  package static let loss = 0
  /// Kullback-Leibler divergence of the model from the reference, in nats.
  package static let divergence = 1
  /// 1 where both give the same token the highest probability, else 0.
  package static let agreement = 2
  /// Σ min(p, q): the share of tokens drawn from the model that the reference would accept.
  package static let acceptance = 3
  package static let count = 4
}

/// Measures predictions against the tokens that came and, where given, against a reference model's predictions.
/// - Parameters:
///   - logits: `[tokens, vocabulary]` of the model.
///   - reference: the same of the reference.
///   - targets: the token that came after each row's; negative for rows to leave out.
///   - measures: `[tokens, PredictionColumn.count]`; without a reference only the loss is set.
package func measurePredictions(
  _ logits: Matrix, reference: Matrix?, targets: [Int32], into measures: Matrix, workers: Int
) {
  let vocabulary = logits.columns
  precondition(targets.count == logits.rows && measures.columns == PredictionColumn.count)
  precondition(reference == nil || (reference?.columns == vocabulary && reference?.rows == logits.rows))
  precondition(vocabulary > 0 && targets.allSatisfy { Int($0) < vocabulary })
  measures.use(rows: logits.rows)
  runRowTiles(logits.rows, columns: vocabulary, workers: workers) { rows in
    for row in rows where targets[row] >= 0 {
      // Bounds: rows are in use in all matrices, the target is in the vocabulary.
      let q = logits.base + row * vocabulary
      let result = measures.base + row * PredictionColumn.count
      let (largestQ, logTotalQ) = logarithmOfTotal(q, vocabulary)
      result[PredictionColumn.loss] = logTotalQ - q[Int(targets[row])]
      guard let reference else { continue }
      let p = reference.base + row * vocabulary
      let (largestP, logTotalP) = logarithmOfTotal(p, vocabulary)
      var divergence = Floats.zero
      var overlap = Floats.zero
      let difference = logTotalQ - logTotalP
      forEachLanes(p, q, vocabulary) { p, q in
        let probability = (p - logTotalP).exponential
        divergence += probability * (p - q + difference)
        let other = (q - logTotalQ).exponential
        overlap += probability.replacing(with: other, where: other .< probability)
      }
      result[PredictionColumn.divergence] = divergence.total
      let same = firstIndex(of: largestP, in: p, vocabulary) == firstIndex(of: largestQ, in: q, vocabulary)
      result[PredictionColumn.agreement] = same ? 1 : 0
      result[PredictionColumn.acceptance] = overlap.total
    }
  }
}

/// The largest of the values, and log Σ eˣ.
private func logarithmOfTotal(_ x: UnsafePointer<Float>, _ count: Int) -> (largest: Float, logTotal: Float) {
  var lanes = Floats(repeating: -.infinity)
  forEachLanes(x, x, count) { x, _ in lanes = lanes.larger(x) }
  let largest = lanes.largestLane
  var total = Floats.zero
  forEachLanes(x, x, count) { x, _ in total += (x - largest).exponential }
  return (largest, largest + logarithm(total.total))
}

private func firstIndex(of value: Float, in x: UnsafePointer<Float>, _ count: Int) -> Int? {
  var index = 0
  while index &+ 16 <= count {
    let lanes: Floats = x.lanes(index)
    if any(lanes .== value) { break }
    index &+= 16
  }
  while index < count {
    if x[index] == value { return index }
    index &+= 1
  }
  return nil
}

/// Calls a body on all values of two rows; the lanes past a ragged end hold numbers far below every logit.
@inline(__always)
private func forEachLanes(
  _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int, _ body: (Floats, Floats) -> Void
) {
  var index = 0
  while index &+ 16 <= count {
    body(a.lanes(index), b.lanes(index))
    index &+= 16
  }
  if index < count {
    // Their exponentials are below 1e-37, their difference is zero: they change no sum.
    var (first, second) = (Floats(repeating: -1e30), Floats(repeating: -1e30))
    for lane in 0..<(count - index) {
      first[lane] = a[index + lane]
      second[lane] = b[index + lane]
    }
    body(first, second)
  }
}
