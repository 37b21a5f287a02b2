extension Activation {
  /// The derivative at x; at the kink of the rectifiers the one from below, 0.
  @inline(__always)
  func derivative(_ x: Floats) -> Floats {
    switch self {
    case .silu:
      let share = x.logistic
      return share * (1 + x * (1 - share))
    case .gelu:
      let density: Floats = 0.398_942_28 * (-0.5 * x * x).exponential
      return 0.5 * (1 + (x * 0.707_106_78).errorFunction) + x * density
    case .geluTanh:
      let tangent = (0.797_884_56 * (x + 0.044_715 * (x * x * x))).hyperbolicTangent
      let slope: Floats = 0.797_884_56 * (1 + 0.134_145 * (x * x))
      return 0.5 * (1 + tangent) + 0.5 * x * (1 - tangent * tangent) * slope
    case .quickGelu:
      let share = (1.702 * x).logistic
      return share * (1 + 1.702 * x * (1 - share))
    case .relu: return Floats.zero.replacing(with: 1, where: x .> 0)
    case .reluSquared: return 2 * x.replacing(with: 0, where: x .< 0)
    }
  }
}

/// The vector-Jacobian product of `activateGated`: from the gradient of its result to that of gate and up.
/// - Parameters:
///   - gateAndUp: `[tokens, 2·width]`, as the forward pass read it; becomes its gradient.
///   - gradient: `[tokens, width]`.
package func activateGatedBackward(_ gateAndUp: Matrix, _ activation: Activation, gradient: Matrix, workers: Int) {
  let width = gradient.columns
  precondition(gateAndUp.columns == 2 * width && gateAndUp.rows == gradient.rows)
  runRowTiles(gradient.rows, columns: width, workers: workers) { rows in
    for row in rows {
      // Bounds: row is in use in both matrices, of 2·width and width columns.
      let gate = gateAndUp.base + row * 2 * width
      let slope = gradient.base + row * width
      for column in stride(from: 0, to: width, by: 16) {
        let x = gate.lanes(column, of: width)
        let up = (gate + width).lanes(column, of: width)
        let outer = slope.lanes(column, of: width)
        (gate + width).store(outer * activation(x), at: column, of: width)
        gate.store(outer * up * activation.derivative(x), at: column, of: width)
      }
    }
  }
}

/// The vector-Jacobian product of `activate`.
/// - Parameters:
///   - x: what the forward pass read.
///   - gradient: of the result; becomes that of x.
package func activateBackward(_ x: Matrix, _ activation: Activation, gradient: Matrix, workers: Int) {
  precondition(x.columns == gradient.columns && x.rows == gradient.rows)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    let offset = rows.lowerBound * x.columns
    // Bounds: the rows are adjacent and in use.
    combine(x.base + offset, gradient.base + offset, gradient.base + offset, rows.count * x.columns) {
      $1 * activation.derivative($0)
    }
  }
}

/// The vector-Jacobian product of `softCap`.
/// - Parameters:
///   - y: what the forward pass gave.
///   - gradient: of y; becomes that of x.
package func softCapBackward(_ y: Matrix, at cap: Float, gradient: Matrix, workers: Int) {
  precondition(y.columns == gradient.columns && y.rows == gradient.rows)
  runRowTiles(y.rows, columns: y.columns, workers: workers) { rows in
    let offset = rows.lowerBound * y.columns
    // Bounds: the rows are adjacent and in use.
    combine(y.base + offset, gradient.base + offset, gradient.base + offset, rows.count * y.columns) { y, slope in
      let share = y / cap
      return slope * (1 - share * share)
    }
  }
}
