/// Which values of a tensor to show: a range for each dimension, as in `0:4,0:8`.
package struct TensorSlice: Hashable, Sendable {
  /// As it was written.
  package let text: String
  private let bounds: [(lower: Int?, upper: Int?)]

  /// The most values that are shown.
  package static let limit = 4096

  /// Nil where it is not ranges `A:B`, `A:`, `:B`, `:` or single numbers, from 0 on, with commas between.
  package init?(_ text: String) {
    self.text = text
    var bounds: [(lower: Int?, upper: Int?)] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: ":", omittingEmptySubsequences: false).map { $0.filter { $0 != " " } }
      let numbers = ends.map { Int($0) }
      guard zip(ends, numbers).allSatisfy({ $0.isEmpty || ($1 ?? -1) >= 0 }) else { return nil }
      switch numbers.count {
      case 1:
        guard let number = numbers[0], number < Int.max else { return nil }
        bounds.append((number, number + 1))
      case 2: bounds.append((numbers[0], numbers[1]))
      default: return nil
      }
    }
    self.bounds = bounds
  }

  /// The ranges within a shape; dimensions that are not named are taken whole. Nil where there are more ranges than
  /// dimensions, or one that is empty or goes beyond the end, or more values than `limit`.
  package func ranges(in shape: [Int]) -> [Range<Int>]? {
    guard bounds.count <= shape.count else { return nil }
    var ranges: [Range<Int>] = []
    for (index, size) in shape.enumerated() {
      let bound = index < bounds.count ? bounds[index] : (lower: nil, upper: nil)
      let (lower, upper) = (bound.lower ?? 0, bound.upper ?? size)
      guard lower < upper, upper <= size else { return nil }
      ranges.append(lower..<upper)
    }
    var count = 1
    for range in ranges {
      guard range.count <= Self.limit, count * range.count <= Self.limit else { return nil }
      count *= range.count
    }
    return ranges
  }

  package static func == (left: TensorSlice, right: TensorSlice) -> Bool { left.text == right.text }
  package func hash(into hasher: inout Hasher) { hasher.combine(text) }
}
