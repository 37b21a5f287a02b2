/// The form of an attention: heads, scaling and which keys a query sees.
package struct AttentionForm: Hashable, Sendable {
  package var heads: Int
  /// Query head h reads the keys of head h · keyValueHeads / heads.
  package var keyValueHeads: Int
  package var headDimension: Int
  package var scale: Float
  /// Scores become cap · tanh(score / cap).
  package var softCap: Float?
  /// A query at position p sees keys from p − before on; nil: from the first.
  package var before: Int?
  /// … and up to p + after; nil: to the last. Zero is the causal mask.
  package var after: Int?

  package init(
    heads: Int, keyValueHeads: Int, headDimension: Int, scale: Float, softCap: Float? = nil, before: Int? = nil,
    after: Int? = 0
  ) {
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.headDimension = headDimension
    self.scale = scale
    self.softCap = softCap
    self.before = before
    self.after = after
  }

  /// The keys that a query at a position sees, of `keyCount`.
  @inline(__always)
  func visible(from position: Int, keyCount: Int) -> Range<Int> {
    let first = before.map { max(0, position - $0) } ?? 0
    let end = after.map { min(keyCount, position + $0 + 1) } ?? keyCount
    return first..<max(first, end)
  }
}

/// Where a sequence's queries and keys lie in the rows of the matrices. Its last query is at its last key.
package struct AttentionSpan: Hashable, Sendable {
  package let queries: Range<Int>
  package let keys: Range<Int>

  package init(queries: Range<Int>, keys: Range<Int>) {
    precondition(queries.count <= keys.count)
    self.queries = queries
    self.keys = keys
  }
}

/// Columns of a matrix, from one on.
package struct MatrixColumns: Sendable {
  package let matrix: Matrix
  package let first: Int

  package init(_ matrix: Matrix, from first: Int) {
    self.matrix = matrix
    self.first = first
  }
}

/// softmax(scale · q·kᵀ) · v for every head and sequence, over tiles of 64 queries and 512 keys with a running maximum
/// and sum (online softmax, arXiv 1805.02867, algorithm 3), so that memory does not grow with the square of the length.
/// - Parameters:
///   - queries: `[tokens, heads · headDimension]` from its first column on.
///   - keys, values: `[tokens, keyValueHeads · headDimension]`.
///   - bias: `[heads, 2 · reach + 1]`, added to scores: column reach + (key's position − query's position).
///   - y: `[tokens, heads · headDimension]`, the rows of all spans' queries.
package func attend(
  queries: MatrixColumns, keys: MatrixColumns, values: MatrixColumns, _ spans: [AttentionSpan], _ form: AttentionForm,
  bias: Matrix? = nil, into y: Matrix, workers: Int
) {
  let width = form.headDimension
  precondition(y.columns == form.heads * width && form.heads % form.keyValueHeads == 0)
  precondition(queries.first + form.heads * width <= queries.matrix.columns)
  precondition([keys, values].allSatisfy { $0.first + form.keyValueHeads * width <= $0.matrix.columns })
  for span in spans {
    precondition(span.queries.upperBound <= min(queries.matrix.rowCapacity, y.rowCapacity))
    precondition(span.keys.upperBound <= min(keys.matrix.rowCapacity, values.matrix.rowCapacity))
    if let bias { precondition(bias.rows == form.heads && bias.columns >= 2 * span.keys.count - 1) }
  }
  // Tiles of all spans in one list; the last ones of a causal sequence see the most keys and are taken first.
  let tiles = spans.flatMap { span in
    stride(from: 0, to: span.queries.count, by: queryTile).reversed().map { (span: span, first: $0) }
  }
  runTiles(count: tiles.count * form.heads, workers: workers) { item in
    let (span, first) = tiles[item / form.heads]
    let head = item % form.heads
    let keyHead = head / (form.heads / form.keyValueHeads)
    let row = span.queries.lowerBound + first
    // Bounds: by the preconditions, rows of the span and columns of the head lie within each matrix, and the middle of
    // a row of the bias has an entry for every difference of positions on both sides.
    let middle = bias.map { UnsafePointer($0.base + head * $0.columns + $0.columns / 2) }
    attendTile(
      queries.matrix.base + row * queries.matrix.columns + queries.first + head * width, queries.matrix.columns,
      keys.matrix.base + span.keys.lowerBound * keys.matrix.columns + keys.first + keyHead * width,
      keys.matrix.columns,
      values.matrix.base + span.keys.lowerBound * values.matrix.columns + values.first + keyHead * width,
      values.matrix.columns,
      y.base + row * y.columns + head * width, y.columns,
      queryCount: min(queryTile, span.queries.count - first),
      position: span.keys.count - span.queries.count + first, keyCount: span.keys.count, form, bias: middle)
  }
}

