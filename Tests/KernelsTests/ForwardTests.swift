import Foundation
import Kernels
import TestSupport
import Testing

/// The operations of a forward pass, each against its definition in double precision.
@Suite struct ForwardTests {
  private static func random(_ rows: Int, _ columns: Int, seed: UInt64, scale: Float = 1) -> Matrix {
    var generator = SplitMix64(seed: seed)
    return Matrix(
      rows: rows, columns: columns,
      (0..<rows * columns).map { _ in Float.random(in: -scale...scale, using: &generator) })
  }

  private static func difference(_ found: Matrix, _ expected: [Double]) -> Double {
    zip(found.values(), expected).reduce(0) { max($0, abs(Double($1.0) - $1.1)) }
  }

  static let products: [[Int]] = [[1, 5, 3], [1, 70, 600], [3, 16, 1030], [1030, 33, 20], [2100, 8, 5000]]

  @Test("x·wᵀ + b", arguments: products)
  func product(_ sizes: [Int]) {
    let (tokens, inputs, outputs) = (sizes[0], sizes[1], sizes[2])
    let x = Self.random(tokens, inputs, seed: 1)
    let w = Self.random(outputs, inputs, seed: 2)
    let bias = Self.random(1, outputs, seed: 3).values()
    let (a, b) = (x.values(), w.values())
    let y = Matrix(rows: tokens, columns: outputs)
    multiply(x, transposed: w, bias: bias, into: y, workers: 2)
    // A few elements of each row suffice: tiles are larger.
    for token in stride(from: 0, to: tokens, by: 97) {
      let row = y.values(ofRows: token..<(token + 1))
      for output in stride(from: 0, to: outputs, by: max(1, outputs / 41)) {
        let sum = (0..<inputs).reduce(Double(bias[output])) {
          $0 + Double(a[token * inputs + $1]) * Double(b[output * inputs + $1])
        }
        #expect(abs(Double(row[output]) - sum) < 1e-5 * Double(inputs))
      }
    }
    let one = Matrix(rows: tokens, columns: outputs)
    multiply(x, transposed: w, bias: bias, into: one, workers: 1)
    #expect(one.values() == y.values())
  }

  struct AttentionCase: Sendable, CustomTestStringConvertible {
    let form: AttentionForm
    let lengths: [Int]
    var past = 0
    var testDescription: String { "\(lengths) past \(past) \(form)" }
  }

  static let attentions: [AttentionCase] = [
    AttentionCase(form: AttentionForm(heads: 4, keyValueHeads: 2, headDimension: 8, scale: 0.4), lengths: [5, 1, 70]),
    AttentionCase(form: AttentionForm(heads: 2, keyValueHeads: 1, headDimension: 20, scale: 1), lengths: [1100]),
    AttentionCase(
      form: AttentionForm(heads: 2, keyValueHeads: 2, headDimension: 4, scale: 0.5, softCap: 2, before: 7),
      lengths: [90, 33]),
    AttentionCase(
      form: AttentionForm(heads: 1, keyValueHeads: 1, headDimension: 16, scale: 0.3, before: 600), lengths: [1300]),
    AttentionCase(
      form: AttentionForm(heads: 2, keyValueHeads: 2, headDimension: 8, scale: 0.4, after: nil), lengths: [17, 130]),
    AttentionCase(
      form: AttentionForm(heads: 2, keyValueHeads: 2, headDimension: 8, scale: 0.4, before: 5, after: 5),
      lengths: [100]),
    AttentionCase(
      form: AttentionForm(heads: 4, keyValueHeads: 2, headDimension: 8, scale: 0.4), lengths: [1], past: 700),
    AttentionCase(
      form: AttentionForm(heads: 4, keyValueHeads: 2, headDimension: 8, scale: 0.4, before: 50), lengths: [9],
      past: 120),
  ]

  @Test("Attention", arguments: attentions)
  func attention(_ test: AttentionCase) {
    let form = test.form
    let (width, count) = (form.headDimension, test.lengths.reduce(0, +))
    let queries = Self.random(count, form.heads * width + 3, seed: 1, scale: 2)
    let keys = Self.random(count + test.past, form.keyValueHeads * width, seed: 2, scale: 2)
    let values = Self.random(count + test.past, form.keyValueHeads * width, seed: 3)
    var start = 0
    let spans = test.lengths.map { length in
      defer { start += length }
      return AttentionSpan(queries: start..<(start + length), keys: start..<(start + length + test.past))
    }
    let y = Matrix(rows: count, columns: form.heads * width)
    func run(_ workers: Int) {
      attend(
        queries: MatrixColumns(queries, from: 3), keys: MatrixColumns(keys, from: 0),
        values: MatrixColumns(values, from: 0), spans, form, into: y, workers: workers)
    }
    run(1)
    let once = y.values()
    run(2)
    #expect(y.values() == once)
    #expect(Self.difference(y, reference(queries.values(), keys.values(), values.values(), spans, form)) < 5e-6)
  }

