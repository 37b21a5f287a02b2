/// y = x / √(mean(x²) + ε) · weight, row by row (RMSNorm, arXiv 1910.07467, eq. 4).
/// - Parameters:
///   - x: `[tokens, width]`.
///   - weight: `[width]`; a model that stores weights less one adds it on loading.
///   - y: `[tokens, width]`; may be `x`.
package func normalizeRootMeanSquare(_ x: Matrix, weight: [Float], epsilon: Float, into y: Matrix, workers: Int) {
  precondition(x.columns == weight.count && y.columns == x.columns)
  y.use(rows: x.rows)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    weight.withUnsafeBufferPointer { weight in
      guard let weight = weight.baseAddress else { return }
      // Bounds: each row is in use in both matrices and as long as the weight.
      for row in rows {
        normalizeRow(x.base + row * x.columns, weight, epsilon, y.base + row * y.columns, count: x.columns)
      }
    }
  }
}

/// The same over each head of a slice of columns, in place: the query and key norms of an attention.
/// - Parameter firstColumn: where the first head begins; `heads` of `weight.count` columns each follow.
package func normalizeHeads(
  _ x: Matrix, firstColumn: Int, heads: Int, weight: [Float], epsilon: Float, workers: Int
) {
  let width = weight.count
  precondition(firstColumn >= 0 && firstColumn + heads * width <= x.columns)
  runRowTiles(x.rows, columns: heads * width, workers: workers) { rows in
    weight.withUnsafeBufferPointer { weight in
      guard let weight = weight.baseAddress else { return }
      for row in rows {
        for head in 0..<heads {
          // Bounds: by the precondition, every head lies within the row.
          let start = x.base + row * x.columns + firstColumn + head * width
          normalizeRow(start, weight, epsilon, start, count: width)
        }
      }
    }
  }
}

@inline(__always)
private func normalizeRow(
  _ x: UnsafePointer<Float>, _ weight: UnsafePointer<Float>, _ epsilon: Float, _ y: UnsafeMutablePointer<Float>,
  count: Int
) {
  let mean = sum(x, count) { $0 * $0 } / Float(count)
  let factor = 1 / (mean + epsilon).squareRoot()
  combine(x, weight, y, count) { $0 * factor * $1 }
}

/// y = (x − mean) / √(variance + ε) · weight + bias, row by row (layer normalization, arXiv 1607.06450, eq. 4).
package func normalizeLayer(
  _ x: Matrix, weight: [Float], bias: [Float], epsilon: Float, into y: Matrix, workers: Int
) {
  precondition(x.columns == weight.count && bias.count == weight.count && y.columns == x.columns)
  y.use(rows: x.rows)
  let count = x.columns
  runRowTiles(x.rows, columns: count, workers: workers) { rows in
    weight.withUnsafeBufferPointer { weight in
      bias.withUnsafeBufferPointer { bias in
        guard let weight = weight.baseAddress, let bias = bias.baseAddress else { return }
        for row in rows {
          // Bounds: as in normalizeRootMeanSquare.
          let source = x.base + row * count
          let target = y.base + row * count
          let mean = sum(source, count) { $0 } / Float(count)
          let variance = sum(source, count) { ($0 - mean) * ($0 - mean) } / Float(count)
          let factor = 1 / (variance + epsilon).squareRoot()
          combine(source, weight, target, count) { ($0 - mean) * factor * $1 }
          combine(target, bias, target, count) { $0 + $1 }
        }
      }
    }
  }
}

/// Σ body(x[i]) over `count` elements, in lanes of a fixed order.
@inline(__always)
func sum(_ x: UnsafePointer<Float>, _ count: Int, _ body: (Floats) -> Floats) -> Float {
  var lanes = Floats.zero
  var index = 0
  while index &+ 16 <= count {
    lanes += body(x.lanes(index))
    index &+= 16
  }
  var total = lanes.total
  while index < count {
    total += body(Floats(repeating: x[index]))[0]
    index &+= 1
  }
  return total
}
