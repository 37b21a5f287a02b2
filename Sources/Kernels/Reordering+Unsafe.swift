/// The matrix that a Cholesky factorization is to start from: symmetric `h` with rows and columns in another order,
/// scaled, and something added to its diagonal. The lower triangle only; the rest is left unwritten or zero.
///
/// a[p][q] = factor · h[order[p]][order[q]] for q < p, and a[p][p] = factor · h[order[p]][order[p]] + damping, in double
/// precision; 1 where the diagonal of h is 0.
/// - Precondition: `order` holds row numbers of h.
package func dampedLowerTriangle(
  of h: Matrix, order: [Int32], factor: Double, damping: Double, workers: Int
) -> Matrix {
  let size = order.count
  precondition(h.rows == size && h.columns == size && order.allSatisfy { $0 >= 0 && $0 < size })
  let result = Matrix(rows: size, columns: size)
  let tileSize = 64
  runTiles(count: (size + tileSize - 1) / tileSize, workers: workers) { tile in
    for row in (tile * tileSize)..<min((tile + 1) * tileSize, size) {
      // Bounds: order was checked against the size of h, row and column are below the size of the result.
      let source = h.base + Int(order[row]) * size
      let target = result.base + row * size
      for column in 0..<row { target[column] = Float(Double(source[Int(order[column])]) * factor) }
      let own = source[Int(order[row])]
      target[row] = own == 0 ? 1 : Float(Double(own) * factor + damping)
      (target + row + 1).update(repeating: 0, count: size - row - 1)
    }
  }
  return result
}

/// Symmetric `h`, scaled, and something added to its diagonal, which is 1 where that of h is 0.
package func damped(_ h: Matrix, factor: Double, damping: Double, workers: Int) -> Matrix {
  let size = h.rows
  precondition(h.columns == size)
  let result = Matrix(rows: size, columns: size)
  let tileSize = 64
  runTiles(count: (size + tileSize - 1) / tileSize, workers: workers) { tile in
    for row in (tile * tileSize)..<min((tile + 1) * tileSize, size) {
      // Bounds: one row of each.
      let source = h.base + row * size
      let target = result.base + row * size
      for column in 0..<size { target[column] = Float(Double(source[column]) * factor) }
      target[row] = source[row] == 0 ? 1 : Float(Double(source[row]) * factor + damping)
    }
  }
  return result
}

/// A square matrix with rows and columns in another order, scaled.
package func reordered(_ h: Matrix, order: [Int32], factor: Double, workers: Int) -> Matrix {
  let size = order.count
  precondition(h.rows == size && h.columns == size && order.allSatisfy { $0 >= 0 && $0 < size })
  let result = Matrix(rows: size, columns: size)
  let tileSize = 64
  runTiles(count: (size + tileSize - 1) / tileSize, workers: workers) { tile in
    for row in (tile * tileSize)..<min((tile + 1) * tileSize, size) {
      // Bounds: as in dampedLowerTriangle.
      let source = h.base + Int(order[row]) * size
      let target = result.base + row * size
      for column in 0..<size { target[column] = Float(Double(source[Int(order[column])]) * factor) }
    }
  }
  return result
}

/// Sets everything on and above the diagonal to zero.
package func keepBelowDiagonal(_ a: Matrix, scaledBy factor: Float, workers: Int) {
  precondition(a.rows == a.columns)
  runTiles(count: a.rows, workers: workers) { row in
    let base = a.base + row * a.columns
    // Bounds: one row.
    for column in 0..<row { base[column] *= factor }
    (base + row).update(repeating: 0, count: a.columns - row)
  }
}
