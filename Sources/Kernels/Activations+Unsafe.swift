/// The nonlinearity of a feed-forward layer.
package enum Activation: String, CaseIterable, Hashable, Sendable {
  /// x·σ(x), also called swish.
  case silu
  /// ½x(1 + erf(x/√2)).
  case gelu
  /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
  case geluTanh
  /// x·σ(1.702x).
  case quickGelu
  case relu
  /// relu(x)².
  case reluSquared

  @inline(__always)
  func callAsFunction(_ x: Floats) -> Floats {
    switch self {
    case .silu: x * x.logistic
    case .gelu: 0.5 * x * (1 + (x * 0.707_106_78).errorFunction)
    case .geluTanh: 0.5 * x * (1 + (0.797_884_56 * (x + 0.044_715 * (x * x * x))).hyperbolicTangent)
    case .quickGelu: x * (1.702 * x).logistic
    case .relu: x.replacing(with: 0, where: x .< 0)
    case .reluSquared: x.replacing(with: 0, where: x .< 0) * x.replacing(with: 0, where: x .< 0)
    }
  }
}

/// y = activation(gate) · up, for the rows in use.
/// - Parameters:
///   - gateAndUp: `[tokens, 2·width]`: the gate's columns, then those of up.
///   - y: `[tokens, width]`; its rows in use are set.
package func activateGated(_ gateAndUp: Matrix, _ activation: Activation, into y: Matrix, workers: Int) {
  let width = y.columns
  precondition(gateAndUp.columns == 2 * width)
  y.use(rows: gateAndUp.rows)
  runRowTiles(gateAndUp.rows, columns: width, workers: workers) { rows in
    for row in rows {
      // Bounds: row is in use in both matrices, of 2·width and width columns.
      let source = gateAndUp.base + row * 2 * width
      switch activation {
      case .silu: combine(source, source + width, y.base + row * width, width) { Activation.silu($0) * $1 }
      case .geluTanh: combine(source, source + width, y.base + row * width, width) { Activation.geluTanh($0) * $1 }
      default: combine(source, source + width, y.base + row * width, width) { activation($0) * $1 }
      }
    }
  }
}

/// y = activation(y), in place, for the rows in use.
package func activate(_ y: Matrix, _ activation: Activation, workers: Int) {
  runRowTiles(y.rows, columns: y.columns, workers: workers) { rows in
    let start = y.base + rows.lowerBound * y.columns
    // Bounds: the rows are adjacent and in use.
    combine(start, start, start, rows.count * y.columns) { x, _ in activation(x) }
  }
}

/// x = cap · tanh(x / cap), in place, for the rows in use: a soft cap of logits.
package func softCap(_ x: Matrix, at cap: Float, workers: Int) {
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    let start = x.base + rows.lowerBound * x.columns
    // Bounds: as in activate.
    combine(start, start, start, rows.count * x.columns) { x, _ in cap * (x / cap).hyperbolicTangent }
  }
}

/// y += x for the rows in use of `x`: the residual connection.
package func add(_ x: Matrix, to y: Matrix, workers: Int) {
  precondition(x.columns == y.columns && x.rows <= y.rows)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    let offset = rows.lowerBound * x.columns
    // Bounds: the rows are adjacent and in use in both.
    combine(x.base + offset, y.base + offset, y.base + offset, rows.count * x.columns) { $0 + $1 }
  }
}

/// Runs a body over fixed tiles of rows, each of about 32,768 elements.
@inline(__always)
func runRowTiles(_ rows: Int, columns: Int, workers: Int, _ body: @Sendable (Range<Int>) -> Void) {
  let height = max(1, 32768 / max(1, columns))
  runTiles(count: (rows + height - 1) / height, workers: workers) { tile in
    body(tile * height..<min(rows, (tile + 1) * height))
  }
}

/// target[i] = body(a[i], b[i]) for `count` elements; the last lanes of a ragged end are computed and dropped.
@inline(__always)
func combine(
  _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>, _ count: Int,
  _ body: (Floats, Floats) -> Floats
) {
  var index = 0
  while index &+ 16 <= count {
    target.store(body(a.lanes(index), b.lanes(index)), at: index)
    index &+= 16
  }
  if index < count {
    var first = Floats.zero
    var second = Floats.zero
    for lane in 0..<(count - index) {
      first[lane] = a[index + lane]
      second[lane] = b[index + lane]
    }
    let result = body(first, second)
    for lane in 0..<(count - index) { target[index + lane] = result[lane] }
  }
}
