import Kernels
import Quantization
import TestSupport
import Testing

@Suite struct MethodLaws {
  static let affine: [(Quantization.Method, Int, Granularity)] = [Quantization.Method.absmax, .zeroPoint, .hqq].flatMap
  { method in
    (2...8).flatMap { bits in
      [Granularity.row, .group(48), .group(64)].map { (method, bits, $0) }
    }
  }

  /// No value inside its group's range is further from its weight than half a step; none outside but for rounding.
  @Test(arguments: [Quantization.Method.absmax, .zeroPoint], [2, 3, 4, 5, 6, 7, 8])
  func errorsStayWithinHalfAStep(method: Quantization.Method, bits: Int) throws {
    var random = SplitMix64(seed: UInt64(bits))
    let values = random.weights(10 * 100)
    for type in [ElementType.f32, .f16, .bf16] {
      for granularity in [Granularity.tensor, .row, .group(48)] {
        let scheme = try WeightScheme(method: method, bits: bits, granularity: granularity, scaleType: type)
        let result = try quantize(values, [10, 100], scheme)
        let quantizer = TileQuantizer(scheme: scheme, shape: [10, 100])
        // A scale rounded down, or a zero point rounded, moves the ends of the range by that much.
        let slack: Float = type == .f32 ? 0.501 : type == .f16 ? 0.57 : 1.01
        for element in values.indices {
          let scale = result.tile.scales[quantizer.grouping.group(of: element)]
          let limit = method == .absmax ? slack : slack + 0.5
          #expect(abs(result.decoded[element] - values[element]) <= scale * limit)
        }
      }
    }
  }

  @Test(arguments: affine.indices)
  func quantizingDecodedValuesChangesNothing(row: Int) throws {
    let (method, bits, granularity) = Self.affine[row]
    guard method != .hqq else { return }
    var random = SplitMix64(seed: 2)
    let values = random.weights(6 * 192)
    let scheme = try WeightScheme(method: method, bits: bits, granularity: granularity, scaleType: .f32)
    let once = try quantize(values, [6, 192], scheme)
    let twice = try quantize(once.decoded, [6, 192], scheme)
    #expect(zip(once.decoded, twice.decoded).allSatisfy { abs($0 - $1) <= 1e-5 * abs($0) + 1e-9 })
  }

  /// Scaling the weights by a power of two scales the scales, and changes no code.
  @Test(arguments: EdgeCases.methods)
  func powersOfTwoChangeNoCode(method: Quantization.Method) throws {
    var random = SplitMix64(seed: 3)
    let values = random.weights(8 * 128)
    for search in [ScaleSearch.none, .mse] where method != .hqq || search == .none {
      let scheme = try WeightScheme(method: method, bits: 4, scaleType: .f32, scaleSearch: search)
      let one = try quantize(values, [8, 128], scheme)
      let other = try quantize(values.map { $0 * 64 }, [8, 128], scheme)
      #expect(one.tile.codes == other.tile.codes)
      #expect(one.tile.scales.map { $0 * 64 } == other.tile.scales)
      #expect(one.tile.zeroPoints == other.tile.zeroPoints)
    }
  }

