import Kernels
import Synchronization

extension AffineWeight {
  /// Rounds every weight to the nearest code of its group's range: the methods absmax and zero points on a matrix in
  /// memory.
  /// - Parameter importance: by column, what a search for ranges weighs squared errors by.
  package init(roundingToNearest weight: Matrix, _ scheme: WeightScheme, importance: [Float]?, workers: Int) throws {
    let columns = weight.columns
    let length = scheme.groupLength(columns: columns)
    let groups = (columns + length - 1) / length
    let finder = RangeFinder(scheme)
    let tileSize = 64
    let count = (weight.rows + tileSize - 1) / tileSize
    let finished = Mutex([(codes: [UInt8], ranges: [AffineRange])?](repeating: nil, count: count))
    try runParallel(count: count, workers: workers, makeState: {}) { tile, _ in
      let rows = (tile * tileSize)..<min((tile + 1) * tileSize, weight.rows)
      var codes = [UInt8](repeating: 0, count: rows.count * columns)
      var ranges: [AffineRange] = []
      var magnitudes: [Float] = []
      try weight.readRows(rows) { values throws(QuantizationError) in
        for index in 0..<(rows.count * groups) {
          let row = index / groups
          let first = index % groups * length
          let span = first..<min(first + length, columns)
          let start = row * columns + first
          let members = values.extracting(start..<(start + span.count))
          let largest = absoluteMaximum(members)
          let element = rows.lowerBound * columns + start
          if !largest.isFinite, let index = firstNonFinite(members) {
            throw .notFinite(element: element + index, value: "\(members[index])")
          }
          let range: AffineRange
          if let importance {
            range = try finder.storableRange(
              of: members, largest: largest, importance: importance.span.extracting(span), element: element)
          } else {
            range = try finder.storableRange(of: members, largest: largest, importance: nil, element: element)
          }
          ranges.append(range)
          magnitudes.append(largest)
        }
        var target = codes.mutableSpan
        encodeAffine(
          values.bytes, as: .f32,
          groups: GroupRuns(rowLength: columns, groupLength: length, column: 0, count: rows.count * columns),
          ranges: ranges.span, magnitudes: magnitudes.span, into: &target)
      }
      finished.withLock { $0[tile] = (codes, ranges) }
    }
    let tiles = finished.withLock { $0.compactMap(\.self) }
    self.init(
      rows: weight.rows, columns: columns, groupLength: length, codes: tiles.flatMap(\.codes),
      ranges: tiles.flatMap(\.ranges), groupIndex: nil)
  }
}
