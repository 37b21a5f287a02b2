/// Encodes values to the nearest of a few levels, each known by its code.
///
/// The nearest level is found by comparing with the midpoints of neighbouring levels; a value exactly on a midpoint
/// takes the lower level, as bitsandbytes does. A table over 16,384 cells of the range −1…1 answers at once; only the
/// cells that hold a midpoint send their values to the comparison, so that the answer is always exact.
package struct Codebook: Hashable, Sendable {
  /// Levels in code order, within −1…1; several codes may share a level.
  package let levels: [Float]
  /// The codes in ascending order of their levels (then of their own), and the midpoints between neighbours.
  private let codes: [UInt8]
  private let midpoints: [Float]
  /// For each cell the code, with `ambiguous` set where a midpoint lies in the cell.
  private let cells: [UInt8]

  private static let leastScale: Float = 1e-38
  private static let cellCount = 16384
  private static let ambiguous: UInt8 = 0x80
  private static let cellScale: Float = 8188
  private static let cellShift: Float = roundingShift + 8192

  /// - Precondition: 2 to 256 finite levels within −1…1.
  package init(levels: [Float]) {
    precondition((2...256).contains(levels.count) && levels.allSatisfy { abs($0) <= 1 })
    self.levels = levels
    let ascending = levels.enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }
    codes = ascending.map { UInt8($0.offset) }
    midpoints = zip(ascending, ascending.dropFirst()).map { ($0.element + $1.element) / 2 }
    // Codes of more than 128 levels leave no room for the mark: every value is compared.
    guard levels.count <= Int(Self.ambiguous) else {
      cells = [UInt8](repeating: Self.ambiguous, count: Self.cellCount)
      return
    }
    var cells = [UInt8](repeating: 0, count: Self.cellCount)
    var next = 0
    for cell in cells.indices {
      cells[cell] = codes[next]
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
    Int((position * cellScale + cellShift).bitPattern & 0x3fff)
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

  /// Writes the codes of all groups of a run of stored weights: of `value · (1 / scale)` in float32 for each value.
  ///
  /// Scales below 1e-38 count as 1e-38, as in bitsandbytes; the codes of a scale of zero all decode to zero.
  /// `code(nearest:)` is the plain twin.
  /// - Parameters:
  ///   - scales: one per group.
  ///   - magnitudes: the largest magnitude of each group: a scale that covers it need not be clipped to. Infinity if it
  ///     is not known.
  /// - Precondition: `type.isReadDirectly`; bytes and codes hold the elements of all groups; values are finite.
  package func encode(
    _ bytes: RawSpan, as type: ElementType, groups: GroupRuns, scales: Span<Float>, magnitudes: Span<Float>,
    into output: inout MutableSpan<UInt8>
  ) {
    precondition(
      type.isReadDirectly && bytes.byteCount >= groups.count * type.bitWidth / 8 && output.count >= groups.count)
    output.withUnsafeMutableBufferPointer { target in
      bytes.withUnsafeBytes { source in
        cells.withUnsafeBufferPointer { table in
          guard let input = source.baseAddress, let output = target.baseAddress, let cells = table.baseAddress
          else { return }
          // Bounds: groups are within 0..<groups.count, which the precondition covers.
          for (index, group) in groups.enumerated() {
            let inverse = 1 / max(scales[index], Self.leastScale)
            // A little beyond ±1, where rounding takes the largest value at most, there are cells of the table yet.
            let isClipped = !(magnitudes[index] * inverse <= 1.0001)
            switch (type, isClipped) {
            case (.bf16, false): encode(StoredBrain.self, input, group, inverse, cells, output) { $0 }
            case (.bf16, true): encode(StoredBrain.self, input, group, inverse, cells, output) { Self.clipped($0) }
            case (_, false): encode(StoredFloat.self, input, group, inverse, cells, output) { $0 }
            case (_, true): encode(StoredFloat.self, input, group, inverse, cells, output) { Self.clipped($0) }
            }
          }
          for (index, group) in groups.enumerated() {
            switch type {
            case .bf16: compareMarked(StoredBrain.self, input, group, scale: scales[index], output)
            default: compareMarked(StoredFloat.self, input, group, scale: scales[index], output)
            }
          }
        }
      }
    }
  }

  /// Cuts magnitudes above 1 in their bit patterns; signs are kept.
  @inline(__always)
  private static func clipped(_ position: Floats) -> Floats {
    let one = Words(repeating: Int32(bitPattern: Float(1).bitPattern))
    let bits = position.words
    let excess = (bits & 0x7fff_ffff) &- one
    return (((excess & (excess &>> 31)) &+ one) | (bits & Int32.min)).floats
  }

  @inline(__always)
  private func encode<Weight: StoredWeight>(
    _: Weight.Type, _ input: UnsafeRawPointer, _ group: Range<Int>, _ inverse: Float, _ cells: UnsafePointer<UInt8>,
    _ output: UnsafeMutablePointer<UInt8>, inside: (Floats) -> Floats
  ) {
    let end = group.upperBound
    var index = group.lowerBound
    // Bounds: reads and writes sixteen elements while index + 16 ≤ the group's end; a cell's index has fourteen bits.
    while index &+ 16 <= end {
      let position = inside(Weight.lanes(input, index) * inverse)
      let cell = (position * Self.cellScale + Self.cellShift).words & 0x3fff
      // Two cells at a time leave the vector in one word.
      let pairs = unsafeBitCast(cell, to: SIMD8<UInt64>.self)
      for lane in 0..<8 {
        output[index &+ 2 &* lane] = cells[Int(UInt32(truncatingIfNeeded: pairs[lane]))]
        output[index &+ 2 &* lane &+ 1] = cells[Int(pairs[lane] &>> 32)]
      }
      index &+= 16
    }
    while index < end {
      output[index] = code(nearest: Weight.value(input, index) * inverse)
      index &+= 1
    }
  }

  /// Compares the values whose codes are marked. A pass of its own: reading codes just written would stall.
  @inline(__always)
  private func compareMarked<Weight: StoredWeight>(
    _: Weight.Type, _ input: UnsafeRawPointer, _ group: Range<Int>, scale: Float, _ output: UnsafeMutablePointer<UInt8>
  ) {
    // Bounds: reads eight codes while start + 8 ≤ the group's end; fewer that are left were not marked.
    var start = group.lowerBound
    while start &+ 8 <= group.upperBound {
      let codes = UnsafeRawPointer(output).loadUnaligned(fromByteOffset: start, as: UInt64.self).littleEndian
      var marks = codes & 0x8080_8080_8080_8080
      while marks != 0 {
        let index = start &+ marks.trailingZeroBitCount &>> 3
        output[index] = code(nearest: Weight.value(input, index) * (1 / max(scale, Self.leastScale)))
        marks &= marks &- 1
      }
      start &+= 8
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

extension Codebook {
  /// The weighted squared error of a group's codes, and the scale that would minimize it: Σ h·w·l / Σ h·l².
  package func fit(
    _ values: Span<Float>, importance: Span<Float>, _ codes: Span<UInt8>, scale: Float
  ) -> (squaredError: Double, bestScale: Double?) {
    var (error, product, squares) = (0.0, 0.0, 0.0)
    for index in 0..<values.count {
      let level = Double(levels[Int(codes[index])])
      let value = Double(values[index])
      let weight = Double(importance[index])
      let difference = value - Double(Float(level) * scale)
      error += weight * difference * difference
      product += weight * value * level
      squares += weight * level * level
    }
    return (error, squares > 0 ? product / squares : nil)
  }
}
