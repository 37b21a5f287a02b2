import Kernels
import Quantization
import TestSupport
import Testing

/// LLM.int8(): rows by absmax with outlier columns beside them.
@Suite struct OutlierSplitLaws {
  private let scheme: WeightScheme

  init() throws { scheme = try WeightScheme(method: .llmInt8) }

  private func quantize(
    _ values: [Float], _ shape: [Int], _ columns: [Int32], type: ElementType = .f16
  ) throws -> QuantizedTile {
    let quantizer = TileQuantizer(
      scheme: scheme, shape: shape, outliers: OutlierColumns(columns: columns, type: type))
    var tile = QuantizedTile()
    try quantizer.quantize(values.span, first: 0, facts: TensorFacts(), into: &tile)
    return tile
  }

  @Test func withoutOutliersItIsAbsmaxByRows() throws {
    var random = SplitMix64(seed: 1)
    let values = random.weights(9 * 130)
    let found = try quantize(values, [9, 130], [])
    let absmax = try WeightScheme(method: .absmax, bits: 8, granularity: .row)
    var expected = QuantizedTile()
    let quantizer = TileQuantizer(scheme: absmax, shape: [9, 130])
    try quantizer.quantize(values.span, first: 0, facts: TensorFacts(), into: &expected)
    #expect(found.codes == expected.codes && found.scales == expected.scales && found.outliers.isEmpty)
    #expect(TileQuantizer(scheme: scheme, shape: [9, 130]).encoding == absmax.encoding)
  }

  @Test func whereAllColumnsAreOutliersTheWeightsStay() throws {
    var random = SplitMix64(seed: 2)
    let values = random.weights(4 * 20).map { rounded($0, to: .bf16) }
    let found = try quantize(values, [4, 20], (0..<20).map { Int32($0) }, type: .bf16)
    #expect(found.outliers == values)
    #expect(found.scales == [0, 0, 0, 0] && found.codes.allSatisfy { $0 == 128 })
  }

  /// A row's scale and codes are those of the row without its outliers, however large these are.
  @Test func outliersTakeNoPartInTheScale() throws {
    var random = SplitMix64(seed: 3)
    let columns: [Int32] = [0, 31, 99]
    var values = random.weights(8 * 100)
    let without = try quantize(
      values.enumerated().map { columns.contains(Int32($0.offset % 100)) ? 0 : $0.element }, [8, 100], [])
    for row in 0..<8 { for column in columns { values[row * 100 + Int(column)] = 50 + Float(row) } }
    let found = try quantize(values, [8, 100], columns)
    #expect(found.codes == without.codes && found.scales == without.scales)
    #expect(found.outliers == (0..<8).flatMap { row in columns.map { _ in 50 + Float(row) } })
    #expect((0..<8).allSatisfy { row in columns.allSatisfy { found.codes[row * 100 + Int($0)] == 128 } })
  }

  /// A tile's result does not depend on where the tensor was cut, or on the type that it was read from.
  @Test func tilesAndTypesDoNotMatter() throws {
    var random = SplitMix64(seed: 4)
    for type in [ElementType.bf16, .f16, .f32] {
      let (bytes, values) = random.storedWeights(24 * 70, as: type)
      let quantizer = TileQuantizer(
        scheme: scheme, shape: [24, 70], outliers: OutlierColumns(columns: [5, 6, 60], type: .bf16))
      var whole = QuantizedTile()
      try quantizer.quantize(values.span, first: 0, facts: TensorFacts(), into: &whole)
      var (codes, scales, outliers): ([UInt8], [Float], [Float]) = ([], [], [])
      var tile = QuantizedTile()
      let size = 8 * 70 * type.bitWidth / 8
      for part in 0..<3 {
        try quantizer.quantize(
          bytes.span.bytes.extracting(part * size..<(part + 1) * size), as: type, first: part * 560,
          facts: TensorFacts(), into: &tile)
        codes += tile.codes
        scales += tile.scales
        outliers += tile.outliers
      }
      #expect(codes == whole.codes && scales == whole.scales && outliers == whole.outliers)
    }
  }

  @Test func outliersMustBeFiniteAndFitTheirType() throws {
    var values = [Float](repeating: 0.1, count: 40)
    values[25] = .nan
    #expect(throws: QuantizationError.notFinite(element: 25, value: "nan")) { try quantize(values, [2, 20], [5]) }
    #expect(throws: QuantizationError.notFinite(element: 25, value: "nan")) { try quantize(values, [2, 20], [4]) }
    values[25] = 70_000
    #expect(throws: QuantizationError.outlierOverflow(element: 25, value: 70_000, type: .f16)) {
      try quantize(values, [2, 20], [5])
    }
    #expect(try quantize(values, [2, 20], [5], type: .bf16).outliers[1] == rounded(70_000, to: .bf16))
  }

  @Test func outliersAreFeaturesThatReachTheThresholdOftenEnough() {
    var statistics = FeatureStatistics(dimension: 20)
    func columns(_ share: Double) -> [Int32] { OutlierColumns(statistics, share: share, type: .f16).columns }
    #expect(columns(0).isEmpty)
    // Feature 3 is 6.0 in all of 100 tokens, feature 7 in ten, feature 19 in one; feature 11 never quite reaches it.
    let values = (0..<100 * 20).map { index -> Float in
      switch (index % 20, index / 20) {
      case (3, _): -6
      case (7, ..<10): 40
      case (19, 50): -7
      case (11, _): 5.999
      default: 0.1
      }
    }
    statistics.add(Matrix(rows: 100, columns: 20, values), workers: 2)
    #expect(columns(0) == [3, 7, 19] && columns(0.01) == [3, 7, 19])
    #expect(columns(0.0101) == [3, 7] && columns(0.1) == [3, 7] && columns(0.2) == [3] && columns(1) == [3])
  }

  @Test func weightsOfOutliersAreStoredLikeTheSource() {
    for type in [ElementType.f16, .bf16] {
      #expect(OutlierColumns.type(source: type, scaleType: .f16) == type)
      #expect(OutlierColumns.type(source: type, scaleType: .bf16) == type)
    }
    #expect(OutlierColumns.type(source: .f32, scaleType: .f16) == .f16)
    #expect(OutlierColumns.type(source: .f32, scaleType: .f32) == .f16)
    #expect(OutlierColumns.type(source: .f64, scaleType: .bf16) == .bf16)
  }

  @Test func schemesThatCannotBeAreRefused() throws {
    #expect(scheme.bits == 8 && scheme.granularity == .row && scheme.isSymmetric && scheme.scaleType == .f16)
    #expect(throws: SchemeError.bits(4, method: .llmInt8)) { try WeightScheme(method: .llmInt8, bits: 4) }
    #expect(throws: SchemeError.needsRows(method: .llmInt8)) {
      try WeightScheme(method: .llmInt8, granularity: .group(64))
    }
    #expect(throws: SchemeError.symmetry(method: .llmInt8, symmetric: false)) {
      try WeightScheme(method: .llmInt8, isSymmetric: false)
    }
    #expect(SchemeError.bits(4, method: .llmInt8).description == "llm-int8 has 8 bits, not 4")
    #expect(SchemeError.needsRows(method: .llmInt8).description.contains("one scale per row"))
  }
}
