import Kernels
import Quantization
import TestSupport
import Testing

/// A clear answer to evidence and weights that are not ordinary.
@Suite struct GPTQEdgeCases {
  static func gptq(_ order: GPTQ.ColumnOrder = .activation, bits: Int = 4) throws -> GPTQ {
    try GPTQ(scheme: try WeightScheme(method: .zeroPoint, bits: bits, granularity: .group(32)), order: order)
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func inputsThatAreNotFiniteAreRefusedByColumn(value: Float) throws {
    let sample = GPTQSample(rows: 1, columns: 40, tokens: 70, seed: 1)
    var hessian = try sample.hessian()
    sample.inputs.withRows(3..<4) { $0[21] = value }
    sample.inputs.withRows(69..<70) { $0[17] = value }
    let error = #expect(throws: HessianError.self) { try hessian.add(sample.inputs, workers: 2) }
    #expect(error == .notFinite(column: 17, value: "\(value)"))
    #expect(error?.description.contains("input feature 17 is \(value)") == true)
    #expect(hessian.tokens == 70)
  }

  @Test func inputsWhoseSquaresOverflowAreRefused() throws {
    var hessian = Hessian(dimension: 4)
    let large = Matrix(rows: 1, columns: 4, [1, 1e18, 0, 0])
    try hessian.add(large, workers: 1)
    let error = #expect(throws: HessianError.self) {
      try hessian.add(Matrix(rows: 1, columns: 4, [1, -3e19, 0, 0]), workers: 1)
    }
    #expect(error == .overflow(largest: 3e19))
    #expect(error?.description.contains("beyond the range of float32") == true)
    #expect(hessian.tokens == 1)
  }

  @Test func damagedEvidenceIsRefused() {
    func error(_ values: [Float]) -> HessianError? {
      #expect(throws: HessianError.self) { try Hessian(sum: Matrix(rows: 2, columns: 2, values), tokens: 1) }
    }
    #expect(error([1, .nan, .nan, 1]) == .notFinite(column: 1, value: "nan"))
    #expect(error([1, 0, 0, -1]) == .negative(column: 1))
    #expect(error([1, 0.5, 0.25, 1]) == .notSymmetric(row: 1, column: 0))
    #expect(HessianError.negative(column: 1).description.contains("damaged"))
    #expect(HessianError.notSymmetric(row: 1, column: 0).description.contains("damaged"))
  }

  @Test func evidenceMergesByAddition() throws {
    let sample = GPTQSample(rows: 1, columns: 100, tokens: 64, seed: 2)
    let whole = try sample.hessian()
    var first = Hessian(dimension: 100)
    try first.add(Matrix(sharing: sample.inputs, rows: 0..<40), workers: 1)
    let copy = first
    var second = Hessian(dimension: 100)
    try second.add(Matrix(sharing: sample.inputs, rows: 40..<64), workers: 1)
    try first.merge(second, workers: 1)
    #expect(first.tokens == 64 && copy.tokens == 40)
    #expect(copy.sum.values() != first.sum.values())
    let scale = whole.diagonal.max() ?? 0
    #expect(zip(first.sum.values(), whole.sum.values()).allSatisfy { abs($0 - $1) < 1e-5 * scale })
    let exact = sample.exactHessian
    for row in 0..<100 {
      let found = whole.sum.values(ofRows: row..<(row + 1))
      #expect((0..<100).allSatisfy { abs(Double(found[$0]) - exact[row][$0]) < 1e-5 * Double(scale) })
    }
    #expect(zip(whole.importance, whole.diagonal).allSatisfy { $0 == $1 / 64 })
  }

  @Test func noEvidenceFallsBackToRounding() throws {
    let sample = GPTQSample(rows: 10, columns: 100, tokens: 1, seed: 3)
    let found = try Self.gptq().quantize(sample.weight, hessian: Hessian(dimension: 100), workers: 1)
    #expect(found.fallback == .noEvidence && found.loss == nil && found.dampening == nil)
    #expect(found.deadColumns == Array(0..<100))
    let plain = try quantize(sample.weight.values(), [10, 100], Self.gptq().scheme)
    #expect(found.weight.codes == plain.tile.codes)
    #expect(found.weight.ranges.map(\.scale) == plain.tile.scales)
    #expect(found.fallback?.description.contains("no token") == true)
  }

