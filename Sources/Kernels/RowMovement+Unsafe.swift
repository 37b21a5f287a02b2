/// Copies values, from an element on, into whole rows.
package func copyRows(_ values: Span<Float>, from first: Int, into target: Matrix, rows: Range<Int>) {
  let count = rows.count * target.columns
  precondition(rows.lowerBound >= 0 && rows.upperBound <= target.rowCapacity && first + count <= values.count)
  values.withUnsafeBufferPointer { values in
    guard let source = values.baseAddress else { return }
    // Bounds: by the precondition.
    (target.base + rows.lowerBound * target.columns).update(from: source + first, count: count)
  }
}

/// Writes rows of values as columns of the target: its transpose.
/// - Parameter values: from `first` on `[columns.count, target.rows]`.
package func scatterColumns(_ values: Span<Float>, from first: Int, into target: Matrix, columns: Range<Int>) {
  precondition(columns.lowerBound >= 0 && columns.upperBound <= target.columns)
  precondition(first + columns.count * target.rows <= values.count)
  values.withUnsafeBufferPointer { values in
    guard let source = values.baseAddress else { return }
    // Bounds: rows of the target, and columns that the precondition keeps within it.
    for row in 0..<target.rows {
      for (index, column) in columns.enumerated() {
        target.base[row * target.columns + column] = source[first + index * target.rows + row]
      }
    }
  }
}

/// target[i] = source[indices[i]], row by row; sets the target's rows in use.
package func gatherRows(_ indices: [Int], of source: Matrix, into target: Matrix, workers: Int = 1) {
  precondition(source.columns == target.columns && indices.allSatisfy { $0 >= 0 && $0 < source.rows })
  target.use(rows: indices.count)
  let tile = 512
  runTiles(count: (indices.count + tile - 1) / tile, workers: workers) { number in
    for row in (number * tile)..<min(indices.count, (number + 1) * tile) {
      // Bounds: by the precondition, and `use` checks the target's capacity.
      (target.base + row * target.columns)
        .update(from: source.base + indices[row] * source.columns, count: source.columns)
    }
  }
}

/// target[indices[i]] += factors[i] · source[i], row by row.
package func addRows(_ source: Matrix, times factors: [Float], to indices: [Int], of target: Matrix) {
  precondition(source.columns == target.columns && source.rows == indices.count && factors.count == indices.count)
  precondition(indices.allSatisfy { $0 >= 0 && $0 < target.rows })
  for (row, index) in indices.enumerated() {
    let line = target.base + index * target.columns
    let factor = factors[row]
    // Bounds: by the preconditions.
    combine(source.base + row * source.columns, line, line, source.columns) { factor * $0 + $1 }
  }
}

/// Copies columns of the rows in use of `source` into rows of `target`, from a row on.
package func copyColumns(_ columns: MatrixColumns, into target: Matrix, at row: Int, count: Int) {
  let source = columns.matrix
  precondition(row >= 0 && row + count <= target.rowCapacity && count <= source.rows)
  precondition(columns.first >= 0 && columns.first + target.columns <= source.columns)
  let isWhole = source.columns == target.columns
  runRowTiles(count, columns: target.columns, workers: 2) { rows in
    // Bounds: by the preconditions; rows of equal length are adjacent in both.
    if isWhole {
      (target.base + (row + rows.lowerBound) * target.columns).update(
        from: source.base + rows.lowerBound * source.columns, count: rows.count * target.columns)
      return
    }
    for index in rows {
      (target.base + (row + index) * target.columns).update(
        from: source.base + index * source.columns + columns.first, count: target.columns)
    }
  }
}

/// Sets every row in use to zeros.
package func clear(_ matrix: Matrix) {
  // Bounds: rows in use lie within the allocation.
  matrix.base.update(repeating: 0, count: matrix.rows * matrix.columns)
}

/// x *= factor for the rows in use.
package func scale(_ x: Matrix, by factor: Float, workers: Int) {
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    let start = x.base + rows.lowerBound * x.columns
    // Bounds: the rows are adjacent and in use.
    combine(start, start, start, rows.count * x.columns) { x, _ in factor * x }
  }
}

