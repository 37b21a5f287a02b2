import Kernels
import Models
import Quantization

/// A linear layer to be quantized, with what is known of its inputs.
package struct LayerProblem {
  package let linear: LinearDescription
  /// `[outputs, inputs]`, in the order of the rows that the checkpoint has.
  package let weight: Matrix
  /// Sums over the calibration tokens that reached the layer; layers that read the same input share one.
  package let hessian: Hessian
  /// What makes up for the errors of earlier layers; nil where the original model does not run along.
  package let target: OutputTarget?
  /// The layer's inputs for the tokens held out, `[tokens, inputs]`, by window; nil where none are held out.
  package let heldOut: HeldOutInputs?
  /// How the input was scaled; nil where scaling was not asked for.
  package let scaling: LayerScaling?
  /// Of an expert that the router sent so few tokens that all tokens of its mixture stand in for them: how many it was
  /// sent. See `MixtureRule`.
  package let routedTokens: Int?
}

package struct HeldOutInputs: Sendable {
  package let inputs: Matrix
  /// What the original model gives for the same tokens; nil where it does not run along, or there is an aim.
  package let originals: Matrix?
  /// `[tokens, outputs]`: what the layer should give, without its bias, for the residual stream to become that of the
  /// original model; nil where its output does not meet the stream, or that does not matter.
  package let aim: Matrix?
  /// The first row of each window, and the end.
  package let bounds: [Int]

  package init(inputs: Matrix, originals: Matrix?, aim: Matrix?, bounds: [Int]) {
    self.inputs = inputs
    self.originals = originals
    self.aim = aim
    self.bounds = bounds
  }
}

/// Has the layers of a projection quantized, in the order of rows that the checkpoint has.
struct LayerHandOut {
  let pool: MatrixPool
  /// Whether the weights stay as they are, whatever is made of them.
  let keepsWeights: Bool
  let isWanted: (LinearDescription) -> Bool
  let quantize: BlockCalibration.Quantizer

  func callAsFunction(
    _ projection: ProjectionDescription, _ loaded: LoadedLinear, _ hessian: Hessian, _ target: OutputTarget?,
    _ heldOut: HeldOutInputs?, _ scaling: [LinearDescription: LayerScaling],
    routedTokens: Int? = nil
  ) throws {
    let order = projection.rowOrder
    let stored = order.map { order in
      let matrix = pool.take(rows: loaded.weight.rows, columns: loaded.weight.columns)
      scatterRows(loaded.weight, to: order, of: matrix)
      return matrix
    }
    let source = stored ?? loaded.weight
    var first = 0
    for linear in projection.linears {
      let rows = first..<(first + linear.outputs)
      first = rows.upperBound
      guard isWanted(linear) else { continue }
      var weight = Matrix(sharing: source, rows: rows)
      if keepsWeights {
        weight = pool.take(rows: rows.count, columns: source.columns)
        copyColumns(
          MatrixColumns(Matrix(sharing: source, rows: rows), from: 0), into: weight, at: 0, count: rows.count)
      }
      try quantize(
        LayerProblem(
          linear: linear, weight: weight, hessian: hessian, target: target, heldOut: heldOut, scaling: scaling[linear],
          routedTokens: routedTokens))
      if keepsWeights { pool.give(weight) }
    }
    if let order, let stored {
      gatherRows(order, of: stored, into: loaded.weight)
      pool.give(stored)
    }
  }
}
