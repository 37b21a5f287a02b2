/// Scale, zero point and highest code of one group: a code `q` stands for `scale · (q − zeroPoint)`.
package struct AffineRange: Hashable, Sendable {
  package var scale: Float
  package var zeroPoint: Float
  package var highestCode: Int32

  package init(scale: Float, zeroPoint: Float, highestCode: Int32) {
    self.scale = scale
    self.zeroPoint = zeroPoint
    self.highestCode = highestCode
  }

  /// The code of one value: `round(w / s + z)` clamped to `0...highestCode`, ties to even.
  ///
  /// Division is multiplication by the float reciprocal. With a scale of zero every value takes the code of zero; with
  /// one so small that its reciprocal overflows, the quotient is taken in double precision.
  package func code(of value: Float) -> UInt8 {
    let inverse = 1 / scale
    let position: Double
    if scale == 0 {
      position = Double(zeroPoint)
    } else if inverse.isFinite {
      position = Double(value * inverse + zeroPoint)
    } else {
      position = Double(value) / Double(scale) + Double(zeroPoint)
    }
    return UInt8(min(max(position.rounded(.toNearestOrEven), 0), Double(highestCode)))
  }

  /// The value of one code.
  @inline(__always)
  package func value(of code: UInt8) -> Float { scale * (Float(code) - zeroPoint) }

  /// Scales whose reciprocal, and its products with in-range weights, stay far from the limits of the vector loops.
  var isVectorizable: Bool { abs(scale) > 1e-37 && abs(scale) < 1e37 }

  /// The same for loops that also sum squares.
  var isSummable: Bool { abs(scale) > 1e-15 && abs(scale) < 1e15 }
}

/// Writes the codes of all groups of a run of stored weights; `AffineRange.code(of:)` is the plain twin.
/// - Parameters:
///   - ranges: one per group.
///   - magnitudes: the largest magnitude of each group: a range that holds it need not be clamped to. Infinity if it is
///     not known.
/// - Precondition: `type.isReadDirectly`; bytes and codes hold the elements of all groups; values are finite and at most
///   2^20 scales from zero.
package func encodeAffine(
  _ bytes: RawSpan, as type: ElementType, groups: GroupRuns, ranges: Span<AffineRange>, magnitudes: Span<Float>,
  into codes: inout MutableSpan<UInt8>
) {
  precondition(
    type.isReadDirectly && bytes.byteCount >= groups.count * type.bitWidth / 8 && codes.count >= groups.count)
  codes.withUnsafeMutableBufferPointer { target in
    bytes.withUnsafeBytes { source in
      guard let input = source.baseAddress, let output = target.baseAddress else { return }
      // Bounds: groups are within 0..<groups.count, which the precondition covers.
      for (index, group) in groups.enumerated() {
        switch type {
        case .bf16: encode(StoredBrain.self, input, group, ranges[index], largest: magnitudes[index], output)
        default: encode(StoredFloat.self, input, group, ranges[index], largest: magnitudes[index], output)
        }
      }
    }
  }
}

@inline(__always)
private func encode<Weight: StoredWeight>(
  _: Weight.Type, _ input: UnsafeRawPointer, _ group: Range<Int>, _ range: AffineRange, largest: Float,
  _ output: UnsafeMutablePointer<UInt8>
) {
  let end = group.upperBound
  var index = group.lowerBound
  if range.isVectorizable {
    let inverse = 1 / range.scale
    let base = Int32(bitPattern: roundingShift.bitPattern)
    let reach = largest * abs(inverse)
    // Bounds of both loops: they read and write sixteen elements while index + 16 ≤ the group's end.
    if range.zeroPoint - reach > -0.5, range.zeroPoint + reach < Float(range.highestCode) + 0.5 {
      while index &+ 16 <= end {
        let position = Weight.lanes(input, index) * inverse + range.zeroPoint
        // The low byte of the shifted sum is the code.
        output.store((position + roundingShift).words.lowBytes, at: index)
        index &+= 16
      }
    }
    while index &+ 16 <= end {
      let position = Weight.lanes(input, index) * inverse + range.zeroPoint
      let word = (position + roundingShift).words &- base
      output.store(word.clamped(to: range.highestCode).lowBytes, at: index)
      index &+= 16
    }
  }
  while index < end {
    output[index] = range.code(of: Weight.value(input, index))
    index &+= 1
  }
}

/// Writes the values of a group's codes from position `start` on: `scale · (code − zeroPoint)` in float32.
/// - Precondition: the values fit.
package func decodeAffine(
  _ codes: Span<UInt8>, _ range: AffineRange, into values: inout MutableSpan<Float>, at start: Int = 0
) {
  precondition(start >= 0 && start + codes.count <= values.count)
  let count = codes.count
  values.withUnsafeMutableBufferPointer { target in
    codes.withUnsafeBufferPointer { source in
      guard let input = source.baseAddress, let output = target.baseAddress?.advanced(by: start) else { return }
      let base = Words(repeating: Int32(bitPattern: roundingShift.bitPattern))
      var index = 0
      // Bounds: reads and writes sixteen elements while index + 16 ≤ count.
      while index &+ 16 <= count {
        let word = Words(truncatingIfNeeded: input.lanes(index, as: SIMD16<UInt8>.self))
        let code = (word | base).floats - roundingShift
        output.store((code - range.zeroPoint) * range.scale, at: index)
        index &+= 16
      }
      while index < count {
        output[index] = range.value(of: input[index])
        index &+= 1
      }
    }
  }
}
