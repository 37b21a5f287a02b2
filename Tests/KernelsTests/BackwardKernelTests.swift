import Foundation
import Kernels
import TestSupport
import Testing

/// The vector-Jacobian products, each against central differences of the operation in double precision.
@Suite struct BackwardKernelTests {
  private static func random(_ rows: Int, _ columns: Int, seed: UInt64, scale: Float = 1) -> Matrix {
    var generator = SplitMix64(seed: seed)
    return Matrix(
      rows: rows, columns: columns,
      (0..<rows * columns).map { _ in Float.random(in: -scale...scale, using: &generator) })
  }

  private static func wide(_ matrix: Matrix) -> [Double] { matrix.values().map(Double.init) }

  /// ‖found − g‖ / ‖g‖ with g the central differences of Σ outer · body(x) at each element.
  private static func error(
    _ found: [Float], at x: [Double], outer: [Double], _ body: ([Double]) -> [Double]
  ) -> Double {
    func loss(_ x: [Double]) -> Double { zip(body(x), outer).reduce(0) { $0 + $1.0 * $1.1 } }
    var (difference, norm) = (0.0, 0.0)
    for index in x.indices {
      var (above, below) = (x, x)
      above[index] += 1e-5
      below[index] -= 1e-5
      let slope = (loss(above) - loss(below)) / 2e-5
      difference += (Double(found[index]) - slope) * (Double(found[index]) - slope)
      norm += slope * slope
    }
    return (difference / max(norm, 1e-300)).squareRoot()
  }

  @Test("Products with a weight and its bias", arguments: [[1, 3, 5], [5, 16, 33], [520, 3, 2]])
  func products(_ sizes: [Int]) {
    let (tokens, outputs, inputs) = (sizes[0], sizes[1], sizes[2])
    let outer = Self.random(tokens, outputs, seed: 1)
    let weight = Self.random(outputs, inputs, seed: 2)
    let (a, w) = (Self.wide(outer), Self.wide(weight))
    let expected = (0..<tokens * inputs).map { element in
      (0..<outputs).reduce(0.0) { $0 + a[element / inputs * outputs + $1] * w[$1 * inputs + element % inputs] }
    }
    let dx = Matrix(rows: tokens, columns: inputs)
    multiply(outer, by: weight, into: dx, workers: 2)
    #expect(zip(dx.values(), expected).allSatisfy { abs(Double($0) - $1) < 1e-5 })
    multiply(outer, by: weight, into: dx, adding: true, workers: 1)
    #expect(zip(dx.values(), expected).allSatisfy { abs(Double($0) - 2 * $1) < 1e-5 })
    let sums = Matrix(rows: 1, columns: outputs)
    addColumnSums(outer, to: sums, workers: 2)
    addColumnSums(outer, to: sums, workers: 1)
    for output in 0..<outputs {
      let sum = (0..<tokens).reduce(0.0) { $0 + a[$1 * outputs + output] }
      #expect(abs(Double(sums.values()[output]) - 2 * sum) < 1e-4)
    }
  }

