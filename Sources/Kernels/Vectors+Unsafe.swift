// The loops of this module work on sixteen lanes. Plain `SIMD16` operations compile to the widest instructions of the
// target; three idioms of the standard library do not, and have replacements here.

package typealias Floats = SIMD16<Float>
typealias Words = SIMD16<Int32>

extension UnsafePointer {
  /// Sixteen lanes starting at element `index`, which the caller keeps within bounds.
  @inline(__always)
  func lanes<V: SIMD>(_ index: Int, as: V.Type = V.self) -> V where V: BitwiseCopyable {
    UnsafeRawPointer(self).loadUnaligned(fromByteOffset: index &* MemoryLayout<Pointee>.stride, as: V.self)
  }
}

extension UnsafeMutablePointer {
  /// Stores the lanes from element `index` on, which the caller keeps within bounds.
  @inline(__always)
  func store<V: SIMD>(_ value: V, at index: Int) where V: BitwiseCopyable {
    UnsafeMutableRawPointer(self).storeBytes(of: value, toByteOffset: index &* MemoryLayout<Pointee>.stride, as: V.self)
  }
}

extension SIMD16 {
  /// The first halves of both, alternating.
  @inline(__always)
  func lowInterleaved(_ other: Self) -> Self {
    var result = Self()
    (result.evenHalf, result.oddHalf) = (lowHalf, other.lowHalf)
    return result
  }

  /// The second halves of both, alternating.
  @inline(__always)
  func highInterleaved(_ other: Self) -> Self {
    var result = Self()
    (result.evenHalf, result.oddHalf) = (highHalf, other.highHalf)
    return result
  }
}

extension SIMD16 where Scalar == Float {
  @inline(__always) var words: Words { unsafeBitCast(self, to: Words.self) }

  /// Sum over the lanes by halves: always the same order, and faster than `sum()`.
  @inline(__always)
  var total: Float {
    let eight = lowHalf + highHalf
    let four = eight.lowHalf + eight.highHalf
    let two = four.lowHalf + four.highHalf
    return two.x + two.y
  }
}

extension SIMD where Scalar: FixedWidthInteger & SignedInteger {
  /// `max(self, other)` for lanes whose difference does not overflow.
  @inline(__always)
  func larger(_ other: Self) -> Self {
    let difference = other &- self
    return self &+ (difference & ~(difference &>> Self(repeating: Scalar(Scalar.bitWidth - 1))))
  }
}

extension SIMD16 where Scalar == Int32 {
  @inline(__always) var floats: Floats { unsafeBitCast(self, to: Floats.self) }

  /// The low byte of each lane. A loop over the lanes, because the initializer that truncates is a call.
  @inline(__always)
  var lowBytes: SIMD16<UInt8> {
    var bytes = SIMD16<UInt8>()
    for lane in 0..<16 { bytes[lane] = UInt8(truncatingIfNeeded: self[lane]) }
    return bytes
  }

  /// Clamps to `0...upper`, for lanes whose difference from `upper` does not overflow.
  @inline(__always)
  func clamped(to upper: Int32) -> Words {
    let positive = self & ~(self &>> 31)
    let excess = positive &- upper
    return (excess & (excess &>> 31)) &+ upper
  }

  /// The largest lane, for lanes whose differences do not overflow.
  @inline(__always)
  var largest: Int32 {
    let eight = lowHalf.larger(highHalf)
    let four = eight.lowHalf.larger(eight.highHalf)
    let two = four.lowHalf.larger(four.highHalf)
    return two.x > two.y ? two.x : two.y
  }
}

/// Adding this number to a float of magnitude below 2^22 rounds it to an integer (ties to even), which then stands in
/// the low bits of the sum; subtracting it again gives the rounded float. Exact, and an instruction every target has.
@usableFromInline let roundingShift: Float = 12_582_912  // 1.5 · 2^23
