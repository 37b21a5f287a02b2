/// Some rows of a quantized weight whose codes and scales are improved one after the other (see `CoordinateDescent` in
/// Quantization).
///
/// With targets T, quantized weights Ŵ and a symmetric positive definite H, what falls is tr(E·H·Eᵀ), E = Ŵ − T. The
/// gradient E·H is kept current: by plain sums within a block of columns, by a matrix product for all others. The rows
/// stand transposed, one run of lanes for every column, so that sixteen rows advance together.
///
/// Used by one thread at a time. Its memory is reused from tile to tile.
package final class DescentTile {
  package let columns: Int
  package private(set) var rows = 0
  /// Lanes of one column: the capacity, padded to whole vectors.
  private let stride: Int
  private var lanes = 0
  /// `[columns, stride]`: code − zero point of each weight.
  private let steps: Matrix
  /// `[columns, stride]`: E.
  private let errors: Matrix
  /// `[columns, stride]`: E·H.
  private let gradients: Matrix
  /// `[widest run of columns, stride]`.
  private let changes: Matrix
  private let products: Matrix
  /// `[groups, stride]`.
  private let scales: Matrix
  private let zeroPoints: Matrix

  /// - Parameter widest: the most columns of a group, or of a block of them.
  package init(rowCapacity: Int, columns: Int, groups: Int, widest: Int) {
    self.columns = columns
    stride = (rowCapacity + 15) / 16 * 16
    steps = Matrix(rows: columns, columns: stride)
    errors = Matrix(rows: columns, columns: stride)
    gradients = Matrix(rows: columns, columns: stride)
    changes = Matrix(rows: widest, columns: stride)
    products = Matrix(rows: widest, columns: stride)
    scales = Matrix(rows: groups, columns: stride)
    zeroPoints = Matrix(rows: groups, columns: stride)
  }

  // MARK: In and out

  /// Takes over rows of a target `[rows, columns]`, with their codes and ranges, row-major from the first of these rows.
  package func load(
    _ target: Matrix, rows range: Range<Int>, codes: Span<UInt8>, ranges: Span<AffineRange>, groupLength: Int
  ) {
    precondition(range.lowerBound >= 0 && range.upperBound <= target.rows && range.count <= stride)
    let groups = scales.rows
    precondition(target.columns == columns && groups == (columns + groupLength - 1) / groupLength)
    precondition(codes.count == range.count * columns && ranges.count == range.count * groups)
    rows = range.count
    lanes = (rows + 15) / 16 * 16
    for row in 0..<lanes {
      // Bounds: rows ≤ lanes ≤ stride; one element a column or group.
      for group in 0..<groups {
        let source = row < rows ? ranges[row * groups + group] : AffineRange(scale: 0, zeroPoint: 0, highestCode: 0)
        scales.base[group * stride + row] = source.scale
        zeroPoints.base[group * stride + row] = source.zeroPoint
        for column in (group * groupLength)..<min((group + 1) * groupLength, columns) {
          let step = row < rows ? Float(codes[row * columns + column]) - source.zeroPoint : 0
          let goal = row < rows ? target.base[(range.lowerBound + row) * columns + column] : 0
          steps.base[column * stride + row] = step
          errors.base[column * stride + row] = step * source.scale - goal
        }
      }
    }
  }

  /// Makes zero the target of a column.
  package func clearTarget(column: Int, groupLength: Int) {
    precondition(0..<columns ~= column && column / groupLength < scales.rows)
    for lane in 0..<lanes {
      // Bounds: lanes of one column and of its group.
      errors.base[column * stride + lane] =
        steps.base[column * stride + lane] * scales.base[column / groupLength * stride + lane]
    }
  }

  /// Writes the codes and scales of the rows.
  package func store(codes: inout MutableSpan<UInt8>, ranges: inout MutableSpan<AffineRange>, groupLength: Int) {
    let groups = scales.rows
    precondition(codes.count == rows * columns && ranges.count == rows * groups)
    for row in 0..<rows {
      // Bounds: as in load.
      for group in 0..<groups {
        ranges[row * groups + group].scale = scales.base[group * stride + row]
        let zeroPoint = zeroPoints.base[group * stride + row]
        for column in (group * groupLength)..<min((group + 1) * groupLength, columns) {
          codes[row * columns + column] = UInt8(steps.base[column * stride + row] + zeroPoint)
        }
      }
    }
  }

  /// tr(E·H·Eᵀ), the gradient being current.
  package var loss: Double {
    var sum = 0.0
    for column in 0..<columns {
      var part = Floats(repeating: 0)
      // Bounds: lanes of one column.
      for lane in Swift.stride(from: 0, to: lanes, by: 16) {
        part += errors.base.lanes(column * stride + lane) * gradients.base.lanes(column * stride + lane)
      }
      sum += Double(part.total)
    }
    return sum
  }

  // MARK: Descent

  /// Computes the gradient anew: E·H.
  package func computeGradients(_ h: Matrix) {
    precondition(h.rows == columns && h.columns == columns)
    // Bounds: a square matrix and columns of this tile.
    product(
      StridedMatrix(h.base, columns), StridedMatrix(errors.base, stride), into: gradients.base, stride, rows: columns,
      columns: lanes, inner: columns)
  }

  /// Gives each column of a block in turn the code that is best while all others stay.
  /// - Returns: whether some code changed.
  package func improveCodes(_ block: Range<Int>, group: Int, h: Matrix, highestCode: Int32) -> Bool {
    precondition(block.lowerBound >= 0 && block.upperBound <= columns && block.count <= changes.rows)
    precondition(h.rows == columns && h.columns == columns && 0..<scales.rows ~= group)
    let highest = Float(highestCode)
    var largest = Floats(repeating: 0)
    for lane in Swift.stride(from: 0, to: lanes, by: 16) {
      // Bounds: sixteen lanes of columns of the block, of one group, and of as many rows of `changes`.
      let scale: Floats = scales.base.lanes(group * stride + lane)
      let zeroPoint: Floats = zeroPoints.base.lanes(group * stride + lane)
      let inverse = (1 / scale).replacing(with: 0, where: scale .== 0)
      for index in 0..<block.count {
        let column = block.lowerBound + index
        let own = h.base + column * columns + block.lowerBound
        let offset = column * stride + lane
        var gradient: Floats = gradients.base.lanes(offset)
        var source = changes.base + lane
        for earlier in 0..<index {
          gradient += source.lanes(0) * own[earlier]
          source += stride
        }
        let step: Floats = steps.base.lanes(offset)
        var position = step - gradient * (1 / own[index]) * inverse + zeroPoint
        position = position.replacing(with: 0, where: .!(position .> 0))
        position = position.replacing(with: highest, where: position .> highest)
        let better = (position + roundingShift) - roundingShift - zeroPoint
        let change = ((better - step) * scale).replacing(with: 0, where: scale .== 0)
        steps.base.store(better.replacing(with: step, where: scale .== 0), at: offset)
        errors.base.store(errors.base.lanes(offset) + change, at: offset)
        changes.base.store(change, at: index * stride + lane)
        largest = largest.replacing(with: change * change, where: change * change .> largest)
      }
    }
    guard largest.total > 0 else { return false }
    propagate(block, h)
    return true
  }

  /// Gives a group the scale that is best while all codes stay, as its type stores it.
  /// - Parameter round: to the nearest value that can be stored.
  package func improveScale(_ run: Range<Int>, group: Int, h: Matrix, round: (Float) -> Float) {
    precondition(run.lowerBound >= 0 && run.upperBound <= columns && run.count <= changes.rows)
    precondition(h.rows == columns && h.columns == columns && 0..<scales.rows ~= group)
    // Bounds: the block of h at these columns, as many rows of `products`.
    product(
      StridedMatrix(h.base + run.lowerBound * (columns + 1), columns),
      StridedMatrix(steps.base + run.lowerBound * stride, stride), into: products.base, stride, rows: run.count,
      columns: lanes, inner: run.count)
    var isChanged = false
    for lane in Swift.stride(from: 0, to: lanes, by: 16) {
      var slope = Floats(repeating: 0)
      var curvature = Floats(repeating: 0)
      for index in 0..<run.count {
        let offset = (run.lowerBound + index) * stride + lane
        let step: Floats = steps.base.lanes(offset)
        slope += step * gradients.base.lanes(offset)
        curvature += step * products.base.lanes(index * stride + lane)
      }
      var change = Floats(repeating: 0)
      for row in 0..<16 where curvature[row] > 0 {
        let old = scales.base[group * stride + lane + row]
        let new = round(old - slope[row] / curvature[row])
        // The sign stays: it is part of what a layout can store. So does a scale whose reciprocal is out of range.
        guard new.isNormal, new.sign == old.sign, (1 / new).isFinite, old != 0 else { continue }
        let difference = new - old
        guard difference * (2 * slope[row] + difference * curvature[row]) < 0 else { continue }
        scales.base[group * stride + lane + row] = new
        change[row] = difference
        isChanged = true
      }
      for index in 0..<run.count {
        let offset = (run.lowerBound + index) * stride + lane
        let moved = steps.base.lanes(offset) * change
        errors.base.store(errors.base.lanes(offset) + moved, at: offset)
        changes.base.store(moved, at: index * stride + lane)
      }
    }
    if isChanged { propagate(run, h) }
  }

  /// Adds what changes of some columns do to the gradient of all.
  private func propagate(_ run: Range<Int>, _ h: Matrix) {
    // Bounds: `run.count` rows of h, as many of `changes`.
    product(
      StridedMatrix(h.base + run.lowerBound * columns, columns).transposed, StridedMatrix(changes.base, stride),
      into: gradients.base, stride, rows: columns, columns: lanes, inner: run.count, adding: true)
  }
}

extension UnsafeMutablePointer {
  @inline(__always)
  fileprivate func lanes(_ index: Int) -> Floats where Pointee == Float { UnsafePointer(self).lanes(index) }
}
