import Kernels

/// What a layer's inputs x say about the cost of changing its weights: the sum of xᵀ·x over tokens, of which the Hessian
/// of the layer's squared output error is twice the mean (arXiv 2210.17323, H of its equation 2).
///
/// A value: copies do not share changes, and evidence gathered in parts merges by addition. No method depends on the
/// factor, so that the plain sum is kept; float32, `[dimension, dimension]`, symmetric to the bit.
package struct Hessian: Sendable {
  /// Σ xᵀ·x.
  package private(set) var sum: Matrix
  /// Rows added so far.
  package private(set) var tokens: Int

  package var dimension: Int { sum.columns }

  package init(dimension: Int) {
    sum = Matrix(rows: dimension, columns: dimension)
    tokens = 0
  }

  /// Evidence that was gathered before, as read from a file.
  /// - Throws: if a value is not finite, a sum of squares negative, or the matrix not symmetric.
  package init(sum: Matrix, tokens: Int) throws(HessianError) {
    precondition(sum.rows == sum.columns && tokens >= 0)
    for row in 0..<sum.rows {
      let found: HessianError? = sum.readRows(row..<(row + 1)) { values in
        if let column = firstNonFinite(values) { return .notFinite(column: column, value: "\(values[column])") }
        return values[row] < 0 ? .negative(column: row) : nil
      }
      if let found { throw found }
    }
    if let (row, column) = firstAsymmetry(sum) { throw .notSymmetric(row: row, column: column) }
    self.sum = sum
    self.tokens = tokens
  }

  /// Adds the rows in use of `x`, `[tokens, dimension]`.
  /// - Throws: `notFinite` naming the first column with an infinity or NaN; `overflow` where squares leave float32. The
  ///   sum is then of no use.
  package mutating func add(_ x: Matrix, workers: Int) throws(HessianError) {
    precondition(x.columns == dimension)
    makeUnique(workers: workers)
    accumulateGram(x, into: sum, workers: workers)
    // A value that is not finite, or whose square is not, shows in its column's sum of squares.
    if !diagonal.allSatisfy({ $0 < .greatestFiniteMagnitude / 2 }) {
      let largest = largestMagnitude(of: x, workers: workers)
      throw largest.isFinite ? .overflow(largest: largest) : Self.firstNotFinite(in: x)
    }
    tokens += x.rows
  }

  /// Adds the evidence of other tokens for the same inputs.
  package mutating func merge(_ other: Hessian, workers: Int) throws(HessianError) {
    precondition(other.dimension == dimension)
    for (one, two) in zip(diagonal, other.diagonal) where !(one + two).isFinite {
      throw .overflow(largest: max(one, two))
    }
    makeUnique(workers: workers)
    Kernels.add(other.sum, to: sum, workers: workers)
    tokens += other.tokens
  }

  /// The evidence of the same tokens with each feature multiplied: D·H·D.
  package func scaled(by factors: [Float], workers: Int) -> Hessian {
    var result = Hessian(dimension: dimension)
    Kernels.add(sum, to: result.sum, workers: workers)
    scaleSymmetrically(result.sum, by: factors, workers: workers)
    result.tokens = tokens
    return result
  }

  /// Σ x² of each column.
  package var diagonal: [Float] {
    (0..<dimension).map { index in sum.readRows(index..<(index + 1)) { $0[index] } }
  }

  /// E[x²] of each column: what a search for scales weighs errors by. Zeros without tokens.
  package var importance: [Float] { diagonal.map { $0 / Float(max(1, tokens)) } }

  private mutating func makeUnique(workers: Int) {
    if isKnownUniquelyReferenced(&sum) { return }
    let copy = Matrix(rows: dimension, columns: dimension)
    Kernels.add(sum, to: copy, workers: workers)
    sum = copy
  }

  /// Refuses activations whose values, or sums of squares, are not finite in float32.
  package static func requireFiniteSquares(_ x: Matrix, workers: Int) throws(HessianError) {
    let largest = largestMagnitude(of: x, workers: workers)
    if !largest.isFinite { throw firstNotFinite(in: x) }
    let bound = Double(largest) * Double(largest) * Double(x.rows)
    guard bound < Double(Float.greatestFiniteMagnitude) / 2 else { throw .overflow(largest: largest) }
  }

  /// The first column, and in it the first row, that is not finite.
  private static func firstNotFinite(in x: Matrix) -> HessianError {
    var best: (column: Int, value: Float)?
    for row in 0..<x.rows {
      x.readRows(row..<(row + 1)) { values in
        if let column = firstNonFinite(values), column < best?.column ?? .max { best = (column, values[column]) }
      }
    }
    return .notFinite(column: best?.column ?? 0, value: "\(best?.value ?? .nan)")
  }
}

/// Evidence that cannot be used.
package enum HessianError: Error, Hashable, Sendable, CustomStringConvertible {
  case notFinite(column: Int, value: String)
  case negative(column: Int)
  case notSymmetric(row: Int, column: Int)
  case overflow(largest: Float)

  package var description: String {
    switch self {
    case .notFinite(let column, let value):
      "input feature \(column) is \(value) for some token, where a finite number is needed: the model computes that value"
        + " itself, or its weights are damaged"
    case .negative(let column): "the sum of squares of input feature \(column) is negative: the evidence is damaged"
    case .notSymmetric(let row, let column):
      "the entries (\(row), \(column)) and (\(column), \(row)) of XᵀX differ: the evidence is damaged"
    case .overflow(let largest):
      "inputs as large as \(largest) have squares beyond the range of float32: the evidence would be infinite"
    }
  }
}
