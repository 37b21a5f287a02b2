import Kernels

/// The second half of the search for a block of several groups: the block's own scales, and the whole numbers by which
/// the groups multiply them.
///
/// llama.cpp rounds the groups' best scales to multiples of a step that follows from the largest, and leaves it there. Here
/// each group then tries the neighbours of its multiple, with the lowest value that is best for it, and the step is fitted
/// again, by least squares over the whole block, to the codes and multiples found. Every change is kept only where the
/// block's weighted squared error falls.
struct AffineSuperBlockFit {
  let groups: Int
  let highest: Float
  /// The largest multiple.
  let limit: Float
  /// How the largest scale is rounded: the multiples that it may get.
  let tops: [Float]

  struct Result {
    /// Of the block, exact in binary16, in every lane of the block.
    var step = Floats()
    var lowStep = Floats()
    /// Multiples of the groups.
    var scale = Floats()
    var low = Floats()
    /// Of the group, and of the block.
    var error = Floats()
    var total = Floats(repeating: .infinity)

    var scales: Floats { step * scale }
    /// The value of code 0.
    var lows: Floats { 0 - lowStep * low }
  }

  func fit(_ lanes: GroupLanes, _ fit: AffineLaneFit) -> Result {
    let depth = 0 - fit.low
    let largest = blockExtreme(fit.scale, groups: groups)
    let deepest = blockExtreme(depth, groups: groups)
    var best = Result()
    for top in tops {
      var trial = Result()
      trial.step = halves(largest / top)
      trial.lowStep = halves(deepest / limit)
      trial.scale = wholes(fit.scale * GroupLanes.reciprocal(trial.step), 0, limit)
      trial.low = wholes(depth * GroupLanes.reciprocal(trial.lowStep), 0, limit)
      evaluate(&trial, lanes)
      for difference: Float in [0, -1, 1] { move(&trial, lanes, scaleBy: difference) }
      for difference: Float in [-1, 1] { move(&trial, lanes, lowBy: difference) }
      finish(&trial)
      keep(&best, trial)
    }
    var trial = refitted(best, lanes)
    evaluate(&trial, lanes)
    move(&trial, lanes, scaleBy: 0)
    finish(&trial)
    keep(&best, trial)
    return best
  }

  private func evaluate(_ trial: inout Result, _ lanes: GroupLanes) {
    trial.error = lanes.affineError(scale: trial.scales, low: trial.lows, highest: highest).error
  }

  private func finish(_ trial: inout Result) { trial.total = blockTotal(trial.error, groups: groups) }

  /// Tries another multiple of the scale, with the low that suits the codes then.
  private func move(_ trial: inout Result, _ lanes: GroupLanes, scaleBy difference: Float) {
    var changed = trial
    changed.scale = wholes(trial.scale + difference, 0, limit)
    let scales = changed.scales
    let (_, codes) = lanes.affineError(scale: scales, low: trial.lows, highest: highest)
    let low = (lanes.sum - scales * codes) * GroupLanes.reciprocal(lanes.weightSum)
    changed.low = wholes((0 - low) * GroupLanes.reciprocal(trial.lowStep), 0, limit)
    accept(&trial, changed, lanes)
  }

  private func move(_ trial: inout Result, _ lanes: GroupLanes, lowBy difference: Float) {
    var changed = trial
    changed.low = wholes(trial.low + difference, 0, limit)
    accept(&trial, changed, lanes)
  }

  private func accept(_ trial: inout Result, _ changed: Result, _ lanes: GroupLanes) {
    let error = lanes.affineError(scale: changed.scales, low: changed.lows, highest: highest).error
    let better = error .< trial.error
    trial.scale.replace(with: changed.scale, where: better)
    trial.low.replace(with: changed.low, where: better)
    trial.error.replace(with: error, where: better)
  }

