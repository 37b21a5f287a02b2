import Kernels
import Quantization
import TestSupport
import Testing

/// Coordinate descent with coupled rows.
@Suite struct CoupledDescentTests {
  struct Sample {
    let target: Matrix
    let start: AffineWeight
    let h: Matrix
    let curvature: OutputCurvature

    init(rows: Int = 12, columns: Int = 40, bits: Int = 3, seed: UInt64 = 1, couplesRows: Bool = true) throws {
      var generator = SplitMix64(seed: seed)
      target = Matrix(rows: rows, columns: columns, generator.weights(rows * columns))
      let scheme = try WeightScheme(method: .learned, bits: bits, granularity: .group(16)).rounding
      start = try AffineWeight(roundingToNearest: target, scheme, importance: nil, workers: 1)
      h = Self.gram(columns, &generator)
      curvature = OutputCurvature(outputs: rows)
      let tokens = 400
      let level = generator.weights(tokens, scale: 1)
      let gradients = (0..<tokens * rows).map { index in
        couplesRows ? generator.normal() + level[index / rows] : (index % (rows + 1) == 0 ? 1 : 0)
      }
      curvature.add(Matrix(rows: tokens, columns: rows, gradients), from: 0, workers: 1)
    }

    private static func gram(_ size: Int, _ generator: inout SplitMix64) -> Matrix {
      let x = Matrix(rows: 3 * size, columns: size)
      let shared = generator.weights(3 * size, scale: 1)
      x.withRows(0..<x.rows) { values in
        for index in 0..<values.count { values[index] = generator.normal() + shared[index / size] }
      }
      let sum = Matrix(rows: size, columns: size)
      accumulateGram(x, into: sum, workers: 1)
      return damped(sum, factor: 1 / Double(3 * size), damping: 0.01, workers: 1)
    }

    /// tr(A·E·H·Eᵀ) in double precision, with the dampening of `method`.
    func loss(_ weight: AffineWeight, _ method: CoupledDescent) -> Double {
      let decoded = Matrix(rows: target.rows, columns: target.columns)
      weight.decode(into: decoded, workers: 1)
      let (rows, columns) = (target.rows, target.columns)
      let errors = zip(decoded.values(), target.values()).map { Double($0) - Double($1) }
      let (h, a) = (h.values().map(Double.init), curvature.sums[0].values().map(Double.init))
      let mean = (0..<rows).reduce(0) { $0 + a[$1 * rows + $1] } / Double(rows)
      let products = (0..<rows * columns).map { index in
        (0..<columns).reduce(0.0) { $0 + errors[index / columns * columns + $1] * h[$1 * columns + index % columns] }
      }
      var sum = 0.0
      for row in 0..<rows {
        for other in 0..<rows {
          let weight = a[row * rows + other] / mean + (row == other ? method.dampening : 0)
          for column in 0..<columns {
            sum += weight * errors[row * columns + column] * products[other * columns + column]
          }
        }
      }
      return sum
    }
  }

  @Test("The loss falls, and is what it says", arguments: [2, 3, 4])
  func falls(_ bits: Int) throws {
    let sample = try Sample(bits: bits)
    let method = CoupledDescent(sweeps: 6, scaleType: .f16, dampening: 0.05)
    var found = sample.start
    let (before, after) = method.improve(
      &found, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: 2)
    #expect(abs(before / sample.loss(sample.start, method) - 1) < 1e-4)
    #expect(abs(after / sample.loss(found, method) - 1) < 1e-3)
    #expect(after < 0.7 * before)
    #expect(found.ranges.allSatisfy { rounded($0.scale, to: .f16) == $0.scale })
    // Each sweep by itself lowers it, too.
    var last = before
    for sweeps in 1...4 {
      var partial = sample.start
      let loss = CoupledDescent(sweeps: sweeps, scaleType: .f16, dampening: 0.05).improve(
        &partial, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: 1
      ).after
      #expect(loss <= last * (1 + 1e-5))
      last = loss
    }
  }

  @Test func noSingleCodeCouldDoBetter() throws {
    let sample = try Sample()
    let method = CoupledDescent(sweeps: 100, scaleType: nil, dampening: 0.05)
    var found = sample.start
    _ = method.improve(&found, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: 1)
    #expect(found.ranges == sample.start.ranges)
    let least = sample.loss(found, method)
    for index in stride(from: 0, to: found.codes.count, by: 7) {
      for change in [-1, 1] {
        var moved = found
        let code = Int(moved.codes[index]) + change
        guard (0...7).contains(code) else { continue }
        moved.codes[index] = UInt8(code)
        #expect(sample.loss(moved, method) >= least * (1 - 1e-5))
      }
    }
  }

  @Test func coupledRowsBeatRowsByThemselves() throws {
    let sample = try Sample()
    let method = CoupledDescent(sweeps: 20, scaleType: .f16, dampening: 0.05)
    var (coupled, alone) = (sample.start, sample.start)
    _ = method.improve(&coupled, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: 1)
    _ = CoordinateDescent(sweeps: 20, scaleType: .f16).improve(
      &alone, towards: sample.target, h: sample.h, workers: 1)
    #expect(sample.loss(coupled, method) < 0.95 * sample.loss(alone, method))
  }

  @Test func independentRowsAreRowsByThemselves() throws {
    let sample = try Sample(couplesRows: false)
    let method = CoupledDescent(sweeps: 50, scaleType: nil, dampening: 1)
    var (coupled, alone) = (sample.start, sample.start)
    _ = method.improve(&coupled, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: 1)
    _ = CoordinateDescent(sweeps: 50, scaleType: nil).improve(
      &alone, towards: sample.target, h: sample.h, workers: 1)
    // Ties and roundings of sums may differ.
    let different = zip(coupled.codes, alone.codes).count { $0 != $1 }
    #expect(different * 50 <= coupled.codes.count)
  }

  @Test func oneThreadGivesTheBitsOfTwo() throws {
    let sample = try Sample(rows: 300, columns: 24)
    let found = (1...2).map { workers in
      var weight = sample.start
      _ = CoupledDescent(sweeps: 2, scaleType: .f16, dampening: 0.1).improve(
        &weight, towards: sample.target, h: sample.h, curvature: sample.curvature, workers: workers)
      return weight
    }
    #expect(sample.curvature.sums.count == 2)
    #expect(found[0] == found[1] && found[0] != sample.start)
  }

  @Test func outputsThatCountNothingStayAsTheyAre() throws {
    let sample = try Sample()
    var found = sample.start
    let nothing = OutputCurvature(outputs: 12)
    _ = CoupledDescent(sweeps: 3, scaleType: .f16, dampening: 0.1).improve(
      &found, towards: sample.target, h: sample.h, curvature: nothing, workers: 1)
    #expect(found == sample.start)
  }
}
