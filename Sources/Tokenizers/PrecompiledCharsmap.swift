/// The precompiled normalization rules of SentencePiece (`nmt_nfkc` and others): a double-array trie from byte strings
/// to their replacements.
///
/// Layout as in SentencePiece's normalizer: a little-endian 32-bit size of the trie in bytes, the trie as 32-bit
/// units (the format of Darts-clone), then the replacements as strings that end with a zero byte.
package struct PrecompiledCharsmap: Sendable {
  package struct Damage: Error { let what: String }

  private let units: [UInt32]
  private let replacements: [UInt8]
  /// The replacement of each ASCII character that stands alone: -1 none, else its place in `replacements`.
  private var single = [Int](repeating: -1, count: 128)

  package init(_ blob: [UInt8]) throws(Damage) {
    guard blob.count >= 4 else { throw Damage(what: "\(blob.count) bytes are too few") }
    func word(_ index: Int) -> UInt32 {
      (0..<4).reduce(0) { $0 | UInt32(blob[index + $1]) << UInt32(8 * $1) }
    }
    let size = Int(word(0))
    guard size % 4 == 0, size >= 4, size <= blob.count - 4 else {
      throw Damage(what: "its trie claims \(size) of \(blob.count - 4) bytes")
    }
    units = (0..<(size / 4)).map { word(4 + 4 * $0) }
    replacements = Array(blob[(4 + size)...])
    for byte in 0..<128 {
      if let found = matches([UInt8(byte)], 0, 1, longest: false) { single[byte] = found.value }
    }
  }

  /// Bytes of the longest replacement, at least 1.
  var longestReplacement: Int {
    replacements.split(separator: 0).reduce(1) { max($0, $1.count) }
  }

  /// The shortest, or the longest, key that `bytes[start..<end]` begins with.
  private func matches(_ bytes: [UInt8], _ start: Int, _ end: Int, longest: Bool) -> (value: Int, end: Int)? {
    func offset(_ unit: UInt32) -> Int { Int((unit >> 10) << ((unit & 1 << 9) >> 6)) }
    var node = offset(units[0])
    var best: (Int, Int)?
    var index = start
    while index < end {
      node ^= Int(bytes[index])
      guard node < units.count else { break }
      let unit = units[node]
      guard unit & (1 << 31 | 0xff) == UInt32(bytes[index]) else { break }
      index += 1
      node ^= offset(unit)
      guard node < units.count else { break }
      if unit >> 8 & 1 == 1 {
        best = (Int(units[node] & 0x7fff_ffff), index)
        if !longest { break }
      }
    }
    return best
  }

  private func replacement(at place: Int) -> ArraySlice<UInt8> {
    guard place < replacements.count else { return [] }
    return replacements[place..<(replacements[place...].firstIndex(of: 0) ?? replacements.count)]
  }

  /// As `tokenizers` applies the rules: to each extended grapheme cluster below six bytes as a whole, where the
  /// shortest key it begins with replaces all of it, else to each scalar.
  func normalizeByGrapheme(_ bytes: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      // An ASCII character before another is a cluster of its own, unless the two are CR LF.
      if byte < 0x80, index + 1 == bytes.count || bytes[index + 1] < 0x80 {
        if byte == 0x0d, index + 1 < bytes.count, bytes[index + 1] == 0x0a {
          normalizeCluster(bytes, index, index + 2, &result)
          index += 2
          continue
        }
        if single[Int(byte)] < 0 { result.append(byte) } else { result += replacement(at: single[Int(byte)]) }
        index += 1
        continue
      }
      // Up to the next pair of ASCII characters, by the standard library's segmentation.
      var end = index + 1
      while end < bytes.count, bytes[end] >= 0x80 || (end + 1 < bytes.count && bytes[end + 1] >= 0x80) { end += 1 }
      for character in String(decoding: bytes[index..<end], as: UTF8.self) {
        let length = character.utf8.count
        normalizeCluster(bytes, index, index + length, &result)
        index += length
      }
    }
    return result
  }

  private func normalizeCluster(_ bytes: [UInt8], _ start: Int, _ end: Int, _ result: inout [UInt8]) {
    if end - start < 6, let found = matches(bytes, start, end, longest: false) {
      result += replacement(at: found.value)
      return
    }
    var index = start
    while index < end {
      let length = decodeScalar(bytes, index, end).length
      if let found = matches(bytes, index, index + length, longest: false) {
        result += replacement(at: found.value)
      } else {
        result += bytes[index..<(index + length)]
      }
      index += length
    }
  }

  /// As SentencePiece applies them: the longest key at each place. Nil where none begins there.
  func longestMatch(_ bytes: [UInt8], _ start: Int) -> (replacement: ArraySlice<UInt8>, end: Int)? {
    guard let found = matches(bytes, start, bytes.count, longest: true) else { return nil }
    return (replacement(at: found.value), found.end)
  }
}
