/// y = x·w for the rows in use of `x`: what a linear layer's output gradient says of its input, the vector-Jacobian
/// product of `multiply(_:transposed:)`.
///
/// Runs by tiles whose partition depends on the shapes alone, each a product on one thread.
/// - Parameters:
///   - x: `[tokens, outputs]`.
///   - w: `[outputs, inputs]`.
///   - y: `[tokens, inputs]`; its rows in use are set to those of `x`. May be neither of the others.
///   - adding: whether y grows by the product instead.
package func multiply(_ x: Matrix, by w: Matrix, into y: Matrix, adding: Bool = false, workers: Int) {
  precondition(x.columns == w.rows && y.columns == w.columns)
  y.use(rows: x.rows)
  let (tokenTile, inputTile) = (512, 4096)
  let across = (w.columns + inputTile - 1) / inputTile
  runTiles(count: (x.rows + tokenTile - 1) / tokenTile * across, workers: workers) { tile in
    let row = tile / across * tokenTile
    let column = tile % across * inputTile
    // Bounds: clipped to the rows of x and the columns of w; leading dimensions are column counts.
    product(
      StridedMatrix(x.base + row * x.columns, x.columns), StridedMatrix(w.base + column, w.columns),
      into: y.base + row * y.columns + column, y.columns, rows: min(tokenTile, x.rows - row),
      columns: min(inputTile, w.columns - column), inner: x.columns, adding: adding)
  }
}

/// sums += Σ over the rows in use of x: the gradient of a bias.
/// - Parameter sums: `[1, columns]`.
package func addColumnSums(_ x: Matrix, to sums: Matrix, workers: Int) {
  precondition(sums.columns == x.columns && sums.rows >= 1)
  let width = 64
  runTiles(count: (x.columns + width - 1) / width, workers: workers) { tile in
    let columns = tile * width..<min(x.columns, (tile + 1) * width)
    for column in stride(from: columns.lowerBound, to: columns.upperBound, by: 16) {
      var sum = Floats.zero
      // Bounds: lanes before the tile's end, rows in use.
      for row in 0..<x.rows { sum += (x.base + row * x.columns).lanes(column, of: columns.upperBound) }
      sums.base.store(sums.base.lanes(column, of: columns.upperBound) + sum, at: column, of: columns.upperBound)
    }
  }
}