  @Test(arguments: [Quantization.Method.absmax, .zeroPoint, .nf4, .fp4], [2, 3, 4, 8])
  func searchedRangesAreNeverWorse(method: Quantization.Method, bits: Int) throws {
    guard !method.isCodebook || bits == 4 else { return }
    var random = SplitMix64(seed: UInt64(bits))
    var values = random.weights(16 * 128)
    values[77] = 0.5  // an outlier, which clipping gives up
    let granularities: [Granularity] = method.isCodebook ? [.group(64)] : [.tensor, .row, .group(64)]
    for granularity in granularities {
      for type in [ElementType.f32, .f16, .bf16] {
        func error(_ search: ScaleSearch) throws -> Double {
          let scheme = try WeightScheme(
            method: method, bits: bits, granularity: granularity, scaleType: type, scaleSearch: search)
          return squaredError(try quantize(values, [16, 128], scheme).decoded, values)
        }
        let plain = try error(.none)
        let searched = try error(.mse)
        #expect(searched <= plain * (1 + 1e-6))
        if bits <= 3, granularity != .tensor { #expect(searched < 0.95 * plain) }
      }
    }
  }

  /// HQQ lowers the lp norm that it minimizes, and a zero point of its own is better than a rounded one.
  @Test(arguments: [2, 3, 4])
  func halfQuadraticLowersItsNorm(bits: Int) throws {
    var random = SplitMix64(seed: UInt64(bits))
    let values = random.weights(64 * 64)
    func norm(_ method: Quantization.Method) throws -> Double {
      let scheme = try WeightScheme(method: method, bits: bits, granularity: .group(64), scaleType: .f32)
      let decoded = try quantize(values, [64, 64], scheme).decoded
      return zip(decoded, values).reduce(0) { $0 + Double(abs($1.0 - $1.1)).squareRoot() }
    }
    #expect(try norm(.hqq) < norm(.zeroPoint))
  }

  /// Tiles are independent: cutting a tensor differently gives the same codes.
  @Test(arguments: [Quantization.Method.absmax, .zeroPoint, .nf4, .hqq])
  func tilesDoNotChangeTheAnswer(method: Quantization.Method) throws {
    var random = SplitMix64(seed: 5)
    let values = random.weights(32 * 128)
    let quantizer = TileQuantizer(scheme: try WeightScheme(method: method), shape: [32, 128])
    let whole = try quantize(values, [32, 128], quantizer.scheme)
    var (codes, scales, zeroPoints): ([UInt8], [Float], [Float]) = ([], [], [])
    for start in stride(from: 0, to: values.count, by: 1024) {
      var tile = QuantizedTile()
      try quantizer.quantize(
        values.span.extracting(start..<(start + 1024)), first: start, facts: TensorFacts(), into: &tile)
      codes += tile.codes
      scales += tile.scales
      zeroPoints += tile.zeroPoints
    }
    #expect(codes == whole.tile.codes)
    #expect(scales == whole.tile.scales)
    #expect(zeroPoints == whole.tile.zeroPoints)
  }

  /// Weights taken as they are stored give what their decoded values give.
  @Test(arguments: EdgeCases.methods, [ElementType.bf16, .f32, .f16])
  func storedWeightsGiveWhatTheirValuesGive(method: Quantization.Method, type: ElementType) throws {
    var random = SplitMix64(seed: 8)
    let (bytes, values) = random.storedWeights(16 * 150, as: type)
    let schemes = try [Granularity.group(64), .row, .tensor].compactMap { granularity -> WeightScheme? in
      guard granularity == .group(64) || method == .absmax else { return nil }
      return try WeightScheme(method: method, granularity: granularity)
    }
    for scheme in schemes {
      let expected = try quantize(values, [16, 150], scheme)
      var tile = QuantizedTile()
      try TileQuantizer(scheme: scheme, shape: [16, 150])
        .quantize(bytes.span.bytes, as: type, first: 0, facts: expected.facts, into: &tile)
      #expect(tile.codes == expected.tile.codes)
      #expect(tile.scales == expected.tile.scales)
      #expect(tile.zeroPoints == expected.tile.zeroPoints)
    }
  }

  @Test func aStoredWeightThatIsNotFiniteIsNamed() throws {
    var values = [Float](repeating: 1, count: 256)
    values[200] = .infinity
    var bytes: [UInt8] = []
    _ = encodeElements(values, as: .bf16, into: &bytes)
    let quantizer = TileQuantizer(scheme: try WeightScheme(method: .nf4), shape: [2, 128])
    var tile = QuantizedTile()
    #expect(throws: QuantizationError.notFinite(element: 200, value: "inf")) {
      try quantizer.quantize(bytes.span.bytes, as: .bf16, first: 0, facts: TensorFacts(), into: &tile)
    }
  }
}
