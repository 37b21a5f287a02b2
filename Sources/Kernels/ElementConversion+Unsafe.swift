/// Reads `count` stored elements as float32.
///
/// Exact for every type up to 24 significant bits; F64 and the wide integers are rounded to nearest. Sub-byte types are
/// read from the low bits of each byte up. BOOL gives 0 or 1, C64 is not read.
/// - Parameters:
///   - bytes: at least `(values.count · bitWidth + 7) / 8` bytes, little-endian.
///   - values: receives the elements.
/// - Precondition: `bytes` is long enough and `type` is not C64.
package func decodeElements(_ bytes: RawSpan, as type: ElementType, into values: inout MutableSpan<Float>) {
  let count = values.count
  precondition(bytes.byteCount >= (count * type.bitWidth + 7) / 8 && type != .c64)
  // Bounds: each loop reads elements 0..<count of the source, which the precondition covers, and writes 0..<count.
  bytes.withUnsafeBytes { source in
    values.withUnsafeMutableBufferPointer { target in
      guard count > 0, let base = source.baseAddress, let output = target.baseAddress else { return }
      switch type {
      case .f32:
        UnsafeMutableRawPointer(output).copyMemory(from: base, byteCount: count * 4)
      case .bf16: decodeBrain(base, count, output)
      case .f16: decodeHalf(base, count, output)
      case .f64: convert(base, Double.self, count, output) { Float($0) }
      case .i8: convert(base, Int8.self, count, output) { Float($0) }
      case .u8: convert(base, UInt8.self, count, output) { Float($0) }
      case .bool: convert(base, UInt8.self, count, output) { $0 == 0 ? 0 : 1 }
      case .i16: convert(base, Int16.self, count, output) { Float($0) }
      case .u16: convert(base, UInt16.self, count, output) { Float($0) }
      case .i32: convert(base, Int32.self, count, output) { Float($0) }
      case .u32: convert(base, UInt32.self, count, output) { Float($0) }
      case .i64: convert(base, Int64.self, count, output) { Float($0) }
      case .u64: convert(base, UInt64.self, count, output) { Float($0) }
      case .c64: break
      case .f8E5M2, .f8E4M3, .f8E8M0, .f8E4M3FNUZ, .f8E5M2FNUZ, .f4, .f6E2M3, .f6E3M2:
        decodeSmall(base, type, count, output)
      }
    }
  }
}

/// Writes float32 values as elements of a full-precision type, rounding to nearest, ties to even.
///
/// A finite value beyond the range of F16 becomes its largest finite one: a weight near the limit must not turn infinite.
/// - Precondition: `type.isFullPrecision`, and `bytes` holds `values.count` elements.
package func encodeElements(_ values: Span<Float>, as type: ElementType, into bytes: inout MutableRawSpan) {
  let count = values.count
  precondition(type.isFullPrecision && bytes.byteCount >= count * type.bitWidth / 8)
  // Bounds: every store is at element `index < count`, inside the bytes that the precondition requires.
  bytes.withUnsafeMutableBytes { target in
    guard let base = target.baseAddress else { return }
    values.withUnsafeBufferPointer { source in
      switch type {
      case .f32:
        if let start = source.baseAddress { base.copyMemory(from: start, byteCount: count * 4) }
      case .f64:
        for index in 0..<count { base.storeBytes(of: Double(source[index]), toByteOffset: index * 8, as: Double.self) }
      case .f16:
        for index in 0..<count {
          let value = source[index]
          let bounded = value.isFinite ? min(max(value, -65504), 65504) : value
          base.storeBytes(of: Half.half(from: bounded), toByteOffset: index * 2, as: UInt16.self)
        }
      default:
        for index in 0..<count {
          base.storeBytes(of: Half.brain(from: source[index]), toByteOffset: index * 2, as: UInt16.self)
        }
      }
    }
  }
}

/// Writes float32 values as elements into the front of a reused buffer, which grows if it must.
/// - Returns: the bytes written.
package func encodeElements(_ values: [Float], as type: ElementType, into buffer: inout [UInt8]) -> Int {
  let count = values.count * type.bitWidth / 8
  if buffer.count < count { buffer = [UInt8](repeating: 0, count: count) }
  var span = buffer.mutableSpan
  var bytes = span.mutableBytes
  encodeElements(values.span, as: type, into: &bytes)
  return count
}

/// The nearest value that a full-precision type stores (ties to even); infinity where the type overflows.
package func rounded(_ value: Float, to type: ElementType) -> Float {
  switch type {
  case .f16: Half.float(fromHalf: Half.half(from: value))
  case .bf16: Half.float(fromBrain: Half.brain(from: value))
  default: value
  }
}

private func decodeBrain(_ base: UnsafeRawPointer, _ count: Int, _ output: UnsafeMutablePointer<Float>) {
  var index = 0
  while index &+ 16 <= count {
    let bits = base.loadUnaligned(fromByteOffset: index &* 2, as: SIMD16<UInt16>.self)
    output.store(SIMD16<UInt32>(truncatingIfNeeded: bits) &<< 16, at: index)
    index &+= 16
  }
  while index < count {
    output[index] = Half.float(fromBrain: base.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self))
    index &+= 1
  }
}

private func decodeHalf(_ base: UnsafeRawPointer, _ count: Int, _ output: UnsafeMutablePointer<Float>) {
  let rescale = Floats(repeating: Float(bitPattern: 0x7780_0000))
  var index = 0
  while index &+ 16 <= count {
    let bits = base.loadUnaligned(fromByteOffset: index &* 2, as: SIMD16<UInt16>.self)
    let wide = Words(truncatingIfNeeded: bits)
    let magnitude = wide & 0x7fff
    let scaled = ((magnitude &<< 13).floats * rescale).words
    // All ones where the exponent field is full (magnitude above 0x7bff), else zero.
    let special = ((0x7bff &- magnitude) &>> 31) & 0x7f80_0000
    output.store(scaled | special | ((wide & 0x8000) &<< 16), at: index)
    index &+= 16
  }
  while index < count {
    output[index] = Half.float(fromHalf: base.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self))
    index &+= 1
  }
}

private func decodeSmall(
  _ base: UnsafeRawPointer, _ type: ElementType, _ count: Int, _ output: UnsafeMutablePointer<Float>
) {
  guard let values = SmallFloat(type)?.values else { return }
  let width = type.bitWidth
  let mask = UInt32(1 << width) - 1
  for index in 0..<count {
    let bit = index * width
    var pair = UInt32(base.load(fromByteOffset: bit / 8, as: UInt8.self))
    if bit % 8 + width > 8 { pair |= UInt32(base.load(fromByteOffset: bit / 8 + 1, as: UInt8.self)) << 8 }
    output[index] = values[Int((pair >> UInt32(bit % 8)) & mask)]
  }
}

@inline(__always)
private func convert<T: BitwiseCopyable>(
  _ base: UnsafeRawPointer, _: T.Type, _ count: Int, _ output: UnsafeMutablePointer<Float>, _ body: (T) -> Float
) {
  for index in 0..<count {
    output[index] = body(base.loadUnaligned(fromByteOffset: index &* MemoryLayout<T>.stride, as: T.self))
  }
}
