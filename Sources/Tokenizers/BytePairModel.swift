import Checkpoints
import OrderedCollections

/// Byte-pair encoding with a table of merges, as tokenizer.json stores it.
struct BytePairModel: Sendable {
  /// Pairs of ids, in an open-addressing table.
  struct MergeTable: Sendable, MergeRanking {
    private var keys: [UInt64] = [UInt64](repeating: .max, count: 64)
    private var values: [(rank: Int32, id: Int32)] = [(rank: Int32, id: Int32)](repeating: (0, 0), count: 64)
    private(set) var count = 0

    @inline(__always)
    private static func slot(_ key: UInt64, _ mask: Int) -> Int {
      let mixed = key &* 0x9e37_79b9_7f4a_7c15
      return Int(truncatingIfNeeded: mixed ^ (mixed >> 32)) & mask
    }

    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
      UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// A pair that comes again takes the later rank, as the reference has it.
    mutating func insert(_ left: Int32, _ right: Int32, rank: Int32, id: Int32) {
      if (count + 1) * 2 > keys.count {
        let (oldKeys, oldValues) = (keys, values)
        keys = [UInt64](repeating: .max, count: oldKeys.count * 2)
        values = [(rank: Int32, id: Int32)](repeating: (0, 0), count: oldKeys.count * 2)
        for index in oldKeys.indices where oldKeys[index] != .max { put(oldKeys[index], oldValues[index]) }
      }
      if put(Self.key(left, right), (rank, id)) { count += 1 }
    }

    @discardableResult
    private mutating func put(_ key: UInt64, _ value: (rank: Int32, id: Int32)) -> Bool {
      let mask = keys.count - 1
      var slot = Self.slot(key, mask)
      while keys[slot] != .max {
        if keys[slot] == key {
          values[slot] = value
          return false
        }
        slot = (slot + 1) & mask
      }
      keys[slot] = key
      values[slot] = value
      return true
    }

    @inline(__always)
    func candidate(_ left: MergeSymbol, _ right: MergeSymbol, _ bytes: [UInt8]) -> (rank: Int32, id: Int32)? {
      let key = Self.key(left.id, right.id)
      let mask = keys.count - 1
      var slot = Self.slot(key, mask)
      while keys[slot] != .max {
        if keys[slot] == key { return values[slot] }
        slot = (slot + 1) & mask
      }
      return nil
    }
  }

  let vocabulary: Vocabulary
  private let merges: MergeTable
  private let unknownID: Int32?
  private let fusesUnknown: Bool
  /// The id of each byte's token where the model falls back to bytes.
  private let byteIDs: [Int32?]
  private let ignoresMerges: Bool
  private let continuingPrefix: [UInt8]
  private let wordSuffix: [UInt8]
  /// The ids of the scalars below U+0800, or -1.
  private let scalarIDs: [Int32]
  /// True where no merge joins something to a following "▁": then a piece may be cut before each run of "▁" without
  /// any change, and the parts are short enough to be remembered.
  let cutsBeforeMetaspace: Bool

