/// Encodes values to the nearest of a few levels, each known by its code.
///
/// The nearest level is found by comparing with the midpoints of neighbouring levels; a value exactly on a midpoint
/// takes the lower level, as bitsandbytes does. A table over 8,192 cells of the range −1…1 answers at once; only the
/// cells that hold a midpoint send their values to the comparison, so that the answer is always exact.
package struct Codebook: Hashable, Sendable {
  /// Levels in code order, within −1…1; several codes may share a level.
  package let levels: [Float]
  /// The codes in ascending order of their levels (then of their own), and the midpoints between neighbours.
  private let codes: [UInt8]
  private let midpoints: [Float]
  /// For each cell the code, with `ambiguous` set where a midpoint lies in the cell.
  private let cells: [UInt16]

  private static let cellCount = 8192
  private static let ambiguous: UInt16 = 0x100
  private static let cellScale: Float = 4094
  private static let cellShift: Float = roundingShift + 4096

  /// - Precondition: 2 to 256 finite levels within −1…1.
  package init(levels: [Float]) {
    precondition((2...256).contains(levels.count) && levels.allSatisfy { abs($0) <= 1 })
    self.levels = levels
    let ascending = levels.enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }
    codes = ascending.map { UInt8($0.offset) }
    midpoints = zip(ascending, ascending.dropFirst()).map { ($0.element + $1.element) / 2 }
    var cells = [UInt16](repeating: 0, count: Self.cellCount)
    var next = 0
    for cell in cells.indices {
      cells[cell] = UInt16(codes[next])
      while next < midpoints.count, Self.cell(of: midpoints[next]) == cell {
        cells[cell] |= Self.ambiguous
        next += 1
      }
    }
    self.cells = cells
  }

  /// The cell of a value. It never falls as the value rises, so a value beyond a midpoint is in its cell or a later one.
  @inline(__always)
  private static func cell(of position: Float) -> Int {
    Int((position * cellScale + cellShift).bitPattern & 0x1fff)
  }

  /// The code of the level nearest to `position`; values beyond ±1 take the outermost level.
  package func code(nearest position: Float) -> UInt8 {
    var low = 0
    var high = midpoints.count
    while low < high {
      let middle = (low + high) / 2
      if position > midpoints[middle] { low = middle + 1 } else { high = middle }
    }
    return codes[low]
  }

  /// Writes the code of `value / scale` for each value of a group, from position `start` on; the quotient is `value · (1 / scale)` in float32.
  ///
  /// Scales below 1e-38 count as 1e-38, as in bitsandbytes; the codes of a scale of zero all decode to zero. `code(nearest:)` is the plain twin.
  /// - Precondition: the codes fit, values are finite.
  package func encode(
    _ values: Span<Float>, scale: Float, into output: inout MutableSpan<UInt8>, at start: Int = 0
  ) {
    precondition(start >= 0 && start + values.count <= output.count)
    let count = values.count
    let inverse = 1 / max(scale, 1e-38)
    output.withUnsafeMutableBufferPointer { target in
      values.withUnsafeBufferPointer { source in
        cells.withUnsafeBufferPointer { table in
          guard let input = source.baseAddress, let output = target.baseAddress?.advanced(by: start),
            let cells = table.baseAddress
          else { return }
          let one = Words(repeating: Int32(bitPattern: Float(1).bitPattern))
          var index = 0
          // Bounds: reads and writes sixteen elements while index + 16 ≤ count; a cell index has thirteen bits.
          while index &+ 16 <= count {
            let position = input.lanes(index, as: Floats.self) * inverse
            // Beyond ±1 (a clipped range): the magnitude is cut in its bit pattern, the sign kept.
            let bits = position.words
            let excess = (bits & 0x7fff_ffff) &- one
            let inside = ((excess & (excess &>> 31)) &+ one) | (bits & Int32.min)
            let cell = (inside.floats * Self.cellScale + Self.cellShift).words & 0x1fff
            var flags: UInt16 = 0
            for lane in 0..<16 {
              let entry = cells[Int(cell[lane])]
              flags |= entry
              output[index &+ lane] = UInt8(truncatingIfNeeded: entry)
            }
            if flags & Self.ambiguous != 0 {
              for lane in 0..<16 where cells[Int(cell[lane])] & Self.ambiguous != 0 {
                output[index &+ lane] = code(nearest: position[lane])
              }
            }
            index &+= 16
          }
          while index < count {
            output[index] = code(nearest: input[index] * inverse)
            index &+= 1
          }
        }
      }
    }
  }

  /// Writes `level · scale` for each code of a group, from position `start` on.
  /// - Precondition: the values fit and every code is below `levels.count`.
  package func decode(
    _ codes: Span<UInt8>, scale: Float, into values: inout MutableSpan<Float>, at start: Int = 0
  ) {
    // One product per level instead of one per value; the products are the same.
    let scaled = levels.map { $0 * scale }
    for index in 0..<codes.count { values[start + index] = scaled[Int(codes[index])] }
  }

  /// The squared error of a group's codes, and the scale that would minimize it: Σ w·l / Σ l².
  package func fit(
    _ values: Span<Float>, _ codes: Span<UInt8>, scale: Float
  ) -> (squaredError: Double, bestScale: Double?) {
    var (error, product, squares) = (0.0, 0.0, 0.0)
    for index in 0..<values.count {
      let level = Double(levels[Int(codes[index])])
      let value = Double(values[index])
      let difference = value - Double(Float(level) * scale)
      error += difference * difference
      product += value * level
      squares += level * level
    }
    return (error, squares > 0 ? product / squares : nil)
  }
}
