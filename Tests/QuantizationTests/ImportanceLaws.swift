import Kernels
import Quantization
import TestSupport
import Testing

/// The scale search weighted by E[x²] of each column.
@Suite struct ImportanceLaws {
  static let importance: [Float] = (0..<128).map { $0 % 9 == 0 ? 40 : 0.1 + Float($0 % 5) }

  static func decoded(_ values: [Float], _ scheme: WeightScheme, importance: [Float]?) throws -> [Float] {
    let quantizer = TileQuantizer(scheme: scheme, shape: [16, 128], importance: importance)
    var facts = TensorFacts()
    for scan in quantizer.scans {
      facts = try quantizer.facts(from: [quantizer.scan(scan, values.span, first: 0, facts: facts)], after: facts)
    }
    var tile = QuantizedTile()
    try quantizer.quantize(values.span, first: 0, facts: facts, into: &tile)
    return values.indices.map { element in
      if let range = facts.range { return range.value(of: tile.codes[element]) }
      let group = quantizer.grouping.group(of: element)
      let scale = tile.scales[group]
      switch quantizer.encoding.levels {
      case .codebook(let name): return name.codebook.levels[Int(tile.codes[element])] * scale
      case .affine:
        let zeroPoint = tile.zeroPoints.isEmpty ? quantizer.encoding.middle : tile.zeroPoints[group]
        return scale * (Float(tile.codes[element]) - zeroPoint)
      }
    }
  }

  @Test(arguments: [Quantization.Method.absmax, .zeroPoint, .nf4, .fp4], [2, 3, 4, 8])
  func lowersTheWeightedError(method: Quantization.Method, bits: Int) throws {
    guard !method.isCodebook || bits == 4 else { return }
    var random = SplitMix64(seed: UInt64(bits))
    let values = random.weights(16 * 128)
    for granularity in method.isCodebook ? [Granularity.group(64)] : [.group(48), .row, .tensor] {
      let scheme = try WeightScheme(method: method, bits: bits, granularity: granularity, scaleSearch: .mse)
      let unsearched = try WeightScheme(method: method, bits: bits, granularity: granularity)
      func error(_ decoded: [Float]) -> Double {
        values.indices.reduce(0) {
          let difference = Double(decoded[$1]) - Double(values[$1])
          return $0 + Double(Self.importance[$1 % 128]) * difference * difference
        }
      }
      let weighted = error(try Self.decoded(values, scheme, importance: Self.importance))
      let plain = error(try Self.decoded(values, scheme, importance: nil))
      let none = error(try Self.decoded(values, unsearched, importance: Self.importance))
      #expect(weighted <= none * (1 + 1e-6))
      if granularity == .tensor {
        #expect(weighted <= plain * (1 + 1e-6))
      } else {
        #expect(weighted < 0.99 * plain)
      }
    }
  }

  @Test(arguments: [Quantization.Method.absmax, .zeroPoint, .nf4])
  func equalImportanceChangesNothing(method: Quantization.Method) throws {
    var random = SplitMix64(seed: 1)
    let values = random.weights(16 * 128)
    let scheme = try WeightScheme(method: method, bits: 4, scaleSearch: .mse)
    let weighted = try Self.decoded(values, scheme, importance: [Float](repeating: 8, count: 128))
    #expect(try weighted == Self.decoded(values, scheme, importance: nil))
  }

  /// The vector loop against plain sums in double precision.
  @Test func weightedSumsAgreeWithPlainOnes() {
    var random = SplitMix64(seed: 2)
    for count in [1, 15, 16, 100, 2000] {
      let values = random.weights(count)
      let weights = random.weights(count, scale: 1).map(abs)
      let range = AffineRange(scale: 0.007, zeroPoint: 5, highestCode: 15)
      var fit = AffineFit()
      fit.add(values.span, importance: weights.span, range)
      var expected = (0.0, 0.0, 0.0)
      for index in 0..<count {
        let step = Double(range.code(of: values[index])) - 5
        let (w, h) = (Double(values[index]), Double(weights[index]))
        expected.0 += h * (w - step * Double(range.scale)) * (w - step * Double(range.scale))
        expected.1 += h * w * step
        expected.2 += h * step * step
      }
      #expect(abs(fit.squaredError - expected.0) <= 1e-5 * expected.0)
      #expect(abs(fit.product - expected.1) <= 1e-5 * abs(expected.1) + 1e-12)
      #expect(abs(fit.codeSquares - expected.2) <= 1e-5 * expected.2)
    }
  }
}
