import Kernels
import TestSupport
import Testing

/// Products against their definition: an element is the sum over runs of 384, each in order with one rounding a step.
/// Where BLAS makes them, its order is not ours, and they are near.
@Suite struct ProductTests {
  private static let isOwn = linearAlgebraFamily().hasPrefix("fused")

  /// Shapes with and without edges of tiles, panels, blocks and vectors.
  static let shapes: [(rows: Int, columns: Int, inner: Int)] = [
    (1, 1, 1), (2, 3, 5), (12, 32, 16), (13, 33, 17), (4, 31, 384), (8, 64, 385), (9, 16, 400), (241, 40, 31),
    (250, 270, 800), (3, 1100, 40), (64, 256, 32), (64, 32, 250), (30, 5, 1030), (5, 1, 700), (7, 4, 1),
  ]

  @Test(arguments: shapes) func linearLayer(_ shape: (rows: Int, columns: Int, inner: Int)) {
    let (x, w) = (random(shape.rows, shape.inner, 1), random(shape.columns, shape.inner, 2))
    let y = Matrix(rows: shape.rows, columns: shape.columns + 3)
    multiply(x, transposed: w, into: y, at: 2, workers: 2)
    // One row is a product of a matrix and a vector, which BLAS makes.
    expect(
      elements(y), columns: 2..<(2 + shape.columns), isExact: shape.rows > 1,
      sums(shape) { (value(x, $0, $2), value(w, $1, $2)) })
  }

  @Test(arguments: shapes) func layerWithBias(_ shape: (rows: Int, columns: Int, inner: Int)) {
    let (x, w) = (random(shape.rows, shape.inner, 3), random(shape.columns, shape.inner, 4))
    let bias = (0..<shape.columns).map { Float($0) / 7 - 3 }
    let y = Matrix(rows: shape.rows, columns: shape.columns)
    multiply(x, transposed: w, bias: bias, into: y, workers: 1)
    expect(
      elements(y), isExact: shape.rows > 1, sums(shape, from: { bias[$1] }) { (value(x, $0, $2), value(w, $1, $2)) })
  }

  @Test(arguments: shapes, [false, true]) func inputGradient(
    _ shape: (rows: Int, columns: Int, inner: Int), adding: Bool
  ) {
    let (x, w) = (random(shape.rows, shape.inner, 5), random(shape.inner, shape.columns, 6))
    let y = random(shape.rows, shape.columns, 7)
    let before = elements(y)
    multiply(x, by: w, into: y, adding: adding, workers: 2)
    expect(
      elements(y),
      sums(shape, from: adding ? { before[$0][$1] } : { _, _ in nil }) { (value(x, $0, $2), value(w, $2, $1)) })
  }

  @Test(arguments: shapes) func crossProduct(_ shape: (rows: Int, columns: Int, inner: Int)) {
    let (a, b) = (random(shape.inner, shape.rows, 8), random(shape.inner, shape.columns, 9))
    let sum = random(shape.rows, shape.columns, 10)
    let before = elements(sum)
    accumulateCrossProduct(a, b, into: sum, workers: 2)
    expect(elements(sum), sums(shape, from: { before[$0][$1] }) { (value(a, $2, $0), value(b, $2, $1)) })
  }

  @Test(arguments: [(1, 1), (5, 3), (40, 300), (300, 100), (900, 530)]) func gram(tokens: Int, size: Int) {
    let x = random(tokens, size, 11)
    let sum = Matrix(rows: size, columns: size)
    accumulateGram(x, into: sum, workers: 2)
    accumulateGram(x, into: sum, workers: 1)
    let shape = (rows: size, columns: size, inner: tokens)
    let once = sums(shape, from: { _, _ in 0 }) { (value(x, $2, $0), value(x, $2, $1)) }
    expect(elements(sum), sums(shape, from: { once[$0][$1] }) { (value(x, $2, $0), value(x, $2, $1)) })
    #expect(firstAsymmetry(sum) == nil)
  }

  @Test func emptySum() {
    let y = random(3, 4, 12)
    multiply(Matrix(rows: 3, columns: 0), by: Matrix(rows: 0, columns: 4), into: y, workers: 1)
    #expect(elements(y).allSatisfy { $0.allSatisfy { $0 == 0 } })
  }

  // MARK: The twin

  private func sums(
    _ shape: (rows: Int, columns: Int, inner: Int), from start: (Int, Int) -> Float? = { _, _ in nil },
    _ factors: (_ row: Int, _ column: Int, _ inner: Int) -> (Float, Float)
  ) -> [[Float]] {
    (0..<shape.rows).map { row in
      (0..<shape.columns).map { column in
        var total = start(row, column)
        for first in stride(from: 0, to: shape.inner, by: 384) {
          var run: Float = 0
          for index in first..<min(first + 384, shape.inner) {
            let (a, b) = factors(row, column, index)
            run.addProduct(a, b)
          }
          total = total.map { $0 + run } ?? run
        }
        return total ?? 0
      }
    }
  }

  private func expect(
    _ found: [[Float]], columns: Range<Int>? = nil, isExact: Bool = true, _ expected: [[Float]],
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let found = found.map { line in columns.map { Array(line[$0]) } ?? line }
    if isExact, Self.isOwn {
      #expect(found == expected, sourceLocation: sourceLocation)
    } else {
      for (line, twin) in zip(found, expected) {
        for (a, b) in zip(line, twin) { #expect(abs(a - b) <= 1e-3, sourceLocation: sourceLocation) }
      }
    }
  }

  private func random(_ rows: Int, _ columns: Int, _ seed: UInt64) -> Matrix {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return Matrix(
      rows: rows, columns: columns,
      (0..<(rows * columns)).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(state >> 40) / Float(1 << 23) - 1
      })
  }

  private func value(_ matrix: Matrix, _ row: Int, _ column: Int) -> Float {
    matrix.readRows(row..<(row + 1)) { $0[column] }
  }

  private func elements(_ matrix: Matrix) -> [[Float]] {
    (0..<matrix.rows).map { row in matrix.readRows(row..<(row + 1)) { line in (0..<matrix.columns).map { line[$0] } } }
  }
}
