/// What a group loses when its values are rounded to the codes of a range, and what least squares needs to do better.
package struct AffineFit: Hashable, Sendable {
  /// Σ h·(w − ŵ)², where h is what a value counts: 1, or its importance.
  package var squaredError = 0.0
  /// Σ h·w·(q − z)
  package var product = 0.0
  /// Σ h·(q − z)²
  package var codeSquares = 0.0

  package init() {}

  /// The scale that minimizes Σ h·(w − s·(q − z))² with these codes; nil where all codes are the zero point.
  package var bestScale: Double? { codeSquares > 0 ? product / codeSquares : nil }

  /// Adds the sums of another part of the same group.
  package mutating func append(_ other: AffineFit) {
    squaredError += other.squaredError
    product += other.product
    codeSquares += other.codeSquares
  }

  /// Adds the sums of one more run of values of the same group, in blocks of 1,024 in a fixed order.
  /// - Parameter importance: of each value; all the same if nil.
  package mutating func add(_ values: Span<Float>, importance: Span<Float>? = nil, _ range: AffineRange) {
    Self.dispatch(values, importance, range, isErrorEnough: false, into: &self)
  }

  /// The squared error alone, which is what a search compares: two thirds of the work.
  package static func squaredError(
    of values: Span<Float>, importance: Span<Float>? = nil, _ range: AffineRange
  ) -> Double {
    var fit = AffineFit()
    dispatch(values, importance, range, isErrorEnough: true, into: &fit)
    return fit.squaredError
  }

  private static func dispatch(
    _ values: Span<Float>, _ importance: Span<Float>?, _ range: AffineRange, isErrorEnough: Bool,
    into fit: inout AffineFit
  ) {
    precondition(importance == nil || importance?.count == values.count)
    values.withUnsafeBufferPointer { source in
      guard let input = source.baseAddress else { return }
      guard let importance else {
        return fit.add(input, source.count, EqualImportance(), range, isErrorEnough: isErrorEnough)
      }
      importance.withUnsafeBufferPointer { weights in
        guard let weights = weights.baseAddress else { return }
        fit.add(input, source.count, GivenImportance(base: weights), range, isErrorEnough: isErrorEnough)
      }
    }
  }

  @inline(__always)
  private mutating func add(
    _ input: UnsafePointer<Float>, _ count: Int, _ importance: some Importance, _ range: AffineRange,
    isErrorEnough: Bool
  ) {
    var index = 0
    if range.isSummable {
      let inverse = 1 / range.scale
      let lowest = Floats(repeating: -range.zeroPoint)
      let highest = Floats(repeating: Float(range.highestCode) - range.zeroPoint)
      let fractional = range.zeroPoint - range.zeroPoint.rounded(.down)
      // Bounds: reads sixteen elements of both while index + 16 ≤ count.
      while index &+ 16 <= count {
        let end = min(index &+ 1024, count &- 15)
        var (error, cross, squares) = (Floats.zero, Floats.zero, Floats.zero)
        while index < end {
          let x: Floats = input.lanes(index)
          let h = importance.lanes(index)
          var step = ((x * inverse + fractional) + roundingShift) - roundingShift - fractional
          step = step.replacing(with: lowest, where: step .< lowest)
          step = step.replacing(with: highest, where: step .> highest)
          let difference = x - step * range.scale
          error += h * difference * difference
          if !isErrorEnough {
            let weighted = h * step
            cross += weighted * x
            squares += weighted * step
          }
          index &+= 16
        }
        squaredError += Double(error.total)
        guard !isErrorEnough else { continue }
        product += Double(cross.total)
        codeSquares += Double(squares.total)
      }
    }
    while index < count {
      let step = Float(range.code(of: input[index])) - range.zeroPoint
      let difference = Double(input[index]) - Double(step * range.scale)
      let h = Double(importance.value(index))
      squaredError += h * difference * difference
      product += h * Double(input[index]) * Double(step)
      codeSquares += h * Double(step) * Double(step)
      index &+= 1
    }
  }
}

/// What the squared error of each value counts.
private protocol Importance {
  func lanes(_ index: Int) -> Floats
  func value(_ index: Int) -> Float
}

private struct EqualImportance: Importance {
  @inline(__always) func lanes(_ index: Int) -> Floats { Floats(repeating: 1) }
  @inline(__always) func value(_ index: Int) -> Float { 1 }
}

private struct GivenImportance: Importance {
  let base: UnsafePointer<Float>

  // Bounds: the caller's, who reads as many values.
  @inline(__always) func lanes(_ index: Int) -> Floats { base.lanes(index) }
  @inline(__always) func value(_ index: Int) -> Float { base[index] }
}
