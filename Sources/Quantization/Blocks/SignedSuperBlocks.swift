import Kernels

/// Q3_K, Q6_K and IQ4_XS: blocks of 256 values in groups, x = d·s·level with a binary16 d of the block and a signed whole
/// number s of the group. Bytes of a block:
///
///     Q3_K    32 bytes of third bits · 64 bytes of two-bit codes · 12 bytes of six-bit s + 32, groups of 16 · d
///     Q6_K    128 bytes of low nibbles · 64 bytes of high pairs · 16 signed bytes s, groups of 16 · d
///     IQ4_XS  d · 8 × 2 high bits of s + 32 · 4 bytes of their low nibbles, groups of 32 · 128 bytes of nibbles
///
/// Levels are q − 4, q − 32, and those of IQ4. Third bits and pairs of Q3_K lie as in Q5_K and Q2_K. Q6_K: in half h,
/// byte 64·h + i has the low nibbles of values 128·h + i and 128·h + 64 + i, byte 32·h + i the high pairs of values
/// 128·h + i + 32·p at bits 2·p. IQ4_XS: byte 16·g + i of group g has values i and 16 + i.
struct SignedSuperBlocks: BlockFormat {
  private enum Layout { case threeBits, sixBits, curved }

  private let layout: Layout
  let groupLength: Int
  let weighting: BlockWeighting
  private let search: ScaleBlockFit
  private let scales: SignedSuperBlockFit

  var groupsPerBlock: Int { 256 / groupLength }

  static let threeBits = SignedSuperBlocks(
    layout: .threeBits, groupLength: 16, weighting: BlockWeighting(plain: .square, important: .block(factor: 2)),
    search: ScaleBlockFit(
      levels: .uniform(-4, 3), starts: (-5...5).map { -(4 + 0.17 * Float($0)) } + [2.6, 3, 3.4]),
    scales: SignedSuperBlockFit(
      groups: 16, levels: .uniform(-4, 3), lowest: -32, highest: 31, tops: [-32, -30, 31]))
  static let sixBits = SignedSuperBlocks(
    layout: .sixBits, groupLength: 16, weighting: BlockWeighting(plain: .square, important: .plain),
    search: ScaleBlockFit(
      levels: .uniform(-32, 31),
      starts: (-2...3).map { -(32 + 0.4 * Float($0)) } + [31]),
    scales: SignedSuperBlockFit(
      groups: 16, levels: .uniform(-32, 31), lowest: -128, highest: 127, tops: [-128]))
  static let curved = SignedSuperBlocks(
    layout: .curved, groupLength: 32, weighting: BlockWeighting(plain: .square, important: .block(factor: 2)),
    search: .curved,
    scales: SignedSuperBlockFit(
      groups: 8, levels: .curved, lowest: -32, highest: 31, tops: [-32, 31]))

  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes) {
    let fit = scales.fit(lanes, search.fit(lanes))
    lanes.codes(scale: fit.scales, search.levels, into: &codes)
    for block in 0..<blocks {
      let lane = block * groupsPerBlock
      let multiples = (0..<groupsPerBlock).map { Int(fit.scale[lane + $0]) }
      let step = fit.step[lane]
      let start = block * 256
      switch layout {
      case .threeBits:
        for index in 0..<32 {
          var byte: UInt8 = 0
          for part in 0..<8 { byte |= (codes[start + part * 32 + index] >> 2) << UInt8(part) }
          target.append(byte)
        }
        target.append(pairs: codes, from: start)
        let stored = multiples.map { UInt8($0 + 32) }
        for group in 0..<8 { target.append(stored[group] & 15 | (stored[group + 8] & 15) << 4) }
        for group in 0..<4 {
          target.append(
            stored[group] >> 4 | (stored[group + 4] >> 4) << 2 | (stored[group + 8] >> 4) << 4
              | (stored[group + 12] >> 4) << 6)
        }
        target.append(half: step)
      case .sixBits:
        for half in 0..<2 { target.append(nibbles: codes, from: start + half * 128, distance: 64, count: 64) }
        for index in 0..<256 { codes[start + index] >>= 4 }
        target.append(pairs: codes, from: start)
        for multiple in multiples { target.append(UInt8(bitPattern: Int8(multiple))) }
        target.append(half: step)
      case .curved:
        target.append(half: step)
        let stored = multiples.map { UInt16($0 + 32) }
        let high = stored.enumerated().reduce(UInt16(0)) { $0 | ($1.element >> 4) << UInt16($1.offset * 2) }
        target.append(UInt8(truncatingIfNeeded: high))
        target.append(UInt8(truncatingIfNeeded: high >> 8))
        for pair in 0..<4 { target.append(UInt8(stored[2 * pair] & 15 | (stored[2 * pair + 1] & 15) << 4)) }
        for group in 0..<8 { target.append(nibbles: codes, from: start + group * 32, distance: 16, count: 16) }
      }
    }
  }

  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int) {
    for group in 0..<groupsPerBlock {
      let factor = parameters(block, group).scale
      for index in 0..<groupLength {
        let place = group * groupLength + index
        values[start + place] = factor * level(block, place)
      }
    }
  }

  var levels: [Float] {
    switch layout {
    case .threeBits: (0..<8).map { Float($0) - 4 }
    case .sixBits: (0..<64).map { Float($0) - 32 }
    case .curved: BlockLevels.curve
    }
  }

  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?) {
    let step = block.half(layout == .threeBits ? 108 : layout == .sixBits ? 208 : 0)
    return (step * Float(multiple(block, group)), nil)
  }

  private func multiple(_ block: Span<UInt8>, _ group: Int) -> Int {
    switch layout {
    case .threeBits:
      let low = block[96 + group % 8] >> (group < 8 ? 0 : 4) & 15
      let high = block[104 + group % 4] >> UInt8(group / 4 * 2) & 3
      return Int(low | high << 4) - 32
    case .sixBits: return Int(Int8(bitPattern: block[192 + group]))
    case .curved:
      let low = block[4 + group / 2] >> UInt8(group % 2 * 4) & 15
      let high = block[2 + group / 4] >> UInt8(group % 4 * 2) & 3
      return Int(low | high << 4) - 32
    }
  }

  private func level(_ block: Span<UInt8>, _ place: Int) -> Float {
    let code = code(block, place)
    return switch layout {
    case .threeBits: Float(code) - 4
    case .sixBits: Float(code) - 32
    case .curved: BlockLevels.curve[Int(code)]
    }
  }

  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8 {
    switch layout {
    case .threeBits:
      let high = block[place % 32] >> UInt8(place / 32) & 1
      return block.pair(place, after: 32) | high << 2
    case .sixBits:
      let byte = block[place / 128 * 64 + place % 64]
      let low = place % 128 < 64 ? byte & 15 : byte >> 4
      return low | block.pair(place, after: 128) << 4
    case .curved:
      let byte = block[8 + place / 32 * 16 + place % 16]
      return place % 32 < 16 ? byte & 15 : byte >> 4
    }
  }
}
