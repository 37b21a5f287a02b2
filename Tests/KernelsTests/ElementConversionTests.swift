import Kernels
import TestSupport
import Testing

@Suite struct ElementConversionTests {
  private func decode(_ bytes: [UInt8], _ type: ElementType, count: Int) -> [Float] {
    var values = [Float](repeating: -1, count: count)
    var span = values.mutableSpan
    decodeElements(bytes.span.bytes, as: type, into: &span)
    return values
  }

  @Test(arguments: [0, 1, 15, 16, 17, 33, 100])
  func bulkConversionEqualsTheScalarOne(count: Int) {
    var random = SplitMix64(seed: UInt64(count))
    let bits = (0..<count).map { _ in UInt16(truncatingIfNeeded: random.next()) }
    let bytes = bits.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    for (found, bits) in zip(decode(bytes, .f16, count: count), bits) {
      #expect(found.bitPattern == Half.float(fromHalf: bits).bitPattern || found.isNaN)
    }
    for (found, bits) in zip(decode(bytes, .bf16, count: count), bits) {
      #expect(found.bitPattern == UInt32(bits) << 16)
    }
  }

  @Test(arguments: [ElementType.f64, .f32, .f16, .bf16])
  func whatIsWrittenReadsBack(type: ElementType) {
    var random = SplitMix64(seed: 7)
    let values = random.weights(1003).map { rounded($0, to: type) }
    var bytes: [UInt8] = []
    let count = encodeElements(values, as: type, into: &bytes)
    #expect(count == 1003 * type.bitWidth / 8)
    #expect(decode(bytes, type, count: 1003) == values)
  }

  @Test func integersAndBooleansReadAsNumbers() {
    #expect(decode([0, 1, 2, 255], .u8, count: 4) == [0, 1, 2, 255])
    #expect(decode([0, 1, 2, 255], .i8, count: 4) == [0, 1, 2, -1])
    #expect(decode([0, 1, 2, 0], .bool, count: 4) == [0, 1, 1, 0])
    #expect(decode([0xfe, 0xff], .i16, count: 1) == [-2])
    #expect(decode([0xfe, 0xff], .u16, count: 1) == [65534])
    #expect(decode([0xff, 0xff, 0xff, 0xff], .i32, count: 1) == [-1])
    #expect(decode([0, 0, 0, 0x80], .u32, count: 1) == [2_147_483_648])
    #expect(decode([1, 0, 0, 0, 0, 0, 0, 0x80], .i64, count: 1) == [-9.223372e18])
    #expect(decode([0, 0, 0, 0, 0, 0, 0, 0x80], .u64, count: 1) == [9.223372e18])
  }

  @Test func smallFloatsHaveThePublishedExtremes() {
    // Largest finite, smallest positive, and where NaN and infinity are (OCP specifications; FNUZ as in LLVM's APFloat).
    let rows: [(ElementType, largest: (UInt8, Float), smallest: (UInt8, Float), nan: UInt8?)] = [
      (.f8E4M3, (0x7e, 448), (0x01, 0.001953125), 0x7f),
      (.f8E5M2, (0x7b, 57344), (0x01, 1.5258789e-05), 0x7d),
      (.f8E4M3FNUZ, (0x7f, 240), (0x01, 0.0009765625), 0x80),
      (.f8E5M2FNUZ, (0x7f, 57344), (0x01, 7.6293945e-06), 0x80),
      (.f8E8M0, (0xfe, 1.7014118e38), (0x00, 5.877472e-39), 0xff),
      (.f6E2M3, (0x1f, 7.5), (0x01, 0.125), nil),
      (.f6E3M2, (0x1f, 28), (0x01, 0.0625), nil),
      (.f4, (0x07, 6), (0x01, 0.5), nil),
    ]
    for row in rows {
      guard let format = SmallFloat(row.0) else {
        Issue.record("\(row.0) has no description")
        continue
      }
      #expect(format.bitWidth == row.0.bitWidth)
      #expect(format.value(of: row.largest.0) == row.largest.1, "\(row.0)")
      #expect(format.value(of: row.smallest.0) == row.smallest.1, "\(row.0)")
      if let nan = row.nan { #expect(format.value(of: nan).isNaN, "\(row.0)") }
      #expect(format.values.count == 1 << format.bitWidth)
    }
    #expect(SmallFloat(.f8E5M2)?.value(of: 0xfc) == -.infinity)
    #expect(SmallFloat(.f4)?.values == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
  }

  @Test func narrowTypesAreReadFromTheLowBitsUp() {
    #expect(decode([0x21, 0x43], .f4, count: 4) == [0.5, 1, 1.5, 2])
    // Codes 1, 2, 3, 4 of six bits: 0b000001 | 0b000010 << 6 | 0b000011 << 12 | 0b000100 << 18.
    #expect(decode([0x81, 0x30, 0x10], .f6E2M3, count: 4) == [0.125, 0.25, 0.375, 0.5])
  }
}
