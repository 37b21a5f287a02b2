import Kernels
import Quantization
import TestSupport
import Testing

/// Every method's documented answer to values that are not ordinary.
@Suite struct EdgeCases {
  /// All but LLM.int8(), which is absmax by rows where there are no outliers (`OutlierSplitLaws`).
  static let methods = Quantization.Method.allCases.filter { $0 != .llmInt8 }

  @Test(arguments: methods)
  func zerosStayZero(method: Quantization.Method) throws {
    let result = try quantize([Float](repeating: 0, count: 256), [2, 128], WeightScheme(method: method))
    #expect(result.decoded.allSatisfy { $0 == 0 })
    #expect(result.tile.scales.allSatisfy { $0 == 0 })
  }

  @Test(arguments: methods, [Float(0.37), -0.37, 3, -3e-3])
  func aConstantIsExactButForItsScalesRounding(method: Quantization.Method, value: Float) throws {
    for bits in method.isCodebook ? [4] : [2, 4, 8] {
      let scheme = try WeightScheme(method: method, bits: bits, granularity: .group(64), scaleType: .f32)
      let result = try quantize([Float](repeating: value, count: 128), [1, 128], scheme)
      #expect(result.decoded.allSatisfy { abs($0 - value) <= abs(value) * 1e-6 })
    }
  }

  /// A sixth of the range is all that is asked of affine codes: scales below 2^-126 are not multiplied exactly. Blocks
  /// below 1e-38 become zeros under the four-bit floats, as in bitsandbytes.
  @Test(arguments: methods)
  func subnormalsAreScaledWhereTheTypeReaches(method: Quantization.Method) throws {
    let smallest = Float.leastNonzeroMagnitude * 7000
    let values = (0..<64).map { Float($0 - 31) * smallest }
    let fine = try WeightScheme(method: method, bits: 4, granularity: .group(64), scaleType: .f32)
    let result = try quantize(values, [1, 64], fine)
    let limit = method.isCodebook ? 32 * smallest : 64 * smallest / 6
    #expect(zip(result.decoded, values).allSatisfy { abs($0 - $1) <= limit })
    let coarse = try WeightScheme(method: method, bits: 4, granularity: .group(64), scaleType: .f16)
    #expect(try quantize(values, [1, 64], coarse).decoded.allSatisfy { $0 == 0 })
  }

  @Test(arguments: methods, [Float.infinity, -.infinity, .nan])
  func valuesThatAreNotFiniteAreRefusedByPlace(method: Quantization.Method, value: Float) throws {
    var values = [Float](repeating: 0.1, count: 256)
    values[200] = value
    let error = #expect(throws: QuantizationError.self) {
      try quantize(values, [2, 128], WeightScheme(method: method))
    }
    #expect(error == .notFinite(element: 200, value: "\(value)"))
  }

  @Test func theSameHoldsForAScalePerTensorAndForDoubleQuantization() throws {
    var values = [Float](repeating: 0.1, count: 256)
    values[130] = .nan
    for scheme in [
      try WeightScheme(method: .absmax, granularity: .tensor), try WeightScheme(method: .nf4, doubleQuantization: true),
    ] {
      let error = #expect(throws: QuantizationError.self) { try quantize(values, [2, 128], scheme) }
      #expect(error == .notFinite(element: 130, value: "nan"))
    }
  }

  @Test func aScaleBeyondItsTypeIsRefused() throws {
    let values: [Float] = [1e9, -2e9, 3, 4]
    let error = #expect(throws: QuantizationError.self) {
      try quantize(values, [1, 4], WeightScheme(method: .absmax, scaleType: .f16))
    }
    #expect(error == .scaleOverflow(element: 0, scale: .infinity, type: .f16))
    let result = try quantize(values, [1, 4], WeightScheme(method: .absmax, scaleType: .bf16))
    #expect(abs(result.decoded[1] + 2e9) < 2e7)
  }

  @Test func theLastGroupOfARowMayBeShort() throws {
    var random = SplitMix64(seed: 1)
    let values = random.weights(3 * 100)
    let scheme = try WeightScheme(method: .zeroPoint, bits: 5, granularity: .group(48), scaleType: .f32)
    let result = try quantize(values, [3, 100], scheme)
    #expect(result.tile.scales.count == 9)
    #expect(result.tile.zeroPoints.count == 9)
    let grouping = scheme.encoding.grouping(of: [3, 100])
    #expect(grouping.elements(of: 2) == 96..<100)
    #expect(grouping.elements(of: 3) == 100..<148)
    #expect((0..<300).allSatisfy { grouping.elements(of: grouping.group(of: $0)).contains($0) })
  }

  @Test func schemesThatCannotBeAreRefused() {
    func error(_ make: () throws -> WeightScheme) -> SchemeError? {
      #expect(throws: SchemeError.self) { try make() }
    }
    #expect(error { try WeightScheme(method: .absmax, bits: 1) } == .bits(1, method: .absmax))
    #expect(error { try WeightScheme(method: .absmax, bits: 9) } == .bits(9, method: .absmax))
    #expect(error { try WeightScheme(method: .nf4, bits: 3) } == .bits(3, method: .nf4))
    #expect(error { try WeightScheme(method: .absmax, granularity: .group(0)) } == .groupSize(0))
    #expect(error { try WeightScheme(method: .nf4, granularity: .group(48)) } == .blockSize(48, method: .nf4))
    #expect(error { try WeightScheme(method: .fp4, granularity: .group(8192)) } == .blockSize(8192, method: .fp4))
    #expect(error { try WeightScheme(method: .nf4, granularity: .row) } == .needsBlocks(method: .nf4))
    #expect(error { try WeightScheme(method: .hqq, granularity: .tensor) } == .needsGroups(method: .hqq))
    #expect(error { try WeightScheme(method: .hqq, scaleSearch: .mse) } == .searchNotUsed(method: .hqq))
    #expect(
      error { try WeightScheme(method: .absmax, doubleQuantization: true) } == .doubleQuantization(method: .absmax))
    #expect(
      error { try WeightScheme(method: .nf4, scaleType: .f16, doubleQuantization: true) }
        == .doubleQuantizationScaleType)
    #expect(error { try WeightScheme(method: .nf4, scaleType: .f64) } == .scaleType(.f64))
    for error in [
      SchemeError.bits(9, method: .absmax), .groupSize(0), .blockSize(48, method: .nf4), .needsBlocks(method: .nf4),
      .needsGroups(method: .hqq), .searchNotUsed(method: .hqq), .doubleQuantization(method: .hqq),
      .doubleQuantizationScaleType, .scaleType(.f64),
    ] {
      #expect(!error.description.isEmpty && !error.description.contains("\n"))
    }
  }
}
