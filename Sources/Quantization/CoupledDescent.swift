import Kernels
import Synchronization

/// What a layer's outputs count: sums of g·gᵀ over tokens, g the gradient of the model's loss by the outputs. Blocks of
/// rows only, a fixed partition: outputs of different blocks count as independent.
package struct OutputCurvature: Sendable {
  package let outputs: Int
  /// Of each block of rows, `[rows, rows]`.
  package let sums: [Matrix]

  /// Rows of a block.
  package static let blockRows = 256

  package init(outputs: Int) {
    self.outputs = outputs
    sums = stride(from: 0, to: outputs, by: Self.blockRows).map { first in
      let rows = min(Self.blockRows, outputs - first)
      return Matrix(rows: rows, columns: rows)
    }
  }

  package func rows(ofBlock index: Int) -> Range<Int> {
    index * Self.blockRows..<min(outputs, (index + 1) * Self.blockRows)
  }

  /// Adds tokens.
  /// - Parameters:
  ///   - gradients: `[tokens, …]`.
  ///   - first: the column of the layer's first output.
  package func add(_ gradients: Matrix, from first: Int, workers: Int) {
    precondition(first >= 0 && first + outputs <= gradients.columns)
    for (index, sum) in sums.enumerated() {
      accumulateGram(gradients, from: first + rows(ofBlock: index).lowerBound, into: sum, workers: workers)
    }
  }
}

/// Improves the codes and scales of a quantized weight by coordinate descent on tr(A·E·H·Eᵀ), E = Ŵ − T, where A says
/// what the layer's outputs count and H what its inputs do: the error of the model's predictions in the Kronecker-factored
/// approximation (YAQA, arXiv 2505.22988, eq. 5; row blocks as in GuidedQuant, arXiv 2505.07004, §4).
///
/// `CoordinateDescent` is this with A the identity. Rows of a block go one after the other, each with a target from which
/// the others' errors are taken off; no step raises the loss. Blocks are independent and run in parallel.
package struct CoupledDescent: Hashable, Sendable {
  package let sweeps: Int
  /// The type that scales are rounded to; nil: scales stay as they are.
  package let scaleType: ElementType?
  /// What is added to the diagonal of A, as a share of its mean.
  package let dampening: Double

  package init(sweeps: Int, scaleType: ElementType?, dampening: Double) {
    self.sweeps = sweeps
    self.scaleType = scaleType
    self.dampening = dampening
  }

  /// - Parameters: as for `CoordinateDescent`.
  ///   - curvature: of the weight's rows.
  /// - Returns: the loss before and after, in units of A's and H's.
  package func improve(
    _ quantized: inout AffineWeight, towards target: Matrix, h: Matrix, curvature: OutputCurvature, dead: [Int] = [],
    workers: Int
  ) -> (before: Double, after: Double) {
    precondition(quantized.groupIndex == nil && target.rows == quantized.rows && target.columns == quantized.columns)
    precondition(curvature.outputs == quantized.rows)
    let source = quantized
    let (columns, groups) = (source.columns, source.groupsPerRow)
    typealias Found = (codes: [UInt8], ranges: [AffineRange], before: Double, after: Double)
    let finished = Mutex([Found?](repeating: nil, count: curvature.sums.count))
    runTiles(count: curvature.sums.count, workers: workers) { index in
      let rows = curvature.rows(ofBlock: index)
      let codes = Array(source.codes[rows.lowerBound * columns..<rows.upperBound * columns])
      var ranges = Array(source.ranges[rows.lowerBound * groups..<rows.upperBound * groups])
      let a = damped(curvature.sums[index])
      guard let a else {
        finished.withLock { $0[index] = (codes, ranges, 0, 0) }
        return
      }
      let tile = CoupledTile(
        target, rows: rows, codes: codes.span, ranges: ranges.span, groupLength: source.groupLength)
      for column in dead { tile.clearTarget(column: column) }
      tile.computeProducts(h)
      let before = tile.loss(a)
      for _ in 0..<sweeps {
        let scaleType = scaleType
        let changed =
          scaleType.map { type in tile.sweep(a, h) { rounded($0, to: type) } } ?? tile.sweep(a, h, roundScale: nil)
        if changed == 0 { break }
      }
      for row in 0..<rows.count {
        for group in 0..<groups { ranges[row * groups + group].scale = tile.scale(row: row, group: group) }
      }
      let result: Found = (tile.codes, ranges, before, tile.loss(a))
      finished.withLock { $0[index] = result }
    }
    let blocks = finished.withLock { $0.compactMap(\.self) }
    quantized.codes = blocks.flatMap(\.codes)
    quantized.ranges = blocks.flatMap(\.ranges)
    return (blocks.reduce(0) { $0 + $1.before }, blocks.reduce(0) { $0 + $1.after })
  }

  /// A over its mean diagonal, dampened; nil where it is zero or not finite.
  private func damped(_ sum: Matrix) -> Matrix? {
    let size = sum.rows
    let values = sum.values()
    let mean = (0..<size).reduce(0.0) { $0 + Double(values[$1 * size + $1]) } / Double(max(1, size))
    guard mean.isNormal, mean > 0 else { return nil }
    return Matrix(
      rows: size, columns: size,
      values.enumerated().map { index, value in
        Float(Double(value) / mean + (index / size == index % size ? dampening : 0))
      })
  }
}

extension CoupledDescent {
  /// Σ x·xᵀ over its mean diagonal, with a share of it added: what `improve` takes as H.
  package static func h(_ hessian: Hessian, dampening: Double, workers: Int) -> Matrix? {
    let diagonal = hessian.diagonal
    let live = diagonal.count { $0 != 0 }
    let mean = diagonal.reduce(0) { $0 + Double($1) } / Double(max(1, live))
    guard live > 0, mean.isNormal else { return nil }
    return Kernels.damped(hessian.sum, factor: 1 / mean, damping: dampening, workers: workers)
  }
}
