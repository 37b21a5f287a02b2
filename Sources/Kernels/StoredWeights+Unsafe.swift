/// Reads weights straight from the bytes of a file, in the types that take no more than a shift to become float32.
///
/// Loops over them are generic, and specialized for each; `ElementType.isReadDirectly` tells the types.
protocol StoredWeight {
  /// Sixteen values from element `index` on, which the caller keeps within bounds.
  static func lanes(_ base: UnsafeRawPointer, _ index: Int) -> Floats
  /// Eight values, likewise.
  static func eight(_ base: UnsafeRawPointer, _ index: Int) -> SIMD8<Float>
  static func value(_ base: UnsafeRawPointer, _ index: Int) -> Float
  /// The largest magnitude of the elements of a range, compared as bit patterns: not finite where a value is not.
  static func largestMagnitude(_ base: UnsafeRawPointer, _ range: Range<Int>) -> Float
}

extension ElementType {
  /// True for the types that the loops of `largestMagnitudes`, `encodeAffine` and `Codebook.encode` take as stored.
  package var isReadDirectly: Bool { self == .f32 || self == .bf16 }
}

enum StoredFloat: StoredWeight {
  @inline(__always)
  static func lanes(_ base: UnsafeRawPointer, _ index: Int) -> Floats {
    base.loadUnaligned(fromByteOffset: index &* 4, as: Floats.self)
  }

  @inline(__always)
  static func eight(_ base: UnsafeRawPointer, _ index: Int) -> SIMD8<Float> {
    base.loadUnaligned(fromByteOffset: index &* 4, as: SIMD8<Float>.self)
  }

  @inline(__always)
  static func value(_ base: UnsafeRawPointer, _ index: Int) -> Float {
    base.loadUnaligned(fromByteOffset: index &* 4, as: Float.self)
  }

  static func largestMagnitude(_ base: UnsafeRawPointer, _ range: Range<Int>) -> Float {
    var largest = Words(repeating: 0)
    var index = range.lowerBound
    // Bounds: reads sixteen elements while index + 16 ≤ the range's end, then single ones below it.
    while index &+ 16 <= range.upperBound {
      largest = largest.larger(lanes(base, index).words & 0x7fff_ffff)
      index &+= 16
    }
    var result = largest.largest
    while index < range.upperBound {
      result = max(result, Int32(bitPattern: value(base, index).bitPattern & 0x7fff_ffff))
      index &+= 1
    }
    return Float(bitPattern: UInt32(bitPattern: result))
  }
}

enum StoredBrain: StoredWeight {
  @inline(__always)
  static func lanes(_ base: UnsafeRawPointer, _ index: Int) -> Floats {
    let bits = base.loadUnaligned(fromByteOffset: index &* 2, as: SIMD16<UInt16>.self)
    var words = SIMD16<UInt32>()
    // Lane by lane, as SIMD initializers are calls; it compiles to shuffles.
    for lane in 0..<16 { words[lane] = UInt32(bits[lane]) &<< 16 }
    return unsafeBitCast(words, to: Floats.self)
  }

  @inline(__always)
  static func eight(_ base: UnsafeRawPointer, _ index: Int) -> SIMD8<Float> {
    let bits = base.loadUnaligned(fromByteOffset: index &* 2, as: SIMD8<UInt16>.self)
    var words = SIMD8<UInt32>()
    for lane in 0..<8 { words[lane] = UInt32(bits[lane]) &<< 16 }
    return unsafeBitCast(words, to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func value(_ base: UnsafeRawPointer, _ index: Int) -> Float {
    Half.float(fromBrain: base.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self))
  }

  static func largestMagnitude(_ base: UnsafeRawPointer, _ range: Range<Int>) -> Float {
    var largest = SIMD16<Int16>()
    var index = range.lowerBound
    // Bounds: as above.
    while index &+ 16 <= range.upperBound {
      let magnitude = base.loadUnaligned(fromByteOffset: index &* 2, as: SIMD16<Int16>.self) & 0x7fff
      largest = largest.replacing(with: magnitude, where: magnitude .> largest)
      index &+= 16
    }
    let eight = largest.lowHalf.larger(largest.highHalf)
    let four = eight.lowHalf.larger(eight.highHalf)
    let two = four.lowHalf.larger(four.highHalf)
    var result = max(two.x, two.y)
    while index < range.upperBound {
      result = max(result, base.loadUnaligned(fromByteOffset: index &* 2, as: Int16.self) & 0x7fff)
      index &+= 1
    }
    return Half.float(fromBrain: UInt16(bitPattern: result))
  }
}

/// The largest magnitude of each group of a run of stored weights; it is finite exactly if every value of the group is.
/// - Parameter result: receives one number per group.
/// - Precondition: `type.isReadDirectly`, and the bytes hold the elements of all groups.
package func largestMagnitudes(_ bytes: RawSpan, as type: ElementType, of groups: GroupRuns, into result: inout [Float])
{
  precondition(type.isReadDirectly && bytes.byteCount >= groups.count * type.bitWidth / 8)
  result.removeAll(keepingCapacity: true)
  bytes.withUnsafeBytes { source in
    guard let base = source.baseAddress else { return }
    // Bounds: groups are within 0..<groups.count, which the precondition covers.
    switch type {
    case .bf16: for group in groups { result.append(StoredBrain.largestMagnitude(base, group)) }
    default: for group in groups { result.append(StoredFloat.largestMagnitude(base, group)) }
    }
  }
}
