import Kernels

/// How far the inputs of a layer have moved because earlier layers are quantized already (GPTAQ, arXiv 2504.02692,
/// "asymmetric calibration").
///
/// With x the inputs that the quantized layers give, from which H comes, and x̃ those of the original model: the sum of
/// (x̃ − x)ᵀ·x over the same tokens, float32, `[dimension, dimension]`.
package struct Asymmetry: Sendable {
  package let sum: Matrix
  /// How much of it is made up for; the authors' code takes a quarter by default.
  package let strength: Float

  package init(sum: Matrix, strength: Float = 0.25) {
    precondition(sum.rows == sum.columns)
    (self.sum, self.strength) = (sum, strength)
  }

  /// - Parameter shift: Σ x·(x̃ − x)ᵀ, the transpose, as `OutputTarget` collects it.
  package init(shift: Matrix, strength: Float = 0.25) {
    let sum = Matrix(rows: shift.columns, columns: shift.rows)
    addTransposed(shift, to: sum)
    self.init(sum: sum, strength: strength)
  }

  /// P = ((X̃ − X)·Xᵀ·Uᵀ, its part above the diagonal)·U with H⁻¹ = Uᵀ·U: by how much a column that is quantized moves
  /// the targets of later ones.
  ///
  /// With positions for columns, backwards, "above" becomes below, and U the inverse of the lower factor L, so that both
  /// products are triangular solves.
  func shifts(order: [Int32], scale: Double, factor: Matrix, workers: Int) -> Matrix {
    let result = reordered(sum, order: order, factor: scale, workers: workers)
    solve(result, timesInverseOf: factor, transposed: true, workers: workers)
    keepBelowDiagonal(result, scaledBy: strength, workers: workers)
    solve(result, timesInverseOf: factor, transposed: false, workers: workers)
    return result
  }
}
