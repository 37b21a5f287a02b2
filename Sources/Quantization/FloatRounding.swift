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

  /// Quantizes a weight.
  /// - Precondition: groups divide the columns.
  /// - Throws: where a value is not finite.
  package func quantize(_ values: [Float], rows: Int, columns: Int) throws(QuantizationError) -> CodedWeight {
    precondition(values.count == rows * columns)
    if let index = firstNonFinite(values.span) { throw .notFinite(element: index, value: "\(values[index])") }
    guard let encoder = SmallFloatEncoder(codeType), let scaleEncoder = SmallFloatEncoder(.f8E4M3) else {
      preconditionFailure("E4M3 and E2M1 are small floats")
    }
    let length = self == .float8 ? columns : self == .mxfp4 ? 32 : 16
    let largest = absoluteMaximum(values.span)
    var divisor: Float = 1
    if self == .nvfp4, largest > 0 {
      divisor = 448 * 6 / largest
      // A tensor of tiny values would need more than float32 has.
      if !divisor.isFinite { divisor = .greatestFiniteMagnitude }
    }
    let scaleLevels = SmallFloat(.f8E4M3)?.values ?? []
    var scales: [Float] = []
    var codes = [UInt8](repeating: 0, count: values.count)
    scales.reserveCapacity(values.count / length)
    for start in stride(from: 0, to: values.count, by: length) {
      let magnitude = absoluteMaximum(values.span.extracting(start..<(start + length)))
      let scale: Float
      switch self {
      case .float8: scale = magnitude > 0 ? magnitude / 448 : 1
      case .mxfp4: scale = Self.powerOfTwo(magnitude)
      case .nvfp4: scale = scaleLevels[Int(scaleEncoder.code(of: magnitude / 6 * divisor))]
      }
      scales.append(scale)
      let step = scale / divisor
      guard step > 0 else { continue }
      for index in start..<(start + length) { codes[index] = encoder.code(of: values[index] / step) }
    }
    var weight = CodedWeight(
      rows: rows, columns: columns, bits: self == .float8 ? 8 : 4,
      decoding: .levels(SmallFloat(codeType)?.values ?? []), sharing: .columns(length), codes: codes, scales: scales)
    weight.divisor = divisor
    return weight
  }

  private static func powerOfTwo(_ magnitude: Float) -> Float {
    guard magnitude > 0 else { return 1 }
    let exponent = Int(magnitude.exponent) - 2 + (magnitude.significand >= 1.75 ? 1 : 0)
    return Float(sign: .plus, exponent: min(max(exponent, -126), 127), significand: 1)
  }
}
