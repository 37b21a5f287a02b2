import Kernels

/// What a layer would have to be, on the inputs that quantized layers before it give, for the model to stay what it was.
///
/// With inputs x of the quantized model and outputs t that the layer should have for them, the weight that is quantized in
/// W's place minimizes, over the calibration tokens,
///
///     Σ ‖t − W′·x‖² + λ·‖W′ − W‖²        whence        W′ = W + Σ (t − W·x)·xᵀ·(Σ x·xᵀ + λ·I)⁻¹
///
/// Where the layer's output is added to a residual stream, t is what takes the stream of the quantized model, h, to that
/// of the original one after the addition: t = h̃ − h, so that the layer also takes off what earlier layers left standing.
/// Elsewhere t = W·x̃ with the original model's inputs x̃, and the sum is W·Σ (x̃ − x)·xᵀ. The latter is what GPTAQ corrects
/// for column by column (arXiv 2504.02692, eq. 7); solved for the whole layer it is a ridge regression, and any quantizer
/// can follow.
package struct OutputTarget: Sendable {
  package enum Evidence: Sendable {
    /// Σ x·(x̃ − x)ᵀ, `[inputs, inputs]`: row i belongs to x_i.
    case inputs(Matrix)
    /// Σ x·tᵀ, `[inputs, outputs]`.
    case outputs(Matrix)
  }

  package let evidence: Evidence

  /// - Parameter outputs: the width of t; nil: the original model's inputs are what is known.
  package init(inputs: Int, outputs: Int?) {
    evidence =
      outputs.map { .outputs(Matrix(rows: inputs, columns: $0)) } ?? .inputs(Matrix(rows: inputs, columns: inputs))
  }

  /// Adds tokens.
  /// - Parameters:
  ///   - x: `[tokens, inputs]`, of the quantized model.
  ///   - other: x̃ − x or t, `[tokens, …]`.
  package func add(_ x: Matrix, _ other: Matrix, workers: Int) {
    switch evidence {
    case .inputs(let sum), .outputs(let sum): accumulateCrossProduct(x, other, into: sum, workers: workers)
    }
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
    // Rows of the right-hand side are outputs.
    let change = Matrix(rows: weight.rows, columns: weight.columns)
    switch evidence {
    case .inputs(let shift): multiply(weight, transposed: shift, into: change, workers: workers)
    case .outputs(let sum):
      guard sum.columns == weight.rows else { return false }
      multiply(weight, transposed: hessian.sum, into: change, workers: workers)
      scale(change, by: -1, workers: workers)
      addTransposed(sum, to: change)
    }
    scale(change, by: Float(1 / mean), workers: workers)
    solve(change, timesInverseOf: factor, transposed: true, workers: workers)
    solve(change, timesInverseOf: factor, transposed: false, workers: workers)
    guard largestMagnitude(of: change, workers: workers).isFinite else { return false }
    Kernels.add(change, to: weight, workers: workers)
    return true
  }
}
