import Kernels

/// A small seeded generator (Steele, Lea and Flood 2014), so that tests see the same values everywhere.
package struct SplitMix64: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  /// About normal: the sum of twelve uniform values, centred.
  package mutating func normal() -> Float {
    (0..<12).reduce(Float(-6)) { sum, _ in sum + Float.random(in: 0..<1, using: &self) }
  }

  package mutating func weights(_ count: Int, scale: Float = 0.02) -> [Float] {
    (0..<count).map { _ in normal() * scale }
  }

  /// Weights as bfloat16 or float32 bytes, and their values.
  package mutating func storedWeights(_ count: Int, as type: ElementType) -> (bytes: [UInt8], values: [Float]) {
    let values = weights(count).map { rounded($0, to: type) }
    var bytes: [UInt8] = []
    let size = encodeElements(values, as: type, into: &bytes)
    return (Array(bytes[..<size]), values)
  }
}
