import COpenBLAS

/// Some rows of a weight on their way through quantization with error feedback (see `GPTQ` in Quantization).
///
/// The rows stand transposed, one run of lanes for every column, so that sixteen rows advance together and updates are
/// plain matrix products. Columns have *positions*: the order of quantization backwards, so that a lower Cholesky factor
/// L of H, its rows and columns in this order, is read as it is. With targets w, and codes chosen for columns k > j,
///
///     x[j] = w[j] + (1 / L[j][j]) · Σ (w[k] − ŵ[k]) · L[k][j]        over k > j
///
/// is what column j is rounded from; the sum is called its feedback. With an asymmetry P (GPTAQ, arXiv 2504.02692), the
/// targets move too: w[j] grows by Σ x[k] · P[k][j] over k > j.
///
/// Used by one thread at a time. Its memory is reused from tile to tile.
package final class FeedbackTile {
  package let columns: Int
  package private(set) var rows = 0
  /// Lanes of one column: the capacity, padded to whole vectors.
  private let stride: Int
  private var lanes = 0
  /// `[columns, stride]`: what each column should be; after its quantization, what it lacks.
  private let targets: Matrix
  private let feedback: Matrix
  /// What each column was rounded from; only with an asymmetry.
  private let rounded: Matrix?
  /// `[groups, stride]`.
  private let scales: Matrix
  private let zeroPoints: Matrix
  private let codes: UnsafeMutablePointer<UInt8>
  /// Σ over all rows of (x − ŵ)² · L[j][j]², which is tr(ΔW·H·ΔWᵀ).
  package private(set) var loss = 0.0

  package init(rowCapacity: Int, columns: Int, groups: Int, isAsymmetric: Bool) {
    self.columns = columns
    stride = (rowCapacity + 31) / 32 * 32
    targets = Matrix(rows: columns, columns: stride)
    feedback = Matrix(rows: columns, columns: stride)
    rounded = isAsymmetric ? Matrix(rows: columns, columns: stride) : nil
    scales = Matrix(rows: groups, columns: stride)
    zeroPoints = Matrix(rows: groups, columns: stride)
    codes = .allocate(capacity: max(1, columns * stride))
  }

  deinit { codes.deallocate() }

  // MARK: In and out

  /// Takes over rows of a weight `[rows, columns]`.
  /// - Parameter order: the column at each position.
  package func load(_ weight: Matrix, rows range: Range<Int>, order: [Int32]) {
    precondition(range.lowerBound >= 0 && range.upperBound <= weight.rows && range.count <= stride)
    precondition(weight.columns == columns && order.count == columns && order.allSatisfy { 0..<columns ~= Int($0) })
    rows = range.count
    lanes = (rows + 31) / 32 * 32
    loss = 0
    for first in Swift.stride(from: 0, to: lanes, by: 16) {
      let count = min(16, max(0, rows - first))
      // Bounds: rows of the range, columns checked above; lanes ≤ stride.
      let source = weight.base + (range.lowerBound + min(first, rows)) * columns
      for position in 0..<columns {
        let column = Int(order[position])
        let target = targets.base + position * stride + first
        for lane in 0..<count { target[lane] = source[lane * columns + column] }
        for lane in count..<16 { target[lane] = 0 }
        feedback.base.store(Floats(repeating: 0), at: position * stride + first)
      }
    }
  }

  /// Sets a column to zero.
  package func clear(position: Int) {
    precondition(0..<columns ~= position)
    // Bounds: one column.
    (targets.base + position * stride).update(repeating: 0, count: lanes)
  }

  /// The range of one row within one group. A scale whose reciprocal is beyond float32 counts as zero.
  package func setRange(_ range: AffineRange, row: Int, group: Int) {
    precondition(0..<rows ~= row && 0..<scales.rows ~= group)
    // Bounds: rows ≤ stride.
    scales.base[group * stride + row] = range.scale
    zeroPoints.base[group * stride + row] = range.zeroPoint
  }

  /// The codes `[rows, columns]`, their columns in the weight's own order.
  package func codes(order: [Int32]) -> [UInt8] {
    precondition(order.count == columns && order.allSatisfy { 0..<columns ~= Int($0) })
    return [UInt8](unsafeUninitializedCapacity: rows * columns) { buffer, count in
      count = rows * columns
      guard let base = buffer.baseAddress else { return }
      for first in Swift.stride(from: 0, to: rows, by: 16) {
        let members = min(16, rows - first)
        for position in 0..<columns {
          // Bounds: as in load.
          let source = codes + position * stride + first
          let target = base + first * columns + Int(order[position])
          for lane in 0..<members { target[lane * columns] = source[lane] }
        }
      }
    }
  }

  /// What columns should be now, given the codes of all later positions and free choice of those at these positions and
  /// before: w + feedback · L⁻¹, with the block of L at these positions. Row by row.
  /// - Precondition: the feedback of all later positions has been propagated here.
  package func corrected(_ positions: Range<Int>, factor: Matrix, into values: inout [Float]) {
    precondition(positions.lowerBound >= 0 && positions.upperBound <= columns && factor.rows == columns)
    let width = positions.count
    values.resize(to: rows * width)
    setOneThread()
    withUnsafeTemporaryAllocation(of: Float.self, capacity: width * stride) { copy in
      guard let base = copy.baseAddress else { return }
      // Bounds: `width` columns of `stride` lanes each, of which `lanes` are in use.
      base.initialize(from: feedback.base + positions.lowerBound * stride, count: width * stride)
      if positions.upperBound < columns {
        cblas_strsm(
          CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, Int32(width), Int32(lanes), 1,
          factor.base + positions.lowerBound * (columns + 1), Int32(columns), base, Int32(stride))
      }
      for index in 0..<width {
        let target = targets.base + (positions.lowerBound + index) * stride
        for row in 0..<rows { values[row * width + index] = target[row] + base[index * stride + row] }
      }
    }
  }

  // MARK: Quantization

  /// Adds what columns lack to the feedback of columns at earlier positions.
  package func propagate(from sources: Range<Int>, to targets: Range<Int>, factor: Matrix, asymmetry: Matrix?) {
    precondition(targets.lowerBound >= 0 && targets.upperBound <= sources.lowerBound && sources.upperBound <= columns)
    precondition(factor.rows == columns && factor.columns == columns)
    multiply(factor, self.targets, from: sources, into: feedback, targets)
    if let asymmetry, let rounded { multiply(asymmetry, rounded, from: sources, into: self.targets, targets) }
  }

  private func multiply(
    _ matrix: Matrix, _ values: Matrix, from sources: Range<Int>, into result: Matrix, _ targets: Range<Int>
  ) {
    // Bounds: rows `sources` and columns `targets` of a square matrix, columns of this tile.
    product(
      StridedMatrix(matrix.base + sources.lowerBound * columns + targets.lowerBound, columns).transposed,
      StridedMatrix(values.base + sources.lowerBound * stride, stride), into: result.base + targets.lowerBound * stride,
      stride, rows: targets.count, columns: lanes, inner: sources.count, adding: true)
  }

  /// Quantizes the columns at these positions, the last one first.
  /// - Parameter groups: the group of the column at each position.
  /// - Precondition: the feedback of all later positions has been propagated here.
  package func quantize(
    _ positions: Range<Int>, factor: Matrix, asymmetry: Matrix?, groups: [Int32], highestCode: Int32
  ) {
    precondition(positions.lowerBound >= 0 && positions.upperBound <= columns && groups.count == columns)
    precondition(
      factor.rows == columns && factor.columns == columns && groups.allSatisfy { 0..<scales.rows ~= Int($0) })
    let width = positions.count
    let first = positions.lowerBound
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width * width + width) { block in
      guard let coefficients = block.baseAddress else { return }
      let shifts = coefficients + width * width
      let pivots = shifts + width * width
      // Bounds: the block of the factor at these positions, copied so that each column's coefficients are one run.
      for row in 0..<width {
        let source = factor.base + (first + row) * columns + first
        pivots[row] = source[row]
        for column in 0..<row { coefficients[column * width + row] = source[column] }
        if let asymmetry {
          let other = asymmetry.base + (first + row) * columns + first
          for column in 0..<row { shifts[column * width + row] = other[column] }
        }
      }
      var sum = Floats(repeating: 0)
      for lane in Swift.stride(from: 0, to: lanes, by: 32) {
        for index in Swift.stride(from: width - 1, through: 0, by: -1) {
          let offset = (first + index) * stride + lane
          let own = coefficients + index * width
          var low: Floats = (feedback.base + offset).lanes(0)
          var high: Floats = (feedback.base + offset).lanes(16)
          // Bounds: later columns of the block, 32 lanes each, which `stride` is a multiple of.
          var source = targets.base + offset
          var later = index &+ 1
          while later < width {
            source += stride
            let coefficient = own[later]
            low += source.lanes(0) * coefficient
            high += source.lanes(16) * coefficient
            later &+= 1
          }
          let reciprocal = 1 / pivots[index]
          low *= reciprocal
          high *= reciprocal
          if let rounded {
            var (lowShift, highShift) = (Floats(repeating: 0), Floats(repeating: 0))
            for later in (index + 1)..<max(index + 1, width) {
              let source = rounded.base + (first + later) * stride + lane
              lowShift += source.lanes(0) * shifts[index * width + later]
              highShift += source.lanes(16) * shifts[index * width + later]
            }
            targets.base.store(targets.base.lanes(offset) + lowShift, at: offset)
            targets.base.store(targets.base.lanes(offset + 16) + highShift, at: offset + 16)
          }
          let group = Int(groups[first + index]) * stride + lane
          let lowError = round(at: offset, feedback: low, group: group, highest: highestCode)
          let highError = round(at: offset &+ 16, feedback: high, group: group &+ 16, highest: highestCode)
          let pivot = pivots[index]
          sum += (lowError * lowError + highError * highError) * (pivot * pivot)
        }
        loss += Double(sum.total)
        sum = Floats(repeating: 0)
      }
    }
  }

  /// Rounds sixteen rows of one column; `AffineRange.code(of:)` is the plain twin. The target becomes what is lacking.
  /// - Returns: x − ŵ.
  @inline(__always)
  private func round(at offset: Int, feedback: Floats, group: Int, highest: Int32) -> Floats {
    // Bounds: sixteen lanes within one column and within one group.
    let target: Floats = targets.base.lanes(offset)
    let scale: Floats = scales.base.lanes(group)
    let zeroPoint: Floats = zeroPoints.base.lanes(group)
    let inverse = (1 / scale).replacing(with: 0, where: scale .== 0)
    let value = target + feedback
    var position = value * inverse + zeroPoint
    // Not-a-number fails both comparisons that keep a value, and takes code 0.
    position = position.replacing(with: 0, where: .!(position .> 0))
    position = position.replacing(with: Float(highest), where: position .> Float(highest))
    let shifted = position + roundingShift
    codes.store(SIMD16<UInt8>(truncatingIfNeeded: shifted.words), at: offset)
    let quantized = (shifted - roundingShift - zeroPoint) * scale
    targets.base.store(target - quantized, at: offset)
    rounded?.base.store(value, at: offset)
    return value - quantized
  }
}

extension UnsafeMutablePointer {
  @inline(__always)
  fileprivate func lanes<V: SIMD>(_ index: Int) -> V where V: BitwiseCopyable {
    UnsafePointer(self).lanes(index)
  }
}
