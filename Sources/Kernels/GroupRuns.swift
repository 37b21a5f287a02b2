/// The groups of a run of elements that begins with a whole group: rows of equal length, each cut into groups of equal
/// length, the last group of a row shorter if the length does not divide it. Ranges are of the run's own elements.
package struct GroupRuns: Sequence, IteratorProtocol, Sendable {
  /// Elements of the whole run.
  package let count: Int
  @usableFromInline let rowLength: Int
  @usableFromInline let groupLength: Int
  @usableFromInline var position = 0
  @usableFromInline var column: Int

  /// - Parameter column: the place of the first element in its row.
  package init(rowLength: Int, groupLength: Int, column: Int, count: Int) {
    precondition(groupLength > 0 && rowLength > 0 && column >= 0 && column < rowLength && count >= 0)
    self.count = count
    self.rowLength = rowLength
    self.groupLength = groupLength
    self.column = column
  }

  /// One group.
  package init(single count: Int) {
    self.init(rowLength: Swift.max(count, 1), groupLength: Swift.max(count, 1), column: 0, count: count)
  }

  @inlinable
  package mutating func next() -> Range<Int>? {
    guard position < count else { return nil }
    let start = position
    let length = Swift.min(groupLength, rowLength - column, count - position)
    position += length
    column += length
    if column == rowLength { column = 0 }
    return start..<position
  }
}
