import Kernels
import Synchronization

/// Improves the codes and scales of a quantized weight by coordinate descent on the layer's output error (QuantEase,
/// arXiv 2309.01885, eq. 4 to 8, extended to scales).
///
/// The error of a row is (ŵ − t)·H·(ŵ − t)ᵀ with targets t and the dampened H. Given all other codes, the best code of
/// column j is the one nearest to ŵ[j] − ((ŵ − t)·H)[j] / H[j][j]; given all codes and other scales, with c the codes less
/// the zero point within a group, the best scale is s − c·((ŵ − t)·H) / (c·H·cᵀ), which is rounded as stored and taken only
/// if the error falls. A sweep goes through the columns of each group, then its scale. The error never rises.
///
/// GPTQ decides each column once, and cannot change a code when later columns turn out otherwise; started from its
/// answer, a few sweeps settle. Rows do not depend on each other: parallel by tiles, the same for any number of workers.
package struct CoordinateDescent: Hashable, Sendable {
  package let sweeps: Int
  /// The type that scales are rounded to; nil: scales stay as they are.
  package let scaleType: ElementType?

  package init(sweeps: Int, scaleType: ElementType?) {
    self.sweeps = sweeps
    self.scaleType = scaleType
  }

  /// Columns whose codes are chosen between two matrix products.
  private static let columnBlock = 64

  /// - Parameters:
  ///   - quantized: changed in place; its groups are runs of neighbouring columns.
  ///   - target: `[rows, columns]`.
  ///   - h: `[columns, columns]`, symmetric, its diagonal positive.
  ///   - dead: columns whose target is zero.
  /// - Returns: tr((Ŵ − T)·H·(Ŵ − T)ᵀ) in the end.
  package func improve(
    _ quantized: inout AffineWeight, towards target: Matrix, h: Matrix, dead: [Int] = [], workers: Int
  ) -> Double {
    precondition(quantized.groupIndex == nil && target.rows == quantized.rows && target.columns == quantized.columns)
    let (columns, groups, length) = (quantized.columns, quantized.groupsPerRow, quantized.groupLength)
    let tileSize = GPTQ.rowTile(rows: quantized.rows)
    let count = (quantized.rows + tileSize - 1) / tileSize
    let source = quantized
    let finished = Mutex([(codes: [UInt8], ranges: [AffineRange], loss: Double)?](repeating: nil, count: count))
    let states = Mutex([DescentTileBox]())
    runTiles(count: count, workers: workers) { index in
      let box =
        states.withLock { $0.popLast() }
        ?? DescentTileBox(
          tile: DescentTile(rowCapacity: min(tileSize, source.rows), columns: columns, groups: groups, widest: length))
      let tile = box.tile
      let rows = (index * tileSize)..<min((index + 1) * tileSize, source.rows)
      var codes = Array(source.codes[rows.lowerBound * columns..<rows.upperBound * columns])
      var ranges = Array(source.ranges[rows.lowerBound * groups..<rows.upperBound * groups])
      tile.load(target, rows: rows, codes: codes.span, ranges: ranges.span, groupLength: length)
      for column in dead { tile.clearTarget(column: column, groupLength: length) }
      tile.computeGradients(h)
      descend(tile, columns: columns, length: length, h: h, highestCode: ranges.first?.highestCode ?? 0)
      var codeSpan = codes.mutableSpan
      var rangeSpan = ranges.mutableSpan
      tile.store(codes: &codeSpan, ranges: &rangeSpan, groupLength: length)
      let result = (codes, ranges, tile.loss)
      finished.withLock { $0[index] = result }
      states.withLock { $0.append(box) }
    }
    let tiles = finished.withLock { $0.compactMap(\.self) }
    quantized.codes = tiles.flatMap(\.codes)
    quantized.ranges = tiles.flatMap(\.ranges)
    return tiles.reduce(0) { $0 + $1.loss }
  }

  private func descend(_ tile: DescentTile, columns: Int, length: Int, h: Matrix, highestCode: Int32) {
    for _ in 0..<sweeps {
      var isChanged = false
      for (group, first) in stride(from: 0, to: columns, by: length).enumerated() {
        let run = first..<min(first + length, columns)
        for start in stride(from: first, to: run.upperBound, by: Self.columnBlock) {
          let block = start..<min(start + Self.columnBlock, run.upperBound)
          if tile.improveCodes(block, group: group, h: h, highestCode: highestCode) { isChanged = true }
        }
        if let scaleType { tile.improveScale(run, group: group, h: h) { rounded($0, to: scaleType) } }
      }
      if !isChanged { return }
    }
  }
}

/// A tile that goes from thread to thread, used by one at a time.
private struct DescentTileBox: @unchecked Sendable {
  let tile: DescentTile
}
