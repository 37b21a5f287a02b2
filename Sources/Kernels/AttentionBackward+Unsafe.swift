/// The gradients of queries, keys and values, each in the columns that the forward pass read them from.
package struct AttentionGradients: Sendable {
  package let queries: MatrixColumns
  package let keys: MatrixColumns
  package let values: MatrixColumns

  package init(queries: MatrixColumns, keys: MatrixColumns, values: MatrixColumns) {
    self.queries = queries
    self.keys = keys
    self.values = values
  }
}

/// The vector-Jacobian product of `attend`: from the gradient of its result to those of queries, keys and values.
///
/// Probabilities are computed anew, for 64 queries at a time, instead of kept (arXiv 2205.14135, §3.1). With
/// P = softmax(S), S = scale·q·kᵀ + bias before capping, and dY the gradient,
///
///     dV = Pᵀ·dY        dS = P ∘ (dY·Vᵀ − rowsum(P ∘ dY·Vᵀ)) ∘ (1 − (capped S / cap)²)        dQ = scale·dS·K        dK = scale·dSᵀ·Q
///
/// Runs in parallel over sequences and heads of keys, since all queries of such a head add to its keys and values.
/// - Parameters: as for `attend`.
///   - gradient: `[tokens, heads · headDimension]`.
///   - result: its columns are set for the rows of all spans.
package func attendBackward(
  queries: MatrixColumns, keys: MatrixColumns, values: MatrixColumns, _ spans: [AttentionSpan], _ form: AttentionForm,
  bias: Matrix? = nil, gradient: Matrix, into result: AttentionGradients, workers: Int
) {
  let width = form.headDimension
  precondition(gradient.columns == form.heads * width && form.heads % form.keyValueHeads == 0)
  precondition([queries, result.queries].allSatisfy { $0.first + form.heads * width <= $0.matrix.columns })
  precondition(
    [keys, values, result.keys, result.values].allSatisfy {
      $0.first + form.keyValueHeads * width <= $0.matrix.columns
    })
  for span in spans {
    let queryRows = [queries.matrix, gradient, result.queries.matrix].map(\.rowCapacity)
    let keyRows = [keys.matrix, values.matrix, result.keys.matrix, result.values.matrix].map(\.rowCapacity)
    precondition(queryRows.allSatisfy { span.queries.upperBound <= $0 })
    precondition(keyRows.allSatisfy { span.keys.upperBound <= $0 })
    if let bias { precondition(bias.rows == form.heads && bias.columns >= 2 * span.keys.count - 1) }
  }
  let sharing = form.heads / form.keyValueHeads
  runTiles(count: spans.count * form.keyValueHeads, workers: workers) { item in
    let span = spans[item / form.keyValueHeads]
    let keyHead = item % form.keyValueHeads
    // Bounds: by the preconditions, rows of the span and columns of the head lie within each matrix.
    func place(_ columns: MatrixColumns, row: Int, head: Int) -> HeadRows {
      HeadRows(
        base: columns.matrix.base + row * columns.matrix.columns + columns.first + head * width,
        stride: columns.matrix.columns)
    }
    let (k, v) = (
      place(keys, row: span.keys.lowerBound, head: keyHead), place(values, row: span.keys.lowerBound, head: keyHead)
    )
    let dk = place(result.keys, row: span.keys.lowerBound, head: keyHead)
    let dv = place(result.values, row: span.keys.lowerBound, head: keyHead)
    for row in 0..<span.keys.count {
      (dk.base + row * dk.stride).update(repeating: 0, count: width)
      (dv.base + row * dv.stride).update(repeating: 0, count: width)
    }
    for head in keyHead * sharing..<(keyHead + 1) * sharing {
      let middle = bias.map { UnsafePointer($0.base + head * $0.columns + $0.columns / 2) }
      for first in stride(from: 0, to: span.queries.count, by: queryTile) {
        let row = span.queries.lowerBound + first
        let y = HeadRows(base: gradient.base + row * gradient.columns + head * width, stride: gradient.columns)
        backwardTile(
          q: place(queries, row: row, head: head), k: k, v: v, dy: y, dq: place(result.queries, row: row, head: head),
          dk: dk, dv: dv, queryCount: min(queryTile, span.queries.count - first),
          position: span.keys.count - span.queries.count + first, keyCount: span.keys.count, form, bias: middle)
      }
    }
  }
}

private let queryTile = 64

/// Rows of one head.
private struct HeadRows {
  let base: UnsafeMutablePointer<Float>
  let stride: Int

  var matrix: StridedMatrix { StridedMatrix(base, stride) }

  func from(_ row: Int) -> HeadRows { HeadRows(base: base + row * stride, stride: stride) }
}

