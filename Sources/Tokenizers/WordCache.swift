/// The ids of words seen before in one text, at most `slotCount` of them.
///
/// Direct-mapped: a word replaces the one in its slot. It lives as long as one call of `encode`, so nothing is shared
/// between threads and nothing grows with the life of a tokenizer.
struct WordCache {
  /// Longer pieces are not worth the room.
  static let lengthLimit = 64
  private static let arenaLimit = 1 << 20

  private struct Slot {
    var hash: UInt64 = 0
    var keyStart: Int32 = 0
    var keyCount: Int32 = 0
    var idStart: Int32 = 0
    var idCount: Int32 = -1
  }

  private var slots: [Slot]
  private var keys: [UInt8] = []
  private var ids: [Int32] = []

  /// Room in proportion to a text of `byteCount` bytes.
  init(byteCount: Int) {
    var slotCount = 64
    while slotCount < min(byteCount / 4, 1 << 15) { slotCount *= 2 }
    slots = [Slot](repeating: Slot(), count: slotCount)
  }

  /// Appends the ids of `bytes[range]`, from the cache or else as `body` appends them.
  @inline(__always)
  mutating func append(
    _ bytes: [UInt8], _ range: Range<Int>, to output: inout [Int32], _ body: (inout [Int32]) -> Void
  ) {
    guard range.count <= Self.lengthLimit else { return body(&output) }
    let hash = Vocabulary.hash(bytes, range)
    let index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
    let slot = slots[index]
    if slot.idCount >= 0, slot.hash == hash, Int(slot.keyCount) == range.count, matches(slot, bytes, range.lowerBound) {
      let start = Int(slot.idStart)
      if slot.idCount == 1 { return output.append(ids[start]) }
      for place in start..<(start + Int(slot.idCount)) { output.append(ids[place]) }
      return
    }
    let start = output.count
    body(&output)
    if keys.count + range.count > Self.arenaLimit {
      keys.removeAll(keepingCapacity: true)
      ids.removeAll(keepingCapacity: true)
      for index in slots.indices { slots[index].idCount = -1 }
    }
    slots[index] = Slot(
      hash: hash, keyStart: Int32(keys.count), keyCount: Int32(range.count), idStart: Int32(ids.count),
      idCount: Int32(output.count - start))
    for place in range { keys.append(bytes[place]) }
    for place in start..<output.count { ids.append(output[place]) }
  }

  @inline(__always)
  private func matches(_ slot: Slot, _ bytes: [UInt8], _ start: Int) -> Bool {
    let key = Int(slot.keyStart)
    for offset in 0..<Int(slot.keyCount) where keys[key + offset] != bytes[start + offset] { return false }
    return true
  }
}
