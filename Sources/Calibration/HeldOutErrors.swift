import Kernels
import Quantization

/// The error of a layer's output on tokens that it was not calibrated on, beside that of rounding to nearest.
package struct HeldOutErrors: Hashable, Codable, Sendable {
  /// ‖T − X·Ŵᵀ‖ / ‖T‖ over all held-out tokens: T is what the layer should give. That is X̃·Wᵀ with the inputs X̃ of the
  /// original model, where it runs along, or what sets the residual stream right (see `HeldOutInputs.aim`); else X·Wᵀ.
  package let error: Double
  /// The same of plain rounding to nearest with the same codes and groups.
  package let plainError: Double
  /// Half the width of a 95 % confidence interval of error / plainError, from the spread of the windows; nil for one
  /// window.
  package let ratioMargin: Double?

  package var ratio: Double { plainError > 0 ? error / plainError : 1 }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`, before quantization.
  ///   - plain: the weight as rounding to nearest leaves it.
  ///   - inputs: the layer's inputs; every window of a few hundred tokens counts as one observation.
  package init(
    _ weight: Matrix, _ quantized: AffineWeight, plain: Matrix, _ heldOut: HeldOutInputs, workers: Int
  ) {
    let wanted = heldOut.aim ?? Matrix(rows: heldOut.inputs.rows, columns: weight.rows)
    if heldOut.aim == nil {
      multiply(heldOut.originals ?? heldOut.inputs, transposed: weight, into: wanted, workers: workers)
    }
    let signal = Self.windowSquares(wanted, heldOut.bounds)
    let decoded = Matrix(rows: weight.rows, columns: weight.columns)
    quantized.decode(into: decoded, workers: workers)
    func errors(_ decoded: Matrix) -> [Double] {
      let found = Matrix(rows: heldOut.inputs.rows, columns: weight.rows)
      multiply(heldOut.inputs, transposed: decoded, into: found, workers: workers)
      subtract(wanted, from: found, workers: workers)
      return Self.windowSquares(found, heldOut.bounds)
    }
    let own = errors(decoded)
    let other = errors(plain)
    let total = signal.reduce(0, +)
    let (ownTotal, otherTotal) = (own.reduce(0, +), other.reduce(0, +))
    error = total > 0 ? (ownTotal / total).squareRoot() : 0
    plainError = total > 0 ? (otherTotal / total).squareRoot() : 0
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

  /// The sum of squares of each window's rows.
  private static func windowSquares(_ outputs: Matrix, _ bounds: [Int]) -> [Double] {
    zip(bounds, bounds.dropFirst()).map { start, end in
      (start..<end).reduce(0) { $0 + sumOfSquares(outputs, row: $1) }
    }
  }
}
