import Kernels

/// What a layer would have to be, on the inputs that quantized layers before it give, to have the outputs that it has in
/// the original model; and, where its output is added to a residual stream, to take off the error that stands there.
///
/// With inputs x of the quantized model, x̃ of the original one, and the stream's error r (original less quantized), the
/// weight that is quantized in W's place minimizes, over the calibration tokens,
///
///     Σ ‖W·x̃ + r − W′·x‖² + λ·‖W′ − W‖²        whence        W′ = W + (W·Σ (x̃ − x)·xᵀ + Σ r·xᵀ)·(Σ x·xᵀ + λ·I)⁻¹
///
/// The first term is what GPTAQ corrects for column by column (arXiv 2504.02692, eq. 7); solved for the whole layer it
/// is a ridge regression, and any quantizer can follow.
package struct OutputTarget: Sendable {
  /// Σ x·(x̃ − x)ᵀ, `[inputs, inputs]`: row i belongs to x_i.
  package private(set) var inputShift: Matrix
  /// Σ x·rᵀ, `[inputs, outputs]`; nil where the output meets no stream.
  package private(set) var residual: Matrix?

  package init(inputs: Int, residualWidth: Int?) {
    inputShift = Matrix(rows: inputs, columns: inputs)
    residual = residualWidth.map { Matrix(rows: inputs, columns: $0) }
  }

  /// Adds tokens.
  /// - Parameters:
  ///   - x: `[tokens, inputs]`, of the quantized model.
  ///   - shift: x̃ − x, the same shape.
  ///   - error: r, `[tokens, outputs]`.
  package func add(_ x: Matrix, shift: Matrix, error: Matrix?, workers: Int) {
    accumulateCrossProduct(x, shift, into: inputShift, workers: workers)
    if let error, let residual { accumulateCrossProduct(x, error, into: residual, workers: workers) }
  }

  /// Replaces a weight `[outputs, inputs]` by W′.
  /// - Parameter dampening: λ as a share of the mean diagonal of Σ x·xᵀ.
  /// - Returns: false, and the weight unchanged, where the system has no solution in float32.
  package func shift(_ weight: Matrix, hessian: Hessian, dampening: Double, workers: Int) -> Bool {
    let diagonal = hessian.diagonal
    let live = diagonal.count { $0 != 0 }
    let mean = diagonal.reduce(0) { $0 + Double($1) } / Double(max(1, live))
    guard live > 0, mean.isNormal else { return false }
    let natural = (0..<Int32(diagonal.count)).map(\.self)
    let factor = dampedLowerTriangle(
      of: hessian.sum, order: natural, factor: 1 / mean, damping: dampening, workers: workers)
    guard factorCholesky(factor, workers: workers) == nil else { return false }
    // Rows of the right-hand side are outputs: W·shiftᵀ + residualᵀ.
    let change = Matrix(rows: weight.rows, columns: weight.columns)
    multiply(weight, transposed: inputShift, into: change, workers: workers)
    if let residual, residual.columns == weight.rows { addTransposed(residual, to: change) }
    scale(change, by: Float(1 / mean), workers: workers)
    solve(change, timesInverseOf: factor, transposed: true, workers: workers)
    solve(change, timesInverseOf: factor, transposed: false, workers: workers)
    guard largestMagnitude(of: change, workers: workers).isFinite else { return false }
    Kernels.add(change, to: weight, workers: workers)
    return true
  }
}
