import Kernels
import Quantization
import TestSupport
import Testing

/// Learned rounding: its start, its gradients, its steps.
@Suite struct LearnedRoundingTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let bits: Int
    let isSymmetric: Bool
    let group: Int
    var testDescription: String { "\(bits) bits, group \(group), \(isSymmetric ? "" : "a")symmetric" }

    func scheme() throws -> WeightScheme {
      try WeightScheme(method: .learned, bits: bits, granularity: .group(group), isSymmetric: isSymmetric).rounding
    }
  }

  static let cases = [
    Case(bits: 2, isSymmetric: true, group: 16), Case(bits: 3, isSymmetric: false, group: 20),
    Case(bits: 4, isSymmetric: true, group: 7), Case(bits: 8, isSymmetric: false, group: 64),
  ]

  private static func goal(_ rows: Int = 5, _ columns: Int = 50, seed: UInt64 = 1) -> Matrix {
    var generator = SplitMix64(seed: seed)
    return Matrix(rows: rows, columns: columns, generator.weights(rows * columns))
  }

  private static func learned(_ test: Case, _ goal: Matrix) throws -> LearnedWeight {
    let start = try AffineWeight(roundingToNearest: goal, test.scheme(), importance: nil, workers: 1)
    return LearnedWeight(
      from: start, goal: goal, scaleType: .f16, isSymmetric: test.isSymmetric, hasMomentum: true)
  }

  @Test("Without steps the codes and ranges are the start's, however far from the goal", arguments: cases)
  func startsWhereItWas(_ test: Case) throws {
    let goal = Self.goal()
    var start = try AffineWeight(roundingToNearest: goal, test.scheme(), importance: nil, workers: 1)
    // Codes that GPTQ might have moved.
    let highest = UInt8(test.isSymmetric || test.bits < 8 ? (1 << test.bits) - 1 : 255)
    for index in stride(from: 0, to: start.codes.count, by: 3) {
      start.codes[index] = index % 2 == 0 ? min(highest, start.codes[index] &+ 1) : start.codes[index] / 2
    }
    let learned = LearnedWeight(
      from: start, goal: goal, scaleType: .f16, isSymmetric: test.isSymmetric, hasMomentum: false)
    let found = learned.quantized(workers: 2)
    #expect(found.codes == start.codes && found.ranges == start.ranges)
    let (decoded, expected) = (Matrix(rows: 5, columns: 50), Matrix(rows: 5, columns: 50))
    learned.decode(into: decoded, workers: 2)
    start.decode(into: expected, workers: 1)
    #expect(decoded.values() == expected.values())
  }

  /// Steps on ‖Ŵ − T‖² under a diagonal H that makes neighbouring columns trade errors.
  private static func run(
    _ learned: LearnedWeight, towards goal: Matrix, _ method: LearnedRounding, workers: Int = 1
  ) -> (before: Double, after: Double) {
    let decoded = Matrix(rows: goal.rows, columns: goal.columns)
    func errors() -> [Double] {
      learned.decode(into: decoded, workers: workers)
      return zip(decoded.values(), goal.values()).map { Double($0) - Double($1) }
    }
    // The loss is of sums of four neighbours.
    func sums(_ errors: [Double]) -> [Double] {
      (0..<errors.count / 4).map { index in errors[(4 * index)..<(4 * index + 4)].reduce(0, +) }
    }
    func loss(_ errors: [Double]) -> Double { sums(errors).reduce(0) { $0 + $1 * $1 } }
    let before = loss(errors())
    var best = before
    for index in 0..<method.iterations {
      let sums = sums(errors())
      let gradient: [Float] = (0..<goal.rows * goal.columns).map { place in
        place / 4 < sums.count ? Float(2 * sums[place / 4]) : 0
      }
      learned.step(
        Matrix(rows: goal.rows, columns: goal.columns, gradient), method, index: index, workers: workers)
      best = min(best, loss(errors()))
    }
    return (before, best)
  }

  @Test("Steps lower a loss, and what is stored is what was decoded", arguments: cases)
  func learns(_ test: Case) throws {
    let goal = Self.goal()
    let learned = try Self.learned(test, goal)
    // A step of a scale moves the outermost of 256 codes 32 times as far as that of 8.
    let method = LearnedRounding(iterations: 60, rate: 0.02, scaleRate: 0.016 / Float(1 << test.bits))
    let (before, after) = Self.run(learned, towards: goal, method)
    // Of 256 codes a quarter of a code is little to gain.
    #expect(after < (test.bits == 8 ? 0.8 : 0.6) * before, "\(before) \(after)")
    let (decoded, stored) = (Matrix(rows: 5, columns: 50), Matrix(rows: 5, columns: 50))
    learned.decode(into: decoded, workers: 1)
    let quantized = learned.quantized(workers: 1)
    quantized.decode(into: stored, workers: 1)
    #expect(zip(decoded.values(), stored.values()).allSatisfy { abs($0 - $1) <= 1e-6 })
    #expect(quantized.ranges.allSatisfy { rounded($0.scale, to: .f16) == $0.scale })
    #expect(quantized.ranges.allSatisfy { $0.zeroPoint == $0.zeroPoint.rounded() })
  }

  @Test func codesMoveByOneAtMostWhereScalesStay() throws {
    for signs in [false, true] {
      let goal = Self.goal()
      let test = Self.cases[0]
      let learned = try Self.learned(test, goal)
      let start = learned.quantized(workers: 1)
      var method = LearnedRounding(iterations: 100, rate: 0.1, scaleRate: 0)
      method.usesSigns = signs
      _ = Self.run(learned, towards: goal, method)
      let found = learned.quantized(workers: 1)
      let moves = zip(start.codes, found.codes).map { abs(Int($0) - Int($1)) }
      #expect(moves.max() == 1 && found.ranges == start.ranges)
    }
  }

  @Test func oneThreadGivesTheBitsOfTwo() throws {
    let goal = Self.goal(300, 150)
    let found = try (1...2).map { workers in
      let learned = try Self.learned(Self.cases[1], goal)
      _ = Self.run(learned, towards: goal, LearnedRounding(iterations: 3, rate: 0.1), workers: workers)
      return learned.quantized(workers: workers)
    }
    #expect(found[0] == found[1])
  }

  @Test("Put back with the optimizer's moments, a weight goes on as it would have", arguments: cases)
  func goesOnFromAState(_ test: Case) throws {
    let goal = Self.goal()
    let method = LearnedRounding(iterations: 6, rate: 0.1)
    var generator = SplitMix64(seed: 5)
    let gradients = (0..<6).map { _ in Matrix(rows: 5, columns: 50, generator.weights(250)) }
    func steps(_ range: Range<Int>, _ learned: LearnedWeight) {
      for index in range { learned.step(gradients[index], method, index: index, workers: 1) }
    }
    let (whole, first, second) = (
      try Self.learned(test, goal), try Self.learned(test, goal), try Self.learned(test, goal)
    )
    steps(0..<6, whole)
    steps(0..<3, first)
    for (source, target) in zip(first.parameters + first.optimizer, second.parameters + second.optimizer) {
      copyColumns(MatrixColumns(source, from: 0), into: target, at: 0, count: source.rows)
    }
    steps(3..<6, second)
    #expect(second.quantized(workers: 1) == whole.quantized(workers: 1))
    #expect(second.quantized(workers: 1) != first.quantized(workers: 1))
    #expect(zip(second.optimizer, whole.optimizer).allSatisfy { $0.values() == $1.values() })
  }

  @Test func aGroupOfZerosStaysZero() throws {
    let goal = Matrix(rows: 1, columns: 32)
    let learned = try Self.learned(Self.cases[0], goal)
    let gradient = Matrix(rows: 1, columns: 32, [Float](repeating: 1, count: 32))
    learned.step(gradient, LearnedRounding(iterations: 1, rate: 0.5), index: 0, workers: 1)
    let decoded = Matrix(rows: 1, columns: 32)
    learned.decode(into: decoded, workers: 1)
    #expect(decoded.values().allSatisfy { $0 == 0 })
  }

  @Test("Gradients of ranges, with rounding's derivative taken as 1", arguments: cases)
  func rangeGradients(_ test: Case) {
    var generator = SplitMix64(seed: 3)
    let (rows, columns, highest) = (2, 50, Int32(1 << test.bits) - 1)
    let state = RoundingState(
      rows: rows, columns: columns, groupLength: test.group, highestCode: highest, hasMomentum: false)
    let groups = (columns + test.group - 1) / test.group
    func fill(_ matrix: Matrix, _ value: () -> Float) {
      matrix.withRows(0..<matrix.rows) { values in for index in 0..<values.count { values[index] = value() } }
    }
    // Some are clamped.
    fill(state.anchors) { generator.normal() * Float(highest) * 0.4 }
    fill(state.offsets) { Float.random(in: -0.5...0.5, using: &generator) }
    fill(state.scales) { Float.random(in: 0.5...1.5, using: &generator) }
    fill(state.zeroPoints) { (Float(highest) / 2).rounded() }
    let gradient = Matrix(rows: rows, columns: columns)
    fill(gradient) { generator.normal() }
    let (byScale, byZero) = (Matrix(rows: rows, columns: groups), Matrix(rows: rows, columns: groups))
    state.rangeGradients(of: gradient, scaleGradients: byScale, zeroGradients: byZero, workers: 2)
    var expected = [(scale: Double, zero: Double)](repeating: (0, 0), count: rows * groups)
    for row in 0..<rows {
      for column in 0..<columns {
        let (index, group) = (row * columns + column, row * groups + column / test.group)
        let (s, z) = (Double(state.scales.values()[group]), Double(state.zeroPoints.values()[group]))
        let own = Double(state.anchors.values()[index]) / s
        let position = own + z + Double(state.offsets.values()[index])
        let code = min(max(position, 0), Double(highest)).rounded(.toNearestOrEven)
        let outer = Double(gradient.values()[index])
        if position >= -0.5, position <= Double(highest) + 0.5 {
          expected[group].scale += outer * (code - z - own)
        } else {
          expected[group].scale += outer * (code - z)
          expected[group].zero -= outer * s
        }
      }
    }
    for group in 0..<rows * groups {
      let tolerance = 1e-4 * Double(highest)
      #expect(abs(Double(byScale.values()[group]) - expected[group].scale) < tolerance)
      #expect(abs(Double(byZero.values()[group]) - expected[group].zero) < tolerance)
    }
  }
}
