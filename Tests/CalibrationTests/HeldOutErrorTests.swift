import Calibration
import Foundation
import Kernels
import Quantization
import TestSupport
import Testing

/// Errors of outputs on held-out tokens, beside naive sums in double precision.
@Suite struct HeldOutErrorTests {
  private static let (tokens, inputs, outputs) = (24, 16, 8)

  private func random(_ rows: Int, _ columns: Int, seed: UInt64, scale: Float = 1) -> [[Double]] {
    var random = SplitMix64(seed: seed)
    return (0..<rows).map { _ in (0..<columns).map { _ in Double(random.normal() * scale) } }
  }

  private func matrix(_ rows: [[Double]]) -> Matrix {
    let result = Matrix(rows: rows.count, columns: rows[0].count)
    result.withRows(0..<rows.count) { span in
      for (row, values) in rows.enumerated() {
        for (column, value) in values.enumerated() { span[row * values.count + column] = Float(value) }
      }
    }
    return result
  }

  /// ‖a‖, where a is what a body gives of each token and output.
  private func norm(_ body: (Int, Int) -> Double) -> Double {
    (0..<Self.tokens).reduce(0) { sum, token in
      (0..<Self.outputs).reduce(sum) { $0 + body(token, $1) * body(token, $1) }
    }.squareRoot()
  }

  private func product(_ x: [[Double]], _ w: [[Double]], _ token: Int, _ output: Int) -> Double {
    zip(x[token], w[output]).reduce(0) { $0 + $1.0 * $1.1 }
  }

  private func rounded(_ weight: Matrix) throws -> (AffineWeight, [[Double]]) {
    let scheme = try WeightScheme(method: .absmax, bits: 3, granularity: .group(16), scaleType: .f32)
    let quantized = try AffineWeight(roundingToNearest: weight, scheme, importance: nil, workers: 1)
    let decoded = Matrix(rows: weight.rows, columns: weight.columns)
    quantized.decode(into: decoded, workers: 1)
    let values = decoded.readRows(0..<weight.rows) { span in (0..<span.count).map { Double(span[$0]) } }
    return (
      quantized,
      (0..<weight.rows).map { Array(values[$0 * weight.columns..<($0 + 1) * weight.columns]) }
    )
  }

  private func close(_ found: Double, _ expected: Double) -> Bool { abs(found / expected - 1) < 1e-4 }

  @Test(arguments: [false, true]) func whatRoundingAddsIsToldFromWhatCameIn(hasAim: Bool) throws {
    let x = random(Self.tokens, Self.inputs, seed: 1)
    // Inputs of the original model, or the outputs that are aimed at: others than those of the weight from x.
    let shift = random(Self.tokens, hasAim ? Self.outputs : Self.inputs, seed: 2, scale: 0.3)
    let w = random(Self.outputs, Self.inputs, seed: 3)
    let goal = zip(w, random(Self.outputs, Self.inputs, seed: 4, scale: 0.05)).map { zip($0, $1).map { $0 + $1 } }
    let (quantized, decoded) = try rounded(matrix(goal))
    let (_, plain) = try rounded(matrix(w))
    func target(_ token: Int, _ output: Int) -> Double {
      if hasAim { return product(x, w, token, output) + shift[token][output] }
      return product([zip(x[token], shift[token]).map { $0 + $1 }], w, 0, output)
    }
    let aim = (0..<Self.tokens).map { token in (0..<Self.outputs).map { target(token, $0) } }
    let originals = hasAim ? nil : zip(x, shift).map { zip($0, $1).map { $0 + $1 } }
    let found = HeldOutErrors(
      matrix(w), goal: matrix(goal), quantized, plain: matrix(plain),
      HeldOutInputs(
        inputs: matrix(x), originals: originals.map(matrix), aim: hasAim ? matrix(aim) : nil,
        bounds: [0, 12, Self.tokens]), workers: 1)
    let all = norm(target)
    #expect(close(found.error, norm { target($0, $1) - product(x, decoded, $0, $1) } / all))
    #expect(close(found.plainError, norm { target($0, $1) - product(x, plain, $0, $1) } / all))
    #expect(close(found.roundingError, norm { product(x, goal, $0, $1) - product(x, decoded, $0, $1) } / all))
    #expect(found.roundingError < found.error && found.ratioMargin != nil)
  }

  @Test func withoutAnOriginalRoundingIsAllOfIt() throws {
    let (x, w) = (random(Self.tokens, Self.inputs, seed: 5), random(Self.outputs, Self.inputs, seed: 6))
    let (quantized, decoded) = try rounded(matrix(w))
    let found = HeldOutErrors(
      matrix(w), quantized, plain: matrix(decoded),
      HeldOutInputs(inputs: matrix(x), originals: nil, aim: nil, bounds: [0, Self.tokens]), workers: 1)
    #expect(found.roundingError == found.error && found.error == found.plainError && found.ratioMargin == nil)
  }
}
