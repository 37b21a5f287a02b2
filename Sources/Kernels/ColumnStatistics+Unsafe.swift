/// Sums over the rows of a matrix, by column.
package struct ColumnStatistics: Hashable, Codable, Sendable {
  /// Σ |x|
  package var magnitudeSums: [Double]
  /// Σ x²
  package var squareSums: [Double]
  package var largestMagnitudes: [Float]
  /// Rows in which the magnitude reaches a threshold.
  package var exceedances: [Int]

  package init(columns: Int) {
    magnitudeSums = [Double](repeating: 0, count: columns)
    squareSums = magnitudeSums
    largestMagnitudes = [Float](repeating: 0, count: columns)
    exceedances = [Int](repeating: 0, count: columns)
  }

  package mutating func add(_ other: ColumnStatistics) {
    for column in magnitudeSums.indices {
      magnitudeSums[column] += other.magnitudeSums[column]
      squareSums[column] += other.squareSums[column]
      largestMagnitudes[column] = max(largestMagnitudes[column], other.largestMagnitudes[column])
      exceedances[column] += other.exceedances[column]
    }
  }
}

/// Statistics of the rows in use of `x`, which is finite.
///
/// Sixteen columns at a time, float lanes over runs of 64 rows, which are added in double precision: the same sums for
/// any number of workers.
package func columnStatistics(_ x: Matrix, threshold: Float, workers: Int) -> ColumnStatistics {
  let (rows, columns) = (x.rows, x.columns)
  var result = ColumnStatistics(columns: columns)
  let tiles = (columns + 15) / 16
  result.magnitudeSums.withUnsafeMutableBufferPointer { magnitudes in
    result.squareSums.withUnsafeMutableBufferPointer { squares in
      result.largestMagnitudes.withUnsafeMutableBufferPointer { largest in
        result.exceedances.withUnsafeMutableBufferPointer { exceedances in
          nonisolated(unsafe) let (magnitudes, squares) = (magnitudes, squares)
          nonisolated(unsafe) let (largest, exceedances) = (largest, exceedances)
          runTiles(count: tiles, workers: workers) { tile in
            // Bounds: a tile reads and writes its own columns, first..<first + width ≤ columns, of rows below `rows`.
            let first = tile * 16
            let width = min(16, columns - first)
            for start in stride(from: 0, to: rows, by: 64) {
              let end = min(rows, start + 64)
              if width == 16 {
                var (sums, powers, peaks, counts) = (Floats.zero, Floats.zero, Floats.zero, Words.zero)
                for row in start..<end {
                  let lanes: Floats = UnsafePointer(x.base).lanes(row &* columns &+ first)
                  let size = (lanes.words & 0x7fff_ffff).floats
                  sums += size
                  powers += lanes * lanes
                  peaks = peaks.replacing(with: size, where: size .> peaks)
                  counts = counts.replacing(with: counts &+ 1, where: size .>= threshold)
                }
                for lane in 0..<16 {
                  magnitudes[first + lane] += Double(sums[lane])
                  squares[first + lane] += Double(powers[lane])
                  largest[first + lane] = max(largest[first + lane], peaks[lane])
                  exceedances[first + lane] += Int(counts[lane])
                }
              } else {
                for column in first..<(first + width) {
                  for row in start..<end {
                    let size = abs(x.base[row &* columns &+ column])
                    magnitudes[column] += Double(size)
                    squares[column] += Double(size) * Double(size)
                    largest[column] = max(largest[column], size)
                    if size >= threshold { exceedances[column] += 1 }
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  return result
}