  init(_ fields: TokenizerFields) throws(TokenizerError) {
    let document = fields.document
    vocabulary = try document.readVocabulary()
    if let dropout = fields.members["dropout"], dropout != .null, dropout.double != 0 {
      throw fields.error("dropout", .expected("null or 0: with dropout the same text has many encodings"))
    }
    fusesUnknown = try fields.flag("fuse_unk", default: false)
    ignoresMerges = try fields.flag("ignore_merges", default: false)
    continuingPrefix = Array((try fields.optionalString("continuing_subword_prefix") ?? "").utf8)
    wordSuffix = Array((try fields.optionalString("end_of_word_suffix") ?? "").utf8)
    if let unknown = try fields.optionalString("unk_token") {
      guard let id = vocabulary.id(of: unknown) else { throw fields.error("unk_token", .notInVocabulary(unknown)) }
      unknownID = id
    } else {
      unknownID = nil
    }
    byteIDs = try fields.flag("byte_fallback", default: false) ? vocabulary.byteFallbackIDs() : []

    var merges = MergeTable()
    var rank: Int32 = 0
    let metaspace: [UInt8] = [0xe2, 0x96, 0x81]
    var crosses = vocabulary.id(of: metaspace) == nil
    let prefixCount = continuingPrefix.count
    let table = vocabulary
    try document.forEachMerge { left, right throws(TokenizerError) in
      func id(_ token: [UInt8]) throws(TokenizerError) -> Int32 {
        guard let id = table.id(of: token) else {
          throw fields.error("merges", .notInVocabulary(String(decoding: token, as: UTF8.self)))
        }
        return id
      }
      guard right.count >= prefixCount else {
        throw fields.error("merges", .notInVocabulary(String(decoding: right, as: UTF8.self)))
      }
      merges.insert(try id(left), try id(right), rank: rank, id: try id(left + right.dropFirst(prefixCount)))
      rank += 1
      if right.starts(with: metaspace), !left.suffix(3).elementsEqual(metaspace) { crosses = true }
    }
    // A merge may also have "▁" inside one side; that side was itself made by such a merge.
    self.merges = merges
    cutsBeforeMetaspace = !crosses && !ignoresMerges && continuingPrefix.isEmpty && wordSuffix.isEmpty
    scalarIDs = (0..<0x800).map { (scalar: UInt32) in
      var bytes: [UInt8] = []
      appendScalar(scalar, to: &bytes)
      return table.id(of: bytes) ?? -1
    }
  }

  /// Appends the ids of one piece.
  func encode(_ bytes: [UInt8], _ piece: Range<Int>, _ scratch: inout PairMerging, to output: inout [Int32]) {
    if ignoresMerges, let id = vocabulary.id(of: bytes, piece) { return output.append(id) }
    scratch.symbols.removeAll(keepingCapacity: true)
    var unknown: MergeSymbol?
    var index = piece.lowerBound
    while index < piece.upperBound {
      let (value, length) = decodeScalar(bytes, index, piece.upperBound)
      let range = index..<(index + length)
      index += length
      let found = idOfScalar(
        value, bytes, range, isFirst: range.lowerBound == piece.lowerBound, isLast: index == piece.upperBound)
      let symbol = MergeSymbol(id: found, start: Int32(range.lowerBound), end: Int32(index))
      if found >= 0 {
        flush(&unknown, to: &scratch)
        scratch.symbols.append(symbol)
        continue
      }
      if fallsBack(bytes, range, to: &scratch) { continue }
      guard let unknownID else { continue }
      if fusesUnknown, let open = unknown {
        unknown = MergeSymbol(id: unknownID, start: open.start, end: Int32(index))
      } else {
        flush(&unknown, to: &scratch)
        unknown = MergeSymbol(id: unknownID, start: symbol.start, end: symbol.end)
      }
    }
    flush(&unknown, to: &scratch)
    scratch.merge(bytes, by: merges)
    for symbol in scratch.symbols { output.append(symbol.id) }
  }

  @inline(__always)
  private func flush(_ unknown: inout MergeSymbol?, to scratch: inout PairMerging) {
    if let open = unknown {
      scratch.symbols.append(open)
      unknown = nil
    }
  }

  @inline(__always)
  private func idOfScalar(
    _ value: UInt32, _ bytes: [UInt8], _ range: Range<Int>, isFirst: Bool, isLast: Bool
  ) -> Int32 {
    if continuingPrefix.isEmpty, wordSuffix.isEmpty {
      return value < 0x800 ? scalarIDs[Int(value)] : vocabulary.id(of: bytes, range) ?? -1
    }
    var token: [UInt8] = isFirst ? [] : continuingPrefix
    token += bytes[range]
    if isLast { token += wordSuffix }
    return vocabulary.id(of: token) ?? -1
  }

  /// Appends the tokens of a scalar's bytes; false where the model does not fall back or lacks one of them.
  private func fallsBack(_ bytes: [UInt8], _ range: Range<Int>, to scratch: inout PairMerging) -> Bool {
    guard !byteIDs.isEmpty else { return false }
    let start = scratch.symbols.count
    for index in range {
      guard let id = byteIDs[Int(bytes[index])] else {
        scratch.symbols.removeSubrange(start...)
        return false
      }
      scratch.symbols.append(MergeSymbol(id: id, start: Int32(index), end: Int32(index + 1)))
    }
    return true
  }
}