  /// softmax(scale · q·kᵀ) · v by its definition.
  private func reference(
    _ q: [Float], _ k: [Float], _ v: [Float], _ spans: [AttentionSpan], _ form: AttentionForm
  ) -> [Double] {
    let width = form.headDimension
    let (rowQ, rowK) = (form.heads * width + 3, form.keyValueHeads * width)
    var result: [Double] = []
    for span in spans {
      for query in span.queries {
        let position = query - span.queries.lowerBound + span.keys.count - span.queries.count
        for head in 0..<form.heads {
          let keyHead = head * form.keyValueHeads / form.heads
          let seen = span.keys.indices.map { $0 - span.keys.lowerBound }.filter { key in
            (form.before.map { key >= position - $0 } ?? true) && (form.after.map { key <= position + $0 } ?? true)
          }
          let scores = seen.map { key in
            let dot = (0..<width).reduce(0.0) {
              $0 + Double(q[query * rowQ + 3 + head * width + $1])
                * Double(k[(span.keys.lowerBound + key) * rowK + keyHead * width + $1])
            }
            let score = dot * Double(form.scale)
            return form.softCap.map { Double($0) * tanh(score / Double($0)) } ?? score
          }
          let largest = scores.max() ?? 0
          let powers = scores.map { exp($0 - largest) }
          let total = powers.reduce(0, +)
          for column in 0..<width {
            result.append(
              zip(seen, powers).reduce(0.0) {
                $0 + $1.1 / total * Double(v[(span.keys.lowerBound + $1.0) * rowK + keyHead * width + column])
              })
          }
        }
      }
    }
    return result
  }

  static let activations: [Activation] = Activation.allCases

  @Test("Activations", arguments: activations)
  func activation(_ activation: Activation) {
    let points: [Float] = (-2000...2000).map { Float($0) / 100 } + [-1e4, 1e4, -0.0, 1e-20, -88, 88]
    let x = Matrix(rows: 1, columns: points.count, points)
    activate(x, activation, workers: 1)
    let expected = points.map { point in
      let x = Double(point)
      return switch activation {
      case .silu: x / (1 + exp(-x))
      case .gelu: 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
      case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
      case .quickGelu: x / (1 + exp(-1.702 * x))
      case .relu: max(0, x)
      case .reluSquared: max(0, x) * max(0, x)
      }
    }
    for (found, expected) in zip(x.values(), expected) {
      #expect(abs(Double(found) - expected) <= 2e-6 * max(1, abs(expected)), "\(activation)")
    }
  }

  @Test func exponentialsAreClose() {
    for step in 0..<200_000 {
      let x = -87 + Float(step) * (175.0 / 200_000)
      let expected = exp(Double(x))
      #expect(abs(Double(exponential(x)) - expected) <= 2.6e-7 * expected)
    }
    #expect(exponential(0) == 1)
    #expect(exponential(.nan).isNaN && exponential(-.infinity) < 1e-37 && exponential(-1e30) < 1e-37)
  }

  @Test func norms() {
    let x = Self.random(7, 37, seed: 4, scale: 3)
    let weight = Self.random(1, 37, seed: 5).values()
    let bias = Self.random(1, 37, seed: 6).values()
    let rows = (0..<7).map { x.values(ofRows: $0..<($0 + 1)).map { Double($0) } }
    let y = Matrix(rows: 7, columns: 37)
    normalizeRootMeanSquare(x, weight: weight, epsilon: 1e-2, into: y, workers: 2)
    let root = rows.flatMap { row in
      let mean = row.reduce(0) { $0 + $1 * $1 } / 37
      return zip(row, weight).map { $0 / (mean + Double(Float(1e-2))).squareRoot() * Double($1) }
    }
    #expect(Self.difference(y, root) < 1e-6)
    normalizeLayer(x, weight: weight, bias: bias, epsilon: 1e-2, into: y, workers: 2)
    let layer = rows.flatMap { row in
      let mean = row.reduce(0, +) / 37
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 37
      let factor = 1 / (variance + Double(Float(1e-2))).squareRoot()
      return row.indices.map { (row[$0] - mean) * factor * Double(weight[$0]) + Double(bias[$0]) }
    }
    #expect(Self.difference(y, layer) < 2e-6)
  }

  @Test("Measures of predictions", arguments: [1, 15, 16, 300])
  func measures(_ vocabulary: Int) {
    let model = Self.random(9, vocabulary, seed: 7, scale: 6)
    let reference = Self.random(9, vocabulary, seed: 8, scale: 6)
    let targets = (0..<9).map { Int32($0 == 4 ? -1 : $0 % vocabulary) }
    let found = Matrix(rows: 9, columns: PredictionColumn.count)
    measurePredictions(model, reference: reference, targets: targets, into: found, workers: 2)
    for row in 0..<9 where targets[row] >= 0 {
      func probabilities(_ logits: Matrix) -> [Double] {
        let powers = logits.values(ofRows: row..<(row + 1)).map { exp(Double($0)) }
        let total = powers.reduce(0, +)
        return powers.map { $0 / total }
      }
      let (q, p) = (probabilities(model), probabilities(reference))
      let line = found.values(ofRows: row..<(row + 1)).map { Double($0) }
      #expect(abs(line[PredictionColumn.loss] + log(q[Int(targets[row])])) < 1e-5)
      #expect(abs(line[PredictionColumn.divergence] - zip(p, q).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }) < 1e-5)
      #expect(abs(line[PredictionColumn.acceptance] - zip(p, q).reduce(0) { $0 + min($1.0, $1.1) }) < 1e-5)
      let same = p.firstIndex(of: p.max() ?? 0) == q.firstIndex(of: q.max() ?? 0)
      #expect(line[PredictionColumn.agreement] == (same ? 1 : 0))
    }
  }
}
