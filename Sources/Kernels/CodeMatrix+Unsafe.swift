/// Rows of one tile of the loops below.
private let tileRows = 64

/// Packs every row of a matrix of codes into a bit stream of its own (`packBits`), `stride` bytes from row to row.
/// Bytes of a row beyond its stream are left as they are.
/// - Precondition: `codes` holds rows · columns codes, each below `1 << bits`; `bytes` holds rows · stride, and a stride
///   holds a row's stream.
package func packRows(
  _ codes: Span<UInt8>, rows: Int, columns: Int, bits: Int, stride: Int, into bytes: inout MutableSpan<UInt8>,
  workers: Int
) {
  precondition(codes.count >= rows * columns && bytes.count >= rows * stride)
  precondition(stride >= packedByteCount(codes: columns, bits: bits))
  bytes.withUnsafeMutableBufferPointer { target in
    codes.withUnsafeBufferPointer { source in
      nonisolated(unsafe) let (source, target) = (source, target)
      runTiles(count: (rows + tileRows - 1) / tileRows, workers: workers) { tile in
        for row in (tile * tileRows)..<min((tile + 1) * tileRows, rows) {
          // Bounds: rows of both, by the preconditions; each thread writes rows of its own.
          let input = UnsafeBufferPointer(rebasing: source[(row * columns)..<((row + 1) * columns)])
          let output = UnsafeMutableBufferPointer(rebasing: target[(row * stride)..<((row + 1) * stride)])
          var span = MutableSpan(_unsafeElements: output)
          packBits(Span(_unsafeElements: input), bits: bits, into: &span)
        }
      }
    }
  }
}

/// Reads back what `packRows` wrote.
/// - Precondition: as there.
package func unpackRows(
  _ bytes: Span<UInt8>, rows: Int, columns: Int, bits: Int, stride: Int, into codes: inout MutableSpan<UInt8>,
  workers: Int
) {
  precondition(codes.count >= rows * columns && bytes.count >= rows * stride)
  precondition(stride >= packedByteCount(codes: columns, bits: bits))
  codes.withUnsafeMutableBufferPointer { target in
    bytes.withUnsafeBufferPointer { source in
      nonisolated(unsafe) let (source, target) = (source, target)
      runTiles(count: (rows + tileRows - 1) / tileRows, workers: workers) { tile in
        for row in (tile * tileRows)..<min((tile + 1) * tileRows, rows) {
          // Bounds: as above.
          let input = UnsafeBufferPointer(rebasing: source[(row * stride)..<((row + 1) * stride)])
          let output = UnsafeMutableBufferPointer(rebasing: target[(row * columns)..<((row + 1) * columns)])
          var span = MutableSpan(_unsafeElements: output)
          unpackBits(Span(_unsafeElements: input), bits: bits, into: &span)
        }
      }
    }
  }
}

/// The transpose of a matrix of 32-bit words: target[c, r] = source[r, c].
/// - Precondition: both hold rows · columns words.
package func transposeWords(
  _ source: Span<UInt8>, rows: Int, columns: Int, into target: inout MutableSpan<UInt8>, workers: Int
) {
  precondition(source.count >= rows * columns * 4 && target.count >= rows * columns * 4)
  // A block of 16 rows and 32 columns is two kilobytes on either side.
  let (height, width) = (16, 32)
  target.withUnsafeMutableBytes { target in
    source.withUnsafeBytes { source in
      guard let source = source.baseAddress, let target = target.baseAddress else { return }
      nonisolated(unsafe) let (input, output) = (source, target)
      runTiles(count: (columns + width - 1) / width, workers: workers) { tile in
        let span = (tile * width)..<min((tile + 1) * width, columns)
        var row = 0
        while row < rows {
          let end = min(row + height, rows)
          // Bounds: rows below `rows` and columns below `columns`; each thread writes target rows of its own.
          for column in span {
            for line in row..<end {
              let word = input.loadUnaligned(fromByteOffset: (line &* columns &+ column) &* 4, as: UInt32.self)
              output.storeBytes(of: word, toByteOffset: (column &* rows &+ line) &* 4, as: UInt32.self)
            }
          }
          row = end
        }
      }
    }
  }
}