/// target[indices[i]] = source[i], row by row: the inverse of `gatherRows`.
package func scatterRows(_ source: Matrix, to indices: [Int], of target: Matrix) {
  precondition(source.columns == target.columns && indices.count == source.rows)
  precondition(indices.allSatisfy { $0 >= 0 && $0 < target.rows })
  for (row, index) in indices.enumerated() {
    // Bounds: by the preconditions.
    (target.base + index * target.columns).update(from: source.base + row * source.columns, count: source.columns)
  }
}

/// y −= x for the rows in use of `x`.
package func subtract(_ x: Matrix, from y: Matrix, workers: Int) {
  precondition(x.columns == y.columns && x.rows <= y.rows)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    let offset = rows.lowerBound * x.columns
    // Bounds: the rows are adjacent and in use in both.
    combine(x.base + offset, y.base + offset, y.base + offset, rows.count * x.columns) { $1 - $0 }
  }
}

/// Subtracts a row from every row in use of `y`.
package func subtract(row: [Float], from y: Matrix, workers: Int) {
  precondition(row.count == y.columns)
  let tileSize = 64
  runTiles(count: (y.rows + tileSize - 1) / tileSize, workers: workers) { tile in
    for index in (tile * tileSize)..<min((tile + 1) * tileSize, y.rows) {
      // Bounds: one row.
      let target = y.base + index * y.columns
      for column in 0..<y.columns { target[column] -= row[column] }
    }
  }
}

/// Σ x² of a row, in lanes of a fixed order, ended in double precision.
package func sumOfSquares(_ x: Matrix, row: Int) -> Double {
  precondition(row >= 0 && row < x.rows)
  // Bounds: the row is in use.
  return Double(sum(x.base + row * x.columns, x.columns) { $0 * $0 })
}

/// y += xᵀ.
package func addTransposed(_ x: Matrix, to y: Matrix) {
  precondition(x.rows == y.columns && x.columns == y.rows)
  for row in 0..<y.rows {
    // Bounds: by the precondition.
    for column in 0..<y.columns { y.base[row * y.columns + column] += x.base[column * x.columns + row] }
  }
}

/// Multiplies each row in use by a factor of its own.
package func scaleRows(_ x: Matrix, by factors: [Float]) {
  precondition(factors.count == x.rows)
  for (row, factor) in factors.enumerated() {
    let line = x.base + row * x.columns
    // Bounds: a row in use.
    combine(line, line, line, x.columns) { value, _ in factor * value }
  }
}

/// target[first + i · stride + l] = source[l · count + i], for elements of `width` bytes each: stretches of rows, one after
/// another, become stretches of columns side by side.
/// - Parameters:
///   - lines: the stretches.
///   - count: the elements of each.
///   - first: an element of `target`, as `stride` counts them.
package func transposeStretches(
  _ source: Span<UInt8>, lines: Int, count: Int, width: Int, into target: inout MutableSpan<UInt8>, at first: Int,
  stride: Int
) {
  guard count > 0, lines > 0 else { return }
  precondition(width > 0 && first >= 0 && stride >= lines && lines * count * width <= source.count)
  precondition((first + (count - 1) * stride + lines) * width <= target.count)
  source.withUnsafeBytes { source in
    target.withUnsafeMutableBytes { target in
      guard let source = source.baseAddress, let target = target.baseAddress else { return }
      /// Bounds: by the preconditions, the last element of each side ends within it.
      func move<Element: BitwiseCopyable>(_: Element.Type) {
        let width = MemoryLayout<Element>.size
        for index in 0..<count {
          let output = target + (first &+ index &* stride) &* width
          for line in 0..<lines {
            let value = source.loadUnaligned(fromByteOffset: (line &* count &+ index) &* width, as: Element.self)
            output.storeBytes(of: value, toByteOffset: line &* width, as: Element.self)
          }
        }
      }
      switch width {
      case 1: move(UInt8.self)
      case 2: move(UInt16.self)
      case 4: move(UInt32.self)
      case 8: move(UInt64.self)
      default:
        for index in 0..<count {
          for line in 0..<lines {
            let place = (first &+ index &* stride &+ line) &* width
            (target + place).copyMemory(from: source + (line &* count &+ index) &* width, byteCount: width)
          }
        }
      }
    }
  }
}
