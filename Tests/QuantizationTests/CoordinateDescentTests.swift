import Kernels
import Quantization
import TestSupport
import Testing

@Suite struct CoordinateDescentTests {
  /// Sweeps as the doc comment has them, in double precision, one element after the other.
  private static func twin(
    _ start: AffineWeight, target: [[Double]], h: [[Double]], sweeps: Int, scaleType: ElementType?
  ) -> AffineWeight {
    var result = start
    let (n, length, groups) = (start.columns, start.groupLength, start.groupsPerRow)
    for row in 0..<start.rows {
      func value(_ column: Int) -> Double {
        Double(result.ranges[row * groups + column / length].value(of: result.codes[row * n + column]))
      }
      func gradient(_ column: Int) -> Double {
        (0..<n).reduce(0) { $0 + (value($1) - target[row][$1]) * h[$1][column] }
      }
      for _ in 0..<sweeps {
        for group in 0..<groups {
          let run = (group * length)..<min((group + 1) * length, n)
          for column in run {
            let range = result.ranges[row * groups + group]
            result.codes[row * n + column] = range.code(of: Float(value(column) - gradient(column) / h[column][column]))
          }
          guard let scaleType else { continue }
          var range = result.ranges[row * groups + group]
          let steps = run.map { Double(Float(result.codes[row * n + $0]) - range.zeroPoint) }
          let slope = zip(run, steps).reduce(0) { $0 + $1.1 * gradient($1.0) }
          var curvature = 0.0
          for (i, a) in zip(run, steps) { for (j, b) in zip(run, steps) { curvature += a * b * h[i][j] } }
          guard curvature > 0 else { continue }
          let new = rounded(Float(Double(range.scale) - slope / curvature), to: scaleType)
          let change = Double(new) - Double(range.scale)
          guard new * range.scale > 0, change * (2 * slope + change * curvature) < 0 else { continue }
          range.scale = new
          result.ranges[row * groups + group] = range
        }
      }
    }
    return result
  }

  private static func loss(_ weight: AffineWeight, target: [[Double]], h: [[Double]]) -> Double {
    let n = weight.columns
    return (0..<weight.rows).reduce(0) { sum, row in
      let error = (0..<n).map { column in
        let range = weight.ranges[row * weight.groupsPerRow + column / weight.groupLength]
        return Double(range.value(of: weight.codes[row * n + column])) - target[row][column]
      }
      return sum
        + (0..<n).reduce(0) { $0 + error[$1] * zip(error, h[$1]).reduce(0) { $0 + $1.0 * $1.1 } }
    }
  }

  private struct Problem {
    let sample: GPTQSample
    let start: AffineWeight
    let h: Matrix

    init(_ row: Int, rows: Int = 24, columns: Int = 150, isDiagonal: Bool = false) throws {
      sample = GPTQSample(rows: rows, columns: columns, tokens: 200, seed: UInt64(20 + row))
      start = try AffineWeight(
        roundingToNearest: sample.weight, try GPTQLaws.scheme(row), importance: nil, workers: 1)
      h = damped(try sample.hessian().sum, factor: 0.01, damping: 0.05, workers: 1)
      guard isDiagonal else { return }
      for row in 0..<columns {
        h.withRows(row..<(row + 1)) { span in for column in 0..<columns where column != row { span[column] = 0 } }
      }
    }

    var table: [[Double]] { (0..<h.rows).map { h.values(ofRows: $0..<($0 + 1)).map(Double.init) } }
  }

  @Test(
    "The descent in double precision ends at the same loss", arguments: GPTQLaws.schemes.indices,
    [nil, ElementType.f16])
  func agreesWithTheTwin(row: Int, scaleType: ElementType?) throws {
    let problem = try Problem(row)
    var found = problem.start
    let loss = CoordinateDescent(sweeps: 3, scaleType: scaleType)
      .improve(&found, towards: problem.sample.weight, h: problem.h, workers: 2)
    let expected = Self.twin(
      problem.start, target: problem.sample.rows, h: problem.table, sweeps: 3, scaleType: scaleType)
    let exact = Self.loss(found, target: problem.sample.rows, h: problem.table)
    #expect(abs(loss / exact - 1) < 1e-3)
    // A code at the border between two may go either way, and takes the rest of its row along.
    #expect(differingRows(found.codes, expected.codes, columns: 150) <= 4)
    #expect(abs(exact / Self.loss(expected, target: problem.sample.rows, h: problem.table) - 1) < 0.01)
  }

