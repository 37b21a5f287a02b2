import Checkpoints
import Crypto
import Foundation
import Kernels
import Quantization
import TestSupport
import Testing

/// The examples that papers and tutorials calculate by hand.
@Suite struct WorkedExamples {
  @Test func absmaxInt8() throws {
    let scheme = try WeightScheme(method: .absmax, bits: 8, granularity: .row, scaleType: .f32)
    let result = try quantize([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4], [1, 8], scheme)
    #expect(result.tile.codes.map { Int($0) - 128 } == [28, -12, -101, 28, -73, 19, 56, 127])
    #expect(result.tile.scales == [5.4 / 127])
    #expect(abs(1 / result.tile.scales[0] - 127 / 5.4) < 1e-4)
  }

  @Test func int4SpansMinus8To7() throws {
    let encoding = try WeightScheme(method: .absmax, bits: 4).encoding
    #expect(0 - encoding.middle == -8)
    #expect(Float(encoding.highestCode) - encoding.middle == 7)
    // A range half as wide as the values shows both ends.
    let range = AffineRange(scale: 1, zeroPoint: encoding.middle, highestCode: encoding.highestCode)
    #expect([-20, -8, 0, 7, 20].map { range.value(of: range.code(of: $0)) } == [-8, -8, 0, 7, 7])
  }

  /// QLoRA, appendix E: levels are normal quantiles at evenly spaced probabilities, eight below zero and seven above.
  @Test func nf4LevelsFollowFromNormalQuantiles() {
    let outermost = 0.9677083333333333  // the mean of 1 − 1/(2·15) and 1 − 1/(2·16)
    let positive = (0..<8).map { inverseNormal(outermost + (0.5 - outermost) * Double($0) / 8) }
    let negative = (0..<7).map { -inverseNormal(outermost + (0.5 - outermost) * Double($0) / 7) }
    let largest = positive[0]
    let levels = (positive.map { $0 / largest } + [0] + negative.map { $0 / largest }).sorted()
    #expect(levels.count == 16)
    for (derived, published) in zip(levels, NormalFloat.levels) { #expect(abs(derived - Double(published)) < 1e-6) }
  }

  @Test func theDynamicTypeIsThePublishedOne() {
    let levels = DoubleQuantization.levels
    #expect(levels.count == 256)
    #expect(levels == levels.sorted())
    #expect(levels[127] == 0 && levels[255] == 1 && !levels.contains(-1))
    var bytes: [UInt8] = []
    let count = encodeElements(levels, as: .f32, into: &bytes)
    let digest = SHA256.hash(data: bytes.prefix(count)).map { String(format: "%02x", $0) }.joined()
    #expect(digest.hasPrefix("e732639a65f497b4"))
  }

  /// The quantile function of the standard normal distribution, by bisection of `erfc`.
  private func inverseNormal(_ probability: Double) -> Double {
    var (low, high) = (-10.0, 10.0)
    for _ in 0..<200 {
      let middle = (low + high) / 2
      if erfc(-middle / 2.squareRoot()) / 2 < probability { low = middle } else { high = middle }
    }
    return (low + high) / 2
  }
}

/// A whole tensor quantized as one tile, and decoded by the definition.
func quantize(
  _ values: [Float], _ shape: [Int], _ scheme: WeightScheme
) throws -> (tile: QuantizedTile, decoded: [Float], facts: TensorFacts) {
  let quantizer = TileQuantizer(scheme: scheme, shape: shape)
  var facts = TensorFacts()
  for scan in quantizer.scans {
    facts = try quantizer.facts(from: [quantizer.scan(scan, values.span, first: 0, facts: facts)], after: facts)
  }
  var tile = QuantizedTile()
  try quantizer.quantize(values.span, first: 0, facts: facts, into: &tile)
  return (tile, decode(tile, quantizer), facts)
}

/// What codes, scales and zero points mean, written out.
func decode(_ tile: QuantizedTile, _ quantizer: TileQuantizer) -> [Float] {
  tile.codes.indices.map { element in
    let group = quantizer.grouping.group(of: element)
    switch quantizer.encoding.levels {
    case .affine(let kind):
      let zeroPoint = kind == .middle ? quantizer.encoding.middle : tile.zeroPoints[group]
      return tile.scales[group] * (Float(tile.codes[element]) - zeroPoint)
    case .codebook(let name): return name.codebook.levels[Int(tile.codes[element])] * tile.scales[group]
    }
  }
}

func squaredError(_ a: [Float], _ b: [Float]) -> Double {
  zip(a, b).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
}
