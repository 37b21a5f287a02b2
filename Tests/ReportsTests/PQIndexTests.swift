import Reports
import TestSupport
import Testing

/// The six properties that a measure of sparsity should have (Hurley and Rickard, arXiv 0811.4706, section II), which the
/// PQ index has (arXiv 2302.05601, theorem 1).
@Suite struct PQIndexTests {
  private func index(_ values: [Double]) -> Double {
    pqIndex(
      rootSum: values.reduce(0) { $0 + abs($1).squareRoot() }, sum: values.reduce(0) { $0 + abs($1) },
      count: values.count)
  }

  private let samples: [[Double]] = (0..<20).map { seed in
    var random = SplitMix64(seed: UInt64(seed))
    return (0..<(5 + seed)).map { _ in abs(Double(random.normal())) + 0.01 }
  }

  @Test func extremes() {
    #expect(abs(index([3, -3, 3, 3])) < 1e-12)
    #expect(index([0, 0, 7, 0]) == 0.75)
    #expect(index([0, 0, 0]) == 0)
  }

  @Test func theSixProperties() {
    for values in samples {
      let base = index(values)
      let (low, high) = (
        values.indices.min { values[$0] < values[$1] }!, values.indices.max { values[$0] < values[$1] }!
      )
      // Robin Hood: taking from the large to give to the small makes it less sparse.
      var shared = values
      let gift = (values[high] - values[low]) / 4
      shared[high] -= gift
      shared[low] += gift
      #expect(index(shared) < base)
      // Scaling changes nothing.
      #expect(abs(index(values.map { $0 * -3.5 }) - base) < 1e-12)
      // Rising tide: adding to all makes it less sparse.
      #expect(index(values.map { $0 + 0.5 }) < base)
      // Cloning changes nothing.
      #expect(abs(index(values + values) - base) < 1e-12)
      // Bill Gates: once one is rich enough, making it richer makes it more sparse.
      var rich = values
      rich[high] += 100
      var richer = rich
      richer[high] += 100
      #expect(index(richer) > index(rich))
      // Babies: zeros make it more sparse.
      #expect(index(values + [0, 0]) > base)
    }
  }
}
