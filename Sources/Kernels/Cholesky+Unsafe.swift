import COpenBLAS
import Synchronization

/// Cholesky factorization in place: a symmetric positive definite `a` becomes the lower triangle L with a = L·Lᵀ.
///
/// Only the lower triangle is read and written; what stands above the diagonal stays. Right-looking by blocks (Golub and
/// Van Loan, Matrix Computations, 4.2.6): LAPACK's spotrf factors a block of the diagonal and strtri inverts it, the
/// panel below is multiplied by that inverse, and the rest is updated by tiles of products. The partition depends on the
/// size alone, so that the result is the same for any number of workers.
/// - Returns: nil, or the first column whose pivot is not positive; `a` is then partly overwritten.
package func factorCholesky(_ a: Matrix, workers: Int) -> Int? {
  precondition(a.rows == a.columns)
  let size = a.rows
  let block = 256
  let inverse = Matrix(rows: block, columns: block)
  for start in stride(from: 0, to: size, by: block) {
    let width = min(block, size - start)
    let end = start + width
    // Bounds: block, panel and rest are cut at `size`, the row length and row count of `a`.
    let diagonal = a.base + start * size + start
    if let column = factorDiagonalBlock(diagonal, stride: size, width: width) { return start + column }
    guard end < size else { break }
    invertDiagonalBlock(diagonal, stride: size, width: width, into: inverse.base, inverseStride: block)
    let panelTile = 128
    runTiles(count: (size - end + panelTile - 1) / panelTile, workers: workers) { tile in
      let row = end + tile * panelTile
      let rows = min(panelTile, size - row)
      let panel = a.base + row * size + start
      withUnsafeTemporaryAllocation(of: Float.self, capacity: panelTile * block) { copy in
        guard let source = copy.baseAddress else { return }
        for index in 0..<rows {
          (source + index * block).update(from: panel + index * size, count: width)
        }
        product(
          StridedMatrix(source, block), StridedMatrix(inverse.base, block).transposed, into: panel, size, rows: rows,
          columns: width, inner: width)
      }
    }
    updateRest(a, from: end, panel: start..<end, workers: workers)
  }
  return nil
}

/// a ← a − p·pᵀ for the lower triangle from row and column `start` on, p being the columns `panel` of the same rows.
private func updateRest(_ a: Matrix, from start: Int, panel: Range<Int>, workers: Int) {
  let size = a.rows
  let tileSize = 512
  let tiles = (size - start + tileSize - 1) / tileSize
  runTiles(count: tiles * (tiles + 1) / 2, workers: workers) { tile in
    let (blockRow, blockColumn) = lowerTile(tile)
    let row = start + blockRow * tileSize
    let column = start + blockColumn * tileSize
    let rows = min(tileSize, size - row)
    let columns = min(tileSize, size - column)
    // Bounds: as in factorCholesky.
    let left = a.base + row * size + panel.lowerBound
    let target = a.base + row * size + column
    product(
      StridedMatrix(left, size), StridedMatrix(a.base + column * size + panel.lowerBound, size).transposed,
      into: target, size, rows: rows, columns: columns, inner: panel.count, alpha: -1, adding: true,
      lowerOnlyFrom: row == column ? 0 : nil)
  }
}

/// The tiles of a lower triangle, row by row: index 0 is (0, 0), 1 and 2 are (1, 0) and (1, 1), and so on.
package func lowerTile(_ index: Int) -> (row: Int, column: Int) {
  var row = 0
  var first = 0
  while first + row + 1 <= index {
    first += row + 1
    row += 1
  }
  return (row, index - first)
}

// LAPACK counts by columns: our lower triangle is its upper one, and L·Lᵀ its UᵀU.

/// - Returns: the column of the first pivot that is not positive.
private func factorDiagonalBlock(_ base: UnsafeMutablePointer<Float>, stride: Int, width: Int) -> Int? {
  setOneThread()
  var order = Int32(width)
  var leading = Int32(stride)
  var status: Int32 = 0
  spotrf_("U", &order, base, &leading, &status, 1)
  if status != 0 { return max(0, Int(status) - 1) }
  // A pivot that is NaN passes for positive in some versions.
  for index in 0..<width where !(base[index * stride + index] > 0 && base[index * stride + index].isFinite) {
    return index
  }
  return nil
}

/// Writes the inverse of a lower triangle, with zeros above its diagonal.
func invertDiagonalBlock(
  _ base: UnsafePointer<Float>, stride: Int, width: Int, into inverse: UnsafeMutablePointer<Float>, inverseStride: Int
) {
  for row in 0..<width {
    let target = inverse + row * inverseStride
    target.update(from: base + row * stride, count: row + 1)
    (target + row + 1).update(repeating: 0, count: width - row - 1)
  }
  setOneThread()
  var order = Int32(width)
  var leading = Int32(inverseStride)
  var status: Int32 = 0
  // The diagonal is positive, so that there is always an inverse.
  strtri_("U", "N", &order, inverse, &leading, &status, 1, 1)
}

/// x ← x·L⁻¹ or x·L⁻ᵀ, with the lower triangle L: by tiles of rows.
package func solve(_ x: Matrix, timesInverseOf lower: Matrix, transposed: Bool, workers: Int) {
  precondition(lower.rows == lower.columns && x.columns == lower.rows)
  setOneThread()
  let tileSize = 256
  runTiles(count: (x.rows + tileSize - 1) / tileSize, workers: workers) { tile in
    let row = tile * tileSize
    // Bounds: rows of x, each as long as L is wide.
    cblas_strsm(
      CblasRowMajor, CblasRight, CblasLower, transposed ? CblasTrans : CblasNoTrans, CblasNonUnit,
      Int32(min(tileSize, x.rows - row)), Int32(x.columns), 1, lower.base, Int32(lower.columns),
      x.base + row * x.columns, Int32(x.columns))
  }
}
