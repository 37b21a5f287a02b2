/// Tokens and their ids, looked up by exact bytes.
///
/// Swift's `String` takes canonically equivalent spellings for equal; a vocabulary must tell "é" from "e" with an
/// accent, so keys are UTF-8 bytes here. All tokens lie in one array; an open-addressing table finds them.
package struct Vocabulary: Sendable {
  /// More than any vocabulary has, and few enough that a hostile id cannot exhaust memory.
  package static let idLimit = 1 << 24

  private var arena: [UInt8] = []
  private var ends: [Int] = []
  private var ids: [Int32] = []
  /// Entry number plus one; 0 is free. A power of two, at most half full.
  private var slots: [Int32] = [Int32](repeating: 0, count: 16)
  /// Entry number plus one for each id; 0 where the id has no token.
  private var entryOfID: [Int32] = []
  /// The longest token in bytes.
  private(set) var longest = 0

  /// What ids must be below.
  let idLimit: Int

  package init(idLimit: Int = Vocabulary.idLimit) { self.idLimit = idLimit }

  package var count: Int { ids.count }
  /// The largest id plus one.
  package var idBound: Int { entryOfID.count }

  package enum Insertion: Equatable { case inserted, duplicateToken, duplicateID(with: [UInt8]), idOutOfRange }

  private func range(_ entry: Int) -> Range<Int> { (entry == 0 ? 0 : ends[entry - 1])..<ends[entry] }

  @inline(__always)
  static func hash(_ bytes: [UInt8], _ range: Range<Int>) -> UInt64 {
    var state: UInt64 = 0xcbf2_9ce4_8422_2325
    for index in range { state = (state ^ UInt64(bytes[index])) &* 0x9e37_79b9_7f4a_7c15 ^ (state >> 29) }
    return state ^ (state >> 32)
  }

  /// Adds a token whose id is between 0 and `idLimit`.
  package mutating func insert(_ token: [UInt8], id: Int) -> Insertion {
    guard id >= 0, id < idLimit else { return .idOutOfRange }
    guard self.id(of: token) == nil else { return .duplicateToken }
    if id < entryOfID.count, entryOfID[id] != 0 { return .duplicateID(with: bytes(of: id) ?? []) }
    if (ids.count + 1) * 2 > slots.count { grow() }
    arena += token
    ends.append(arena.count)
    ids.append(Int32(id))
    longest = max(longest, token.count)
    place(ids.count - 1)
    if id >= entryOfID.count {
      entryOfID.reserveCapacity(id + 1)
      entryOfID += repeatElement(0, count: id + 1 - entryOfID.count)
    }
    entryOfID[id] = Int32(ids.count)
    return .inserted
  }

  private mutating func place(_ entry: Int) {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: Self.hash(arena, range(entry))) & mask
    while slots[slot] != 0 { slot = (slot + 1) & mask }
    slots[slot] = Int32(entry + 1)
  }

  private mutating func grow() {
    slots = [Int32](repeating: 0, count: slots.count * 2)
    for entry in ids.indices { place(entry) }
  }

  package func id(of token: [UInt8]) -> Int32? { id(of: token, 0..<token.count) }
  package func id(of token: String) -> Int32? { id(of: Array(token.utf8)) }

  /// The id of `bytes[range]`.
  package func id(of bytes: [UInt8], _ range: Range<Int>) -> Int32? {
    guard range.count <= longest else { return nil }
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: Self.hash(bytes, range)) & mask
    while slots[slot] != 0 {
      let entry = Int(slots[slot]) - 1
      let own = self.range(entry)
      if own.count == range.count, equal(own.lowerBound, bytes, range) { return ids[entry] }
      slot = (slot + 1) & mask
    }
    return nil
  }

  @inline(__always)
  private func equal(_ start: Int, _ bytes: [UInt8], _ range: Range<Int>) -> Bool {
    var own = start
    for index in range {
      if arena[own] != bytes[index] { return false }
      own += 1
    }
    return true
  }

  /// The token of an id; nil if there is none.
  package func bytes(of id: Int) -> [UInt8]? {
    guard id >= 0, id < entryOfID.count, entryOfID[id] != 0 else { return nil }
    return Array(arena[range(Int(entryOfID[id]) - 1)])
  }

  /// Every token with its id, in the order of the file.
  package func forEach(_ body: (_ token: ArraySlice<UInt8>, _ id: Int32) -> Void) {
    for entry in ids.indices { body(arena[range(entry)], ids[entry]) }
  }

  /// The id of the token for one raw byte, `<0x0A>` for a line feed (byte fallback of SentencePiece).
  package func byteFallbackIDs() -> [Int32?] {
    (0..<256).map { byte in
      let digits = String(byte, radix: 16, uppercase: true)
      return id(of: "<0x" + (digits.count == 1 ? "0" : "") + digits + ">")
    }
  }
}