  @Test("Norms", arguments: [1, 7, 16, 37])
  func norms(_ width: Int) {
    let (tokens, epsilon) = (3, Float(0.01))
    let x = Self.random(tokens, width, seed: 1, scale: 2)
    let outer = Self.random(tokens, width, seed: 2)
    let weight = Self.random(1, width, seed: 3).values()
    let wide = Self.wide(outer)
    for isLayer in [false, true] {
      func forward(_ x: [Double], _ weight: [Double], _ bias: [Double]) -> [Double] {
        (0..<tokens).flatMap { token in
          var row = Array(x[token * width..<(token + 1) * width])
          if isLayer {
            let mean = row.reduce(0, +) / Double(width)
            row = row.map { $0 - mean }
          }
          let factor = 1 / (row.reduce(0) { $0 + $1 * $1 } / Double(width) + Double(epsilon)).squareRoot()
          return row.indices.map { row[$0] * factor * weight[$0] + bias[$0] }
        }
      }
      let zeros = [Double](repeating: 0, count: width)
      let factors = weight.map(Double.init)
      for workers in 1...2 {
        let dx = Matrix(rows: tokens, columns: width, [Float](repeating: 1, count: tokens * width))
        let parameters = Matrix(rows: 2, columns: width)
        if isLayer {
          normalizeLayerBackward(
            x, weight: weight, epsilon: epsilon, gradient: outer, into: dx, adding: true, parameters: parameters,
            workers: workers)
        } else {
          normalizeRootMeanSquareBackward(
            x, weight: weight, epsilon: epsilon, gradient: outer, into: dx, adding: true, parameters: parameters,
            workers: workers)
        }
        // A layer norm of one feature is constant.
        if !(isLayer && width == 1) {
          let error = Self.error(dx.values().map { $0 - 1 }, at: Self.wide(x), outer: wide) {
            forward($0, factors, zeros)
          }
          #expect(error < 1e-5, "\(isLayer), width \(width): \(error)")
          let weightError = Self.error(parameters.values(ofRows: 0..<1), at: factors, outer: wide) {
            forward(Self.wide(x), $0, zeros)
          }
          #expect(weightError < 1e-5)
        }
        guard isLayer else { continue }
        let biasError = Self.error(parameters.values(ofRows: 1..<2), at: zeros, outer: wide) {
          forward(Self.wide(x), factors, $0)
        }
        #expect(biasError < 1e-5)
      }
    }
  }

  @Test func normsOfHeads() {
    let (tokens, heads, width) = (70, 3, 5)
    let x = Self.random(tokens, 2 + heads * width + 4, seed: 1)
    let outer = Self.random(tokens, 2 + heads * width + 4, seed: 2)
    let weight = Self.random(1, width, seed: 3).values()
    let slice = NormSlice(firstColumn: 2, count: heads)
    let found = Matrix(rows: tokens, columns: x.columns, outer.values())
    let sums = Matrix(rows: 1, columns: width)
    normalizeRootMeanSquareBackward(
      x, slice, weight: weight, epsilon: 0.1, gradient: found, into: found, parameters: sums, workers: 2)
    // Head by head as rows of their own; what is no head stays.
    func cut(_ matrix: Matrix) -> Matrix {
      let values = matrix.values()
      return Matrix(
        rows: tokens * heads, columns: width,
        (0..<tokens * heads).flatMap { row in
          let start = row / heads * matrix.columns + 2 + row % heads * width
          return values[start..<(start + width)]
        })
    }
    let expected = Matrix(rows: tokens * heads, columns: width)
    let expectedSums = Matrix(rows: 1, columns: width)
    normalizeRootMeanSquareBackward(
      cut(x), weight: weight, epsilon: 0.1, gradient: cut(outer), into: expected, parameters: expectedSums, workers: 1)
    #expect(cut(found).values() == expected.values())
    #expect(zip(sums.values(), expectedSums.values()).allSatisfy { abs($0 - $1) < 1e-4 })
    #expect(found.values()[0] == outer.values()[0] && found.values().last == outer.values().last)
  }

  @Test("Activations", arguments: Activation.allCases)
  func activations(_ activation: Activation) {
    let (tokens, width) = (5, 21)
    let x = Self.random(tokens, 2 * width, seed: 1, scale: 4)
    let outer = Self.random(tokens, width, seed: 2)
    let gated = Matrix(rows: tokens, columns: 2 * width, x.values())
    activateGatedBackward(gated, activation, gradient: outer, workers: 2)
    let error = Self.error(gated.values(), at: Self.wide(x), outer: Self.wide(outer)) { x in
      (0..<tokens * width).map { element in
        let gate = element / width * 2 * width + element % width
        return Self.activate(x[gate], activation) * x[gate + width]
      }
    }
    #expect(error < 2e-6, "\(activation): \(error)")
    let plain = Self.random(tokens, width, seed: 3, scale: 4)
    let slope = Matrix(rows: tokens, columns: width, outer.values())
    activateBackward(plain, activation, gradient: slope, workers: 1)
    let plainError = Self.error(slope.values(), at: Self.wide(plain), outer: Self.wide(outer)) { x in
      x.map { Self.activate($0, activation) }
    }
    #expect(plainError < 2e-6, "\(activation): \(plainError)")
  }

