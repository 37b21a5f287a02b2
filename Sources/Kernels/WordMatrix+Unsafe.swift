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
      // Sixteen words of every line at a time, which are a cache line each.
      var start = 0
      while start < rows {
        let end = min(start + 16, rows)
        // Bounds: lines below `count` and rows below `rows` on both sides, by the precondition.
        for row in start..<end {
          let output = base + (row &* columns &+ first) &* 4
          for line in 0..<count {
            let word = input.loadUnaligned(fromByteOffset: (line &* rows &+ row) &* 4, as: UInt32.self)
            output.storeBytes(of: word, toByteOffset: line &* 4, as: UInt32.self)
          }
        }
        start = end
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
