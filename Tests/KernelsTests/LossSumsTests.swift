import Kernels
import TestSupport
import Testing

/// The sums that a manifest records of what quantizing lost.
@Suite struct LossSumsTests {
  /// Sums over the sample, element by element.
  private func naive(
    _ values: [Float], _ decoded: [Float], first: Int, _ sample: ElementSample
  ) -> LossSums {
    var sums = LossSums()
    for (index, (value, other)) in zip(values, decoded).enumerated() where sample.contains(first + index) {
      sums.source += Double(value) * Double(value)
      sums.decoded += Double(other) * Double(other)
      sums.error += (Double(value) - Double(other)) * (Double(value) - Double(other))
    }
    return sums
  }

  private func isClose(_ a: LossSums, _ b: LossSums) -> Bool {
    func close(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-12 * max(a, b) }
    return close(a.source, b.source) && close(a.decoded, b.decoded) && close(a.error, b.error)
  }

  @Test func theSampleIsAllOfSmallTensorsAndAnEighthOfLargeOnes() {
    let count = ElementSample.wholeCount
    #expect((0..<1000).allSatisfy { ElementSample(of: count, groupLength: 64).contains($0) })
    for (groupLength, length) in [(1, 64), (32, 64), (64, 64), (100, 64), (128, 128), (300, 256), (4096, 512)] {
      let sample = ElementSample(of: count + 1, groupLength: groupLength)
      var places = [Int](repeating: 0, count: length / 8)
      for run in 0..<1000 {
        let found = (0..<length).filter { sample.contains(run * length + $0) }
        #expect(found.count == 8 && found.last == found[0] + 7 && found[0] % 8 == 0)
        // As the format's page writes it.
        #expect(found[0] == 2_654_435_769 * run % 4_294_967_296 * (length / 8) / 4_294_967_296 * 8)
        places[found[0] / 8] += 1
      }
      // No place is left out.
      let even = 8000 / length
      #expect(places.allSatisfy { (even * 3 / 4...even * 5 / 4 + 1).contains($0) }, "\(places)")
    }
    #expect(
      [0, 1, 2, 3].map { run in
        (0..<64).first { ElementSample(of: count + 1, groupLength: 64).contains(run * 64 + $0) }
      } == [0, 32, 8, 48])
  }

  @Test(arguments: [64, 1 << 20], [0, 8, 40, 1000]) func sumsAreThoseOfTheElements(count: Int, first: Int) {
    var random = SplitMix64(seed: 3)
    let values = random.weights(1003)
    let decoded = zip(values, random.weights(1003, scale: 0.01)).map { $0 + $1 }
    let sample = ElementSample(of: count, groupLength: 128)
    let expected = naive(values, decoded, first: first, sample)
    #expect(expected.error > 0)
    #expect(isClose(LossSums(values.span, decoded.span, first: first, sample: sample), expected))
  }

  /// Straight from stored weights and codes the sums are those of weights and reconstructions.
  @Test(arguments: [ElementType.f32, .bf16], [3, 8, 32, 64, 100, 200])
  func tilesAreSummedFromTheirCodes(type: ElementType, groupLength: Int) {
    var random = SplitMix64(seed: UInt64(groupLength))
    // Rows that groups do not divide, from the third row on.
    let groups = GroupRuns(rowLength: 200, groupLength: groupLength, column: 0, count: 1000)
    var bytes: [UInt8] = []
    let length = encodeElements(random.weights(1000), as: type, into: &bytes)
    var values = [Float](repeating: 0, count: 1000)
    var target = values.mutableSpan
    decodeElements(bytes.span.bytes, as: type, into: &target)
    let codes = (0..<1000).map { _ in UInt8.random(in: 0...15, using: &random) }
    let number = Array(groups).count
    let scales = (0..<number).map { _ in Float.random(in: 0.01...0.1, using: &random) }
    let zeroPoints = (0..<number).map { _ in Float.random(in: 6...9, using: &random) }
    let table = (0..<16).map { Float($0 * $0) / 100 - 1 }
    for (levels, zeros) in [(CodeLevels.affine(middle: 8), []), (.affine(middle: 8), zeroPoints), (.levels(table), [])]
    {
      var decoded = [Float](repeating: 0, count: 1000)
      for (index, group) in groups.enumerated() {
        for element in group {
          switch levels {
          case .affine(let middle):
            let zeroPoint = zeros.isEmpty ? middle : zeros[index]
            decoded[element] = scales[index] * (Float(codes[element]) - zeroPoint)
          case .levels(let table): decoded[element] = scales[index] * table[Int(codes[element])]
          }
        }
      }
      for sample in [1 << 10, 1 << 20].map({ ElementSample(of: $0, groupLength: groupLength) }) {
        let found = LossSums(
          bytes.span.bytes.extracting(0..<length), as: type, codes: codes.span, groups: groups, scales: scales.span,
          zeroPoints: zeros.span, levels: levels, first: 400, sample: sample)
        #expect(isClose(found, naive(values, decoded, first: 400, sample)))
      }
    }
  }
}