  /// A Hessian of rank one is singular; dampening alone makes it definite.
  @Test(arguments: GPTQ.ColumnOrder.allCases)
  func oneTokenIsEnough(order: GPTQ.ColumnOrder) throws {
    let sample = GPTQSample(rows: 10, columns: 300, tokens: 1, seed: 4)
    let found = try Self.gptq(order).quantize(sample.weight, hessian: try sample.hessian(), workers: 1)
    #expect(found.fallback == nil && found.dampening == 0.01)
    let decoded = Matrix(rows: 10, columns: 300)
    found.weight.decode(into: decoded, workers: 1)
    // The one output that is known is met: what is left of its error is the last column's.
    let nearest = try quantize(sample.weight.values(), [10, 300], Self.gptq().scheme).decoded
    let x = sample.inputs.values()
    func error(_ values: [Float]) -> Float {
      (0..<10).reduce(0) { sum, row in
        let difference = x.indices.reduce(Float(0)) {
          $0 + x[$1] * (values[row * 300 + $1] - sample.weight.values(ofRows: row..<(row + 1))[$1])
        }
        return sum + difference * difference
      }
    }
    #expect(error(decoded.values()) < 0.02 * error(nearest))
  }

  /// Equal columns make H singular as well.
  @Test func copiesOfOneColumnShareItsError() throws {
    let values = GPTQSample(rows: 1, columns: 1, tokens: 50, seed: 5).inputs.values()
    let inputs = Matrix(rows: 50, columns: 64, values.flatMap { [Float](repeating: $0, count: 64) })
    var hessian = Hessian(dimension: 64)
    try hessian.add(inputs, workers: 1)
    let weight = GPTQSample(rows: 5, columns: 64, tokens: 1, seed: 6).weight
    let found = try Self.gptq(bits: 2).quantize(weight, hessian: hessian, workers: 1)
    #expect(found.fallback == nil)
    let decoded = Matrix(rows: 5, columns: 64)
    found.weight.decode(into: decoded, workers: 1)
    for row in 0..<5 {
      let sum = weight.values(ofRows: row..<(row + 1)).reduce(0, +)
      #expect(abs(decoded.values(ofRows: row..<(row + 1)).reduce(0, +) - sum) < 0.03)
    }
  }

  /// A matrix with a negative eigenvalue needs more dampening; one with a large one cannot be saved.
  @Test func dampeningRisesUntilTheFactorizationHolds() throws {
    let weight = GPTQSample(rows: 5, columns: 64, tokens: 1, seed: 7).weight
    func hessian(coupling: Float) throws -> Hessian {
      let sum = Matrix(rows: 64, columns: 64)
      for index in 0..<64 { sum.withRows(index..<(index + 1)) { $0[index] = 1 } }
      sum.withRows(0..<1) { $0[1] = coupling }
      sum.withRows(1..<2) { $0[0] = coupling }
      return try Hessian(sum: sum, tokens: 1)
    }
    #expect(try Self.gptq().quantize(weight, hessian: hessian(coupling: 0.5), workers: 1).dampening == 0.01)
    let raised = try Self.gptq().quantize(weight, hessian: hessian(coupling: 1.05), workers: 1)
    #expect(raised.dampening == 0.1 && raised.fallback == nil)
    let hopeless = try Self.gptq().quantize(weight, hessian: hessian(coupling: 3), workers: 1)
    #expect(hopeless.dampening == nil)
    guard case .notPositiveDefinite(let column) = hopeless.fallback else {
      Issue.record("no fallback")
      return
    }
    #expect(column == 0 || column == 1)
    #expect(hopeless.fallback?.description.contains("not positive definite (input feature \(column))") == true)
    let plain = try quantize(weight.values(), [5, 64], Self.gptq().scheme)
    #expect(hopeless.weight.codes == plain.tile.codes)
  }

  @Test func aHugeHessianIsOrdinary() throws {
    let sample = GPTQSample(rows: 5, columns: 64, tokens: 20, seed: 8)
    let small = try Self.gptq().quantize(sample.weight, hessian: try sample.hessian(), workers: 1)
    let inputs = Matrix(rows: 20, columns: 64, sample.inputs.values().map { $0 * 0x1p56 })
    var hessian = Hessian(dimension: 64)
    try hessian.add(inputs, workers: 1)
    let huge = try Self.gptq().quantize(sample.weight, hessian: hessian, workers: 1)
    #expect(huge.weight == small.weight && huge.fallback == nil)
  }

  @Test(arguments: GPTQ.GroupRanges.allCases, GPTQ.ColumnOrder.allCases)
  func deadColumnsBecomeZero(ranges: GPTQ.GroupRanges, order: GPTQ.ColumnOrder) throws {
    for method in [Quantization.Method.absmax, .zeroPoint] {
      let dead = [0, 5, 40, 41, 42, 99]
      let sample = GPTQSample(rows: 10, columns: 100, tokens: 30, seed: 9, dead: dead)
      sample.weight.withRows(2..<3) { $0[40] = 1000 }
      let scheme = try WeightScheme(method: method, bits: 3, granularity: .group(16))
      let gptq = try GPTQ(scheme: scheme, order: order, groupRanges: ranges)
      let found = try gptq.quantize(sample.weight, hessian: try sample.hessian(), workers: 1)
      #expect(found.deadColumns == dead)
      let decoded = Matrix(rows: 10, columns: 100)
      found.weight.decode(into: decoded, workers: 1)
      for row in 0..<10 {
        let values = decoded.values(ofRows: row..<(row + 1))
        #expect(dead.allSatisfy { values[$0] == 0 })
        // Their weights do not widen any range either.
        #expect(values.allSatisfy { abs($0) < 1 })
      }
    }
  }

