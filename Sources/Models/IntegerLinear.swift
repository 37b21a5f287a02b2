import Kernels

/// How linear layers are computed.
package enum LinearArithmetic: Hashable, Sendable {
  /// Weights decoded to float32, products in float32.
  case float32
  /// Layers that are stored as 8-bit integers with a scale per row: inputs rounded to 8 bits token by token, integer
  /// products (LLM.int8(), arXiv 2208.07339, equation 8). The others as in `float32`.
  ///
  /// Without splitting, outlier columns are decoded and rounded with the rest of their row, and inputs have no columns
  /// apart: what the split is compared with.
  case integers(splitsOutliers: Bool)
}

/// A linear layer whose weights are integers.
struct IntegerLayer: Sendable {
  let weights: IntegerWeights
  /// Inputs that are multiplied in full precision.
  let outlierColumns: [Int32]
  /// `[outputs, outlierColumns.count]`; nil where there are none.
  let outlierWeights: Matrix?
}

/// The layers of a projection, where some are integers.
struct IntegerProjection: Sendable {
  struct Part: Sendable {
    /// Of the projection's weight.
    let rows: Range<Int>
    /// Nil: float32.
    let layer: IntegerLayer?
  }

  let parts: [Part]
  let pool: MatrixPool

  /// With the rows of a single layer in another order.
  /// - Parameter codes: in that order already.
  func reordered(_ order: [Int], codes: Matrix) -> IntegerProjection {
    func sorted(_ matrix: Matrix) -> Matrix {
      let result = Matrix(rows: order.count, columns: matrix.columns)
      gatherRows(order, of: matrix, into: result)
      return result
    }
    precondition(parts.count == 1)
    return IntegerProjection(
      parts: parts.map { part in
        Part(
          rows: part.rows,
          layer: part.layer.map { layer in
            IntegerLayer(
              weights: layer.weights.replacing(IntegerRows(codes: codes, scales: sorted(layer.weights.rows.scales))),
              outlierColumns: layer.outlierColumns, outlierWeights: layer.outlierWeights.map(sorted))
          })
      }, pool: pool)
  }

  func apply(_ x: Matrix, weight: Matrix, bias: [Float]?, into y: Matrix, workers: Int) {
    y.use(rows: x.rows)
    let inputs = IntegerRows(
      codes: pool.take(rows: x.rows, columns: x.columns), scales: pool.take(rows: x.rows, columns: 1))
    var outliers: Matrix?
    var rounded: [Int32]?
    for part in parts {
      let bias = bias.map { Array($0[part.rows]) }
      guard let layer = part.layer else {
        multiply(
          x, transposed: Matrix(sharing: weight, rows: part.rows), bias: bias, into: y, at: part.rows.lowerBound,
          workers: workers)
        continue
      }
      // Layers with the same outlier features share the rounded inputs.
      if rounded != layer.outlierColumns {
        quantizeRows(x, except: layer.outlierColumns, into: inputs, workers: workers)
        outliers.map { pool.give($0) }
        outliers = layer.outlierColumns.isEmpty ? nil : pool.take(rows: x.rows, columns: layer.outlierColumns.count)
        if let outliers { gatherColumns(layer.outlierColumns, of: x, into: outliers, workers: workers) }
        rounded = layer.outlierColumns
      }
      var apart: (x: Matrix, w: Matrix)?
      if let outliers, let weights = layer.outlierWeights { apart = (outliers, weights) }
      multiplyIntegers(
        inputs, transposed: layer.weights, bias: bias, outliers: apart, into: y, at: part.rows.lowerBound,
        workers: workers)
    }
    pool.give(inputs.codes, inputs.scales)
    outliers.map { pool.give($0) }
  }
}

extension Model {
  /// Linear layers of the blocks that are stored as integers with a scale per row.
  package var integerLayers: Int {
    description.blocks.flatMap(\.linears).count { linear in
      source.makeIntegerReader(of: linear.weight)?.isTransposed == (linear.storage == .inputsFirst)
    }
  }
}
