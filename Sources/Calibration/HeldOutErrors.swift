import Kernels
import Quantization

/// The error of a layer's output on tokens that it was not calibrated on, beside that of rounding to nearest.
package struct HeldOutErrors: Hashable, Codable, Sendable {
  /// ‖T − X·Ŵᵀ‖ / ‖T‖ over all held-out tokens: T is what the layer should give. That is X̃·Wᵀ with the inputs X̃ of the
  /// original model, where it runs along, or what sets the residual stream right (see `HeldOutInputs.aim`); else X·Wᵀ.
  package let error: Double
  /// The same of plain rounding to nearest with the same codes and groups.
  package let plainError: Double
  /// ‖X·Gᵀ − X·Ŵᵀ‖ / ‖T‖: what rounding alone adds, G being the weight that was rounded. The rest of `error` is what
  /// earlier layers changed in the inputs and, with an aim, in the residual stream, as far as G does not make up for it.
  package let roundingError: Double
  /// Half the width of a 95 % confidence interval of error / plainError, from the spread of the windows; nil for one
  /// window.
  package let ratioMargin: Double?

  package var ratio: Double { plainError > 0 ? error / plainError : 1 }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`, before quantization.
  ///   - goal: the weight that the codes are to be near to, where that is not `weight` itself; nil: it is.
  ///   - plain: the weight as rounding to nearest leaves it.
  ///   - inputs: the layer's inputs; every window of a few hundred tokens counts as one observation.
  package init(
    _ weight: Matrix, goal: Matrix? = nil, _ quantized: AffineWeight, plain: Matrix, _ heldOut: HeldOutInputs,
    workers: Int
  ) {
    let decoded = Matrix(rows: weight.rows, columns: weight.columns)
    quantized.decode(into: decoded, workers: workers)
    // Window by window: outputs can be many times wider than inputs.
    let windows = zip(heldOut.bounds, heldOut.bounds.dropFirst()).map { $0..<$1 }
    let longest = windows.map(\.count).max() ?? 0
    let wanted = Matrix(rows: longest, columns: weight.rows)
    let found = Matrix(rows: longest, columns: weight.rows)
    var (total, own, other) = (0.0, [Double](), [Double]())
    for window in windows where !window.isEmpty {
      let inputs = Matrix(sharing: heldOut.inputs, rows: window)
      let aim = heldOut.aim.map { Matrix(sharing: $0, rows: window) } ?? wanted
      if heldOut.aim == nil {
        wanted.use(rows: window.count)
        let originals = heldOut.originals.map { Matrix(sharing: $0, rows: window) } ?? inputs
        multiply(originals, transposed: weight, into: wanted, workers: workers)
      }
      total += Self.squares(aim)
      func error(_ weight: Matrix) -> Double {
        found.use(rows: window.count)
        multiply(inputs, transposed: weight, into: found, workers: workers)
        subtract(aim, from: found, workers: workers)
        return Self.squares(found)
      }
      own.append(error(decoded))
      other.append(error(plain))
    }
    let (ownTotal, otherTotal) = (own.reduce(0, +), other.reduce(0, +))
    error = total > 0 ? (ownTotal / total).squareRoot() : 0
    plainError = total > 0 ? (otherTotal / total).squareRoot() : 0
    if heldOut.aim != nil || heldOut.originals != nil {
      // In the place of the decoded weight, which is not needed any more.
      subtract(goal ?? weight, from: decoded, workers: workers)
      var rounding = 0.0
      for window in windows where !window.isEmpty {
        found.use(rows: window.count)
        multiply(Matrix(sharing: heldOut.inputs, rows: window), transposed: decoded, into: found, workers: workers)
        rounding += Self.squares(found)
      }
      roundingError = total > 0 ? (rounding / total).squareRoot() : 0
    } else {
      roundingError = error
    }
    let count = Double(own.count)
    guard own.count > 1, otherTotal > 0 else {
      ratioMargin = nil
      return
    }
    // Ratio estimator over windows for the ratio of squares; its root has half the relative error.
    let ratio = ownTotal / otherTotal
    let spread = zip(own, other).reduce(0) { $0 + ($1.0 - ratio * $1.1) * ($1.0 - ratio * $1.1) }
    let deviation = (spread * count / (count - 1)).squareRoot() / otherTotal
    ratioMargin = ratio > 0 ? 1.96 * deviation / (2 * ratio.squareRoot()) : 0
  }

  private static func squares(_ outputs: Matrix) -> Double {
    (0..<outputs.rows).reduce(0) { $0 + sumOfSquares(outputs, row: $1) }
  }
}
