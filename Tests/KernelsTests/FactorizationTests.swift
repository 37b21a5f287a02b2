import Kernels
import TestSupport
import Testing

@Suite struct FactorizationTests {
  /// xᵀ·x of more tokens than columns, with something on the diagonal.
  static func sample(_ size: Int, seed: UInt64) -> Matrix {
    var random = SplitMix64(seed: seed)
    let x = Matrix(rows: size + 5, columns: size, random.weights((size + 5) * size, scale: 1))
    let sum = Matrix(rows: size, columns: size)
    accumulateGram(x, into: sum, workers: 2)
    for index in 0..<size { sum.withRows(index..<(index + 1)) { $0[index] += Float(size) * 0.01 } }
    return sum
  }

  static func doubles(_ matrix: Matrix) -> [[Double]] {
    (0..<matrix.rows).map { matrix.values(ofRows: $0..<($0 + 1)).map(Double.init) }
  }

  static func lowerFactor(_ a: [[Double]]) -> [[Double]] {
    var l = a
    for row in a.indices {
      for column in 0...row {
        var sum = a[row][column]
        for inner in 0..<column { sum -= l[row][inner] * l[column][inner] }
        l[row][column] = row == column ? sum.squareRoot() : sum / l[column][column]
      }
    }
    return l
  }

  @Test(arguments: [1, 2, 31, 255, 256, 257, 520])
  func theFactorAgreesWithDoublePrecision(size: Int) {
    let a = Self.sample(size, seed: UInt64(size))
    let expected = Self.lowerFactor(Self.doubles(a))
    let two = Matrix(rows: size, columns: size, a.values())
    #expect(factorCholesky(a, workers: 1) == nil)
    #expect(factorCholesky(two, workers: 2) == nil)
    #expect(a.values() == two.values())
    let scale = Double(size).squareRoot()
    for row in 0..<size {
      let found = a.values(ofRows: row..<(row + 1))
      #expect((0...row).allSatisfy { abs(Double(found[$0]) - expected[row][$0]) < 2e-4 * scale })
    }
  }

  @Test(arguments: [0, 100, 255, 256, 300])
  func aPivotThatIsNotPositiveIsNamed(column: Int) {
    for value: Float in [-1e6, .nan] {
      let a = Self.sample(301, seed: 1)
      a.withRows(column..<(column + 1)) { $0[column] = value }
      #expect(factorCholesky(a, workers: 2) == column)
    }
  }

  @Test(arguments: [1, 40, 257])
  func solvingUndoesMultiplication(size: Int) {
    let lower = Self.sample(size, seed: 3)
    _ = factorCholesky(lower, workers: 1)
    var random = SplitMix64(seed: 4)
    let x = random.weights(300 * size, scale: 1)
    for transposed in [false, true] {
      let solved = Matrix(rows: 300, columns: size, x)
      solve(solved, timesInverseOf: lower, transposed: transposed, workers: 2)
      let factor = Self.doubles(lower)
      let rows = Self.doubles(solved)
      for row in stride(from: 0, to: 300, by: 37) {
        for column in 0..<size {
          var sum = 0.0
          for inner in 0..<size {
            let entry =
              transposed
              ? (column >= inner ? factor[column][inner] : 0) : (inner >= column ? factor[inner][column] : 0)
            sum += rows[row][inner] * entry
          }
          #expect(abs(sum - Double(x[row * size + column])) < 1e-3)
        }
      }
    }
  }

  @Test(arguments: [(3, 1), (70, 33), (5, 600), (600, 513)])
  func gramMatricesAgreeWithPlainSums(shape: (Int, Int)) {
    let (tokens, columns) = shape
    var random = SplitMix64(seed: 5)
    let values = random.weights(tokens * columns, scale: 1)
    let x = Matrix(rows: tokens, columns: columns, values)
    let one = Matrix(rows: columns, columns: columns)
    let two = Matrix(rows: columns, columns: columns)
    for _ in 0..<2 {
      accumulateGram(x, into: one, workers: 1)
      accumulateGram(x, into: two, workers: 2)
    }
    #expect(one.values() == two.values())
    #expect(firstAsymmetry(one) == nil)
    let cross = Matrix(rows: columns, columns: columns)
    accumulateCrossProduct(x, x, into: cross, workers: 2)
    let (found, other) = (one.values(), cross.values())
    for row in stride(from: 0, to: columns, by: 11) {
      for column in stride(from: 0, to: columns, by: 7) {
        let sum = (0..<tokens).reduce(0.0) {
          $0 + Double(values[$1 * columns + row]) * Double(values[$1 * columns + column])
        }
        #expect(abs(Double(found[row * columns + column]) - 2 * sum) < 1e-4 * Double(tokens))
        #expect(abs(Double(other[row * columns + column]) - sum) < 1e-4 * Double(tokens))
      }
    }
  }

  @Test func lowerTilesAreCountedByRows() {
    let tiles = (0..<10).map { lowerTile($0) }
    #expect(tiles.map(\.row) == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    #expect(tiles.map(\.column) == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3])
  }

  @Test func matricesAreReorderedAndDamped() {
    let h = Matrix(rows: 3, columns: 3, [1, 2, 3, 2, 0, 5, 3, 5, 6])
    let a = dampedLowerTriangle(of: h, order: [2, 1, 0], factor: 0.5, damping: 0.25, workers: 1)
    #expect(a.values() == [3.25, 0, 0, 2.5, 1, 0, 1.5, 1, 0.75])
    let b = reordered(h, order: [2, 1, 0], factor: 2, workers: 1)
    #expect(b.values() == [12, 10, 6, 10, 0, 4, 6, 4, 2])
    keepBelowDiagonal(b, scaledBy: 0.5, workers: 1)
    #expect(b.values() == [0, 0, 0, 5, 0, 0, 3, 2, 0])
  }
}
