import Kernels

/// A quantized weight `[rows, columns]` under absmax or zero points, in memory.
package struct AffineWeight: Hashable, Sendable {
  package let rows: Int
  package let columns: Int
  /// Columns of one group; the last group may be shorter.
  package let groupLength: Int
  /// One code per weight, row-major, the columns in the weight's own order.
  package var codes: [UInt8]
  /// One range per row and group, row-major, each scale rounded as stored.
  package var ranges: [AffineRange]
  /// The group of each column, where groups are not runs of columns (`g_idx` of GPTQ files); else nil.
  package let groupIndex: [Int32]?

  package init(
    rows: Int, columns: Int, groupLength: Int, codes: [UInt8], ranges: [AffineRange], groupIndex: [Int32]?
  ) {
    (self.rows, self.columns, self.groupLength) = (rows, columns, groupLength)
    (self.codes, self.ranges, self.groupIndex) = (codes, ranges, groupIndex)
  }

  package var groupsPerRow: Int { (columns + groupLength - 1) / groupLength }

  package func group(ofColumn column: Int) -> Int { groupIndex.map { Int($0[column]) } ?? column / groupLength }

  /// The weights that a reader gets, in float32.
  package func decode(into matrix: Matrix, workers: Int) {
    precondition(matrix.rows == rows && matrix.columns == columns)
    let tileSize = 64
    runTiles(count: (rows + tileSize - 1) / tileSize, workers: workers) { tile in
      for row in (tile * tileSize)..<min((tile + 1) * tileSize, rows) {
        matrix.withRows(row..<(row + 1)) { target in
          if let groupIndex {
            for column in 0..<columns {
              let range = ranges[row * groupsPerRow + Int(groupIndex[column])]
              target[column] = range.value(of: codes[row * columns + column])
            }
          } else {
            for group in 0..<groupsPerRow {
              let start = group * groupLength
              let end = min(start + groupLength, columns)
              let members = codes.span.extracting((row * columns + start)..<(row * columns + end))
              decodeAffine(members, ranges[row * groupsPerRow + group], into: &target, at: start)
            }
          }
        }
      }
    }
  }
}