  @Test("No sweep raises the loss, and what settles is best in each code", arguments: [0, 2, 3])
  func neverRises(row: Int) throws {
    let problem = try Problem(row, rows: 8, columns: 80)
    var last = Self.loss(problem.start, target: problem.sample.rows, h: problem.table)
    for sweeps in 1...6 {
      var found = problem.start
      _ = CoordinateDescent(sweeps: sweeps, scaleType: .f16)
        .improve(&found, towards: problem.sample.weight, h: problem.h, workers: 1)
      let loss = Self.loss(found, target: problem.sample.rows, h: problem.table)
      #expect(loss <= last * (1 + 1e-6))
      last = loss
    }
    var settled = problem.start
    _ = CoordinateDescent(sweeps: 200, scaleType: nil)
      .improve(&settled, towards: problem.sample.weight, h: problem.h, workers: 1)
    let best = Self.loss(settled, target: problem.sample.rows, h: problem.table)
    let highest = problem.start.ranges[0].highestCode
    for place in stride(from: 0, to: settled.codes.count, by: 7) {
      for code in [Int(settled.codes[place]) - 1, Int(settled.codes[place]) + 1] where 0...Int(highest) ~= code {
        var other = settled
        other.codes[place] = UInt8(code)
        #expect(Self.loss(other, target: problem.sample.rows, h: problem.table) >= best * (1 - 1e-5))
      }
    }
  }

  @Test func aDiagonalHessianLeavesRoundingToNearestAsItIs() throws {
    for row in GPTQLaws.schemes.indices {
      let problem = try Problem(row, isDiagonal: true)
      var found = problem.start
      _ = CoordinateDescent(sweeps: 4, scaleType: nil)
        .improve(&found, towards: problem.sample.weight, h: problem.h, workers: 1)
      // Ties may turn, within the last bit of the position.
      #expect(zip(found.codes, problem.start.codes).count { $0 != $1 } <= 2)
    }
  }

  @Test func theNumberOfWorkersDoesNotMatter() throws {
    let problem = try Problem(1, rows: 600, columns: 200)
    var (one, two) = (problem.start, problem.start)
    let descent = CoordinateDescent(sweeps: 3, scaleType: .f16)
    let first = descent.improve(&one, towards: problem.sample.weight, h: problem.h, workers: 1)
    let second = descent.improve(&two, towards: problem.sample.weight, h: problem.h, workers: 2)
    #expect(one == two && first == second)
  }

  /// After GPTQ it lowers the loss further, keeps dead columns at zero, and scales storable.
  @Test(arguments: GPTQLaws.schemes.indices)
  func improvesOnGPTQ(row: Int) throws {
    let sample = GPTQSample(rows: 40, columns: 150, tokens: 300, seed: 31, dead: [5])
    let scheme = try GPTQLaws.scheme(row)
    let hessian = try sample.hessian()
    let plain = try GPTQ(scheme: scheme).quantize(sample.weight, hessian: hessian, workers: 2)
    let more = try GPTQ(scheme: scheme, sweeps: 4).quantize(sample.weight, hessian: hessian, workers: 2)
    let (before, after) = (try #require(plain.loss), try #require(more.loss))
    #expect(after < before)
    let decoded = Matrix(rows: 40, columns: 150)
    more.weight.decode(into: decoded, workers: 1)
    #expect((0..<40).allSatisfy { decoded.values(ofRows: $0..<($0 + 1))[5] == 0 })
    #expect(more.weight.ranges.allSatisfy { rounded($0.scale, to: .f16) == $0.scale })
  }
}
