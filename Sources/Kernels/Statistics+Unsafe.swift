/// The largest magnitude of a run of values; 0 for an empty one.
///
/// Compares bit patterns, in which infinity is above every number and NaN above infinity: the result is finite exactly
/// if every value is.
package func absoluteMaximum(_ values: Span<Float>) -> Float {
  values.withUnsafeBytes { buffer in
    // Bounds: the range is the whole run.
    buffer.baseAddress.map { StoredFloat.largestMagnitude($0, 0..<values.count) } ?? 0
  }
}

/// Smallest and largest of a run of finite values; (0, 0) for an empty one.
package func extrema(_ values: Span<Float>) -> (smallest: Float, largest: Float) {
  values.withUnsafeBufferPointer { buffer in
    guard let base = buffer.baseAddress, buffer.count > 0 else { return (0, 0) }
    let count = buffer.count
    var low = Floats(repeating: base[0])
    var high = low
    var index = 0
    // Bounds: reads sixteen elements while index + 16 ≤ count, then single ones below count.
    while index &+ 16 <= count {
      let lanes: Floats = base.lanes(index)
      low = low.replacing(with: lanes, where: lanes .< low)
      high = high.replacing(with: lanes, where: lanes .> high)
      index &+= 16
    }
    var smallest = low[0]
    var largest = high[0]
    for lane in 1..<16 {
      if low[lane] < smallest { smallest = low[lane] }
      if high[lane] > largest { largest = high[lane] }
    }
    while index < count {
      if base[index] < smallest { smallest = base[index] }
      if base[index] > largest { largest = base[index] }
      index &+= 1
    }
    return (smallest, largest)
  }
}

/// Index of the first value that is infinite or not a number; nil if all are finite.
package func firstNonFinite(_ values: Span<Float>) -> Int? {
  if absoluteMaximum(values).isFinite { return nil }
  for index in 0..<values.count where !values[index].isFinite { return index }
  return nil
}

/// Sums over pairs of values, in double precision, from which every distortion figure follows.
package struct PairSums: Hashable, Sendable {
  /// Σ a²
  package var first = 0.0
  /// Σ b²
  package var second = 0.0
  /// Σ a·b
  package var product = 0.0
  /// Σ (a − b)²
  package var squaredDifference = 0.0
  /// Largest |a − b| and the index where it first occurs; −∞ before the first pair.
  package var largestDifference = -Float.infinity
  package var largestIndex = 0
  /// Pairs added so far.
  package private(set) var processed = 0

  package init() {}

  /// Adds the sums of a run that follows this one.
  package mutating func append(_ other: PairSums) {
    first += other.first
    second += other.second
    product += other.product
    squaredDifference += other.squaredDifference
    if other.largestDifference > largestDifference || other.largestDifference.isNaN && !largestDifference.isNaN {
      largestDifference = other.largestDifference
      largestIndex = processed + other.largestIndex
    }
    processed += other.processed
  }
}

/// Sums of squares, products and differences of two equally long runs.
///
/// Blocks of 256 pairs are added in sixteen float lanes, the blocks in double precision, always in the same order; a
/// block whose squares leave the range of float is added in double precision throughout.
package func pairSums(_ a: Span<Float>, _ b: Span<Float>) -> PairSums {
  precondition(a.count == b.count)
  let count = a.count
  return a.withUnsafeBufferPointer { aBuffer in
    b.withUnsafeBufferPointer { bBuffer in
      var sums = PairSums()
      guard let first = aBuffer.baseAddress, let second = bBuffer.baseAddress else { return sums }
      var start = 0
      // Bounds: start ≤ end ≤ count, and every block reads start..<end only.
      while start < count {
        let end = min(start &+ 256, count)
        if end &- start < 256 || !sums.addBlock(first + start, second + start) {
          sums.addInDoublePrecision(first, second, start..<end)
        }
        start = end
      }
      return sums
    }
  }
}

extension PairSums {
  /// Adds 256 pairs in float lanes; false, with nothing added, where their squares over- or underflow.
  fileprivate mutating func addBlock(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>) -> Bool {
    var x2 = Floats(repeating: 0)
    var y2 = x2
    var xy = x2
    var d2 = x2
    var largest = Words(repeating: 0)
    var index = 0
    while index < 256 {
      let x: Floats = a.lanes(index)
      let y: Floats = b.lanes(index)
      let difference = x - y
      x2 += x * x
      y2 += y * y
      xy += x * y
      d2 += difference * difference
      largest = largest.larger(difference.words & 0x7fff_ffff)
      index &+= 16
    }
    let squares = x2.total
    guard squares > 1e-28, squares < 1e34, y2.total < 1e34 else { return false }
    let peak = Float(bitPattern: UInt32(bitPattern: largest.largest))
    if peak > largestDifference {
      largestDifference = peak
      largestIndex = processed
      for position in 0..<256 where abs(a[position] - b[position]) == peak {
        largestIndex = processed + position
        break
      }
    }
    first += Double(squares)
    second += Double(y2.total)
    product += Double(xy.total)
    squaredDifference += Double(d2.total)
    processed += 256
    return true
  }

  fileprivate mutating func addInDoublePrecision(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ range: Range<Int>
  ) {
    for index in range {
      let x = Double(a[index])
      let y = Double(b[index])
      first += x * x
      second += y * y
      product += x * y
      squaredDifference += (x - y) * (x - y)
      let difference = Float(abs(x - y))
      if difference > largestDifference || difference.isNaN && !largestDifference.isNaN {
        largestDifference = difference
        largestIndex = processed
      }
      processed += 1
    }
  }
}

/// The sum of codes.
package func codeSum(_ codes: Span<UInt8>) -> Int {
  codes.withUnsafeBytes { buffer in
    var total = 0
    var index = 0
    // Bounds: reads 32 bytes while index + 32 ≤ count, then single ones below count.
    while index &+ 32 <= buffer.count {
      // Even and odd bytes apart in lanes of 16 bits, which hold 256 sums of bytes.
      var (even, odd) = (SIMD16<UInt16>(), SIMD16<UInt16>())
      let end = min(buffer.count &- 31, index &+ 32 &* 256)
      while index < end {
        let lanes = buffer.loadUnaligned(fromByteOffset: index, as: SIMD16<UInt16>.self)
        even &+= lanes & 0xff
        odd &+= lanes &>> 8
        index &+= 32
      }
      let sums = SIMD16<UInt32>(truncatingIfNeeded: even) &+ SIMD16<UInt32>(truncatingIfNeeded: odd)
      total &+= Int(sums.wrappedSum())
    }
    while index < buffer.count {
      total &+= Int(buffer[index])
      index &+= 1
    }
    return total
  }
}
