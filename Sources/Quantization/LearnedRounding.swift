import Kernels

/// How rounding is learned: SignRound of AutoRound (arXiv 2309.05516) with a better start, in steps against the gradient
/// of a loss that the caller measures.
///
///     code = clamp(round(a / s + z + v), 0, top)        ŵ = s · (code − z)
///
/// v, an offset within ±½ for each weight, takes steps of equal size against the sign of its gradient's running mean; s
/// and, where there is one, z of each group take steps of Adam. The derivative of rounding counts as 1. The anchor a is
/// set so that v = 0 gives the codes of the start. All steps shrink linearly to zero.
///
/// See Docs/LearnedRounding.md.
package struct LearnedRounding: Hashable, Sendable {
  /// Steps for each block, or for the whole model.
  package var iterations: Int
  /// Windows of each step.
  package var batchSize: Int
  /// The first step of an offset, in codes.
  package var rate: Float
  /// The first step of a scale, as a share of it.
  package var scaleRate: Float
  /// The first step of a zero point, in codes.
  package var zeroPointRate: Float
  /// The first step of norms' weights and of biases, as a share of their root mean square; zero: they stay.
  package var normRate: Float
  /// Of the running mean of an offset's gradient; zero: each gradient by itself.
  package var momentum: Float
  /// Whether all offsets take steps of equal size.
  package var usesSigns = false

  package init(
    iterations: Int, batchSize: Int = 8, rate: Float, scaleRate: Float = 0.002, zeroPointRate: Float = 0.02,
    normRate: Float = 0, momentum: Float = 0.9
  ) {
    precondition(iterations >= 0 && batchSize >= 1)
    self.iterations = iterations
    self.batchSize = batchSize
    self.rate = rate
    self.scaleRate = scaleRate
    self.zeroPointRate = zeroPointRate
    self.normRate = normRate
    self.momentum = momentum
  }

  /// The share of the first step that step `index` is long.
  package func share(ofStep index: Int) -> Float { 1 - Float(index) / Float(max(1, iterations)) }
}

/// A vector or small matrix of parameters under Adam (arXiv 1412.6980).
package struct AdamParameters: Sendable {
  package let values: Matrix
  private let means: Matrix
  private let squares: Matrix

  package init(_ values: Matrix) {
    self.values = values
    means = Matrix(rows: values.rows, columns: values.columns)
    squares = Matrix(rows: values.rows, columns: values.columns)
  }

  /// Of the gradient, running: what the next steps depend on, beside the values.
  package var moments: [Matrix] { [means, squares] }

  /// - Parameter step: 1 for the first.
  package func step(_ gradient: Matrix, rate: Float, step: Int) {
    stepAdam(values, gradient: gradient, means: means, squares: squares, rate: rate, step: step)
  }
}

