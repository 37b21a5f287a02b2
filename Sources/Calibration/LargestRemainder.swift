/// Divides `total` whole things in proportion to weights by the method of the largest remainder (Hamilton's
/// apportionment): every share is rounded down, and what is left goes to the largest fractions, earlier ones first.
///
/// - Parameter weights: positive and finite, at least one.
/// - Returns: as many counts as weights, which add up to `total`.
func largestRemainder(_ total: Int, weights: [Double]) -> [Int] {
  precondition(total >= 0 && !weights.isEmpty && weights.allSatisfy { $0 > 0 && $0.isFinite })
  // Relative to the largest, so that their sum is finite.
  let largest = weights.reduce(0, max)
  let relative = weights.map { $0 / largest }
  let sum = relative.reduce(0, +)
  let exact = relative.map { $0 / sum * Double(total) }
  var counts = exact.map { min(total, Int($0)) }
  let left = total - counts.reduce(0, +)
  let byFraction = exact.indices.sorted { first, second in
    let (one, other) = (exact[first] - Double(counts[first]), exact[second] - Double(counts[second]))
    return one != other ? one > other : first < second
  }
  for index in byFraction.prefix(max(0, left)) { counts[index] += 1 }
  return counts
}

/// The order in which items of several lists come so that each list is spread evenly over the whole: item `j` of `n`
/// stands at (2j + 1) / 2n, earlier lists first where places are equal.
func evenlyInterleaved(_ counts: [Int]) -> [(list: Int, item: Int)] {
  let all = counts.enumerated().flatMap { list, count in (0..<count).map { (list: list, item: $0) } }
  func place(_ entry: (list: Int, item: Int)) -> Double { Double(2 * entry.item + 1) / Double(2 * counts[entry.list]) }
  return all.sorted { one, other in
    let (first, second) = (place(one), place(other))
    return first != second ? first < second : (one.list, one.item) < (other.list, other.item)
  }
}
