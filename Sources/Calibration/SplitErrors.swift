import Kernels
import Quantization

/// What a layer's outputs lose to 8-bit weights and inputs, with outlier features apart and without: what LLM.int8()
/// gains (arXiv 2208.07339, section 3.2).
///
/// Weights are rounded row by row, inputs token by token, as `multiplyIntegers` runs them.
package struct SplitErrors: Hashable, Codable, Sendable {
  /// ‖y − ŷ‖ / ‖y‖ over the tokens, where ŷ has the outlier columns apart. Zero where y and ŷ are zero.
  package let split: Double
  /// The same where all columns are integers.
  package let unsplit: Double
  package let tokens: Int

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`.
  ///   - x: `[tokens, inputs]`, at least one token.
  ///   - scaleType: of the weights' scales.
  package init(_ weight: Matrix, inputs x: Matrix, outliers: OutlierColumns, scaleType: ElementType, workers: Int) {
    let exact = Matrix(rows: x.rows, columns: weight.rows)
    multiply(x, transposed: weight, into: exact, workers: workers)
    let found = Matrix(rows: x.rows, columns: weight.rows)
    let codes = IntegerRows(
      codes: Matrix(rows: weight.rows, columns: weight.columns), scales: Matrix(rows: weight.rows, columns: 1))
    let inputs = IntegerRows(
      codes: Matrix(rows: x.rows, columns: x.columns), scales: Matrix(rows: x.rows, columns: 1))
    func error(_ columns: [Int32]) -> Double {
      quantizeRows(weight, except: columns, scaleType: scaleType, into: codes, workers: workers)
      quantizeRows(x, except: columns, into: inputs, workers: workers)
      var apart: (x: Matrix, w: Matrix)?
      if !columns.isEmpty {
        let features = Matrix(rows: x.rows, columns: columns.count)
        let weights = Matrix(rows: weight.rows, columns: columns.count)
        gatherColumns(columns, of: x, into: features, workers: workers)
        gatherColumns(columns, of: weight, into: weights, workers: workers)
        weights.withRows(0..<weights.rows) { span in
          for index in 0..<span.count { span[index] = rounded(span[index], to: outliers.type) }
        }
        apart = (features, weights)
      }
      multiplyIntegers(
        inputs, transposed: IntegerWeights(codes, workers: workers), outliers: apart, into: found, workers: workers)
      let sums = exact.readRows(0..<x.rows) { exact in found.readRows(0..<x.rows) { pairSums(exact, $0) } }
      return sums.squaredDifference == 0 ? 0 : (sums.squaredDifference / sums.first).squareRoot()
    }
    tokens = x.rows
    unsplit = error([])
    split = outliers.columns.isEmpty ? unsplit : error(outliers.columns)
  }
}
