import Kernels
import TestSupport
import Testing

/// Integer products, against exact integers and against float32.
@Suite struct Int8ProductTests {
  private static func random(_ rows: Int, _ columns: Int, seed: UInt64, scale: Float = 1) -> Matrix {
    var generator = SplitMix64(seed: seed)
    return Matrix(rows: rows, columns: columns, generator.weights(rows * columns, scale: scale))
  }

  private static func rounded(_ x: Matrix, except columns: [Int32] = [], scaleType: ElementType = .f32) -> IntegerRows {
    let rows = IntegerRows(
      codes: Matrix(rows: x.rows, columns: x.columns), scales: Matrix(rows: x.rows, columns: 1))
    quantizeRows(x, except: columns, scaleType: scaleType, into: rows, workers: 2)
    return rows
  }

  /// Codes and scales as their definition says, column counts beside and on multiples of sixteen.
  @Test(arguments: [1, 15, 16, 33, 100], [[], [0], [0, 7, 14]] as [[Int32]])
  func rowsAreRoundedByTheirLargestMagnitude(columns: Int, excluded: [Int32]) {
    let excluded = excluded.filter { $0 < columns }
    let x = Self.random(70, columns, seed: 5)
    let rows = Self.rounded(x, except: excluded)
    let (values, codes, scales) = (x.values(), rows.codes.values(), rows.scales.values())
    for row in 0..<70 {
      var regular = Array(values[row * columns..<(row + 1) * columns])
      for column in excluded { regular[Int(column)] = 0 }
      let scale = (regular.map { abs($0) }.max() ?? 0) / 127
      #expect(scales[row] == scale)
      for column in 0..<columns {
        let code = scale == 0 ? 0 : (regular[column] * (1 / scale)).rounded(.toNearestOrEven)
        #expect(codes[row * columns + column] == code)
        #expect(abs(code) <= 127 && abs(code * scale - regular[column]) <= 0.5001 * scale)
      }
    }
  }

  @Test func oddRowsHaveTheirAnswers() {
    let tiny = Float.leastNormalMagnitude
    var values = [Float](repeating: 0, count: 20)
    values += [Float](repeating: tiny, count: 20)
    values += (0..<20).map { $0 == 3 ? Float.nan : 1 }
    values += (0..<20).map { $0 == 18 ? -Float.infinity : 1 }
    values += (0..<20).map { $0 == 2 ? Float.greatestFiniteMagnitude : 1 }
    let rows = Self.rounded(Matrix(rows: 5, columns: 20, values))
    let codes = rows.codes.values()
    #expect(codes[..<40].allSatisfy { $0 == 0 } && rows.scales.values()[..<2] == [0, 0])
    let w = IntegerWeights(Self.rounded(Self.random(3, 20, seed: 1)), workers: 1)
    let y = Matrix(rows: 5, columns: 3)
    multiplyIntegers(rows, transposed: w, into: y, workers: 1)
    #expect(y.values()[..<6].allSatisfy { $0 == 0 })
    #expect(y.values()[6..<12].allSatisfy { $0.isNaN })
    #expect(codes[82] == 127 && codes[80] == 0)
  }

  static let shapes: [[Int]] = [
    [1, 20, 5], [3, 1024, 600], [1030, 40, 7], [5, 1025, 3], [4, 5000, 9], [2, 4096, 1100],
  ]

  /// Sums of integers are exact: equal to those of 64-bit integers, at the largest codes too, where they pass 2^24.
  @Test(arguments: shapes)
  func sumsAreExact(_ sizes: [Int]) {
    let (tokens, inputs, outputs) = (sizes[0], sizes[1], sizes[2])
    for largest in [Int32(127), 128] {
      var generator = SplitMix64(seed: UInt64(inputs))
      // Half of the rows are all of one sign, so that the sums are as large as can be.
      func codes(_ rows: Int, _ columns: Int, lowest: Int32) -> [Float] {
        (0..<rows * columns).map {
          $0 / columns % 2 == 0 ? Float(lowest) : Float(Int32.random(in: lowest...127, using: &generator))
        }
      }
      let (a, b) = (codes(tokens, inputs, lowest: -127), codes(outputs, inputs, lowest: -largest))
      let ones = { (rows: Int) in Matrix(rows: rows, columns: 1, [Float](repeating: 1, count: rows)) }
      let x = IntegerRows(codes: Matrix(rows: tokens, columns: inputs, a), scales: ones(tokens))
      let w = IntegerWeights(
        IntegerRows(codes: Matrix(rows: outputs, columns: inputs, b), scales: ones(outputs)), workers: 2)
      let y = Matrix(rows: tokens, columns: outputs)
      multiplyIntegers(x, transposed: w, into: y, workers: 2)
      let found = y.values()
      let (p, q) = (a.map { Int($0) }, b.map { Int($0) })
      for token in stride(from: 0, to: tokens, by: max(1, tokens / 5)) {
        for output in stride(from: 0, to: outputs, by: max(1, outputs / 50)) {
          var sum = 0
          for input in 0..<inputs { sum += p[token * inputs + input] * q[output * inputs + input] }
          #expect(found[token * outputs + output] == Float(sum))
        }
      }
    }
  }