private func backwardTile(
  q: HeadRows, k: HeadRows, v: HeadRows, dy: HeadRows, dq: HeadRows, dk: HeadRows, dv: HeadRows, queryCount: Int,
  position: Int, keyCount: Int, _ form: AttentionForm, bias: UnsafePointer<Float>?
) {
  let width = form.headDimension
  let start = form.visible(from: position, keyCount: keyCount).lowerBound
  let end = form.visible(from: position + queryCount - 1, keyCount: keyCount).upperBound
  let count = end - start
  guard count > 0 else {
    for row in 0..<queryCount { (dq.base + row * dq.stride).update(repeating: 0, count: width) }
    return
  }
  withUnsafeTemporaryAllocation(of: Float.self, capacity: 3 * queryTile * count) { scratch in
    guard let probabilities = scratch.baseAddress else { return }
    // Bounds: three matrices [queryTile, count]; keys from `start` to `end` are among the span's.
    let slopes = probabilities + queryTile * count
    let caps = slopes + queryTile * count
    let (keys, values) = (k.from(start), v.from(start))
    product(
      q.matrix, keys.matrix.transposed, into: probabilities, count, rows: queryCount, columns: count, inner: width,
      alpha: form.scale)
    product(
      dy.matrix, values.matrix.transposed, into: slopes, count, rows: queryCount, columns: count, inner: width)
    for row in 0..<queryCount {
      let visible = form.visible(from: position + row, keyCount: keyCount).clamped(to: start..<end)
      let line = probabilities + row * count
      if let bias { combine(line, bias + start - position - row, line, count) { $0 + $1 } }
      softmax(
        line, (visible.lowerBound - start)..<(visible.upperBound - start), count, softCap: form.softCap,
        caps: caps + row * count)
    }
    product(
      StridedMatrix(probabilities, count).transposed, dy.matrix, into: dv.from(start).base, dv.stride, rows: count,
      columns: width, inner: queryCount, adding: true)
    for row in 0..<queryCount {
      let (line, slope, cap) = (probabilities + row * count, slopes + row * count, caps + row * count)
      var along = Floats.zero
      for index in stride(from: 0, to: count, by: 16) {
        along += line.lanes(index, of: count) * slope.lanes(index, of: count)
      }
      let level = along.total
      for index in stride(from: 0, to: count, by: 16) {
        var value = line.lanes(index, of: count) * (slope.lanes(index, of: count) - level)
        if form.softCap != nil { value *= cap.lanes(index, of: count) }
        slope.store(value, at: index, of: count)
      }
    }
    product(
      StridedMatrix(slopes, count), keys.matrix, into: dq.base, dq.stride, rows: queryCount, columns: width,
      inner: count, alpha: form.scale)
    product(
      StridedMatrix(slopes, count).transposed, q.matrix, into: dk.from(start).base, dk.stride, rows: count,
      columns: width, inner: queryCount, alpha: form.scale, adding: true)
  }
}

/// Turns a row of scores into probabilities, zero outside the visible keys.
/// - Parameter caps: becomes the derivative of the cap at each visible score.
@inline(__always)
private func softmax(
  _ line: UnsafeMutablePointer<Float>, _ visible: Range<Int>, _ count: Int, softCap: Float?,
  caps: UnsafeMutablePointer<Float>
) {
  let (first, end) = (visible.lowerBound, visible.upperBound)
  // Bounds: lanes within the visible part of a row of `count`.
  if let softCap {
    for index in stride(from: first, to: end, by: 16) {
      let share = (line.lanes(index, of: end) / softCap).hyperbolicTangent
      line.store(softCap * share, at: index, of: end)
      caps.store(1 - share * share, at: index, of: end)
    }
    for index in 0..<first { caps[index] = 0 }
    for index in end..<count { caps[index] = 0 }
  }
  var largest = Floats(repeating: -.infinity)
  for index in stride(from: first, to: end, by: 16) {
    largest = largest.larger(line.lanes(index, of: end, filling: -.infinity))
  }
  let maximum = largest.largestLane
  var total: Float = 0
  var lanes = Floats.zero
  for index in stride(from: first, to: end, by: 16) {
    let value = (line.lanes(index, of: end, filling: maximum) - maximum).exponential
    line.store(value, at: index, of: end)
    if index + 16 <= end { lanes += value } else { for lane in index..<end { total += line[lane] } }
  }
  total += lanes.total
  let inverse = total > 0 ? 1 / total : 0
  for index in stride(from: first, to: end, by: 16) {
    line.store(line.lanes(index, of: end) * inverse, at: index, of: end)
  }
  for index in 0..<first { line[index] = 0 }
  for index in end..<count { line[index] = 0 }
}
