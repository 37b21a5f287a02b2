import COpenBLAS

/// Sets OpenBLAS to one thread for each caller: the parallelism is this module's, over a fixed partition. Called once.
private let singleThreaded: Void = openblas_set_num_threads(1)

/// To be called before any call of BLAS or LAPACK.
func setOneThread() { _ = singleThreaded }

/// The family of processors that OpenBLAS chose its loops for, such as `SkylakeX`. Other families add in another order,
/// so that the last bits of sums differ.
package func linearAlgebraFamily() -> String {
  // Bounds: OpenBLAS's name ends with a zero and lives as long as the program.
  openblas_get_corename().map { String(cString: $0) } ?? "unknown"
}

/// y = x·wᵀ + bias for the rows in use of `x`: what a linear layer computes.
///
/// Runs by tiles whose partition depends on the shapes alone, each a call of BLAS's sgemm on one thread.
/// - Parameters:
///   - x: `[tokens, inputs]`.
///   - w: `[outputs, inputs]`.
///   - bias: `[outputs]`.
///   - y: `[tokens, ≥ column + outputs]`; its rows in use are set to those of `x`.
///   - column: where the outputs begin in it.
package func multiply(
  _ x: Matrix, transposed w: Matrix, bias: [Float]? = nil, into y: Matrix, at column: Int = 0, workers: Int
) {
  precondition(x.columns == w.columns && column >= 0 && column + w.rows <= y.columns)
  precondition(bias == nil || bias?.count == w.rows)
  y.use(rows: x.rows)
  _ = singleThreaded
  let tokens = x.rows
  // A product with many rows is cut along them, so that each tile packs the weights once for much work. One with few
  // rows (a generated token) is cut along the outputs.
  let tokenTile = 1024
  let outputTile = tokens >= tokenTile ? 4096 : 512
  let tokenTiles = (tokens + tokenTile - 1) / tokenTile
  let outputTiles = (w.rows + outputTile - 1) / outputTile
  runTiles(count: tokenTiles * outputTiles, workers: workers) { tile in
    let firstToken = tile / outputTiles * tokenTile
    let firstOutput = tile % outputTiles * outputTile
    let rows = min(tokenTile, tokens - firstToken)
    let outputs = min(outputTile, w.rows - firstOutput)
    // Bounds: rows and outputs are clipped to x, w and y, whose leading dimensions are their column counts.
    let target = y.base + firstToken * y.columns + column + firstOutput
    if let bias {
      for row in 0..<rows {
        for output in 0..<outputs { target[row * y.columns + output] = bias[firstOutput + output] }
      }
    }
    let source = x.base + firstToken * x.columns
    let weights = w.base + firstOutput * w.columns
    let beta: Float = bias == nil ? 0 : 1
    if rows == 1 {
      cblas_sgemv(
        CblasRowMajor, CblasNoTrans, Int32(outputs), Int32(x.columns), 1, weights, Int32(w.columns), source, 1, beta,
        target, 1)
    } else {
      product(
        source, x.columns, weights, w.columns, isTransposed: true, target, y.columns, rows: rows, columns: outputs,
        inner: x.columns, alpha: 1, beta: beta)
    }
  }
}

/// c = alpha·a·b + beta·c, row-major with leading dimensions, on the calling thread.
@inline(__always)
func product(
  _ a: UnsafePointer<Float>, _ strideA: Int, _ b: UnsafePointer<Float>, _ strideB: Int, isTransposed: Bool,
  _ c: UnsafeMutablePointer<Float>, _ strideC: Int, rows: Int, columns: Int, inner: Int, alpha: Float, beta: Float
) {
  _ = singleThreaded
  cblas_sgemm(
    CblasRowMajor, CblasNoTrans, isTransposed ? CblasTrans : CblasNoTrans, Int32(rows), Int32(columns), Int32(inner),
    alpha, a, Int32(strideA), b, Int32(strideB), beta, c, Int32(strideC))
}

/// Products of square matrices, one call of BLAS's sgemm a thread: the rate to compare linear layers with.
package struct SquareProducts: Sendable {
  private let size: Int
  private let matrices: [(Matrix, Matrix, Matrix)]

  package init(size: Int, workers: Int) {
    self.size = size
    matrices = (0..<workers).map { _ in
      (Matrix(rows: size, columns: size), Matrix(rows: size, columns: size), Matrix(rows: size, columns: size))
    }
  }

  /// - Returns: the floating-point operations of one round.
  package func run() -> Int {
    let (size, matrices) = (size, matrices)
    runTiles(count: matrices.count, workers: matrices.count) { tile in
      let (a, b, c) = matrices[tile]
      // Bounds: all three are size · size.
      product(
        a.base, size, b.base, size, isTransposed: true, c.base, size, rows: size, columns: size, inner: size, alpha: 1,
        beta: 0)
    }
    return 2 * size * size * size * matrices.count
  }
}