  private static func activate(_ x: Double, _ activation: Activation) -> Double {
    switch activation {
    case .silu: x / (1 + exp(-x))
    case .gelu: 0.5 * x * erfc(-x / 2.0.squareRoot())
    case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    case .quickGelu: x / (1 + exp(-1.702 * x))
    case .relu: max(x, 0)
    case .reluSquared: max(x, 0) * max(x, 0)
    }
  }

  @Test func softCaps() {
    let x = Self.random(3, 19, seed: 1, scale: 5)
    let outer = Self.random(3, 19, seed: 2)
    let (y, slope) = (Matrix(rows: 3, columns: 19, x.values()), Matrix(rows: 3, columns: 19, outer.values()))
    softCap(y, at: 3, workers: 1)
    softCapBackward(y, at: 3, gradient: slope, workers: 2)
    let error = Self.error(slope.values(), at: Self.wide(x), outer: Self.wide(outer)) { $0.map { 3 * tanh($0 / 3) } }
    #expect(error < 1e-5, "\(error)")
  }

  static let attentions: [(form: AttentionForm, lengths: [Int], past: Int, hasBias: Bool)] = [
    (AttentionForm(heads: 4, keyValueHeads: 2, headDimension: 5, scale: 0.7), [6, 1], 0, false),
    (AttentionForm(heads: 2, keyValueHeads: 1, headDimension: 4, scale: 1, softCap: 2, before: 3), [9, 4], 0, false),
    (AttentionForm(heads: 2, keyValueHeads: 2, headDimension: 3, scale: 1, after: nil), [5, 7], 0, true),
    (AttentionForm(heads: 1, keyValueHeads: 1, headDimension: 2, scale: 1, before: 9, after: 9), [67], 0, false),
    (AttentionForm(heads: 2, keyValueHeads: 1, headDimension: 2, scale: 1), [3], 4, false),
    (AttentionForm(heads: 1, keyValueHeads: 1, headDimension: 2, scale: 1), [66], 0, false),
  ]

  @Test("Attention", arguments: attentions.indices)
  func attention(_ index: Int) {
    let (form, lengths, past, hasBias) = Self.attentions[index]
    let (width, count) = (form.headDimension, lengths.reduce(0, +))
    let (queryColumns, keyColumns) = (form.heads * width, form.keyValueHeads * width)
    let x = Self.random(count + past, queryColumns + 2 * keyColumns + 1, seed: 1, scale: 1.5)
    let outer = Self.random(count, queryColumns, seed: 2)
    let longest = (lengths.max() ?? 0) + past
    let bias = hasBias ? Self.random(form.heads, 2 * longest - 1, seed: 3) : nil
    var start = 0
    let spans = lengths.map { length in
      defer { start += length }
      return AttentionSpan(queries: start..<(start + length), keys: start..<(start + length + past))
    }
    let columns = x.columns
    func forward(_ x: [Double]) -> [Double] {
      var y = [Double](repeating: 0, count: count * queryColumns)
      for span in spans {
        for head in 0..<form.heads {
          let key = queryColumns + head / (form.heads / form.keyValueHeads) * width
          for (order, query) in span.queries.enumerated() {
            let position = order + past
            let first = form.before.map { max(0, position - $0) } ?? 0
            let end = form.after.map { min(span.keys.count, position + $0 + 1) } ?? span.keys.count
            let scores = (first..<end).map { other in
              var score = (0..<width).reduce(0.0) {
                $0 + x[query * columns + head * width + $1] * x[(span.keys.lowerBound + other) * columns + key + $1]
              }
              score *= Double(form.scale)
              if let bias {
                score += Double(bias.values()[head * bias.columns + bias.columns / 2 + other - position])
              }
              return form.softCap.map { Double($0) * tanh(score / Double($0)) } ?? score
            }
            let powers = scores.map { exp($0) }
            for (other, power) in zip(first..<end, powers) {
              for dimension in 0..<width {
                y[query * queryColumns + head * width + dimension] +=
                  power / powers.reduce(0, +)
                  * x[
                    (span.keys.lowerBound + other) * columns + key + keyColumns + dimension]
              }
            }
          }
        }
      }
      return y
    }
    func gradient(workers: Int) -> Matrix {
      let found = Matrix(rows: count + past, columns: columns)
      attendBackward(
        queries: MatrixColumns(x, from: 0), keys: MatrixColumns(x, from: queryColumns),
        values: MatrixColumns(x, from: queryColumns + keyColumns), spans, form, bias: bias, gradient: outer,
        into: AttentionGradients(
          queries: MatrixColumns(found, from: 0), keys: MatrixColumns(found, from: queryColumns),
          values: MatrixColumns(found, from: queryColumns + keyColumns)), workers: workers)
      return found
    }
    let found = gradient(workers: 2)
    #expect(gradient(workers: 1).values() == found.values())
    // Directions instead of elements: the naive twin is slow.
    let slopes = Self.wide(found)
    let norm = slopes.reduce(0) { $0 + $1 * $1 }.squareRoot()
    var generator = SplitMix64(seed: 4)
    let random = (0..<5).map { _ in slopes.map { _ in Bool.random(using: &generator) ? 1.0 : -1.0 } }
    for direction in [slopes] + random {
      let length = direction.reduce(0) { $0 + $1 * $1 }.squareRoot()
      func loss(_ step: Double) -> Double {
        let moved = zip(Self.wide(x), direction).map { $0 + step * $1 }
        return zip(forward(moved), Self.wide(outer)).reduce(0) { $0 + $1.0 * $1.1 }
      }
      let step = 1e-5 / length
      let slope = (loss(step) - loss(-step)) / (2 * step)
      let expected = zip(slopes, direction).reduce(0) { $0 + $1.0 * $1.1 }
      #expect(abs(slope - expected) < 1e-5 * norm * length)
    }
  }

