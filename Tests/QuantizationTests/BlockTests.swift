import Checkpoints
import Kernels
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Blocks of GGUF types against ggml and the gguf package; `Fixtures/generate/gguf_goldens.py` made the goldens.
@Suite struct BlockTests {
  static let searched: [BlockType] = [.iq4NL, .iq4XS, .q2K, .q3K, .q4K, .q5K, .q6K, .q40, .q41, .q50, .q51]
  static let reference: [BlockType] = [.q80, .q40, .q41, .q50, .q51, .mxfp4]
  static let blocks = BlockType.known.filter { !$0.isPlain }

  let goldens: Checkpoint
  let columns = 512

  init() throws { goldens = try Checkpoint(Fixtures.path("gguf/blocks.safetensors")) }

  private func golden(_ name: String) throws -> CheckpointTensor { try #require(goldens[name]) }

  private func encoded(_ values: [Float], _ type: BlockType, columns: Int, importance: [Float]? = nil) -> [UInt8] {
    var encoder = BlockEncoder(type)
    var bytes: [UInt8] = []
    #expect(encoder.encode(values.span, columns: columns, importance: importance, into: &bytes))
    return bytes
  }

  private func decoded(_ bytes: [UInt8], _ type: BlockType) -> [Float] {
    var values = [Float](repeating: 0, count: bytes.count / type.blockBytes * type.blockLength)
    decode(bytes, type, into: &values)
    return values
  }

  private func decode(_ bytes: [UInt8], _ type: BlockType, into values: inout [Float]) {
    var span = values.mutableSpan
    decodeBlocks(bytes.span, as: type, into: &span)
  }

  @Test(arguments: blocks) func anyBytesDecodeAsTheGGUFPackageDecodesThem(_ type: BlockType) throws {
    let found = decoded(try allBytes(golden("\(type.name).blocks")), type)
    let expected = try allValues(golden("\(type.name).decoded"))
    #expect(found.count == expected.count)
    for (index, pair) in zip(found, expected).enumerated() where pair.0 != pair.1 {
      Issue.record("\(type.name)[\(index)]: found \(pair.0), expected \(pair.1)")
      break
    }
  }

  /// Scales, offsets and codes give the values again.
  @Test(arguments: blocks) func blocksAreTakenApart(_ type: BlockType) throws {
    let bytes = try allBytes(golden("\(type.name).blocks"))
    let parts = type.parts(of: bytes.span)
    let groups = try #require(type.groups)
    let values = decoded(bytes, type)
    #expect(parts.codes.count == values.count && parts.scales.count == values.count / groups.length)
    #expect(parts.offsets.isEmpty == ![.q41, .q51, .q2K, .q4K, .q5K].contains(type))
    for (index, value) in values.enumerated() {
      let group = index / groups.length
      let offset = parts.offsets.isEmpty ? 0 : parts.offsets[group]
      let found = parts.scales[group] * groups.levels[Int(parts.codes[index])] + offset
      guard found != value, !(found.isNaN && value.isNaN) else { continue }
      Issue.record("\(type.name)[\(index)]: \(found) from its parts, but decoded \(value)")
      break
    }
  }

  @Test(arguments: reference) func withoutImportanceTheBytesAreThoseOfGGML(_ type: BlockType) throws {
    let values = try allValues(golden("values"))
    #expect(encoded(values, type, columns: columns) == (try allBytes(golden("\(type.name).bytes"))))
  }

  @Test(arguments: searched, [false, true])
  func theWeightedErrorIsNoLargerThanGGMLs(_ type: BlockType, isImportant: Bool) throws {
    let peer = try Fixtures.json("gguf/errors.json")[type.name]?[isImportant ? "important" : "plain"]?.double
    guard let peer else { return #expect(Self.reference.contains(type) && !isImportant) }
    let values = try allValues(golden("values"))
    let importance = isImportant ? try allValues(golden("importance")) : nil
    let found = decoded(encoded(values, type, columns: columns, importance: importance), type)
    let weights = weights(type, values, importance)
    let error = values.indices.reduce(0.0) { sum, index in
      let difference = Double(found[index]) - Double(values[index])
      return sum + weights[index] * difference * difference
    }
    #expect(error <= peer, "\(type.name): \(error / peer) of ggml's")
    // A search that finds hardly anything would be a decoder that knows the answer.
    #expect(error > peer * 0.5)
  }

  /// In double precision, by the definitions in the generator.
  private func weights(_ type: BlockType, _ values: [Float], _ importance: [Float]?) -> [Double] {
    let squares = values.map { Double($0) * Double($0) }
    func mean(_ index: Int, _ length: Int) -> Double {
      let start = index / length * length
      return squares[start..<(start + length)].reduce(0, +) / Double(length)
    }
    return values.indices.map { index in
      let square = squares[index]
      guard let importance else {
        switch type {
        case .q4K, .q5K: return mean(index, 32).squareRoot() + abs(Double(values[index]))
        case .q2K: return abs(Double(values[index]))
        default: return square
        }
      }
      let own = Double(importance[index % columns])
      switch type {
      case .q6K: return own
      case .q3K, .q4K, .q5K, .iq4XS: return own * (2 * mean(index, 256) + square).squareRoot()
      case .q2K: return own * (mean(index, 256) + square).squareRoot()
      case .iq4NL: return own * (2 * mean(index, 32) + square).squareRoot()
      default: return own * (mean(index, columns) + square).squareRoot()
      }
    }
  }

  @Test(arguments: blocks, [false, true]) func rowsAreEncodedEachAlone(_ type: BlockType, isImportant: Bool) throws {
    let values = try allValues(golden("values"))
    let importance = isImportant ? try allValues(golden("importance")) : nil
    let together = encoded(values, type, columns: columns, importance: importance)
    let apart = stride(from: 0, to: values.count, by: columns).flatMap { start in
      encoded(Array(values[start..<(start + columns)]), type, columns: columns, importance: importance)
    }
    #expect(together == apart)
  }

  @Test(arguments: blocks) func zerosStayZeros(_ type: BlockType) {
    let values = [Float](repeating: 0, count: 512)
    #expect(decoded(encoded(values, type, columns: 256), type) == values)
  }

  @Test(arguments: blocks) func importanceOfOneCellDrawsTheErrorAway(_ type: BlockType) throws {
    guard ![.q80, .mxfp4].contains(type) else { return }
    let values = Array(try allValues(golden("values"))[..<columns])
    var importance = [Float](repeating: 1e-6, count: columns)
    importance[7] = 1
    let plain = decoded(encoded(values, type, columns: columns), type)
    let weighed = decoded(encoded(values, type, columns: columns, importance: importance), type)
    // As near as a scale of eight bits or fewer can put it; without importance it may be near by luck.
    #expect(abs(weighed[7] - values[7]) <= max(abs(plain[7] - values[7]) + 1e-6, abs(values[7]) / 100))
  }

  @Test(arguments: blocks) func aScaleBeyondBinary16IsReported(_ type: BlockType) {
    guard type != .mxfp4 else { return }
    var encoder = BlockEncoder(type)
    var bytes: [UInt8] = []
    let values = (0..<256).map { Float($0) * 1e32 }
    #expect(!encoder.encode(values.span, columns: 256, importance: nil, into: &bytes))
  }

  @Test func aRampOfEighthsGivesTheKnownBytes() {
    // Worked out from the rules of the format.
    let ramp = (0..<32).map { (Float($0) - 16) / 8 }
    func hexadecimal(_ type: BlockType) -> String {
      encoded(ramp, type, columns: 32).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
    #expect(hexadecimal(.q40) == "0034809191a2a2b3b3c4c4d5d5e6e6f7f7f8")
    #expect(hexadecimal(.q50) == "00300000ffff00112233445566778899aabbccddeeff")
    #expect(hexadecimal(.q80) == "082481899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f77")
    #expect(hexadecimal(.mxfp4) == "7e0e0e1d1d2d2d3c3c4c4b4b5a5a595960")
  }
}
