import Kernels

/// Rounding to scaled floats of eight or four bits, without calibration.
///
/// - float8: E4M3 with one float32 scale per row, max |w| / 448.
/// - mxfp4: E2M1 with a power of two per 32 inputs (OCP Microscaling specification 1.0). Its exponent is that of max |w|
///   less 2, and one more where max |w| is at least 1.75 times its power of two: then 6 times the scale below would clip it
///   by more than an eighth.
/// - nvfp4: E2M1 with an E4M3 scale per 16 inputs, which are multiples of one float32 per weight: with
///   g = 448 · 6 / max |W|, a block's scale is E4M3(max |w| / 6 · g) and its weights are E2M1 · scale / g.
///
/// A row or block of zeros has codes of zero. Nearest codes, ties to the even one.
package enum FloatRounding: String, CaseIterable, Hashable, Sendable {
  case float8
  case mxfp4
  case nvfp4

  package var label: String {
    switch self {
    case .float8: "FP8 (E4M3), a scale per row"
    case .mxfp4: "MXFP4, groups of 32"
    case .nvfp4: "NVFP4, groups of 16"
    }
  }

  private var codeType: ElementType { self == .float8 ? .f8E4M3 : .f4 }

  /// Weights of a row that share a scale.
  private func groupLength(columns: Int) -> Int { self == .float8 ? columns : self == .mxfp4 ? 32 : 16 }

  /// Whether the largest magnitude of the whole weight must be known first.
  package var needsLargest: Bool { self == .nvfp4 }

  /// What all scales of a weight are divided by.
  /// - Parameter largest: its largest magnitude, if that is needed.
  package func divisor(largest: Float) -> Float {
    guard self == .nvfp4, largest > 0 else { return 1 }
    // A tensor of tiny values would need more than float32 has.
    return min(448 * 6 / largest, .greatestFiniteMagnitude)
  }

  /// Quantizes whole rows.
  /// - Parameters:
  ///   - first: the first element of the rows, for errors.
  ///   - divisor: of the weight.
  /// - Precondition: groups divide the columns.
  /// - Throws: where a value is not finite.
  package func quantize(
    _ values: Span<Float>, columns: Int, first: Int, divisor: Float, into tile: inout QuantizedTile
  ) throws(QuantizationError) {
    let length = groupLength(columns: columns)
    precondition(values.count % columns == 0 && columns % length == 0)
    guard let encoder = SmallFloatEncoder(codeType), let scaleEncoder = SmallFloatEncoder(.f8E4M3) else {
      preconditionFailure("E4M3 and E2M1 are small floats")
    }
    let scaleLevels = SmallFloat(.f8E4M3)?.values ?? []
    tile.zeroPoints.removeAll(keepingCapacity: true)
    var scales: [Float] = []
    swap(&scales, &tile.scales)
    scales.removeAll(keepingCapacity: true)
    tile.codes.resize(to: values.count)
    var codes = tile.codes.mutableSpan
    for start in stride(from: 0, to: values.count, by: length) {
      let members = start..<start + length
      let magnitude = absoluteMaximum(values.extracting(members))
      if !magnitude.isFinite, let index = firstNonFinite(values.extracting(members)) {
        throw .notFinite(element: first + start + index, value: "\(values[start + index])")
      }
      let scale: Float
      switch self {
      case .float8: scale = magnitude > 0 ? magnitude / 448 : 1
      case .mxfp4: scale = Self.powerOfTwo(magnitude)
      case .nvfp4: scale = scaleLevels[Int(scaleEncoder.code(of: magnitude / 6 * divisor))]
      }
      scales.append(scale)
      encoder.encode(values, members, step: scale / divisor, into: &codes)
    }
    swap(&scales, &tile.scales)
  }

  private static func powerOfTwo(_ magnitude: Float) -> Float {
    guard magnitude > 0 else { return 1 }
    let exponent = Int(magnitude.exponent) - 2 + (magnitude.significand >= 1.75 ? 1 : 0)
    return Float(sign: .plus, exponent: min(max(exponent, -126), 127), significand: 1)
  }
}