  @Test("Divergence and its gradient", arguments: [2, 16, 37])
  func divergence(_ vocabulary: Int) {
    let (q, p) = (Self.random(3, vocabulary, seed: 1, scale: 3), Self.random(3, vocabulary, seed: 2, scale: 3))
    func divergences(_ q: [Double]) -> [Double] {
      (0..<3).map { row in
        func logarithms(_ x: ArraySlice<Double>) -> [Double] {
          let total = log(x.reduce(0) { $0 + exp($1) })
          return x.map { $0 - total }
        }
        let range = row * vocabulary..<(row + 1) * vocabulary
        let (own, other) = (logarithms(q[range]), logarithms(Self.wide(p)[range]))
        return zip(own, other).reduce(0) { $0 + exp($1.1) * ($1.1 - $1.0) }
      }
    }
    let gradient = Matrix(rows: 3, columns: vocabulary, q.values())
    let found = Matrix(rows: 3, columns: 1)
    divergenceBackward(gradient, reference: p, factor: 0.5, divergences: found, workers: 2)
    #expect(zip(found.values(), divergences(Self.wide(q))).allSatisfy { abs(Double($0) - $1) < 1e-5 })
    let error = Self.error(gradient.values(), at: Self.wide(q), outer: [0.5, 0.5, 0.5], divergences)
    #expect(error < 1e-5, "\(error)")
    // Equal predictions have no divergence and no gradient.
    let same = Matrix(rows: 3, columns: vocabulary, p.values())
    divergenceBackward(same, reference: p, factor: 1, divergences: found, workers: 1)
    #expect(same.values().allSatisfy { $0 == 0 } && found.values().allSatisfy { $0 == 0 })
  }

  @Test func sampledTokensFollowThePredictions() {
    let (tokens, logits) = (2000, [Float](arrayLiteral: 0, 1, -1))
    let gradient = Matrix(rows: tokens, columns: 3, (0..<tokens).flatMap { _ in logits })
    sampledLossBackward(gradient, draws: (0..<tokens).map { (Float($0) + 0.5) / Float(tokens) }, workers: 2)
    let total = logits.reduce(0) { $0 + exp($1) }
    for column in 0..<3 {
      let mean = (0..<tokens).reduce(Float(0)) { $0 + gradient.values(ofRows: $1..<($1 + 1))[column] } / Float(tokens)
      #expect(abs(mean) < 1e-3)
    }
    let first = gradient.values(ofRows: 0..<1)
    #expect(abs(first[0] - (1 / total - 1)) < 1e-6 && abs(first[1] - exp(1) / total) < 1e-6)
  }
}
