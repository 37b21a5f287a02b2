import COpenBLAS

/// sum ← sum + xᵀ·x for some columns of the rows in use of `x`: both triangles, equal to the bit.
///
/// By tiles of the lower triangle, each of which is mirrored; the partition depends on the number of columns alone.
/// - Parameters:
///   - x: `[tokens, ≥ first + n]`.
///   - first: the first of the columns.
///   - sum: `[n, n]`, symmetric.
package func accumulateGram(_ x: Matrix, from first: Int = 0, into sum: Matrix, workers: Int) {
  let size = sum.columns
  precondition(sum.rows == size && first >= 0 && first + size <= x.columns)
  guard x.rows > 0 else { return }
  let tiles = lowerTiles(size)
  runTiles(count: tiles.count, workers: workers) { index in
    let tile = tiles[index]
    let columns = tile.columns.lowerBound
    // Bounds: rows and columns of a tile are within the size of sum, and within x's columns from `first` on.
    let columnsFromFirst = StridedMatrix(x.base + first, x.columns)
    product(
      columnsFromFirst.from(row: 0, column: tile.rows.lowerBound).transposed,
      columnsFromFirst.from(row: 0, column: columns), into: sum.base + tile.rows.lowerBound * size + columns, size,
      rows: tile.rows.count, columns: tile.columns.count, inner: x.rows, adding: true,
      lowerOnlyFrom: tile.rows.lowerBound - columns)
    mirror(sum.base, size, rows: tile.rows, columns: tile.columns)
  }
}

/// Tiles of a lower triangle: squares along its blocks, those with the most elements first; the last on the diagonal is cut
/// in two of about the same number, so that threads end together.
///
/// What is written above the diagonal, and below it to be mirrored there, is written by no other tile: one that the
/// diagonal passes through has all columns from the block's first up to its own last row.
private func lowerTiles(_ size: Int) -> [Tile] {
  let side = tileSide(size)
  var (squares, diagonal): ([Tile], [Tile]) = ([], [])
  for row in stride(from: 0, to: size, by: side) {
    let end = min(size, row + side)
    for column in stride(from: 0, to: row, by: side) {
      squares.append(Tile(rows: row..<end, columns: column..<column + side))
    }
    // √½ of the rows have half of the elements.
    let middle = end == size ? row + (end - row) * 17 / 24 / 12 * 12 : row
    for rows in [row..<middle, middle..<end] where !rows.isEmpty {
      diagonal.append(Tile(rows: rows, columns: row..<rows.upperBound))
    }
  }
  return squares + diagonal
}

private struct Tile {
  let rows: Range<Int>
  let columns: Range<Int>
}

/// Large enough to be worth packing, and so many that threads end together.
private func tileSide(_ size: Int) -> Int { size <= 1024 ? 256 : 512 }

/// sum ← sum + aᵀ·b for the rows in use of both, by tiles.
/// - Parameters:
///   - a: `[tokens, n]`.
///   - b: `[tokens, m]`.
///   - sum: `[n, m]`.
package func accumulateCrossProduct(_ a: Matrix, _ b: Matrix, into sum: Matrix, workers: Int) {
  precondition(sum.rows == a.columns && sum.columns == b.columns && a.rows == b.rows)
  guard a.rows > 0 else { return }
  let largest = max(sum.rows, sum.columns)
  let tileSize = largest <= 256 ? 128 : tileSide(largest)
  let across = (sum.columns + tileSize - 1) / tileSize
  runTiles(count: (sum.rows + tileSize - 1) / tileSize * across, workers: workers) { tile in
    let row = tile / across * tileSize
    let column = tile % across * tileSize
    // Bounds: clipped to the row lengths of a and b, which are the rows and columns of sum.
    product(
      StridedMatrix(a.base + row, a.columns).transposed, StridedMatrix(b.base + column, b.columns),
      into: sum.base + row * sum.columns + column, sum.columns, rows: min(tileSize, sum.rows - row),
      columns: min(tileSize, sum.columns - column), inner: a.rows, adding: true)
  }
}

/// Copies what lies below the diagonal within a tile to its place above, in squares that fit the nearest cache.
private func mirror(_ base: UnsafeMutablePointer<Float>, _ size: Int, rows: Range<Int>, columns: Range<Int>) {
  let side = 32
  // Bounds: rows and columns lie within the matrix, and so do their mirror images.
  for firstRow in stride(from: rows.lowerBound, to: rows.upperBound, by: side) {
    for firstColumn in stride(from: columns.lowerBound, to: min(columns.upperBound, firstRow + side), by: side) {
      for column in firstColumn..<min(firstColumn + side, columns.upperBound) {
        let target = base + column * size
        var row = max(firstRow, column + 1)
        let end = min(firstRow + side, rows.upperBound)
        while row < end {
          target[row] = base[row * size + column]
          row &+= 1
        }
      }
    }
  }
}

/// The rate that ssyrk reaches here on one matrix a thread, for comparison in benchmarks.
/// - Returns: floating-point operations, of one triangle.
package func squareRankUpdates(size: Int, workers: Int) -> Int {
  setOneThread()
  let matrices = (0..<workers).map { _ in (Matrix(rows: size, columns: size), Matrix(rows: size, columns: size)) }
  for (x, _) in matrices { x.base.update(repeating: 1, count: size * size) }
  runTiles(count: workers, workers: workers) { tile in
    let (x, sum) = matrices[tile]
    cblas_ssyrk(
      CblasRowMajor, CblasLower, CblasTrans, Int32(size), Int32(size), 1, x.base, Int32(size), 1, sum.base,
      Int32(size))
  }
  return size * (size + 1) * size * workers
}

/// The largest magnitude in the rows in use; not finite exactly if some value is not.
package func largestMagnitude(of x: Matrix, workers: Int) -> Float {
  let tileSize = 64
  let tiles = (x.rows + tileSize - 1) / tileSize
  let found = Matrix(rows: tiles, columns: 1)
  runTiles(count: tiles, workers: workers) { tile in
    let rows = (tile * tileSize)..<min((tile + 1) * tileSize, x.rows)
    let largest = x.readRows(rows) { absoluteMaximum($0) }
    found.withRows(tile..<(tile + 1)) { $0[0] = largest }
  }
  return found.readRows(0..<tiles) { absoluteMaximum($0) }
}

/// The first entry below the diagonal that differs from its mirror image.
package func firstAsymmetry(_ a: Matrix) -> (row: Int, column: Int)? {
  precondition(a.rows == a.columns)
  let side = 64
  // Bounds: both indices stay below the size.
  for firstRow in stride(from: 0, to: a.rows, by: side) {
    for firstColumn in stride(from: 0, through: firstRow, by: side) {
      for row in firstRow..<min(firstRow + side, a.rows) {
        for column in firstColumn..<min(firstColumn + side, row + 1)
        where a.base[row * a.columns + column] != a.base[column * a.columns + row] {
          return (row, column)
        }
      }
    }
  }
  return nil
}
