import Kernels

/// Search for the clipped range of least squared error (`ScaleSearch.mse`).
///
/// The range is shrunk in steps of one percent, each candidate's scale rounded as stored and its error summed over the
/// group; then the scale is fitted to the codes by least squares, s = Σ w·(q−z) / Σ (q−z)², codes and scale in turn, as
/// long as the error falls. The unclipped range is the first candidate, so that the result is never worse than it. A scale
/// for a whole tensor is searched in one pass over it, without the fit.
///
/// With the importance of each column, E[x²] of its input, every sum above is weighted by it. That is the error of the
/// layer's output if inputs are uncorrelated, and needs no more evidence than one number a column.
package enum RangeSearch {
  /// Shares of the full range that are tried.
  package static let shares: [Double] = (0..<70).map { 1 - 0.01 * Double($0) }

  /// Half as many, for a search that tries both signs.
  static let coarseShares: [Double] = (0..<36).map { 1 - 0.02 * Double($0) }

  static let refinements = 4

  /// The best range of one group.
  /// - Parameters:
  ///   - importance: what the squared error of each value counts; all the same if nil.
  ///   - candidate: the ranges to try; the first is the unclipped one.
  static func best(
    of values: Span<Float>, importance: Span<Float>? = nil, scaleType: ElementType, candidates: Int,
    candidate: (_ index: Int) -> AffineRange
  ) -> AffineRange {
    func fit(_ range: AffineRange) -> AffineFit {
      var fit = AffineFit()
      fit.add(values, importance: importance, range)
      return fit
    }
    var bestRange = candidate(0)
    guard bestRange.scale != 0 else { return bestRange }
    var least = AffineFit.squaredError(of: values, importance: importance, bestRange)
    for index in 1..<candidates {
      let range = candidate(index)
      guard range.scale != 0 else { continue }
      let found = AffineFit.squaredError(of: values, importance: importance, range)
      if found < least { (bestRange, least) = (range, found) }
    }
    var bestFit = fit(bestRange)
    for _ in 0..<refinements {
      guard let scale = bestFit.bestScale else { break }
      var range = bestRange
      range.scale = rounded(Float(scale), to: scaleType)
      guard range.scale != 0, range.scale.isFinite else { break }
      let found = fit(range)
      guard found.squaredError < bestFit.squaredError else { break }
      (bestRange, bestFit) = (range, found)
    }
    return bestRange
  }

  /// The best scale of one block for a codebook; the same search.
  static func bestScale(
    of values: Span<Float>, importance: [Float]? = nil, largest: Float, codebook: Codebook, scaleType: ElementType
  ) -> Float {
    var codes = [UInt8](repeating: 0, count: values.count)
    func fit(_ scale: Float) -> (squaredError: Double, bestScale: Double?) {
      var target = codes.mutableSpan
      codebook.encode(
        values.bytes, as: .f32, groups: GroupRuns(single: values.count), scales: CollectionOfOne(scale).span,
        magnitudes: CollectionOfOne(largest).span, into: &target)
      if let importance { return codebook.fit(values, importance: importance.span, codes.span, scale: scale) }
      return codebook.fit(values, codes.span, scale: scale)
    }
    var bestScale = rounded(largest, to: scaleType)
    guard bestScale > 0 else { return bestScale }
    var best = fit(bestScale)
    for share in shares.dropFirst() {
      let scale = rounded(Float(share * Double(largest)), to: scaleType)
      guard scale > 0 else { continue }
      let found = fit(scale)
      if found.squaredError < best.squaredError { (bestScale, best) = (scale, found) }
    }
    for _ in 0..<refinements {
      guard let refined = best.bestScale.map({ rounded(Float($0), to: scaleType) }), refined > 0, refined.isFinite
      else { break }
      let found = fit(refined)
      guard found.squaredError < best.squaredError else { break }
      (bestScale, best) = (refined, found)
    }
    return bestScale
  }
}
