import Kernels

// Blocks of 32 values with one binary16 scale d, the oldest types. Without importance, the codes are those of ggml's
// reference: made with the scale before it is rounded. Bytes of a block:
//
//   Q8_0  d · 32 signed bytes                                x = d·q
//   Q4_0  d · 16 bytes of nibbles                            x = d·(q − 8)
//   Q4_1  d m · 16 bytes of nibbles                          x = d·q + m
//   Q5_0  d · 4 bytes of fifth bits · 16 bytes of nibbles    x = d·(q − 16)
//   Q5_1  d m · 4 bytes of fifth bits · 16 bytes of nibbles  x = d·q + m
//
// The low nibbles are values 0…15, the high ones 16…31; fifth bit i belongs to value i.

struct SignedByteBlocks: BlockFormat {
  let groupLength = 32
  let groupsPerBlock = 1
  let weighting = BlockWeighting(plain: .none, important: .ignored)

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let scale = lanes.extreme.magnitudes / 127
    lanes.roundedCodes(inverse: GroupLanes.reciprocal(scale), into: &codes)
    for block in 0..<blocks {
      target.append(half: scale[block])
      target.append(codes, from: block * 32, count: 32)
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    let scale = block.half(0)
    for index in 0..<32 { values[start + index] = scale * Float(Int8(bitPattern: block[2 + index])) }
  }

  /// Codes in offset binary.
  var levels: [Float] { (0..<256).map { Float($0) - 128 } }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) { (block.half(0), nil) }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 { block[2 + place] ^ 0x80 }
}

/// Q4_0 and Q5_0: codes around the middle one, which stands for zero.
struct CentredBlocks: BlockFormat {
  let bits: Int
  let groupLength = 32
  let groupsPerBlock = 1
  let weighting = BlockWeighting(plain: .none, important: .row)

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let middle = Float(1 << (bits - 1))
    var scale: Floats
    if target.isImportant {
      let levels = BlockLevels.uniform(-middle, middle - 1)
      let starts = (-9...9).map { -(middle + 0.1 * Float($0)) }
      scale = ScaleBlockFit(levels: levels, starts: starts + [middle - 0.5, middle - 1]).fit(lanes).scale
      scale = halves(scale)
      lanes.codes(scale: scale, levels, into: &codes)
    } else {
      scale = lanes.extreme / -middle
      lanes.truncatedCodes(
        low: Floats(), inverse: GroupLanes.reciprocal(scale), shift: middle + 0.5, highest: 2 * middle - 1, into: &codes
      )
    }
    for block in 0..<blocks {
      target.append(half: scale[block])
      target.append(codes, from: block * 32, bits: bits)
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    let scale = block.half(0)
    let middle = 1 << (bits - 1)
    for index in 0..<32 { values[start + index] = scale * Float(block.code(index, after: 2, bits: bits) - middle) }
  }

  var levels: [Float] { (0..<(1 << bits)).map { Float($0 - (1 << (bits - 1))) } }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) { (block.half(0), nil) }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 { UInt8(block.code(place, after: 2, bits: bits)) }
}

/// Q4_1 and Q5_1: codes from the smallest value up.
struct OffsetBlocks: BlockFormat {
  let bits: Int
  let groupLength = 32
  let groupsPerBlock = 1
  let weighting = BlockWeighting(plain: .none, important: .row)

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let highest = Float(1 << bits) - 1
    var scale: Floats
    var low: Floats
    if target.isImportant {
      let fit = AffineBlockFit(
        highest: highest, lowIsNegative: false, offsets: (-9...9).map { 0.1 * Float($0) }
      ).fit(lanes)
      (scale, low) = (halves(fit.scale), halves(fit.low))
      lanes.affineCodes(scale: scale, low: low, highest: highest, into: &codes)
    } else {
      low = lanes.least
      scale = (lanes.greatest - low) / highest
      lanes.truncatedCodes(
        low: low, inverse: GroupLanes.reciprocal(scale), shift: 0.5, highest: highest, into: &codes)
    }
    for block in 0..<blocks {
      target.append(half: scale[block])
      target.append(half: low[block])
      target.append(codes, from: block * 32, bits: bits)
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    let (scale, low) = (block.half(0), block.half(2))
    for index in 0..<32 { values[start + index] = scale * Float(block.code(index, after: 4, bits: bits)) + low }
  }

  var levels: [Float] { (0..<(1 << bits)).map { Float($0) } }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) {
    (block.half(0), block.half(2))
  }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 { UInt8(block.code(place, after: 4, bits: bits)) }
}

extension BlockBytes {
  /// 32 codes of four or five bits.
  fileprivate mutating func append(_ codes: [UInt8], from start: Int, bits: Int) {
    if bits == 5 {
      var high: UInt32 = 0
      for index in 0..<32 { high |= UInt32(codes[start + index] >> 4) << UInt32(index) }
      for byte in 0..<4 { append(UInt8(truncatingIfNeeded: high >> UInt32(byte * 8))) }
    }
    append(nibbles: codes, from: start, distance: 16, count: 16)
  }
}

extension Span where Element == UInt8 {
  fileprivate func code(_ index: Int, after start: Int, bits: Int) -> Int {
    let nibbles = self[start + (bits == 5 ? 4 : 0) + index % 16]
    let low = index < 16 ? nibbles & 15 : nibbles >> 4
    guard bits == 5 else { return Int(low) }
    return Int(low) | Int(self[start + index / 8] >> UInt8(index % 8) & 1) << 4
  }
}

extension SIMD16 where Scalar == Float {
  var magnitudes: Floats { replacing(with: 0 - self, where: self .< 0) }
}
