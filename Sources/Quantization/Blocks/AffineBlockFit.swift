import Kernels

/// A scale and a lowest value for each of sixteen groups: x ≈ scale · q + low, q in 0…highest.
struct AffineLaneFit {
  var scale: Floats
  var low: Floats
  /// Σ w (x − scale · q − low)².
  var error: Floats
}

/// The search for scale and lowest value of a group, by weighted least squares from many starts.
///
/// From codes q, the best scale and low are the solution of two normal equations (weighted linear regression of x on q);
/// from these follow new codes. A start is a range a little narrower or wider than that of the values. Starts on a grid
/// find the valley, and alternating codes and regression walks down in it.
struct AffineBlockFit {
  let highest: Float
  /// Whether `low` may not be above zero, as the k-quants store it negated and without a sign.
  let lowIsNegative: Bool
  /// By how many codes the range of a start is narrower; negative: wider.
  let offsets: [Float]

  func fit(_ lanes: GroupLanes) -> AffineLaneFit {
    let zero = Floats()
    var low = lanes.least
    if lowIsNegative { low.replace(with: zero, where: low .> zero) }
    let range = lanes.greatest - low
    // Without a range, all values are equal (or, below a low of zero, all codes zero).
    var best = AffineLaneFit(scale: zero, low: low, error: zero)
    best.error = lanes.affineError(scale: zero, low: low, highest: highest).error
    let inverse = GroupLanes.reciprocal(range)
    for offset in offsets { improve(&best, lanes, low: low, inverse: (highest + offset) * inverse) }
    // From the best so far: itself, then scales around it.
    for _ in 0..<2 { improve(&best, lanes, low: best.low, inverse: GroupLanes.reciprocal(best.scale)) }
    let found = best
    for factor: Float in [0.97, 1.03, 0.985, 1.015] {
      improve(&best, lanes, low: found.low, inverse: factor * GroupLanes.reciprocal(found.scale))
    }
    improve(&best, lanes, low: best.low, inverse: GroupLanes.reciprocal(best.scale))
    return best
  }

  /// Takes the regression on the codes of (low, inverse) in the lanes where its error is smaller.
  private func improve(_ best: inout AffineLaneFit, _ lanes: GroupLanes, low: Floats, inverse: Floats) {
    let (codes, squares, products) = lanes.affineTrial(low: low, inverse: inverse, highest: highest)
    let zero = Floats()
    let (weight, sum) = (lanes.weightSum, lanes.sum)
    let determinant = weight * squares - codes * codes
    let reciprocal = GroupLanes.reciprocal(determinant)
    var scale = (weight * products - sum * codes) * reciprocal
    var offset = (squares * sum - codes * products) * reciprocal
    if lowIsNegative {
      let above = offset .> zero
      offset.replace(with: zero, where: above)
      scale.replace(with: products * GroupLanes.reciprocal(squares), where: above)
    }
    // Σ w (x − s q − m)², multiplied out.
    let twice = Floats(repeating: 2)
    let linear: Floats = scale * products + offset * sum
    let quadratic: Floats = scale * scale * squares + offset * offset * weight
    let mixed: Floats = scale * offset * codes
    let error: Floats = (lanes.squareSum - twice * linear) + (quadratic + twice * mixed)
    let isSolved = determinant .> zero
    let better = (error .< best.error) .& isSolved .& (scale .> zero)
    best.scale.replace(with: scale, where: better)
    best.low.replace(with: offset, where: better)
    best.error.replace(with: error, where: better)
  }
}