  @Test func weightsThatAreNotFiniteAreRefusedByPlace() throws {
    let sample = GPTQSample(rows: 300, columns: 64, tokens: 30, seed: 10)
    sample.weight.withRows(290..<291) { $0[7] = .nan }
    let error = #expect(throws: QuantizationError.self) {
      try Self.gptq().quantize(sample.weight, hessian: try sample.hessian(), workers: 2)
    }
    #expect(error == .notFinite(element: 290 * 64 + 7, value: "nan"))
    let fallback = #expect(throws: QuantizationError.self) {
      try Self.gptq().quantize(sample.weight, hessian: Hessian(dimension: 64), workers: 2)
    }
    #expect(fallback == error)
  }

  @Test func aScaleBeyondItsTypeIsRefused() throws {
    let sample = GPTQSample(rows: 2, columns: 64, tokens: 30, seed: 11)
    sample.weight.withRows(1..<2) { $0[40] = 1e9 }
    for hessian in [try sample.hessian(), Hessian(dimension: 64)] {
      let error = #expect(throws: QuantizationError.self) {
        try Self.gptq(.natural).quantize(sample.weight, hessian: hessian, workers: 1)
      }
      #expect(error == .scaleOverflow(element: 64 + 32, scale: .infinity, type: .f16))
    }
  }

  /// The error of the first weight, forty times as large, is for the second to make up for.
  @Test func correctionsThatLeaveFloatFallBack() throws {
    let hessian = try Hessian(sum: Matrix(rows: 2, columns: 2, [2, 0.04, 0.04, 0.001]), tokens: 1)
    let scheme = try WeightScheme(method: .absmax, bits: 2, granularity: .row, scaleType: .f32)
    for ranges in GPTQ.GroupRanges.allCases {
      let gptq = try GPTQ(scheme: scheme, groupRanges: ranges, dampening: 1e-5)
      let weight = Matrix(rows: 1, columns: 2, [1.4e38, 3e38])
      let found = try gptq.quantize(weight, hessian: hessian, workers: 1)
      #expect(found.fallback == .diverged && found.loss == nil)
      #expect(found.weight.codes == [2, 3])
    }
    #expect(GPTQ.Fallback.diverged.description.contains("float32"))
  }

  @Test func zerosStayZeroAndOneColumnWorks() throws {
    let sample = GPTQSample(rows: 3, columns: 40, tokens: 30, seed: 12)
    let zeros = Matrix(rows: 3, columns: 40)
    let found = try Self.gptq().quantize(zeros, hessian: try sample.hessian(), workers: 1)
    #expect(found.weight.ranges.allSatisfy { $0.scale == 0 } && found.loss == 0)
    let narrow = GPTQSample(rows: 3, columns: 1, tokens: 4, seed: 13)
    let column = try Self.gptq().quantize(narrow.weight, hessian: try narrow.hessian(), workers: 1)
    let plain = try quantize(narrow.weight.values(), [3, 1], Self.gptq().scheme)
    #expect(column.weight.codes == plain.tile.codes)
  }

  @Test func optionsThatCannotBeAreRefused() throws {
    let scheme = try WeightScheme(method: .absmax, bits: 4)
    func error(_ make: () throws -> GPTQ) -> GPTQError? { #expect(throws: GPTQError.self) { try make() } }
    #expect(error { try GPTQ(scheme: try WeightScheme(method: .nf4)) } == .method(.nf4))
    #expect(
      error { try GPTQ(scheme: try WeightScheme(method: .absmax, granularity: .tensor)) } == .granularity)
    #expect(error { try GPTQ(scheme: scheme, dampening: 0) } == .dampening(0))
    #expect(error { try GPTQ(scheme: scheme, dampening: 1.5) } == .dampening(1.5))
    #expect(error { try GPTQ(scheme: scheme, dampening: .infinity) } == .dampening(.infinity))
    #expect(error { try GPTQ(scheme: scheme, columnBlock: 0) } == .columnBlock(0))
    #expect(GPTQError.method(.nf4).description == "GPTQ rounds to integers: absmax or zero-point, not nf4")
    #expect(GPTQError.granularity.description.contains("group size"))
    #expect(GPTQError.dampening(0).description.hasPrefix("dampening 0.0: it must be above 0 and at most 1.0"))
    #expect(GPTQError.columnBlock(0).description == "column block 0: it must be 1 to 4096")
  }
}
