import COpenBLAS

/// Sets OpenBLAS to one thread for each caller: the parallelism is this module's, over a fixed partition. Called once.
private let singleThreaded: Void = openblas_set_num_threads(1)

/// To be called before any call of BLAS or LAPACK.
func setOneThread() { _ = singleThreaded }

/// Whether an element of a product has the same bits wherever it stands, and however many there are.
let productsAreShapeless: Bool = {
  #if X86_64_V3 || X86_64_V4
    true
  #else
    false
  #endif
}()

/// What makes products here, and so the last bits of sums: this module's own loops, or a family of OpenBLAS's.
package func linearAlgebraFamily() -> String {
  #if X86_64_V3 || X86_64_V4
    let own = "fused, "
  #else
    let own = ""
  #endif
  // Bounds: OpenBLAS's name ends with a zero and lives as long as the program.
  return own + (openblas_get_corename().map { String(cString: $0) } ?? "unknown")
}

/// y = x·wᵀ + bias for the rows in use of `x`: what a linear layer computes.
///
/// Runs by tiles whose partition depends on the shapes alone, each a product on one thread.
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
  // On one thread, where nothing but the elements themselves decides about their bits, there is no need to cut. Else a
  // product with many rows is cut along them, so that each tile packs the weights once for much work: for the more,
  // the farther away the weights are. One with few rows (a generated token) is cut along the outputs.
  let cut = w.rows * w.columns > 1 << 20 ? 1024 : tokens >= 4096 ? 512 : 256
  let tokenTile = workers == 1 && productsAreShapeless ? max(1, tokens) : cut
  let outputTile = tokens > tokenTile ? 4096 : 128
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
    if rows == 1 {
      cblas_sgemv(
        CblasRowMajor, CblasNoTrans, Int32(outputs), Int32(x.columns), 1, weights, Int32(w.columns), source, 1,
        bias == nil ? 0 : 1, target, 1)
    } else {
      product(
        StridedMatrix(source, x.columns), StridedMatrix(weights, w.columns).transposed, into: target, y.columns,
        rows: rows, columns: outputs, inner: x.columns, adding: bias != nil)
    }
  }
}

/// Products of square matrices, one a thread: the rate to compare linear layers with.
package struct SquareProducts: Sendable {
  private let size: Int
  private let matrices: [(Matrix, Matrix, Matrix)]

  package init(size: Int, workers: Int) {
    self.size = size
    // Written: pages that were not would all be the system's one page of zeros.
    func ones() -> Matrix {
      let matrix = Matrix(rows: size, columns: size)
      matrix.base.initialize(repeating: 1, count: size * size)
      return matrix
    }
    matrices = (0..<workers).map { _ in (ones(), ones(), ones()) }
  }

  /// - Parameter byBLAS: by BLAS's sgemm, whatever makes this module's products.
  /// - Returns: the floating-point operations of one round.
  package func run(byBLAS: Bool) -> Int {
    setOneThread()
    let (size, matrices) = (size, matrices)
    runTiles(count: matrices.count, workers: matrices.count) { tile in
      let (a, b, c) = matrices[tile]
      // Bounds: all three are size · size.
      if byBLAS {
        cblas_sgemm(
          CblasRowMajor, CblasNoTrans, CblasTrans, Int32(size), Int32(size), Int32(size), 1, a.base, Int32(size),
          b.base,
          Int32(size), 0, c.base, Int32(size))
      } else {
        product(
          StridedMatrix(a.base, size), StridedMatrix(b.base, size).transposed, into: c.base, size, rows: size,
          columns: size, inner: size)
      }
    }
    return 2 * size * size * size * matrices.count
  }
}
