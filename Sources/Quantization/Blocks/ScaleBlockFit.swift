import Kernels

/// A scale for each of sixteen groups: x ≈ scale · level.
struct ScaleLaneFit {
  var scale: Floats
  /// (Σwxq)² / Σwq², by which the fit lowers Σwx².
  var gain: Floats
}

/// The search for the scale of a group whose levels are fixed, by weighted least squares from many starts.
///
/// With levels q the best scale is Σwxq / Σwq². A start puts the largest magnitude at, or somewhat beyond, the lowest
/// level, which reaches farther than the highest; then, the levels being lopsided, with the other sign.
struct ScaleBlockFit {
  let levels: BlockLevels
  /// Where the largest magnitude comes to lie, in units of the scale.
  let starts: [Float]

  func fit(_ lanes: GroupLanes) -> ScaleLaneFit {
    let zero = Floats()
    let inverse = GroupLanes.reciprocal(lanes.extreme)
    var best = ScaleLaneFit(scale: zero, gain: zero)
    for start in starts { improve(&best, lanes, inverse: start * inverse) }
    for _ in 0..<2 { improve(&best, lanes, inverse: GroupLanes.reciprocal(best.scale)) }
    let found = GroupLanes.reciprocal(best.scale)
    for factor: Float in [0.98, 1.02, 0.99, 1.01] { improve(&best, lanes, inverse: factor * found) }
    improve(&best, lanes, inverse: GroupLanes.reciprocal(best.scale))
    return best
  }

  private func improve(_ best: inout ScaleLaneFit, _ lanes: GroupLanes, inverse: Floats) {
    let (product, square) = lanes.scaleTrial(inverse: inverse, levels)
    let scale = product * GroupLanes.reciprocal(square)
    let gain = scale * product
    let better = gain .> best.gain
    best.scale.replace(with: scale, where: better)
    best.gain.replace(with: gain, where: better)
  }
}
