import Kernels
import Quantization
import TestSupport
import Testing

/// A weight and inputs with correlated channels of unequal size.
struct GPTQSample {
  let weight: Matrix
  let inputs: Matrix

  init(rows: Int, columns: Int, tokens: Int, seed: UInt64, dead: [Int] = []) {
    var random = SplitMix64(seed: seed)
    weight = Matrix(rows: rows, columns: columns, random.weights(rows * columns))
    let mixing = random.weights(8 * columns, scale: 1)
    var values: [Float] = []
    for _ in 0..<tokens {
      let common = random.weights(8, scale: 1)
      for column in 0..<columns {
        var value = random.normal()
        for index in 0..<8 { value += common[index] * mixing[index * columns + column] * 0.5 }
        values.append(dead.contains(column) ? 0 : value * (0.3 + Float(column % 7)))
      }
    }
    inputs = Matrix(rows: tokens, columns: columns, values)
  }

  func hessian(workers: Int = 1) throws -> Hessian {
    var hessian = Hessian(dimension: inputs.columns)
    try hessian.add(inputs, workers: workers)
    return hessian
  }

  var rows: [[Double]] { table(weight) }

  /// Σ xᵀ·x in double precision.
  var exactHessian: [[Double]] { Self.crossProduct(inputs, inputs) }

  static func crossProduct(_ a: Matrix, _ b: Matrix) -> [[Double]] {
    let (left, right) = (table(a), table(b))
    return (0..<a.columns).map { row in
      var sums = [Double](repeating: 0, count: b.columns)
      for token in left.indices {
        let value = left[token][row]
        for column in 0..<b.columns { sums[column] += value * right[token][column] }
      }
      return sums
    }
  }
}

private func table(_ matrix: Matrix) -> [[Double]] {
  (0..<matrix.rows).map { matrix.values(ofRows: $0..<($0 + 1)).map(Double.init) }
}

/// Rows whose codes are not all the same.
func differingRows(_ a: [UInt8], _ b: [UInt8], columns: Int) -> Int {
  stride(from: 0, to: a.count, by: columns).count { a[$0..<($0 + columns)] != b[$0..<($0 + columns)] }
}

@Suite struct GPTQLaws {
  static let schemes: [(Quantization.Method, Int, Granularity, ScaleSearch)] = [
    (.absmax, 4, .group(32), .none), (.zeroPoint, 4, .group(32), .none), (.zeroPoint, 2, .group(16), .mse),
    (.absmax, 3, .row, .none), (.absmax, 8, .group(48), .none), (.zeroPoint, 8, .row, .none),
    (.absmax, 2, .group(64), .mse), (.zeroPoint, 3, .group(200), .none),
  ]
  static let variants: [(GPTQ.ColumnOrder, GPTQ.GroupRanges)] = GPTQ.ColumnOrder.allCases.flatMap { order in
    GPTQ.GroupRanges.allCases.map { (order, $0) }
  }

  static func scheme(_ row: Int, scaleType: ElementType = .f16) throws -> WeightScheme {
    let (method, bits, granularity, search) = schemes[row]
    return try WeightScheme(
      method: method, bits: bits, granularity: granularity, scaleType: scaleType, scaleSearch: search)
  }

  /// The codes of the paper's algorithm in double precision, in every variant. A sum in float32 that ends on the other
  /// side of the border between two codes changes the rest of its row: two rows of 40 may differ.
  @Test(arguments: schemes.indices, variants.indices)
  func agreesWithTheTwin(row: Int, variant: Int) throws {
    let (order, ranges) = Self.variants[variant]
    let sample = GPTQSample(rows: 40, columns: 150, tokens: 200, seed: UInt64(row), dead: [3, 77])
    let scheme = try Self.scheme(row)
    let weighs = scheme.scaleSearch == .mse && variant % 2 == 0
    var twin = GPTQTwin(scheme: scheme)
    twin.isOrderedByActivation = order == .activation
    twin.hasCorrectedRanges = ranges == .corrected
    twin.weighsRanges = weighs
    let expected = try twin.quantize(sample.rows, hessian: sample.exactHessian)
    for block in [16, 128] {
      let gptq = try GPTQ(scheme: scheme, order: order, groupRanges: ranges, columnBlock: block)
      let found = try gptq.quantize(
        sample.weight, hessian: try sample.hessian(), weighsRanges: weighs, workers: 2)
      #expect(found.fallback == nil && found.dampening == 0.01 && found.deadColumns == [3, 77])
      #expect(differingRows(found.weight.codes, expected.codes, columns: 150) <= 2)
      #expect((0..<150).map { found.weight.group(ofColumn: $0) } == expected.groupIndex)
      let isScattered =
        order == .activation && ranges == .corrected && scheme.granularity != .row
        && scheme.granularity != .group(200)
      #expect((found.weight.groupIndex != nil) == isScattered)
      let scales = found.weight.ranges.map(\.scale)
      #expect(zip(scales, expected.scales).count { $0 != $1 } <= scales.count / 20)
      let loss = try #require(found.loss)
      #expect(abs(loss * 200 / expected.loss - 1) < 0.01)
    }
  }

