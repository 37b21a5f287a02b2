import Kernels

/// How a layout lays down the codes of a weight `[rows, columns]`: always in the first of its tensors.
package enum CodePlacement: Hashable, Sendable {
  /// A code per byte, row by row; with the highest bit inverted where the bytes are signed.
  case bytes(areSigned: Bool)
  /// Two codes per byte of the flattened weight, the first one high.
  case nibbles
  /// Every row a stream of 32-bit words, least significant bit first.
  case rows(bits: Int)
  /// The same words, `[words, rows]`: those of a row stand in its column.
  case columns(bits: Int)
  /// Words of eight rows, `[columns, rows/8]`: nibble i of a word is the code of row `order[i]` of the eight.
  case together(order: [Int])

  /// Whether tiles are runs of the flattened weight instead of whole rows.
  package var isFlat: Bool { self == .nibbles }

  /// What the rows of a tile are a multiple of. Where words stand across the rows, as many as make their runs in the
  /// transposed matrix whole cache lines, or nearly so.
  package var rowUnit: Int {
    switch self {
    case .bytes, .nibbles, .rows: 8
    case .columns: 16
    case .together: 64
    }
  }

  /// Rows and columns of the matrix of words that must be complete before any of it can be written; nil where the bytes of
  /// a tile are a run of the tensor.
  package func words(rows: Int, columns: Int) -> (rows: Int, columns: Int)? {
    switch self {
    case .bytes, .nibbles, .rows: nil
    case .columns(let bits): (wordByteCount(codes: columns, bits: bits) / 4, rows)
    case .together: (columns, rows / 8)
    }
  }

  /// The place of an element's code: of the first of a row, or of one that begins a byte of `nibbles`.
  func offset(of element: Int, columns: Int) -> Int {
    switch self {
    case .bytes, .columns, .together: element
    case .nibbles: element / 2
    case .rows(let bits): element / columns * wordByteCount(codes: columns, bits: bits)
    }
  }

  /// Packs a tile whose bytes are a run of the tensor.
  /// - Parameter codes: used up: the buffer may change places with it.
  /// - Returns: the number of bytes, at the front of the buffer.
  func pack(_ codes: inout [UInt8], columns: Int, into buffer: inout [UInt8]) -> Int {
    switch self {
    case .bytes(let areSigned):
      swap(&codes, &buffer)
      if areSigned {
        var bytes = buffer.mutableSpan
        invertHighestBits(&bytes)
      }
      return buffer.count
    case .nibbles:
      let count = packedByteCount(codes: codes.count, bits: 4)
      buffer.resize(to: count)
      var bytes = buffer.mutableSpan
      packBits(codes.span, bits: 4, into: &bytes)
      swapNibbles(&bytes)
      return count
    case .rows(let bits): return Self.pack(codes.span, columns: columns, bits: bits, into: &buffer)
    case .columns, .together: preconditionFailure("their words go to a matrix")
    }
  }

  /// Packs a tile into its columns of a matrix that `words` describes.
  /// - Parameter row: the tile's first.
  func pack(_ codes: Span<UInt8>, columns: Int, row: Int, into words: WordMatrix, using buffer: inout [UInt8]) {
    let rows = codes.count / columns
    switch self {
    case .columns(let bits):
      _ = Self.pack(codes, columns: columns, bits: bits, into: &buffer)
      words.store(buffer.span, count: rows, at: row)
    case .together(let order):
      buffer.resize(to: rows / 2 * columns)
      var bytes = buffer.mutableSpan
      packRowsTogether(codes, rows: rows, columns: columns, order: order, into: &bytes, workers: 1)
      words.store(buffer.span, count: rows / 8, at: row / 8)
    case .bytes, .nibbles, .rows: preconditionFailure("their bytes are written as they are")
    }
  }

  private static func pack(_ codes: Span<UInt8>, columns: Int, bits: Int, into buffer: inout [UInt8]) -> Int {
    let stride = wordByteCount(codes: columns, bits: bits)
    let rows = codes.count / columns
    let isDense = stride * 8 == columns * bits
    if !isDense { buffer.removeAll(keepingCapacity: true) }
    buffer.resize(to: rows * stride)
    var bytes = buffer.mutableSpan
    if isDense {
      packBits(codes, bits: bits, into: &bytes)
    } else {
      packRows(codes, rows: rows, columns: columns, bits: bits, stride: stride, into: &bytes, workers: 1)
    }
    return rows * stride
  }
}
