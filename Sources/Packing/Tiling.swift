import Quantization

/// The fixed partition of a tensor into tiles: what is worked on at a time, and what threads share out.
///
/// A tile holds whole groups and begins on a whole byte of every member stream: it is a multiple of eight rows or, where
/// there is one row only, of as many groups as fill whole bytes (and whole blocks of doubly quantized scales).
package struct Tiling: Hashable, Sendable {
  package let count: Int
  package let tileLength: Int

  /// Elements that a tile aims at: its bytes, floats and codes together stay within a core's second-level cache.
  package static let usualLength = 1 << 16
  /// The same of a tensor that is read as its transpose, a stretch of every stored row for each tile: stretches are longer,
  /// and files read in fewer calls.
  package static let transposedLength = 1 << 20
  /// A tile never grows beyond this; tensors that would need it are refused.
  package static let longestTile = 1 << 24

  /// Nil where a group or eight rows are longer than the longest tile.
  package init?(_ grouping: Grouping, _ encoding: WeightEncoding, usualLength: Int = Self.usualLength) {
    count = grouping.count
    let unit: Int
    if grouping.rows > 1 {
      unit = 8 * grouping.rowLength
    } else {
      let (length, overflow) = grouping.groupLength.multipliedReportingOverflow(by: Self.groupsPerUnit(encoding))
      guard !overflow else { return nil }
      unit = encoding.sharing == .tensor ? 8 : length
    }
    // A tensor smaller than the unit is one tile, whatever its length.
    guard min(unit, count) <= Self.longestTile else { return nil }
    tileLength = max(unit, usualLength / unit * unit)
  }

  /// Of whole rows, as layouts of runtimes take them.
  /// - Parameter unit: rows that each tile but the last is a multiple of.
  package init?(rows: Int, columns: Int, unit: Int, usualLength: Int = Self.usualLength) {
    count = rows * columns
    let (length, isTooLong) = unit.multipliedReportingOverflow(by: columns)
    guard !isTooLong, min(length, count) <= Self.longestTile else { return nil }
    tileLength = max(length, usualLength / length * length)
  }

  /// Groups after which every member stream is at the start of a byte, or of a block of scales.
  private static func groupsPerUnit(_ encoding: WeightEncoding) -> Int {
    switch encoding.scales {
    case .nested(let blockSize): blockSize
    case .plain: 8
    }
  }

  package var tiles: Int { (count + tileLength - 1) / tileLength }

  package func elements(of tile: Int) -> Range<Int> { tile * tileLength..<min((tile + 1) * tileLength, count) }
}
