/// A quantized weight whose rounding is being learned (see `LearnedRounding` in Quantization): what is rounded, how much
/// is added before, and the ranges.
///
///     code = clamp(round(anchor / scale + zero point + offset), 0, highest)        ŵ = scale · (code − zero point)
///
/// Used by one operation at a time, which is parallel inside.
package final class RoundingState: Sendable {
  package let groupLength: Int
  package let highestCode: Int32
  /// `[rows, columns]`.
  package let anchors: Matrix
  /// `[rows, columns]`, within ±½.
  package let offsets: Matrix
  /// `[rows, groups]`, as stored. A scale of zero makes its group zero.
  package let scales: Matrix
  /// `[rows, groups]`.
  package let zeroPoints: Matrix
  /// Running mean of the offsets' gradients; nil where steps follow each gradient alone.
  package let momenta: Matrix?

  package init(rows: Int, columns: Int, groupLength: Int, highestCode: Int32, hasMomentum: Bool) {
    precondition(groupLength > 0 && highestCode > 0)
    self.groupLength = groupLength
    self.highestCode = highestCode
    let groups = (columns + groupLength - 1) / groupLength
    anchors = Matrix(rows: rows, columns: columns)
    offsets = Matrix(rows: rows, columns: columns)
    scales = Matrix(rows: rows, columns: groups)
    zeroPoints = Matrix(rows: rows, columns: groups)
    momenta = hasMomentum ? Matrix(rows: rows, columns: columns) : nil
  }

  /// Calls a body for each group of each row, in parallel over tiles of rows.
  @inline(__always)
  private func forEachGroup(
    workers: Int, _ body: @Sendable (_ element: Int, _ count: Int, _ group: Int) -> Void
  ) {
    let (columns, groups, length) = (anchors.columns, scales.columns, groupLength)
    runRowTiles(anchors.rows, columns: columns, workers: workers) { rows in
      for row in rows {
        for group in 0..<groups {
          body(
            row * columns + group * length, min(length, columns - group * length), row * groups + group)
        }
      }
    }
  }

  /// Writes the weights that a reader would get.
  package func decode(into weight: Matrix, workers: Int) {
    precondition(weight.rows == anchors.rows && weight.columns == anchors.columns)
    forEachGroup(workers: workers) { element, count, group in
      // Bounds: a group lies within its row; ranges have an entry for each.
      let (scale, zeroPoint) = (scales.base[group], zeroPoints.base[group])
      let inverse = scale == 0 ? 0 : 1 / scale
      let (anchor, offset, target) = (anchors.base + element, offsets.base + element, weight.base + element)
      for index in stride(from: 0, to: count, by: 16) {
        let code = self.code(anchor.lanes(index, of: count) * inverse + zeroPoint + offset.lanes(index, of: count))
        target.store((code - zeroPoint) * scale, at: index, of: count)
      }
    }
  }

  /// The codes, row-major.
  package func codes(workers: Int) -> [UInt8] {
    let columns = anchors.columns
    var codes = [UInt8](repeating: 0, count: anchors.rows * columns)
    for row in 0..<anchors.rows {
      for column in 0..<columns {
        let group = row * scales.columns + column / groupLength
        let (scale, zeroPoint) = (scales.base[group], zeroPoints.base[group])
        // Bounds: an element of the matrices. The same sums as in `decode`, lane by lane.
        let element = row * columns + column
        let inverse = scale == 0 ? 0 : 1 / scale
        let position = anchors.base[element] * inverse + zeroPoint + offsets.base[element]
        codes[element] = UInt8(code(Floats(repeating: position))[0])
      }
    }
    return codes
  }

  @inline(__always)
  private func code(_ position: Floats) -> Floats {
    var result = position
    // Not-a-number fails the comparison that keeps a value, and takes code 0.
    result = result.replacing(with: 0, where: .!(result .> 0))
    result = result.replacing(with: Float(highestCode), where: result .> Float(highestCode))
    return (result + roundingShift) - roundingShift
  }

  /// Gradients of a loss by scales and zero points, with the derivative of rounding taken as 1 (straight-through, arXiv
  /// 1308.3432; for the scale as in LSQ, arXiv 1902.08153, eq. 3): within the range dŵ/dscale = code − zero point −
  /// anchor / scale; where a value is clamped, code − zero point, and dŵ/dzero point = −scale.
  /// - Parameters:
  ///   - gradient: of the loss by ŵ.
  ///   - scaleGradients, zeroGradients: `[rows, groups]`, set.
  package func rangeGradients(
    of gradient: Matrix, scaleGradients: Matrix, zeroGradients: Matrix, workers: Int
  ) {
    precondition(gradient.rows == anchors.rows && gradient.columns == anchors.columns)
    precondition([scaleGradients, zeroGradients].allSatisfy { $0.rows == scales.rows && $0.columns == scales.columns })
    forEachGroup(workers: workers) { element, count, group in
      // Bounds: as in decode.
      let (scale, zeroPoint) = (scales.base[group], zeroPoints.base[group])
      let inverse = scale == 0 ? 0 : 1 / scale
      let (anchor, offset, slope) = (anchors.base + element, offsets.base + element, gradient.base + element)
      var (byScale, byZero) = (Floats.zero, Floats.zero)
      for index in stride(from: 0, to: count, by: 16) {
        let own = anchor.lanes(index, of: count) * inverse
        let position = own + zeroPoint + offset.lanes(index, of: count)
        let isInside = self.isInside(position)
        let outer = slope.lanes(index, of: count)
        let step = self.code(position) - zeroPoint
        byScale += outer * (step - own.replacing(with: 0, where: .!isInside))
        byZero -= (outer * scale).replacing(with: 0, where: isInside)
      }
      scaleGradients.base[group] = byScale.total
      zeroGradients.base[group] = byZero.total
    }
  }

  @inline(__always)
  private func isInside(_ position: Floats) -> SIMDMask<SIMD16<Int32>> {
    (position .>= -0.5) .& (position .<= Float(highestCode) + 0.5)
  }

  /// Moves each offset against the running mean of its gradient; offsets stay within ±½.
  ///
  /// The step is `rate` times the mean over the root mean square of the group's means, at most 2 · rate: weights whose
  /// gradients agree from step to step move, the others hardly do. With `signs`, it is `rate` for all (SignRound, arXiv
  /// 2309.05516, eq. 5).
  /// - Parameter decay: of the running mean; without momenta each gradient counts by itself.
  package func stepOffsets(gradient: Matrix, rate: Float, decay: Float, signs: Bool, workers: Int) {
    precondition(gradient.rows == anchors.rows && gradient.columns == anchors.columns)
    forEachGroup(workers: workers) { element, count, group in
      // Bounds: as in decode.
      let (scale, zeroPoint) = (scales.base[group], zeroPoints.base[group])
      let inverse = scale == 0 ? 0 : 1 / scale
      let (anchor, offset, slope) = (anchors.base + element, offsets.base + element, gradient.base + element)
      var squares = Floats.zero
      for index in stride(from: 0, to: count, by: 16) {
        let position = anchor.lanes(index, of: count) * inverse + zeroPoint + offset.lanes(index, of: count)
        var own = (slope.lanes(index, of: count) * scale).replacing(with: 0, where: .!self.isInside(position))
        if let momenta {
          own = momenta.base.lanes(element + index, of: element + count) * decay + own * (1 - decay)
          momenta.base.store(own, at: element + index, of: element + count)
        } else {
          slope.store(own, at: index, of: count)
        }
        squares += own * own
      }
      let deviation = (squares.total / Float(count)).squareRoot()
      let factor = deviation > 0 ? rate / deviation : 0
      let means = momenta.map { $0.base + element } ?? slope
      for index in stride(from: 0, to: count, by: 16) {
        let value = offset.lanes(index, of: count)
        let mean = means.lanes(index, of: count)
        var step = mean * factor
        let bound: Float = signs ? 0 : 2 * rate
        step = step.replacing(with: bound, where: step .> bound).replacing(with: -bound, where: step .< -bound)
        if signs {
          step = Floats.zero.replacing(with: rate, where: mean .> 0).replacing(with: -rate, where: mean .< 0)
        }
        let moved = value - step
        offset.store(
          moved.replacing(with: -0.5, where: moved .< -0.5).replacing(with: 0.5, where: moved .> 0.5), at: index,
          of: count)
      }
    }
  }
}

/// One step of Adam (arXiv 1412.6980, algorithm 1) over the rows in use.
/// - Parameters:
///   - means, squares: running means of the gradient and its square.
///   - step: 1 for the first.
package func stepAdam(
  _ values: Matrix, gradient: Matrix, means: Matrix, squares: Matrix, rate: Float, step: Int
) {
  precondition([gradient, means, squares].allSatisfy { $0.rows == values.rows && $0.columns == values.columns })
  let (first, second): (Float, Float) = (0.9, 0.95)
  var (one, two): (Float, Float) = (1, 1)
  for _ in 0..<step { (one, two) = (one * first, two * second) }
  let (corrected, squared) = (1 / (1 - one), 1 / (1 - two))
  // Bounds: rows in use of matrices of one shape.
  for index in 0..<values.rows * values.columns {
    let slope = gradient.base[index]
    means.base[index] = first * means.base[index] + (1 - first) * slope
    squares.base[index] = second * squares.base[index] + (1 - second) * slope * slope
    let deviation = (squares.base[index] * squared).squareRoot()
    if deviation > 0 { values.base[index] -= rate * means.base[index] * corrected / deviation }
  }
}