  /// Asymmetric calibration, likewise.
  @Test(arguments: variants.indices)
  func asymmetricCalibrationAgreesWithTheTwin(variant: Int) throws {
    let (order, ranges) = Self.variants[variant]
    let sample = GPTQSample(rows: 40, columns: 100, tokens: 150, seed: 9)
    var random = SplitMix64(seed: 10)
    let moved = Matrix(
      rows: 150, columns: 100, random.weights(150 * 100, scale: 0.1).enumerated().map { $1 * Float(1 + $0 % 100 % 7) })
    let difference = Matrix(rows: 100, columns: 100)
    accumulateCrossProduct(moved, sample.inputs, into: difference, workers: 1)
    let scheme = try Self.scheme(0)
    var twin = GPTQTwin(scheme: scheme)
    twin.isOrderedByActivation = order == .activation
    twin.hasCorrectedRanges = ranges == .corrected
    twin.asymmetry = (GPTQSample.crossProduct(moved, sample.inputs), 0.5)
    let expected = try twin.quantize(sample.rows, hessian: sample.exactHessian)
    let hessian = try sample.hessian()
    for block in [16, 128] {
      let gptq = try GPTQ(scheme: scheme, order: order, groupRanges: ranges, columnBlock: block)
      let found = try gptq.quantize(
        sample.weight, hessian: hessian, asymmetry: Asymmetry(sum: difference, strength: 0.5), workers: 2)
      let plain = try gptq.quantize(sample.weight, hessian: hessian, workers: 2)
      #expect(differingRows(found.weight.codes, expected.codes, columns: 100) <= 2)
      #expect(differingRows(found.weight.codes, plain.weight.codes, columns: 100) > 30)
    }
  }

  /// Without correlation there is nothing to make up for.
  @Test(arguments: schemes.indices, variants.indices)
  func aDiagonalHessianRoundsToNearest(row: Int, variant: Int) throws {
    let scheme = try Self.scheme(row)
    let (order, ranges) = Self.variants[variant]
    // Where the order scatters groups, they are others than those of rounding to nearest.
    guard order == .natural || ranges == .original || scheme.granularity == .row else { return }
    let sample = GPTQSample(rows: 10, columns: 150, tokens: 1, seed: 4)
    let sum = Matrix(rows: 150, columns: 150)
    for index in 0..<150 { sum.withRows(index..<(index + 1)) { $0[index] = 1 + Float(index * 37 % 11) } }
    let gptq = try GPTQ(scheme: scheme, order: order, groupRanges: ranges)
    let found = try gptq.quantize(sample.weight, hessian: try Hessian(sum: sum, tokens: 1), workers: 1)
    let plain = try quantize(sample.weight.values(), [10, 150], scheme)
    #expect(found.weight.codes == plain.tile.codes)
    #expect(found.weight.ranges.map(\.scale) == plain.tile.scales)
    let decoded = Matrix(rows: 10, columns: 150)
    found.weight.decode(into: decoded, workers: 1)
    #expect(decoded.values() == plain.decoded)
  }

  @Test(arguments: variants.indices)
  func theScaleOfTheHessianDoesNotMatter(variant: Int) throws {
    let (order, ranges) = Self.variants[variant]
    let sample = GPTQSample(rows: 20, columns: 150, tokens: 100, seed: 5, dead: [0])
    let gptq = try GPTQ(scheme: try Self.scheme(1), order: order, groupRanges: ranges)
    let hessian = try sample.hessian()
    let expected = try gptq.quantize(sample.weight, hessian: hessian, workers: 1)
    for factor: Float in [4, 0x1p-60, 0x1p100] {
      let scaled = Matrix(rows: 150, columns: 150, hessian.sum.values().map { $0 * factor })
      let found = try gptq.quantize(sample.weight, hessian: try Hessian(sum: scaled, tokens: 100), workers: 1)
      #expect(found.weight == expected.weight)
      #expect(found.fallback == nil)
    }
  }

  @Test(arguments: variants.indices)
  func theNumberOfWorkersDoesNotMatter(variant: Int) throws {
    let (order, ranges) = Self.variants[variant]
    let sample = GPTQSample(rows: 600, columns: 530, tokens: 64, seed: 6)
    let gptq = try GPTQ(scheme: try Self.scheme(1), order: order, groupRanges: ranges)
    let one = try gptq.quantize(sample.weight, hessian: try sample.hessian(workers: 1), workers: 1)
    let two = try gptq.quantize(sample.weight, hessian: try sample.hessian(workers: 2), workers: 2)
    #expect(one.weight == two.weight)
    #expect(one.loss == two.loss)
  }

  /// What it is for: the layer's output changes less than under rounding to nearest.
  @Test(arguments: schemes.indices, variants.indices)
  func lowersTheErrorOfTheOutput(row: Int, variant: Int) throws {
    let (order, ranges) = Self.variants[variant]
    let sample = GPTQSample(rows: 20, columns: 150, tokens: 300, seed: 7)
    let scheme = try Self.scheme(row)
    let gptq = try GPTQ(scheme: scheme, order: order, groupRanges: ranges)
    let found = try gptq.quantize(sample.weight, hessian: try sample.hessian(), workers: 1)
    let decoded = Matrix(rows: 20, columns: 150)
    found.weight.decode(into: decoded, workers: 1)
    func outputError(_ weight: [Float]) -> Double {
      let change = Matrix(rows: 20, columns: 150, zip(weight, sample.weight.values()).map { $0 - $1 })
      let output = Matrix(rows: 300, columns: 20)
      multiply(sample.inputs, transposed: change, into: output, workers: 1)
      return output.values().reduce(0) { $0 + Double($1) * Double($1) }
    }
    let plain = try quantize(sample.weight.values(), [20, 150], scheme).decoded
    let error = outputError(decoded.values())
    #expect(error < 0.6 * outputError(plain))
    // The loss is that error plus the dampening's share.
    let loss = try #require(found.loss)
    #expect(loss * 300 >= error * 0.999 && loss * 300 < error * 1.5)
  }
}
