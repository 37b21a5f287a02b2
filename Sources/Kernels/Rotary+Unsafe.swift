/// Rotates the first dimensions of each head by an angle that grows with the token's position (rotary position
/// embedding, arXiv 2104.09864, eq. 34, in the arrangement of halves that Hugging Face checkpoints use: dimension j is
/// paired with j + half).
/// - Parameters:
///   - x: `[tokens, …]`, changed in place.
///   - firstColumn: where the first of `heads` heads of `headDimension` columns begins.
///   - positions: one for each row in use.
///   - cosines: `[positions, half]`, as many rows as the highest position asks for.
///   - sines: the same shape.
package func rotate(
  _ x: Matrix, firstColumn: Int, heads: Int, headDimension: Int, positions: [Int], cosines: Matrix, sines: Matrix,
  workers: Int
) {
  let half = cosines.columns
  precondition(firstColumn >= 0 && firstColumn + heads * headDimension <= x.columns && 2 * half <= headDimension)
  precondition(positions.count == x.rows && sines.columns == half && sines.rows == cosines.rows)
  precondition(positions.allSatisfy { $0 >= 0 && $0 < cosines.rows })
  runRowTiles(x.rows, columns: heads * headDimension, workers: workers) { rows in
    for row in rows {
      let cosine = cosines.base + positions[row] * half
      let sine = sines.base + positions[row] * half
      for head in 0..<heads {
        // Bounds: by the preconditions the head lies in the row, its two halves in the head, the position in the tables.
        let low = x.base + row * x.columns + firstColumn + head * headDimension
        let high = low + half
        var index = 0
        while index &+ 16 <= half {
          let (a, b): (Floats, Floats) = (low.lanes(index), high.lanes(index))
          let (c, s): (Floats, Floats) = (cosine.lanes(index), sine.lanes(index))
          low.store(a * c - b * s, at: index)
          high.store(b * c + a * s, at: index)
          index &+= 16
        }
        while index < half {
          let (a, b) = (low[index], high[index])
          low[index] = a * cosine[index] - b * sine[index]
          high[index] = b * cosine[index] + a * sine[index]
          index &+= 1
        }
      }
    }
  }
}

extension UnsafeMutablePointer {
  /// Sixteen lanes starting at element `index`, which the caller keeps within bounds.
  @inline(__always)
  func lanes<V: SIMD>(_ index: Int, as: V.Type = V.self) -> V where V: BitwiseCopyable {
    UnsafeRawPointer(self).loadUnaligned(fromByteOffset: index &* MemoryLayout<Pointee>.stride, as: V.self)
  }
}