  /// Equation 8 of the paper, in double precision, with bias, outliers and an offset into the result.
  @Test func theSplitProductIsItsDefinition() {
    let (tokens, inputs, outputs) = (37, 1100, 530)
    let columns: [Int32] = [3, 700, 1099]
    let (x, w) = (Self.random(tokens, inputs, seed: 1), Self.random(outputs, inputs, seed: 2))
    let bias = Self.random(1, outputs, seed: 3).values()
    let (xs, ws) = (Self.rounded(x, except: columns), Self.rounded(w, except: columns, scaleType: .f16))
    let (xo, wo) = (Matrix(rows: tokens, columns: 3), Matrix(rows: outputs, columns: 3))
    gatherColumns(columns, of: x, into: xo, workers: 2)
    gatherColumns(columns, of: w, into: wo, workers: 2)
    let y = Matrix(rows: tokens, columns: outputs + 9, [Float](repeating: 5, count: tokens * (outputs + 9)))
    multiplyIntegers(
      xs, transposed: IntegerWeights(ws, workers: 2), bias: bias, outliers: (xo, wo), into: y, at: 4, workers: 2)
    let found = y.values()
    let (a, b, s, t) = (xs.codes.values(), ws.codes.values(), xs.scales.values(), ws.scales.values())
    let (values, weights) = (x.values(), w.values())
    for token in stride(from: 0, to: tokens, by: 5) {
      #expect((0..<4).allSatisfy { found[token * (outputs + 9) + $0] == 5 })
      for output in stride(from: 0, to: outputs, by: 7) {
        let sum = (0..<inputs).reduce(0.0) { $0 + Double(a[token * inputs + $1]) * Double(b[output * inputs + $1]) }
        let apart = columns.reduce(0.0) {
          $0 + Double(values[token * inputs + Int($1)]) * Double(weights[output * inputs + Int($1)])
        }
        let expected = sum * Double(s[token]) * Double(t[output]) + Double(bias[output]) + apart
        // Some eight roundings to float32, of numbers no larger than the terms together.
        let size = columns.reduce(abs(sum) * Double(s[token]) * Double(t[output]) + abs(Double(bias[output]))) {
          $0 + abs(Double(values[token * inputs + Int($1)]) * Double(weights[output * inputs + Int($1)]))
        }
        #expect(abs(Double(found[token * (outputs + 9) + 4 + output]) - expected) < 8 * 0x1p-24 * size)
      }
    }
    let one = Matrix(rows: tokens, columns: outputs + 9, [Float](repeating: 5, count: tokens * (outputs + 9)))
    multiplyIntegers(
      xs, transposed: IntegerWeights(ws, workers: 1), bias: bias, outliers: (xo, wo), into: one, at: 4, workers: 1)
    #expect(one.values() == found)
  }

  /// The paper's point: outlier features ruin 8-bit products unless they are kept apart.
  @Test func theSplitIsCloserToFloat() {
    let (tokens, inputs, outputs) = (64, 256, 96)
    let columns: [Int32] = [17, 200]
    let (x, w) = (Self.random(tokens, inputs, seed: 8), Self.random(outputs, inputs, seed: 9, scale: 0.02))
    x.withRows(0..<tokens) { span in
      for token in 0..<tokens { for column in columns { span[token * inputs + Int(column)] *= 60 } }
    }
    let exact = Matrix(rows: tokens, columns: outputs)
    multiply(x, transposed: w, into: exact, workers: 2)
    func error(_ columns: [Int32]) -> Double {
      let (xo, wo) = (Matrix(rows: tokens, columns: columns.count), Matrix(rows: outputs, columns: columns.count))
      gatherColumns(columns, of: x, into: xo, workers: 1)
      gatherColumns(columns, of: w, into: wo, workers: 1)
      let y = Matrix(rows: tokens, columns: outputs)
      multiplyIntegers(
        Self.rounded(x, except: columns), transposed: IntegerWeights(Self.rounded(w, except: columns), workers: 1),
        outliers: (xo, wo), into: y, workers: 2)
      let squares = zip(y.values(), exact.values()).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
      return (squares / exact.values().reduce(0.0) { $0 + Double($1) * Double($1) }).squareRoot()
    }
    let (with, without) = (error(columns), error([]))
    #expect(with < 0.003 && without > 10 * with, "\(with) \(without)")
  }
}
