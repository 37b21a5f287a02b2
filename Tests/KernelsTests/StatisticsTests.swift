import Kernels
import TestSupport
import Testing

@Suite struct StatisticsTests {
  @Test(arguments: [0, 1, 2, 15, 16, 17, 64, 1000])
  func extremesAreThoseOfTheValues(count: Int) {
    var random = SplitMix64(seed: UInt64(count))
    let values = random.weights(count)
    #expect(absoluteMaximum(values.span) == values.map(abs).max() ?? 0)
    let (smallest, largest) = extrema(values.span)
    #expect(smallest == values.min() ?? 0)
    #expect(largest == values.max() ?? 0)
  }

  @Test(arguments: [Float.infinity, -.infinity, .nan, -.nan])
  func aValueThatIsNotFiniteShowsInTheMaximum(value: Float) {
    for position in [0, 5, 31, 32, 39] {
      var values = [Float](repeating: 3, count: 40)
      values[position] = value
      #expect(!absoluteMaximum(values.span).isFinite)
      #expect(firstNonFinite(values.span) == position)
      var bytes: [UInt8] = []
      var magnitudes: [Float] = []
      _ = encodeElements(values, as: .bf16, into: &bytes)
      largestMagnitudes(bytes.span.bytes, as: .bf16, of: GroupRuns(single: 40), into: &magnitudes)
      #expect(magnitudes.count == 1 && !magnitudes[0].isFinite)
    }
    #expect(firstNonFinite([1, 2].span) == nil)
  }

  @Test(arguments: [1, 255, 256, 257, 5000])
  func pairSumsEqualSumsInDoublePrecision(count: Int) {
    var random = SplitMix64(seed: UInt64(count))
    for scale: Float in [0.02, 1e30, 1e-30] {
      let a = random.weights(count, scale: scale)
      let b = zip(a, random.weights(count, scale: scale / 10)).map { $0 + $1 }
      let sums = pairSums(a.span, b.span)
      let pairs = zip(a, b).map { (Double($0), Double($1)) }
      func close(_ found: Double, _ expected: Double) -> Bool { abs(found - expected) <= 1e-5 * abs(expected) }
      #expect(close(sums.first, pairs.reduce(0) { $0 + $1.0 * $1.0 }))
      #expect(close(sums.second, pairs.reduce(0) { $0 + $1.1 * $1.1 }))
      #expect(close(sums.product, pairs.reduce(0) { $0 + $1.0 * $1.1 }))
      #expect(close(sums.squaredDifference, pairs.reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }))
      let differences = zip(a, b).map { abs($0 - $1) }
      #expect(sums.largestDifference == differences.max())
      #expect(differences[sums.largestIndex] == differences.max())
      #expect(sums.processed == count)
    }
  }

  @Test func partsAppendToTheWhole() {
    var random = SplitMix64(seed: 9)
    let a = random.weights(2048)
    let b = random.weights(2048)
    var sums = pairSums(a.span.extracting(0..<512), b.span.extracting(0..<512))
    sums.append(pairSums(a.span.extracting(512..<2048), b.span.extracting(512..<2048)))
    let whole = pairSums(a.span, b.span)
    #expect(sums.largestIndex == whole.largestIndex)
    #expect(abs(sums.squaredDifference - whole.squaredDifference) < 1e-12)
  }

  @Test func workIsDoneOnceAndTheFirstErrorWins() throws {
    struct Failure: Error, Equatable { let item: Int }
    for workers in [1, 2, 7] {
      let found = #expect(throws: Failure.self) {
        try runParallel(count: 100, workers: workers, makeState: { 0 }) { item, _ in
          if item % 40 == 30 { throw Failure(item: item) }
        }
      }
      #expect(found == Failure(item: 30))
    }
  }

  @Test(arguments: [0, 1, 31, 32, 33, 8191, 8192, 8224, 100_003]) func sumsOfCodes(count: Int) {
    var generator = SplitMix64(seed: 5)
    let codes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    #expect(codeSum(codes.span) == codes.reduce(0) { $0 + Int($1) })
    let full = [UInt8](repeating: 255, count: count)
    #expect(codeSum(full.span) == 255 * count)
  }
}
