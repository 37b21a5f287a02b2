/// A part of a word on its way through byte-pair encoding.
struct MergeSymbol {
  /// Its token; -1 where it has none.
  var id: Int32
  var start: Int32
  var end: Int32
  /// Never merged (the user-defined pieces of SentencePiece).
  var isFrozen = false
}

/// Which two neighbours may be merged, how early, and into which token.
protocol MergeRanking {
  /// Lower ranks merge first; equal ranks from left to right.
  func candidate(_ left: MergeSymbol, _ right: MergeSymbol, _ bytes: [UInt8]) -> (rank: Int32, id: Int32)?
}

/// The merging loop of byte-pair encoding (Sennrich, Haddow and Birch 2016): the pair of lowest rank is merged, the
/// leftmost first, until no pair has a rank.
///
/// Short words look through all pairs each time; longer ones keep pairs in a heap, which takes n log n steps and gives
/// the same result.
struct PairMerging {
  private static let shortLimit = 24

  private struct Entry {
    /// The rank, then the place, so that one comparison orders both.
    let key: UInt64
    let id: Int32
    /// The bytes of the merged token: another length means that one side has changed since.
    let length: Int32
  }

  /// The word's symbols before the merge, and after it those that are left.
  var symbols: [MergeSymbol] = []
  private var ranks: [(rank: Int32, id: Int32)] = []
  private var previous: [Int32] = []
  private var next: [Int32] = []
  private var heap: [Entry] = []

  mutating func merge(_ bytes: [UInt8], by ranking: borrowing some MergeRanking) {
    guard symbols.count > 1 else { return }
    if symbols.count <= Self.shortLimit { mergeShort(bytes, ranking) } else { mergeLong(bytes, ranking) }
  }

  @inline(__always)
  private func candidate(_ left: Int, _ right: Int, _ bytes: [UInt8], _ ranking: borrowing some MergeRanking) -> (
    rank: Int32, id: Int32
  ) {
    let (first, second) = (symbols[left], symbols[right])
    if first.isFrozen || second.isFrozen { return (.max, 0) }
    return ranking.candidate(first, second, bytes) ?? (.max, 0)
  }

  private mutating func mergeShort(_ bytes: [UInt8], _ ranking: borrowing some MergeRanking) {
    ranks.removeAll(keepingCapacity: true)
    for index in 0..<(symbols.count - 1) { ranks.append(candidate(index, index + 1, bytes, ranking)) }
    while true {
      var best = Int32.max
      var place = 0
      for index in ranks.indices where ranks[index].rank < best {
        best = ranks[index].rank
        place = index
      }
      guard best < .max else { return }
      symbols[place].id = ranks[place].id
      symbols[place].end = symbols[place + 1].end
      symbols.remove(at: place + 1)
      ranks.remove(at: place)
      if place < ranks.count { ranks[place] = candidate(place, place + 1, bytes, ranking) }
      if place > 0 { ranks[place - 1] = candidate(place - 1, place, bytes, ranking) }
    }
  }

  private mutating func mergeLong(_ bytes: [UInt8], _ ranking: borrowing some MergeRanking) {
    let count = symbols.count
    previous = (0..<count).map { Int32($0 - 1) }
    next = (0..<count).map { Int32($0 + 1) }
    heap.removeAll(keepingCapacity: true)
    heap.reserveCapacity(count)
    for index in 0..<(count - 1) {
      let found = candidate(index, index + 1, bytes, ranking)
      if found.rank < .max { heap.append(entry(index, index + 1, found)) }
    }
    for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { siftDown(index) }
    while let top = popFirst() {
      let left = Int(truncatingIfNeeded: top.key & 0xffff_ffff)
      let right = Int(next[left])
      // A symbol that was merged into the one before it has no length.
      guard symbols[left].end > symbols[left].start, right < count,
        symbols[right].end - symbols[left].start == top.length
      else { continue }
      symbols[left].id = top.id
      symbols[left].end = symbols[right].end
      symbols[right].end = symbols[right].start
      next[left] = next[right]
      if Int(next[right]) < count { previous[Int(next[right])] = Int32(left) }
      let after = Int(next[left])
      if after < count {
        let found = candidate(left, after, bytes, ranking)
        if found.rank < .max { push(entry(left, after, found)) }
      }
      let before = Int(previous[left])
      if before >= 0 {
        let found = candidate(before, left, bytes, ranking)
        if found.rank < .max { push(entry(before, left, found)) }
      }
    }
    symbols.removeAll { $0.end == $0.start }
  }

  @inline(__always)
  private func entry(_ left: Int, _ right: Int, _ found: (rank: Int32, id: Int32)) -> Entry {
    Entry(
      key: UInt64(UInt32(bitPattern: found.rank)) << 32 | UInt64(left), id: found.id,
      length: symbols[right].end - symbols[left].start)
  }

  private mutating func push(_ entry: Entry) {
    heap.append(entry)
    var index = heap.count - 1
    while index > 0 {
      let parent = (index - 1) / 2
      guard heap[index].key < heap[parent].key else { return }
      heap.swapAt(index, parent)
      index = parent
    }
  }

  private mutating func popFirst() -> Entry? {
    guard let first = heap.first, let last = heap.popLast() else { return nil }
    if !heap.isEmpty {
      heap[0] = last
      siftDown(0)
    }
    return first
  }

  private mutating func siftDown(_ start: Int) {
    var index = start
    while true {
      var child = 2 * index + 1
      guard child < heap.count else { return }
      if child + 1 < heap.count, heap[child + 1].key < heap[child].key { child += 1 }
      guard heap[child].key < heap[index].key else { return }
      heap.swapAt(index, child)
      index = child
    }
  }
}
