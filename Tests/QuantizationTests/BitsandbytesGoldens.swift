import Checkpoints
import Crypto
import Foundation
import Kernels
import OrderedCollections
import Quantization
import TestSupport
import Testing

/// Codes and scales of NF4 and FP4 equal those of bitsandbytes 0.50.2 on the same tensors, to the bit.
/// `Fixtures/generate/bitsandbytes_goldens.py` made the expected values.
@Suite struct BitsandbytesGoldens {
  private let goldens: Checkpoint
  private let model: Checkpoint

  init() throws {
    goldens = try Checkpoint(Fixtures.path("goldens/bitsandbytes/goldens.safetensors"))
    model = try Checkpoint(Fixtures.path("tiny-llama"))
  }

  static var cases: [JSONValue] {
    get throws { try #require(try Fixtures.json("goldens/bitsandbytes/cases.json").array) }
  }

  @Test(arguments: try cases)
  func equal(golden: JSONValue) throws {
    let name = try #require(golden["case"]?.string)
    let shape = try #require(golden["shape"]?.array?.compactMap { $0.integer })
    let source = golden["tensor"]?.string.flatMap { model[$0] } ?? golden["input"]?.string.flatMap { goldens[$0] }
    let values = try allValues(try #require(source))
    let blockSize = try #require(golden["blocksize"]?.integer)
    let scheme = try WeightScheme(
      method: try #require(golden["quant_type"]?.string.flatMap(Quantization.Method.init(rawValue:))),
      granularity: .group(blockSize), doubleQuantization: golden["double_quantization"] == true)
    let (tile, decoded, facts) = try quantize(values, shape, scheme)

    // bitsandbytes puts the first of two codes into the high half of a byte.
    let expected = try allBytes(try #require(goldens["\(name).codes"])).flatMap { [$0 >> 4, $0 & 15] }
    #expect(Array(expected.prefix(values.count)) == tile.codes)
    let absmax = try #require(goldens["\(name).absmax"])
    if scheme.doubleQuantization {
      #expect(try allBytes(absmax) == tile.scaleCodes)
      #expect(try allValues(try #require(goldens["\(name).nested_absmax"])) == tile.blockScales)
      #expect(try allValues(try #require(goldens["\(name).nested_offset"])) == [facts.scaleMean])
    } else {
      #expect(try allValues(absmax) == tile.scales)
    }
    if let dequantized = goldens["\(name).dequantized"] { #expect(try allValues(dequantized) == decoded) }
  }

  @Test func tablesAreEqual() throws {
    #expect(try allValues(try #require(goldens["nf4_levels"])) == NormalFloat.levels)
    #expect(try allValues(try #require(goldens["fp4_levels"])) == FourBitFloat.levels)
    #expect(try allValues(try #require(goldens["nested_quant_map"])) == DoubleQuantization.levels)
  }

  /// The same over every linear of a trained 5 M model, by hash.
  @Test(.enabled(if: Fixtures.shared("models/stories5M") != nil, "needs ../shared/models/stories5M"))
  func equalOnStories5M() throws {
    let model = try Checkpoint(try #require(Fixtures.shared("models/stories5M")))
    let tensors = try #require(try Fixtures.json("goldens/bitsandbytes/stories5M.json")["tensors"]?.object)
    #expect(tensors.count == 28)
    for (name, golden) in tensors {
      let tensor = try #require(model[name])
      let values = try allValues(tensor)
      let plain = try quantize(values, tensor.entry.shape, WeightScheme(method: .nf4)).tile
      let (nested, _, facts) = try quantize(
        values, tensor.entry.shape, WeightScheme(method: .nf4, doubleQuantization: true))
      let packed = stride(from: 0, to: values.count, by: 2).map { plain.codes[$0] << 4 | plain.codes[$0 + 1] }
      #expect(hash(packed) == golden["codes_sha256"]?.string, "\(name)")
      #expect(hash(plain.scales) == golden["absmax_sha256"]?.string, "\(name)")
      #expect(nested.codes == plain.codes, "\(name)")
      #expect(hash(nested.scaleCodes) == golden["double_absmax_sha256"]?.string, "\(name)")
      #expect(hash(nested.blockScales) == golden["nested_absmax_sha256"]?.string, "\(name)")
      #expect(facts.scaleMean == golden["nested_offset"]?.double.map { Float($0) }, "\(name)")
    }
  }

  private func hash(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined()
  }

  private func hash(_ values: [Float]) -> String {
    var bytes: [UInt8] = []
    let count = encodeElements(values, as: .f32, into: &bytes)
    return hash(Array(bytes.prefix(count)))
  }
}