private let queryTile = 64
private let keyTile = 512
/// Room for lanes that are read past a row's last key.
private let scoreStride = keyTile + 16

private func attendTile(
  _ q: UnsafePointer<Float>, _ strideQ: Int, _ k: UnsafePointer<Float>, _ strideK: Int, _ v: UnsafePointer<Float>,
  _ strideV: Int, _ y: UnsafeMutablePointer<Float>, _ strideY: Int, queryCount: Int, position: Int, keyCount: Int,
  _ form: AttentionForm, bias: UnsafePointer<Float>?
) {
  let width = form.headDimension
  let firstKey = form.visible(from: position, keyCount: keyCount).lowerBound
  let endKey = form.visible(from: position + queryCount - 1, keyCount: keyCount).upperBound
  withUnsafeTemporaryAllocation(of: Float.self, capacity: queryTile * (scoreStride + 2)) { scratch in
    guard let scores = scratch.baseAddress else { return }
    // Bounds: scores take queryTile · scoreStride floats, the running maxima and sums queryTile each.
    // Every product writes the scores it is read for; lanes past them are set by softmaxStep.
    let maxima = scores + queryTile * scoreStride
    let sums = maxima + queryTile
    for row in 0..<queryCount { (maxima[row], sums[row]) = (-.infinity, 0) }
    var start = firstKey
    var isFirst = true
    while start < endKey {
      let count = min(keyTile, endKey - start)
      product(
        StridedMatrix(q, strideQ), StridedMatrix(k + start * strideK, strideK).transposed, into: scores, scoreStride,
        rows: queryCount, columns: count, inner: width, alpha: form.scale)
      for row in 0..<queryCount {
        let visible = form.visible(from: position + row, keyCount: keyCount).clamped(to: start..<(start + count))
        let line = scores + row * scoreStride
        if let bias {
          let shifted = bias + start - position - row
          combine(line, shifted, line, count) { $0 + $1 }
        }
        let factor = softmaxStep(
          line, (visible.lowerBound - start)..<(visible.upperBound - start), count, form.softCap, &maxima[row],
          &sums[row])
        if !isFirst, factor != 1 { for column in 0..<width { y[row * strideY + column] *= factor } }
      }
      product(
        StridedMatrix(scores, scoreStride), StridedMatrix(v + start * strideV, strideV), into: y, strideY,
        rows: queryCount, columns: width, inner: count, adding: !isFirst)
      isFirst = false
      start += count
    }
    for row in 0..<queryCount {
      let line = y + row * strideY
      if isFirst { for column in 0..<width { line[column] = 0 } }
      let inverse = sums[row] > 0 ? 1 / sums[row] : 0
      for column in 0..<width { line[column] *= inverse }
    }
  }
}

/// Turns a row of scores into e^(score − maximum), zero outside the visible keys.
/// - Returns: what earlier results of this row must be multiplied by, since the maximum may have grown.
@inline(__always)
private func softmaxStep(
  _ line: UnsafeMutablePointer<Float>, _ visible: Range<Int>, _ count: Int, _ softCap: Float?,
  _ maximum: inout Float, _ sum: inout Float
) -> Float {
  guard !visible.isEmpty else {
    for index in 0..<count { line[index] = 0 }
    return 1
  }
  let end = visible.upperBound
  // Bounds: at most fifteen lanes past `end` ≤ keyTile are read and written, which the stride has room for. They are
  // set to a score of the row first, so that they change neither maximum nor capping, and their sum is taken off.
  let padded = visible.lowerBound + (visible.count + 15) / 16 * 16
  for index in end..<padded { line[index] = line[visible.lowerBound] }
  if let softCap {
    for index in stride(from: visible.lowerBound, to: padded, by: 16) {
      let x: Floats = line.lanes(index)
      line.store(softCap * (x / softCap).hyperbolicTangent, at: index)
    }
  }
  var largest: Floats = line.lanes(visible.lowerBound)
  for index in stride(from: visible.lowerBound + 16, to: padded, by: 16) { largest = largest.larger(line.lanes(index)) }
  let previous = maximum
  maximum = max(previous, largest.largestLane)
  var total = Floats.zero
  var index = visible.lowerBound
  while index &+ 16 <= end {
    let value = (line.lanes(index, as: Floats.self) - maximum).exponential
    line.store(value, at: index)
    total += value
    index &+= 16
  }
  var ragged: Float = 0
  if index < end {
    line.store((line.lanes(index, as: Floats.self) - maximum).exponential, at: index)
    for lane in index..<end { ragged += line[lane] }
    for lane in end..<padded { line[lane] = 0 }
  }
  for index in 0..<visible.lowerBound { line[index] = 0 }
  for index in min(end, count)..<count { line[index] = 0 }
  let factor = previous == -.infinity ? 0 : Floats(repeating: previous - maximum).exponential[0]
  sum = sum * factor + total.total + ragged
  return factor
}
