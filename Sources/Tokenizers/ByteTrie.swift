/// A prefix tree over byte strings: finds every stored string that begins at a place of a text.
///
/// Edges lie in one open-addressing table keyed by node and byte, so that 250,000 pieces of a large Unigram vocabulary
/// take a few arrays and no objects.
package struct ByteTrie: Sendable {
  /// Key (node << 8 | byte) plus one; 0 is free.
  private var keys: [UInt64] = [UInt64](repeating: 0, count: 64)
  private var targets: [Int32] = [Int32](repeating: 0, count: 64)
  private var edgeCount = 0
  /// The value stored at a node, or -1.
  private var values: [Int32] = [-1]
  /// The children of the root, 0 for none: most searches end here.
  private var roots: [Int32] = [Int32](repeating: 0, count: 256)

  package init() {}

  package var isEmpty: Bool { values.count == 1 }

  @inline(__always)
  private static func slot(_ key: UInt64, _ mask: Int) -> Int {
    Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> 24) & mask
  }

  /// Stores `value` (not negative) for a string that is not empty; a later value replaces an earlier one.
  package mutating func insert(_ string: some Collection<UInt8>, value: Int32) {
    guard !string.isEmpty else { return }
    var node: Int32 = 0
    for byte in string {
      let next = child(of: node, byte)
      if next != 0 {
        node = next
        continue
      }
      let fresh = Int32(values.count)
      values.append(-1)
      if node == 0 {
        roots[Int(byte)] = fresh
      } else {
        if (edgeCount + 1) * 2 > keys.count { grow() }
        put(UInt64(node) << 8 | UInt64(byte), fresh)
        edgeCount += 1
      }
      node = fresh
    }
    values[Int(node)] = value
  }

  private mutating func put(_ key: UInt64, _ target: Int32) {
    let mask = keys.count - 1
    var slot = Self.slot(key, mask)
    while keys[slot] != 0 { slot = (slot + 1) & mask }
    keys[slot] = key + 1
    targets[slot] = target
  }

  private mutating func grow() {
    let (oldKeys, oldTargets) = (keys, targets)
    keys = [UInt64](repeating: 0, count: oldKeys.count * 2)
    targets = [Int32](repeating: 0, count: oldKeys.count * 2)
    for index in oldKeys.indices where oldKeys[index] != 0 { put(oldKeys[index] - 1, oldTargets[index]) }
  }

  /// The node reached from `node` by `byte`; 0 if there is none. The root is node 0.
  @inline(__always)
  package func child(of node: Int32, _ byte: UInt8) -> Int32 {
    if node == 0 { return roots[Int(byte)] }
    let key = UInt64(node) << 8 | UInt64(byte)
    let mask = keys.count - 1
    var slot = Self.slot(key, mask)
    while keys[slot] != 0 {
      if keys[slot] == key + 1 { return targets[slot] }
      slot = (slot + 1) & mask
    }
    return 0
  }

  /// The value of a node, or -1.
  @inline(__always)
  package func value(at node: Int32) -> Int32 { values[Int(node)] }

  /// The longest stored string that `bytes[start..<end]` begins with.
  package func longestMatch(_ bytes: [UInt8], _ start: Int, _ end: Int) -> (value: Int32, end: Int)? {
    var node: Int32 = 0
    var best: (Int32, Int)?
    var index = start
    while index < end {
      node = child(of: node, bytes[index])
      if node == 0 { break }
      index += 1
      if values[Int(node)] >= 0 { best = (values[Int(node)], index) }
    }
    return best
  }
}
