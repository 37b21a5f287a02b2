/// FP4 as bitsandbytes defines it: sign and eight magnitudes with three bits, in code order, divided by the largest.
///
/// Codes 0 and 8 both mean zero; as there, values that round to zero take 0 from below and 8 from above. (Not E2M1, the
/// 4-bit float of the Microscaling formats.)
package enum FourBitFloat {
  package static let levels: [Float] = magnitudes.map { $0 / 12 } + magnitudes.map { 0 - $0 / 12 }

  private static let magnitudes: [Float] = [0, 0.0625, 8, 12, 4, 6, 2, 3]
}
