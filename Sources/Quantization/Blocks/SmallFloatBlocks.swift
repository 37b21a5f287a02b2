import Kernels

/// IQ4_NL: blocks of 32 with a binary16 scale d and 16 bytes of nibbles (low ones values 0…15, high ones 16…31); codes
/// stand for sixteen levels that lie denser around zero, x = d · level.
struct CurvedBlocks: BlockFormat {
  let groupLength = 32
  let groupsPerBlock = 1
  let weighting = BlockWeighting(plain: .square, important: .block(factor: 2))

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let scale = halves(ScaleBlockFit.curved.fit(lanes).scale)
    lanes.codes(scale: scale, .curved, into: &codes)
    for block in 0..<blocks {
      target.append(half: scale[block])
      target.append(nibbles: codes, from: block * 32, distance: 16, count: 16)
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    let scale = block.half(0)
    for index in 0..<16 {
      let byte = block[2 + index]
      values[start + index] = scale * BlockLevels.curve[Int(byte & 15)]
      values[start + index + 16] = scale * BlockLevels.curve[Int(byte >> 4)]
    }
  }

  var levels: [Float] { BlockLevels.curve }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) { (block.half(0), nil) }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 { block.nibble(place, after: 2) }
}

extension ScaleBlockFit {
  /// The largest magnitude lies at the outermost levels, −127 and 113, or about.
  static let curved = ScaleBlockFit(
    levels: .curved, starts: (-3...4).map { -127 + 2 * Float($0) } + [106, 110, 113, 116])
}

/// MXFP4 of the OCP microscaling formats: blocks of 32 FP4 codes (E2M1) and a scale that is a power of two, a byte e for
/// 2^(e − 127); bytes as in IQ4_NL with one byte of scale.
///
/// The exponent is that of the largest magnitude less 2, the exponent of FP4's largest numbers, as ggml chooses it.
struct MicroscalingBlocks: BlockFormat {
  let groupLength = 32
  let groupsPerBlock = 1
  let weighting = BlockWeighting(plain: .none, important: .ignored)

  private static let levels: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    var exponents = [Int](repeating: 0, count: GroupLanes.count)
    var (first, second) = (Floats(), Floats())
    for lane in 0..<GroupLanes.count {
      let magnitude = abs(lanes.extreme[lane])
      exponents[lane] = magnitude > 0 ? min(max(Int(magnitude.exponent) - 2 + 127, 0), 254) : 0
      // 2^(128 − e) brings half the scale to 1; halved, since 2^128 is no float.
      let power = 128 - exponents[lane]
      first[lane] = Float(sign: .plus, exponent: power / 2, significand: 1)
      second[lane] = Float(sign: .plus, exponent: power - power / 2, significand: 1)
    }
    lanes.smallFloatCodes(first, times: second, into: &codes)
    for block in 0..<blocks {
      target.append(UInt8(exponents[block]))
      target.append(nibbles: codes, from: block * 32, distance: 16, count: 16)
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    let scale = parameters(block, 0).scale
    for index in 0..<16 {
      let byte = block[1 + index]
      values[start + index] = scale * Self.levels[Int(byte & 15)]
      values[start + index + 16] = scale * Self.levels[Int(byte >> 4)]
    }
  }

  var levels: [Float] { Self.levels }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) {
    // A byte of all ones stands for NaN.
    (block[0] == 255 ? .nan : Float(sign: .plus, exponent: Int(block[0]) - 127, significand: 1), nil)
  }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 { block.nibble(place, after: 1) }
}

extension Span where Element == UInt8 {
  /// One of 32 codes: the low nibbles of sixteen bytes, then the high ones.
  fileprivate func nibble(_ place: Int, after start: Int) -> UInt8 {
    let byte = self[start + place % 16]
    return place < 16 ? byte & 15 : byte >> 4
  }
}
