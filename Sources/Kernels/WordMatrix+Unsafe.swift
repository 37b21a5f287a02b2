/// A matrix of 32-bit words that threads fill column by column, each columns of its own, and that is read row by row once
/// it is full: where the words of a layout stand across the rows of a weight, which are quantized in any order.
///
/// The memory serves one matrix after another, so that its pages are touched for the first time once.
package final class WordMatrix: @unchecked Sendable {
  /// Words that there is room for.
  package let capacity: Int
  package private(set) var rows = 0
  package private(set) var columns = 0
  private let base: UnsafeMutableRawPointer

  /// Memory that is yet to be written.
  package init(capacity: Int) {
    precondition(capacity >= 0)
    self.capacity = capacity
    base = .allocate(byteCount: max(1, capacity) * 4, alignment: 64)
  }

  deinit { base.deallocate() }

  /// Starts another matrix. No other thread may use this one yet.
  package func use(rows: Int, columns: Int) {
    precondition(rows >= 0 && columns >= 0 && rows * columns <= capacity)
    (self.rows, self.columns) = (rows, columns)
  }

  package var byteCount: Int { rows * columns * 4 }

  /// Writes lines of as many words as there are rows as columns: self[r, first + l] = lines[l, r]. The caller sees to it
  /// that no other thread uses these columns.
  package func store(_ lines: Span<UInt8>, count: Int, at first: Int) {
    precondition(first >= 0 && count >= 0 && first + count <= columns && lines.count >= count * rows * 4)
    lines.withUnsafeBytes { lines in
      guard let input = lines.baseAddress else { return }
      var line = 0
      // Bounds: lines below `count` and rows below `rows` on both sides, by the precondition; eight lines and sixteen rows
      // while both are left.
      while line &+ 8 <= count {
        var row = 0
        while row &+ 16 <= rows {
          let words = EightLines(input + (line &* rows &+ row) &* 4, stride: rows &* 4).transposed
          words.store(to: base + (row &* columns &+ first &+ line) &* 4, stride: columns &* 4)
          row &+= 16
        }
        store(input, lines: line..<line &+ 8, rows: row..<rows, at: first)
        line &+= 8
      }
      store(input, lines: line..<count, rows: 0..<rows, at: first)
    }
  }

  /// Word by word, where vectors do not fit.
  private func store(_ input: UnsafeRawPointer, lines: Range<Int>, rows span: Range<Int>, at first: Int) {
    for row in span {
      let output = base + (row &* columns &+ first) &* 4
      for line in lines {
        let word = input.loadUnaligned(fromByteOffset: (line &* rows &+ row) &* 4, as: UInt32.self)
        output.storeBytes(of: word, toByteOffset: line &* 4, as: UInt32.self)
      }
    }
  }

  /// Copies a range of the matrix's bytes to the front of a buffer, which grows if it must.
  /// - Precondition: every column has been written.
  package func copyBytes(_ range: Range<Int>, into buffer: inout [UInt8]) {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount)
    if buffer.count < range.count { buffer = [UInt8](repeating: 0, count: range.count) }
    buffer.withUnsafeMutableBytes { target in
      // Bounds: the range lies within the matrix, and the buffer holds as many bytes.
      target.baseAddress?.copyMemory(from: base + range.lowerBound, byteCount: range.count)
    }
  }
}

/// Sixteen words of eight lines. Interleaving the first half with the second moves the highest bit of every word's place to
/// the lowest: after three times the three bits that were the line come last, and the words lie column by column.
private struct EightLines {
  typealias Line = SIMD16<UInt32>
  private var a, b, c, d, e, f, g, h: Line

  private init(_ a: Line, _ b: Line, _ c: Line, _ d: Line, _ e: Line, _ f: Line, _ g: Line, _ h: Line) {
    (self.a, self.b, self.c, self.d) = (a, b, c, d)
    (self.e, self.f, self.g, self.h) = (e, f, g, h)
  }

  /// - Precondition: sixteen words can be read at each of eight places, `stride` bytes apart.
  @inline(__always) init(_ base: UnsafeRawPointer, stride: Int) {
    func line(_ index: Int) -> Line { base.loadUnaligned(fromByteOffset: index &* stride, as: Line.self) }
    self.init(line(0), line(1), line(2), line(3), line(4), line(5), line(6), line(7))
  }

  private var interleaved: EightLines {
    @inline(__always) get {
      EightLines(
        a.lowInterleaved(e), a.highInterleaved(e), b.lowInterleaved(f), b.highInterleaved(f), c.lowInterleaved(g),
        c.highInterleaved(g), d.lowInterleaved(h), d.highInterleaved(h))
    }
  }

  var transposed: EightLines { @inline(__always) get { interleaved.interleaved.interleaved } }

  /// Writes sixteen columns of eight words.
  /// - Precondition: eight words can be written at each of sixteen places, `stride` bytes apart.
  @inline(__always) func store(to base: UnsafeMutableRawPointer, stride: Int) {
    func store(_ line: Line, _ column: Int) {
      base.storeBytes(of: line.lowHalf, toByteOffset: column &* stride, as: SIMD8<UInt32>.self)
      base.storeBytes(of: line.highHalf, toByteOffset: (column &+ 1) &* stride, as: SIMD8<UInt32>.self)
    }
    store(a, 0)
    store(b, 2)
    store(c, 4)
    store(d, 6)
    store(e, 8)
    store(f, 10)
    store(g, 12)
    store(h, 14)
  }
}