/// Packs eight rows of 4-bit codes into one row of 32-bit words: nibble `i` of word `k` of row `c` is the code of row
/// `8c + order[i]` and column `k`.
/// - Precondition: `rows` is a multiple of eight, `codes` holds rows · columns codes below 16, `bytes` half as many bytes,
///   and `order` is a permutation of 0…7.
package func packRowsTogether(
  _ codes: Span<UInt8>, rows: Int, columns: Int, order: [Int], into bytes: inout MutableSpan<UInt8>, workers: Int
) {
  precondition(rows % 8 == 0 && order.sorted() == Array(0..<8))
  precondition(codes.count >= rows * columns && bytes.count >= rows / 2 * columns)
  bytes.withUnsafeMutableBytes { target in
    codes.withUnsafeBufferPointer { source in
      guard let source = source.baseAddress, let target = target.baseAddress else { return }
      nonisolated(unsafe) let (input, output) = (source, target)
      runTiles(count: rows / 8, workers: workers) { tile in
        let lines = input + tile * 8 * columns
        let words = output + tile * columns * 4
        var column = 0
        // Bounds: reads sixteen codes of each of eight rows while column + 16 ≤ columns, and writes sixteen words. Two codes
        // are joined to a byte before bytes become words, which takes half as many wide steps.
        while column &+ 16 <= columns {
          var word = SIMD16<UInt32>()
          for byte in 0..<4 {
            let low = (lines + order[2 &* byte] &* columns).lanes(column, as: SIMD16<UInt8>.self)
            let high = (lines + order[2 &* byte &+ 1] &* columns).lanes(column, as: SIMD16<UInt8>.self)
            word |= SIMD16<UInt32>(truncatingIfNeeded: low | high &<< 4) &<< UInt32(8 &* byte)
          }
          words.storeBytes(of: word, toByteOffset: column &* 4, as: SIMD16<UInt32>.self)
          column &+= 16
        }
        while column < columns {
          var word: UInt32 = 0
          for nibble in 0..<8 { word |= UInt32(lines[order[nibble] &* columns &+ column]) &<< UInt32(4 &* nibble) }
          words.storeBytes(of: word, toByteOffset: column &* 4, as: UInt32.self)
          column &+= 1
        }
      }
    }
  }
}

/// Reads back what `packRowsTogether` wrote.
/// - Precondition: as there.
package func unpackRowsTogether(
  _ bytes: Span<UInt8>, rows: Int, columns: Int, order: [Int], into codes: inout MutableSpan<UInt8>, workers: Int
) {
  precondition(rows % 8 == 0 && order.sorted() == Array(0..<8))
  precondition(codes.count >= rows * columns && bytes.count >= rows / 2 * columns)
  codes.withUnsafeMutableBufferPointer { target in
    bytes.withUnsafeBytes { source in
      guard let source = source.baseAddress, let target = target.baseAddress else { return }
      nonisolated(unsafe) let (input, output) = (source, target)
      runTiles(count: rows / 8, workers: workers) { tile in
        let words = input + tile * columns * 4
        let lines = output + tile * 8 * columns
        var column = 0
        // Bounds: reads sixteen words while column + 16 ≤ columns, and writes sixteen codes of each of eight rows.
        while column &+ 16 <= columns {
          let word = words.loadUnaligned(fromByteOffset: column &* 4, as: Words.self)
          for nibble in 0..<8 {
            (lines + order[nibble] &* columns).store(((word &>> Int32(4 &* nibble)) & 15).lowBytes, at: column)
          }
          column &+= 16
        }
        while column < columns {
          let word = words.loadUnaligned(fromByteOffset: column &* 4, as: UInt32.self)
          for nibble in 0..<8 {
            lines[order[nibble] &* columns &+ column] = UInt8(truncatingIfNeeded: (word &>> UInt32(4 &* nibble)) & 15)
          }
          column &+= 1
        }
      }
    }
  }
}

/// Exchanges the two nibbles of every byte.
package func swapNibbles(_ bytes: inout MutableSpan<UInt8>) {
  bytes.withUnsafeMutableBufferPointer { target in
    guard let base = target.baseAddress else { return }
    var index = 0
    // Bounds: sixteen bytes while index + 16 ≤ count, then single ones.
    while index &+ 16 <= target.count {
      let lanes = UnsafePointer(base).lanes(index, as: SIMD16<UInt8>.self)
      base.store((lanes &>> 4) | (lanes &<< 4), at: index)
      index &+= 16
    }
    while index < target.count {
      base[index] = base[index] &>> 4 | base[index] &<< 4
      index &+= 1
    }
  }
}

/// Inverts the highest bit of every byte: signed codes of unsigned ones, and back.
package func invertHighestBits(_ bytes: inout MutableSpan<UInt8>) {
  bytes.withUnsafeMutableBufferPointer { target in
    guard let base = target.baseAddress else { return }
    var index = 0
    // Bounds: as above.
    while index &+ 16 <= target.count {
      base.store(UnsafePointer(base).lanes(index, as: SIMD16<UInt8>.self) ^ SIMD16(repeating: 0x80), at: index)
      index &+= 16
    }
    while index < target.count {
      base[index] ^= 0x80
      index &+= 1
    }
  }
}
