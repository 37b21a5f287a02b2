import Kernels
import TestSupport
import Testing

@Suite struct HalfTests {
  @Test func everyHalfReadsAsTheStandardLibraryReadsIt() {
    for bits in UInt16.min...UInt16.max {
      let expected = Float(Float16(bitPattern: bits))
      let found = Half.float(fromHalf: bits)
      #expect(found == expected || found.isNaN && expected.isNaN, "\(bits)")
      if !expected.isNaN { #expect(Half.half(from: expected) == bits, "\(bits)") }
    }
  }

  @Test func halvesAreRoundedToNearestEven() {
    var random = SplitMix64(seed: 1)
    for _ in 0..<200_000 {
      let value = Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
      let found = Half.half(from: value)
      if value.isNaN {
        #expect(Half.float(fromHalf: found).isNaN)
      } else {
        #expect(found == Float16(value).bitPattern, "\(value)")
      }
    }
    // Around the overflow and the ties of the smallest subnormals.
    for value: Float in [65519.99, 65520, 65504, 2.9802322e-08, 2.9802326e-08, 8.940697e-08, 5.96e-8, 0, -0.0] {
      #expect(Half.half(from: value) == Float16(value).bitPattern, "\(value)")
    }
  }

  @Test func brainFloatsAreRoundedToNearestEven() {
    for (value, bits): (UInt32, UInt16) in [
      (0x3f80_0000, 0x3f80), (0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x3f80_8001, 0x3f81),
      (0x7f7f_ffff, 0x7f80), (0x7f80_0000, 0x7f80), (0xff80_0000, 0xff80), (0x0000_8001, 0x0001),
    ] {
      #expect(Half.brain(from: Float(bitPattern: value)) == bits)
    }
    #expect(Half.float(fromBrain: Half.brain(from: Float(bitPattern: 0x7f80_0001))).isNaN)
  }
}