  /// The steps d and m that minimize Σ w (x − d·s·q + m·l)² for the codes q and multiples s and l of the result.
  private func refitted(_ result: Result, _ lanes: GroupLanes) -> Result {
    let (codes, squares, products) = lanes.affineTrial(
      low: result.lows, inverse: GroupLanes.reciprocal(result.scales), highest: highest)
    let (scale, low) = (result.scale, result.low)
    let scaleSquare = blockTotal(scale * scale * squares, groups: groups)
    let cross = blockTotal(scale * low * codes, groups: groups)
    let lowSquare = blockTotal(low * low * lanes.weightSum, groups: groups)
    let scaleProduct = blockTotal(scale * products, groups: groups)
    let lowProduct = blockTotal(low * lanes.sum, groups: groups)
    let reciprocal = GroupLanes.reciprocal(scaleSquare * lowSquare - cross * cross)
    var step = (scaleProduct * lowSquare - lowProduct * cross) * reciprocal
    var lowStep = (scaleProduct * cross - lowProduct * scaleSquare) * reciprocal
    // Without lows, or with ones that do not help, the scale alone.
    let alone = reciprocal .== 0 .| lowStep .< 0 .| step .< 0
    step.replace(with: scaleProduct * GroupLanes.reciprocal(scaleSquare), where: alone)
    lowStep.replace(with: result.lowStep, where: alone)
    var changed = result
    (changed.step, changed.lowStep) = (halves(step), halves(lowStep))
    return changed
  }

  private func keep(_ best: inout Result, _ trial: Result) {
    let better = trial.total .< best.total
    best.step.replace(with: trial.step, where: better)
    best.lowStep.replace(with: trial.lowStep, where: better)
    best.scale.replace(with: trial.scale, where: better)
    best.low.replace(with: trial.low, where: better)
    best.error.replace(with: trial.error, where: better)
    best.total.replace(with: trial.total, where: better)
  }
}

/// The same for groups that have a scale only: signed multiples of one step.
struct SignedSuperBlockFit {
  let groups: Int
  let levels: BlockLevels
  /// The multiples' bounds.
  let lowest: Float
  let highest: Float
  /// What the largest scale becomes.
  let tops: [Float]

  struct Result {
    var step = Floats()
    var scale = Floats()
    var error = Floats()
    var total = Floats(repeating: .infinity)

    var scales: Floats { step * scale }
  }

  func fit(_ lanes: GroupLanes, _ fit: ScaleLaneFit) -> Result {
    let extreme = blockExtreme(fit.scale, groups: groups)
    var best = Result()
    for top in tops {
      let step = halves(extreme / top)
      attempt(step, wholes(fit.scale * GroupLanes.reciprocal(step), lowest, highest), &best, lanes)
    }
    for _ in 0..<2 {
      let (product, square) = lanes.scaleTrial(inverse: GroupLanes.reciprocal(best.scales), levels)
      let step = halves(
        blockTotal(best.scale * product, groups: groups)
          * GroupLanes.reciprocal(blockTotal(best.scale * best.scale * square, groups: groups)))
      attempt(step, best.scale, &best, lanes)
    }
    return best
  }

  /// Tries a step with these multiples and their neighbours.
  private func attempt(_ step: Floats, _ scale: Floats, _ best: inout Result, _ lanes: GroupLanes) {
    var trial = Result(step: step, scale: scale, error: lanes.scaleError(scale: step * scale, levels))
    for difference: Float in [-1, 1] {
      let changed = wholes(scale + difference, lowest, highest)
      let error = lanes.scaleError(scale: step * changed, levels)
      let better = error .< trial.error
      trial.scale.replace(with: changed, where: better)
      trial.error.replace(with: error, where: better)
    }
    trial.total = blockTotal(trial.error, groups: groups)
    let better = trial.total .< best.total
    best.step.replace(with: trial.step, where: better)
    best.scale.replace(with: trial.scale, where: better)
    best.error.replace(with: trial.error, where: better)
    best.total.replace(with: trial.total, where: better)
  }
}
