/// Rows of float32 values, row-major, that several threads read or fill at once.
///
/// A reference: the operations of this module write into matrices that their caller made, so that memory is reused from
/// block to block. Within one operation every thread writes rows, or columns of rows, of its own.
package final class Matrix: @unchecked Sendable {
  package let rowCapacity: Int
  package let columns: Int
  /// The rows in use; operations look at these only.
  package private(set) var rows: Int
  let base: UnsafeMutablePointer<Float>
  private let memory: FloatMemory?
  /// The matrix whose storage this one shares.
  private let owner: Matrix?

  /// Zeros.
  package init(rows: Int, columns: Int) {
    precondition(rows >= 0 && columns >= 0)
    rowCapacity = rows
    self.rows = rows
    self.columns = columns
    owner = nil
    let memory = FloatMemory(count: rows * columns)
    (self.memory, base) = (memory, memory.base)
  }

  package convenience init(rows: Int, columns: Int, _ values: [Float]) {
    precondition(values.count == rows * columns)
    self.init(rows: rows, columns: columns)
    withRows(0..<rows) { target in for index in 0..<values.count { target[index] = values[index] } }
  }

  /// Rows of another matrix, in the same storage.
  package init(sharing owner: Matrix, rows range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= owner.rowCapacity)
    rowCapacity = range.count
    rows = range.count
    columns = owner.columns
    // Bounds: the range lies within the owner, which this one keeps alive.
    base = owner.base + range.lowerBound * owner.columns
    self.owner = owner
    memory = nil
  }

  deinit { memory?.free() }

  /// Has the system give all of the memory now, by several threads, rather than bit by bit where it is first written.
  package func touch(workers: Int) {
    let (run, page) = (1 << 19, 1 << 10)
    let count = rowCapacity * columns
    runTiles(count: (count + run - 1) / run, workers: workers) { tile in
      // Bounds: below the count of elements.
      for index in stride(from: tile * run, to: min(count, (tile + 1) * run), by: page) { base[index] = 0 }
    }
  }

  /// Changes how many of the rows are in use.
  package func use(rows: Int) {
    precondition(rows >= 0 && rows <= rowCapacity)
    self.rows = rows
  }

  /// Writes into rows. The caller sees to it that no other thread uses them meanwhile.
  package func withRows<Failure: Error>(
    _ range: Range<Int>, _ body: (inout MutableSpan<Float>) throws(Failure) -> Void
  ) throws(Failure) {
    precondition(range.lowerBound >= 0 && range.upperBound <= rowCapacity)
    // Bounds: rows of the range lie within the allocation of rowCapacity · columns.
    let buffer = UnsafeMutableBufferPointer(start: base + range.lowerBound * columns, count: range.count * columns)
    var span = MutableSpan(_unsafeElements: buffer)
    try body(&span)
  }

  /// Reads rows. The caller sees to it that no other thread writes them meanwhile.
  package func readRows<Result, Failure: Error>(
    _ range: Range<Int>, _ body: (Span<Float>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    precondition(range.lowerBound >= 0 && range.upperBound <= rowCapacity)
    // Bounds: as in withRows.
    let buffer = UnsafeBufferPointer(start: base + range.lowerBound * columns, count: range.count * columns)
    return try body(Span(_unsafeElements: buffer))
  }

  /// A copy of rows, for tests and small results.
  package func values(ofRows range: Range<Int>) -> [Float] {
    readRows(range) { span in (0..<span.count).map { span[$0] } }
  }

  package func values() -> [Float] { values(ofRows: 0..<rows) }
}
