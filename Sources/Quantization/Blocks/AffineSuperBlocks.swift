import Kernels

/// Q2_K, Q4_K and Q5_K: blocks of 256 values in groups, x = d·s·q − m·l with binary16 d and m of the block and whole
/// numbers s and l of the group. Bytes of a block:
///
///     Q2_K  16 × (s | l << 4), groups of 16 · 64 bytes of two-bit codes · d m
///     Q4_K  d m · 12 bytes of six-bit s and l, groups of 32 · 128 bytes of nibbles
///     Q5_K  d m · 12 bytes of the same · 32 bytes of fifth bits · 128 bytes of nibbles
///
/// Two-bit codes: byte 32·h + i of half h holds values 128·h + i + 32·p at bits 2·p. Nibbles: byte 32·c + i of quarter c
/// holds value 64·c + i low and 64·c + 32 + i high. Fifth bits: bit b of byte i belongs to value 32·b + i.
struct AffineSuperBlocks: BlockFormat {
  let bits: Int
  let groupLength: Int
  let weighting: BlockWeighting
  /// Offsets of the starts of a group's search (see `AffineBlockFit`).
  let offsets: [Float]
  let tops: [Float]

  var groupsPerBlock: Int { 256 / groupLength }
  private var highest: Float { Float(1 << bits) - 1 }
  private var limit: Float { bits == 2 ? 15 : 63 }

  static let twoBits = AffineSuperBlocks(
    bits: 2, groupLength: 16, weighting: BlockWeighting(plain: .magnitude, important: .block(factor: 1)),
    offsets: (-6...4).map { 0.15 * Float($0) }, tops: [15, 14])
  static let fourBits = AffineSuperBlocks(
    bits: 4, groupLength: 32, weighting: BlockWeighting(plain: .magnitudeAndMean, important: .block(factor: 2)),
    offsets: (-5...4).map { 0.35 * Float($0) }, tops: [63])
  static let fiveBits = AffineSuperBlocks(
    bits: 5, groupLength: 32, weighting: BlockWeighting(plain: .magnitudeAndMean, important: .block(factor: 2)),
    offsets: (-4...4).map { 0.45 * Float($0) }, tops: [63])

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let groups = AffineBlockFit(highest: highest, lowIsNegative: true, offsets: offsets).fit(lanes)
    let fit = AffineSuperBlockFit(groups: groupsPerBlock, highest: highest, limit: limit, tops: tops).fit(lanes, groups)
    lanes.affineCodes(scale: fit.scales, low: fit.lows, highest: highest, into: &codes)
    for block in 0..<blocks {
      let lane = block * groupsPerBlock
      let scales = (0..<groupsPerBlock).map { UInt8(fit.scale[lane + $0]) }
      let lows = (0..<groupsPerBlock).map { UInt8(fit.low[lane + $0]) }
      let start = block * 256
      if bits == 2 {
        for group in 0..<16 { target.append(scales[group] | lows[group] << 4) }
        target.append(pairs: codes, from: start)
      }
      target.append(half: fit.step[lane])
      target.append(half: fit.lowStep[lane])
      if bits == 2 { continue }
      for byte in Self.packed(scales, lows) { target.append(byte) }
      if bits == 5 {
        for index in 0..<32 {
          var byte: UInt8 = 0
          for group in 0..<8 { byte |= (codes[start + group * 32 + index] >> 4) << UInt8(group) }
          target.append(byte)
        }
      }
      for quarter in 0..<4 { target.append(nibbles: codes, from: start + quarter * 64, distance: 32, count: 32) }
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    for group in 0..<groupsPerBlock {
      let (factor, offset) = factors(block, group)
      for index in 0..<groupLength {
        let place = group * groupLength + index
        values[start + place] = factor * Float(code(block, place)) - offset
      }
    }
  }

  /// x = factor · code − offset
  private func factors(_ block: Span<UInt8>, _ group: Int) -> (factor: Float, offset: Float) {
    let start = bits == 2 ? 80 : 0
    let (scale, low): (UInt8, UInt8) =
      bits == 2 ? (block[group] & 15, block[group] >> 4) : Self.unpacked(block, group)
    return (block.half(start) * Float(scale), block.half(start + 2) * Float(low))
  }

  var levels: [Float] { (0..<(1 << bits)).map { Float($0) } }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) {
    let (factor, offset) = factors(block, group)
    return (factor, -offset)
  }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 {
    if bits == 2 { return block.pair(place, after: 16) }
    let byte = block[(bits == 5 ? 48 : 16) + place / 64 * 32 + place % 32]
    let low = place % 64 < 32 ? byte & 15 : byte >> 4
    return bits == 5 ? low | (block[16 + place % 32] >> UInt8(place / 32) & 1) << 4 : low
  }

  /// Eight six-bit scales and lows in twelve bytes: of the first four all bits in bytes 0…7, of the others the low four
  /// in bytes 8…11 and the high two atop bytes 0…7.
  private static func packed(_ scales: [UInt8], _ lows: [UInt8]) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 12)
    for group in 0..<4 {
      bytes[group] = scales[group] | (scales[group + 4] >> 4) << 6
      bytes[group + 4] = lows[group] | (lows[group + 4] >> 4) << 6
      bytes[group + 8] = scales[group + 4] & 15 | (lows[group + 4] & 15) << 4
    }
    return bytes
  }

  private static func unpacked(_ block: Span<UInt8>, _ group: Int) -> (scale: UInt8, low: UInt8) {
    if group < 4 { return (block[4 + group] & 63, block[8 + group] & 63) }
    let both = block[8 + group]
    return (both & 15 | (block[group] >> 6) << 4, both >> 4 | (block[4 + group] >> 6) << 4)
  }
}

extension BlockBytes {
  /// 256 two-bit codes, the low bits of `codes`.
  mutating func append(pairs codes: [UInt8], from start: Int) {
    for half in 0..<2 {
      for index in 0..<32 {
        let first = start + half * 128 + index
        append(
          codes[first] & 3 | (codes[first + 32] & 3) << 2 | (codes[first + 64] & 3) << 4 | (codes[first + 96] & 3) << 6)
      }
    }
  }
}

extension Span where Element == UInt8 {
  func pair(_ place: Int, after start: Int) -> UInt8 {
    self[start + place / 128 * 32 + place % 32] >> UInt8(place % 128 / 32 * 2) & 3
  }
}
