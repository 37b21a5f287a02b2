/// Errors of rounded weights, and what they are in a layer's output: e·H·eᵀ with H = Σ xᵀ·x over the layer's inputs.
///
/// A tile of rows of equal width. Each row holds the error ŵ − w of a run of columns, or of several groups side by side;
/// one product with H (or with the block of H of those columns) then serves all rows.
package final class OutputErrorTile {
  private let errors: Matrix
  private let products: Matrix
  /// Rows in use.
  package private(set) var count = 0
  /// Columns in use.
  package private(set) var width: Int

  package init(rows: Int, columns: Int) {
    errors = Matrix(rows: rows, columns: columns)
    products = Matrix(rows: rows, columns: columns)
    width = columns
  }

  package var capacity: Int { errors.rowCapacity }

  /// Begins anew, with rows of this width.
  package func begin(width: Int) {
    precondition(width > 0 && width <= errors.columns)
    self.width = width
    count = 0
  }

  /// A further row, whose values are yet to be set.
  package func addRow() -> Int {
    precondition(count < capacity)
    count += 1
    return count - 1
  }

  /// Sets a part of a row to the errors ŵ − w of rounding values to a range or, with `reciprocals`, to these times them.
  package func setErrors(
    row: Int, at column: Int, of values: Span<Float>, _ range: AffineRange, reciprocals: Span<Float>? = nil
  ) {
    precondition(row >= 0 && row < count && column >= 0 && column + values.count <= width)
    let target = errors.base + row * errors.columns + column
    // Bounds: by the precondition, the row holds as many values from the column on.
    values.withUnsafeBufferPointer { values in
      guard let input = values.baseAddress else { return }
      writeSteps(input, values.count, range, into: target)
      let scale = range.scale
      combine(target, input, target, values.count) { $0 * scale - $1 }
    }
    guard let reciprocals else { return }
    precondition(reciprocals.count == values.count)
    reciprocals.withUnsafeBufferPointer { factors in
      guard let factors = factors.baseAddress else { return }
      combine(target, factors, target, values.count) { $0 * $1 }
    }
  }

  /// Sets a row to the steps q − z that values are rounded to.
  package func setSteps(row: Int, of values: Span<Float>, _ range: AffineRange) {
    precondition(row >= 0 && row < count && values.count == width)
    let target = errors.base + row * errors.columns
    values.withUnsafeBufferPointer { values in
      guard let input = values.baseAddress else { return }
      // Bounds: by the precondition.
      writeSteps(input, values.count, range, into: target)
    }
  }

  /// Computes row·H for all rows in use.
  /// - Parameter column: where the block of H begins.
  package func multiply(by hessian: Matrix, from column: Int) {
    precondition(column >= 0 && column + width <= hessian.columns && column + width <= hessian.rows)
    guard count > 0 else { return }
    // Bounds: the block of H and the rows in use, by the preconditions.
    Kernels.product(
      StridedMatrix(errors.base, errors.columns),
      StridedMatrix(hessian.base + column * hessian.columns + column, hessian.columns), into: products.base,
      products.columns, rows: count, columns: width, inner: width)
  }

  /// row·H·rowᵀ, after `multiply`.
  package func square(row: Int) -> Double {
    precondition(row >= 0 && row < count)
    // Bounds: the row is in use in both.
    return dot(products.base + row * products.columns, errors.base + row * errors.columns, width)
  }

  /// row·H·vᵀ, after `multiply`.
  package func product(row: Int, with values: Span<Float>) -> Double {
    precondition(row >= 0 && row < count && values.count == width)
    return values.withUnsafeBufferPointer { values in
      // Bounds: the row is in use, and as wide as there are values.
      values.baseAddress.map { dot(products.base + row * products.columns, $0, width) } ?? 0
    }
  }
}

/// target = q − z for each value, as `AffineFit` computes it.
@inline(__always)
private func writeSteps(
  _ input: UnsafePointer<Float>, _ count: Int, _ range: AffineRange, into target: UnsafeMutablePointer<Float>
) {
  guard range.isSummable else {
    // Bounds: the caller's.
    for index in 0..<count { target[index] = Float(range.code(of: input[index])) - range.zeroPoint }
    return
  }
  let inverse = 1 / range.scale
  let lowest = Floats(repeating: -range.zeroPoint)
  let highest = Floats(repeating: Float(range.highestCode) - range.zeroPoint)
  let fractional = range.zeroPoint - range.zeroPoint.rounded(.down)
  combine(input, input, target, count) { x, _ in
    var step = ((x * inverse + fractional) + roundingShift) - roundingShift - fractional
    step = step.replacing(with: lowest, where: step .< lowest)
    return step.replacing(with: highest, where: step .> highest)
  }
}

/// Σ a·b in lanes of a fixed order, runs of 1,024 added in double precision.
private func dot(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int) -> Double {
  var total = 0.0
  var index = 0
  while index &+ 16 <= count {
    let end = min(index &+ 1024, count &- 15)
    var lanes = Floats.zero
    // Bounds: reads sixteen elements of both while index + 16 ≤ count.
    while index < end {
      let (x, y): (Floats, Floats) = (a.lanes(index), b.lanes(index))
      lanes += x * y
      index &+= 16
    }
    total += Double(lanes.total)
  }
  while index < count {
    total += Double(a[index]) * Double(b[index])
    index &+= 1
  }
  return total
}
