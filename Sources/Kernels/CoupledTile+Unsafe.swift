import COpenBLAS

/// Some rows of a quantized weight whose codes and scales are improved one after the other, where the error of a row
/// costs more or less with those of the others (see `CoupledDescent` in Quantization).
///
/// With errors E = Ŵ − T, what falls is tr(A·E·H·Eᵀ). For row i, all others fixed, that is A[i][i] · (e + u)·H·(e + u)ᵀ
/// and a constant, with u = Σ A[i][k]·E[k] / A[i][i] over k ≠ i: the error of the other rows is carried over to this one.
/// E·H is kept current, so that (e + u)·H is a sum over the rows of the tile.
///
/// Used by one thread at a time.
package final class CoupledTile {
  private let rows: Int
  private let columns: Int
  private let groupLength: Int
  private let groups: Int
  private let highest: Float
  /// `[rows, columns]`: E, E·H, and codes less zero points.
  private let errors: Matrix
  private let products: Matrix
  private let steps: Matrix
  private let scales: Matrix
  private let zeroPoints: Matrix
  /// (e + u)·H of the row at hand, before and after its changes.
  private let gradient: Matrix
  private let earlier: Matrix
  /// What a change of a group's scale adds to the gradient.
  private let pull: Matrix
  private let weights: Matrix

  /// - Parameters:
  ///   - target: `[…, columns]`, of which some rows are taken.
  ///   - codes, ranges: of these rows, row-major.
  package init(
    _ target: Matrix, rows range: Range<Int>, codes: Span<UInt8>, ranges: Span<AffineRange>, groupLength: Int
  ) {
    precondition(range.lowerBound >= 0 && range.upperBound <= target.rows && groupLength > 0)
    (rows, columns, self.groupLength) = (range.count, target.columns, groupLength)
    groups = (columns + groupLength - 1) / groupLength
    precondition(codes.count == rows * columns && ranges.count == rows * groups)
    highest = Float(ranges.isEmpty ? 0 : ranges[0].highestCode)
    (errors, products) = (Matrix(rows: rows, columns: columns), Matrix(rows: rows, columns: columns))
    (steps, gradient) = (Matrix(rows: rows, columns: columns), Matrix(rows: 1, columns: columns))
    (earlier, pull) = (Matrix(rows: 1, columns: columns), Matrix(rows: 1, columns: columns))
    weights = Matrix(rows: 1, columns: max(1, rows))
    (scales, zeroPoints) = (Matrix(rows: rows, columns: groups), Matrix(rows: rows, columns: groups))
    for row in 0..<rows {
      for column in 0..<columns {
        // Bounds: an element of each, its group among those of its row.
        let group = row * groups + column / groupLength
        let index = row * columns + column
        scales.base[group] = ranges[group].scale
        zeroPoints.base[group] = ranges[group].zeroPoint
        steps.base[index] = Float(codes[index]) - ranges[group].zeroPoint
        errors.base[index] =
          steps.base[index] * ranges[group].scale - target.base[range.lowerBound * columns + index]
      }
    }
  }

  /// Makes zero the target of a column.
  package func clearTarget(column: Int) {
    precondition(0..<columns ~= column)
    for row in 0..<rows {
      // Bounds: an element of each row.
      errors.base[row * columns + column] =
        steps.base[row * columns + column] * scales.base[row * groups + column / groupLength]
    }
  }

  /// Computes E·H anew.
  package func computeProducts(_ h: Matrix) {
    precondition(h.rows == columns && h.columns == columns)
    // Bounds: rows of this tile, a square matrix.
    product(
      StridedMatrix(errors.base, columns), StridedMatrix(h.base, columns), into: products.base, columns, rows: rows,
      columns: columns, inner: columns)
  }

  /// tr(A·E·H·Eᵀ).
  package func loss(_ a: Matrix) -> Double {
    precondition(a.rows == rows && a.columns == rows)
    var sum = 0.0
    for row in 0..<rows {
      for other in 0..<rows {
        // Bounds: rows of this tile.
        var part = Floats.zero
        let (e, p) = (errors.base + row * columns, products.base + other * columns)
        for index in stride(from: 0, to: columns, by: 16) {
          part += e.lanes(index, of: columns) * p.lanes(index, of: columns)
        }
        sum += Double(a.base[row * rows + other]) * Double(part.total)
      }
    }
    return sum
  }

  /// Goes through the codes and, if asked for, the scales of all rows once.
  /// - Parameters:
  ///   - a: `[rows, rows]`, symmetric, its diagonal positive.
  ///   - h: `[columns, columns]`, likewise.
  ///   - roundScale: to a value that can be stored; nil: scales stay.
  /// - Returns: how many codes changed.
  package func sweep(_ a: Matrix, _ h: Matrix, roundScale: ((Float) -> Float)?) -> Int {
    precondition(a.rows == rows && a.columns == rows && h.rows == columns && h.columns == columns)
    setOneThread()
    var changed = 0
    for row in 0..<rows where a.base[row * rows + row] > 0 {
      let inverse = 1 / a.base[row * rows + row]
      for other in 0..<rows { weights.base[other] = a.base[row * rows + other] * inverse }
      // Bounds: a sum over the rows of the tile, as long as a row.
      cblas_sgemv(
        CblasRowMajor, CblasTrans, Int32(rows), Int32(columns), 1, products.base, Int32(columns), weights.base, 1, 0,
        gradient.base, 1)
      earlier.base.update(from: gradient.base, count: columns)
      for group in 0..<groups {
        let run = group * groupLength..<min(columns, (group + 1) * groupLength)
        changed += improveCodes(row: row, group, run, h)
        if let roundScale { improveScale(row: row, group, run, h, round: roundScale) }
      }
      let own = products.base + row * columns
      for index in stride(from: 0, to: columns, by: 16) {
        let change = gradient.base.lanes(index, of: columns) - earlier.base.lanes(index, of: columns)
        own.store(own.lanes(index, of: columns) + change, at: index, of: columns)
      }
    }
    return changed
  }

  private func improveCodes(row: Int, _ group: Int, _ run: Range<Int>, _ h: Matrix) -> Int {
    let (scale, zeroPoint) = (scales.base[row * groups + group], zeroPoints.base[row * groups + group])
    guard scale != 0 else { return 0 }
    var changed = 0
    for column in run {
      // Bounds: an element of the row, the diagonal and a row of h.
      let index = row * columns + column
      let curvature = h.base[column * columns + column]
      guard curvature > 0 else { continue }
      let step = steps.base[index]
      let position = step - gradient.base[column] / (curvature * scale) + zeroPoint
      // Not-a-number fails the comparison.
      let code = position > 0 ? min(position, highest).rounded(.toNearestOrEven) : 0
      let better = code - zeroPoint
      guard better != step else { continue }
      steps.base[index] = better
      move(row: row, column, by: (better - step) * scale, h)
      changed += 1
    }
    return changed
  }

  @inline(__always)
  private func move(row: Int, _ column: Int, by change: Float, _ h: Matrix) {
    errors.base[row * columns + column] += change
    let line = h.base + column * columns
    for index in stride(from: 0, to: columns, by: 16) {
      let moved = gradient.base.lanes(index, of: columns) + line.lanes(index, of: columns) * change
      gradient.base.store(moved, at: index, of: columns)
    }
  }

  private func improveScale(row: Int, _ group: Int, _ run: Range<Int>, _ h: Matrix, round: (Float) -> Float) {
    let place = row * groups + group
    let old = scales.base[place]
    guard old != 0 else { return }
    // Bounds: elements of the row and of `pull`, rows of h.
    let step = steps.base + row * columns
    multiply(step, run, h)
    var (slope, curvature): (Float, Float) = (0, 0)
    for column in run {
      slope += step[column] * gradient.base[column]
      curvature += step[column] * pull.base[column]
    }
    guard curvature > 0 else { return }
    let new = round(old - slope / curvature)
    guard new.isNormal, new.sign == old.sign, (1 / new).isFinite else { return }
    let change = new - old
    guard change != 0, change * (2 * slope + change * curvature) < 0 else { return }
    scales.base[place] = new
    for column in run { errors.base[row * columns + column] += change * step[column] }
    for index in stride(from: 0, to: columns, by: 16) {
      let moved = gradient.base.lanes(index, of: columns) + pull.base.lanes(index, of: columns) * change
      gradient.base.store(moved, at: index, of: columns)
    }
  }

  /// pull ← step·H over the columns of a group, in runs of lanes whose sums stay in registers.
  private func multiply(_ step: UnsafePointer<Float>, _ group: Range<Int>, _ h: Matrix) {
    // Bounds: rows of h at the group's columns, each as long as `pull`.
    var index = 0
    while index &+ 64 <= columns {
      var (a, b, c, d) = (Floats.zero, Floats.zero, Floats.zero, Floats.zero)
      var line = h.base + group.lowerBound * columns + index
      for column in group {
        let factor = step[column]
        a += line.lanes(0) * factor
        b += line.lanes(16) * factor
        c += line.lanes(32) * factor
        d += line.lanes(48) * factor
        line += columns
      }
      pull.base.store(a, at: index)
      pull.base.store(b, at: index + 16)
      pull.base.store(c, at: index + 32)
      pull.base.store(d, at: index + 48)
      index &+= 64
    }
    while index < columns {
      var sum = Floats.zero
      for column in group { sum += (h.base + column * columns).lanes(index, of: columns) * step[column] }
      pull.base.store(sum, at: index, of: columns)
      index &+= 16
    }
  }

  /// The codes, row-major.
  package var codes: [UInt8] {
    (0..<rows * columns).map { index in
      // Bounds: an element, and its group's zero point.
      let group = index / columns * groups + index % columns / groupLength
      return UInt8(steps.base[index] + zeroPoints.base[group])
    }
  }

  package func scale(row: Int, group: Int) -> Float {
    precondition(0..<rows ~= row && 0..<groups ~= group)
    // Bounds: by the precondition.
    return scales.base[row * groups + group]
  }
}