/// A weight whose rounding is being learned. Used by one operation at a time.
package final class LearnedWeight {
  package let rows: Int
  package let columns: Int
  private let start: AffineWeight
  private let scaleType: ElementType
  private let isSymmetric: Bool
  private let state: RoundingState
  /// Scales over those of the start.
  private let factors: AdamParameters
  private let zeroPoints: AdamParameters
  private let scaleGradients: Matrix
  private let zeroGradients: Matrix

  /// How far from the border between two codes an anchor is kept, in codes: enough for a scale to move without changing
  /// codes that the start chose with care.
  private static let margin: Float = 0.25

  /// - Parameters:
  ///   - start: whose groups are runs of neighbouring columns.
  ///   - goal: what the start was rounded from, `[rows, columns]`. Where it is nearest to another code than the start's,
  ///     the anchor is a quarter of a code from the border to it.
  ///   - isSymmetric: whether zero points stay.
  ///   - keepsCodes: whether anchors are at the codes themselves, for steps that change ranges only.
  package init(
    from start: AffineWeight, goal: Matrix, scaleType: ElementType, isSymmetric: Bool, hasMomentum: Bool,
    keepsCodes: Bool = false
  ) {
    precondition(start.groupIndex == nil && goal.rows == start.rows && goal.columns == start.columns)
    (rows, columns) = (start.rows, start.columns)
    (self.start, self.scaleType, self.isSymmetric) = (start, scaleType, isSymmetric)
    let groups = start.groupsPerRow
    state = RoundingState(
      rows: rows, columns: columns, groupLength: start.groupLength, highestCode: start.ranges.first?.highestCode ?? 1,
      hasMomentum: hasMomentum)
    factors = AdamParameters(Matrix(rows: rows, columns: groups, [Float](repeating: 1, count: rows * groups)))
    zeroPoints = AdamParameters(Matrix(rows: rows, columns: groups, start.ranges.map(\.zeroPoint)))
    scaleGradients = Matrix(rows: rows, columns: groups)
    zeroGradients = Matrix(rows: rows, columns: groups)
    state.scales.withRows(0..<rows) { scales in
      for group in start.ranges.indices { scales[group] = start.ranges[group].scale }
    }
    state.zeroPoints.withRows(0..<rows) { zeroPoints in
      for group in start.ranges.indices { zeroPoints[group] = start.ranges[group].zeroPoint }
    }
    for row in 0..<rows {
      goal.readRows(row..<(row + 1)) { goal in
        state.anchors.withRows(row..<(row + 1)) { anchors in
          for column in 0..<columns {
            let range = start.ranges[row * groups + column / start.groupLength]
            anchors[column] = Self.anchor(
              goal[column], code: start.codes[row * columns + column], range, margin: keepsCodes ? 0.5 : Self.margin)
          }
        }
      }
    }
  }

  private static func anchor(_ goal: Float, code: UInt8, _ range: AffineRange, margin: Float) -> Float {
    guard range.scale != 0 else { return 0 }
    let position = goal / range.scale + range.zeroPoint
    let code = Float(code)
    // A value that is clamped may lie beyond its code as far as it likes.
    if margin >= 0.5 { return (code - range.zeroPoint) * range.scale }
    let low = code == 0 ? -Float.greatestFiniteMagnitude : code - 0.5 + margin
    let high = code == Float(range.highestCode) ? Float.greatestFiniteMagnitude : code + 0.5 - margin
    return (min(max(position, low), high) - range.zeroPoint) * range.scale
  }

  /// What is learned: the weight is made of these and of what does not change.
  package var parameters: [Matrix] { [state.offsets, state.scales, state.zeroPoints] }

  /// What the next steps depend on besides.
  package var optimizer: [Matrix] {
    (state.momenta.map { [$0] } ?? []) + [factors.values] + factors.moments + [zeroPoints.values] + zeroPoints.moments
  }

  /// The weights that a reader would get, `[rows, columns]`.
  package func decode(into weight: Matrix, workers: Int) { state.decode(into: weight, workers: workers) }

  /// One step.
  /// - Parameters:
  ///   - gradient: of the loss by the decoded weights, `[rows, columns]`.
  ///   - index: 0 for the first.
  package func step(_ gradient: Matrix, _ method: LearnedRounding, index: Int, workers: Int) {
    let share = method.share(ofStep: index)
    state.rangeGradients(
      of: gradient, scaleGradients: scaleGradients, zeroGradients: zeroGradients, workers: workers)
    if method.rate > 0 {
      state.stepOffsets(
        gradient: gradient, rate: method.rate * share, decay: method.momentum, signs: method.usesSigns,
        workers: workers)
    }
    if method.scaleRate > 0 { stepScales(rate: method.scaleRate * share, index: index) }
    if !isSymmetric, method.zeroPointRate > 0 { stepZeroPoints(rate: method.zeroPointRate * share, index: index) }
  }

  private func stepScales(rate: Float, index: Int) {
    let groups = start.groupsPerRow
    scaleGradients.withRows(0..<rows) { gradients in
      for group in 0..<rows * groups { gradients[group] *= start.ranges[group].scale }
    }
    factors.step(scaleGradients, rate: rate, step: index + 1)
    factors.values.readRows(0..<rows) { factors in
      state.scales.withRows(0..<rows) { scales in
        for group in 0..<rows * groups {
          let old = start.ranges[group].scale
          let new = rounded(factors[group] * old, to: scaleType)
          // The sign stays, and so does a scale that its type or a division could not take.
          if new.isFinite, (1 / new).isFinite, factors[group] > 0, old != 0 { scales[group] = new }
        }
      }
    }
  }

  private func stepZeroPoints(rate: Float, index: Int) {
    zeroPoints.step(zeroGradients, rate: rate, step: index + 1)
    let highest = Float(state.highestCode)
    zeroPoints.values.readRows(0..<rows) { values in
      state.zeroPoints.withRows(0..<rows) { stored in
        for group in 0..<values.count { stored[group] = min(max(values[group].rounded(), 0), highest) }
      }
    }
  }

  /// What was learned, as it is stored.
  package func quantized(workers: Int) -> AffineWeight {
    let (scales, zeroPoints) = (state.scales.values(), state.zeroPoints.values())
    let ranges = start.ranges.indices.map { group in
      AffineRange(scale: scales[group], zeroPoint: zeroPoints[group], highestCode: state.highestCode)
    }
    return AffineWeight(
      rows: rows, columns: columns, groupLength: start.groupLength, codes: state.codes(workers: workers),
      ranges: ranges, groupIndex: nil)
  }
}
