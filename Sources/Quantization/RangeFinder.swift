import Kernels

/// The range of one group under absmax or zero points: from its smallest and largest value, or found by search.
struct RangeFinder: Sendable {
  let method: Method
  let bits: Int
  let scaleType: ElementType
  let search: ScaleSearch

  init(_ scheme: WeightScheme) {
    (method, bits, scaleType, search) = (scheme.method, scheme.bits, scheme.scaleType, scheme.scaleSearch)
  }

  /// - Parameters:
  ///   - values: finite.
  ///   - largest: their largest magnitude.
  ///   - importance: what the squared error of each value counts in a search; all the same if nil.
  func range(of values: Span<Float>, largest: Float, importance: Span<Float>? = nil) -> AffineRange {
    let bounds = method == .absmax ? (-largest, largest) : extrema(values)
    switch search {
    case .none: return range(from: bounds.0, to: bounds.1, share: 1)
    case .mse:
      return RangeSearch.best(
        of: values, importance: importance, scaleType: scaleType, candidates: RangeSearch.shares.count
      ) { range(from: bounds.0, to: bounds.1, share: RangeSearch.shares[$0]) }
    case .signedMSE:
      return RangeSearch.best(
        of: values, importance: importance, scaleType: scaleType, candidates: 2 * RangeSearch.coarseShares.count
      ) { candidate in
        var range = range(from: bounds.0, to: bounds.1, share: RangeSearch.coarseShares[candidate / 2])
        if candidate % 2 == 1 { range.scale = -range.scale }
        return range
      }
    }
  }

  /// The range that covers a share of the values' range.
  func range(from smallest: Float, to largest: Float, share: Double) -> AffineRange {
    method == .zeroPoint
      ? ZeroPoint.range(
        bits: bits, from: Double(smallest) * share, to: Double(largest) * share, scaleType: scaleType)
      : Absmax.range(bits: bits, magnitude: Double(max(-smallest, largest)) * share, scaleType: scaleType)
  }
}
