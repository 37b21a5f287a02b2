/// The levels that codes of a block stand for, in units of the scale.
package enum BlockLevels: Hashable, Sendable {
  /// Whole numbers from the first to the second.
  case uniform(Float, Float)
  /// The sixteen levels of IQ4_NL and IQ4_XS, denser around zero.
  case curved

  /// IQ4's levels in the order of their codes (ggml, kvalues_iq4nl).
  package static let curve: [Float] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
}

/// Sixteen groups of values side by side: lane l holds group l, so that every lane makes a search of its own and no sum
/// runs across lanes. Buffers are reused; one value serves one thread.
///
/// Sums run over a group's values in order, in each lane alike: a group's result does not depend on its lane.
package struct GroupLanes {
  package static let count = 16

  /// Values of a group.
  package let length: Int
  private var values: [Float]
  private var weights: [Float]
  /// Σw, Σwx, Σwx².
  package private(set) var weightSum = Floats()
  package private(set) var sum = Floats()
  package private(set) var squareSum = Floats()
  package private(set) var least = Floats()
  package private(set) var greatest = Floats()
  /// The value of largest magnitude, the first of several.
  package private(set) var extreme = Floats()
  /// Σx² without weights.
  package private(set) var plainSquareSum = Floats()

  package init(length: Int) {
    self.length = length
    values = [Float](repeating: 0, count: length * Self.count)
    weights = [Float](repeating: 0, count: length * Self.count)
  }

  /// Takes up to sixteen groups that lie one after another; the lanes left are zeros.
  package mutating func load(_ source: Span<Float>, from start: Int, groups: Int) {
    precondition(groups <= Self.count && start + groups * length <= source.count)
    let length = length
    values.withUnsafeMutableBufferPointer { target in
      source.withUnsafeBufferPointer { source in
        guard let output = target.baseAddress, let source = source.baseAddress else { return }
        // Bounds: group < groups ≤ 16 and index < length on both sides, which the precondition covers. Four groups by four
        // values are turned in registers.
        var turned = 0
        while turned &+ 4 <= groups, length % 4 == 0 {
          let rows = source + start + turned &* length
          for index in stride(from: 0, to: length, by: 4) {
            let a: Quad = rows.lanes(index)
            let b: Quad = rows.lanes(length &+ index)
            let c: Quad = rows.lanes(2 &* length &+ index)
            let d: Quad = rows.lanes(3 &* length &+ index)
            let column = output + (index &* 16 &+ turned)
            column.store(Quad(a[0], b[0], c[0], d[0]), at: 0)
            column.store(Quad(a[1], b[1], c[1], d[1]), at: 16)
            column.store(Quad(a[2], b[2], c[2], d[2]), at: 32)
            column.store(Quad(a[3], b[3], c[3], d[3]), at: 48)
          }
          turned &+= 4
        }
        for group in turned..<groups {
          for index in 0..<length { output[index &* 16 &+ group] = source[start &+ group &* length &+ index] }
        }
        for group in groups..<Self.count {
          for index in 0..<length { output[index &* 16 &+ group] = 0 }
        }
      }
    }
    var (low, high, squares) = (Floats(), Floats(), Floats())
    var (magnitude, extreme) = (Floats(), Floats())
    values.withUnsafeBufferPointer { values in
      guard let x = values.baseAddress else { return }
      low = x.lanes(0)
      high = low
      // Bounds: sixteen lanes from index · 16, index < length.
      for index in 0..<length {
        let value: Floats = x.lanes(index &* 16)
        low.replace(with: value, where: value .< low)
        high.replace(with: value, where: value .> high)
        squares += value * value
        let size = (value.words & 0x7fff_ffff).floats
        let larger = size .> magnitude
        magnitude.replace(with: size, where: larger)
        extreme.replace(with: value, where: larger)
      }
    }
    (least, greatest, plainSquareSum, self.extreme) = (low, high, squares, extreme)
  }

  /// How much an error of a value counts.
  package enum Weighting {
    /// |x| plus a number of the lane.
    case magnitude(plus: Floats)
    /// x².
    case square
    /// The importance of each column, times √(x² + a number of the lane).
    case importance([Float], columns: Int, position: Int, plus: Floats)
    /// The importance of each column alone.
    case plainImportance([Float], columns: Int, position: Int)
  }

  /// Sets the weights of the loaded values, and the sums that follow from them.
  package mutating func weigh(_ weighting: Weighting) {
    let length = length
    var (total, first, second) = (Floats(), Floats(), Floats())
    weights.withUnsafeMutableBufferPointer { weights in
      values.withUnsafeBufferPointer { values in
        guard let w = weights.baseAddress, let x = values.baseAddress else { return }
        // Bounds: as in load; columns are taken modulo their count.
        switch weighting {
        case .magnitude(let plus):
          for index in 0..<length {
            let value: Floats = x.lanes(index &* 16)
            w.store((value.words & 0x7fff_ffff).floats + plus, at: index &* 16)
          }
        case .square:
          for index in 0..<length {
            let value: Floats = x.lanes(index &* 16)
            w.store(value * value, at: index &* 16)
          }
        case .importance(let importance, let columns, let position, let plus):
          Self.spread(importance, columns, position, length, w)
          for index in 0..<length {
            let value: Floats = x.lanes(index &* 16)
            let own: Floats = UnsafePointer(w).lanes(index &* 16)
            w.store(own * (value * value + plus).squareRoot(), at: index &* 16)
          }
        case .plainImportance(let importance, let columns, let position):
          Self.spread(importance, columns, position, length, w)
        }
        for index in 0..<length {
          let value: Floats = x.lanes(index &* 16)
          let weight: Floats = UnsafePointer(w).lanes(index &* 16)
          total += weight
          first += weight * value
          second += weight * value * value
        }
      }
    }
    (weightSum, sum, squareSum) = (total, first, second)
  }

  private static func spread(
    _ importance: [Float], _ columns: Int, _ position: Int, _ length: Int, _ target: UnsafeMutablePointer<Float>
  ) {
    precondition(importance.count >= columns && columns > 0)
    for group in 0..<count {
      var column = (position + group * length) % columns
      for index in 0..<length {
        target[index &* 16 &+ group] = importance[column]
        column &+= 1
        if column == columns { column = 0 }
      }
    }
  }

  // MARK: Trials

  // These loops take four lanes at a time, over all values of the group: that many variables fit into the registers that
  // every target has, and comparisons become its minimum and maximum instructions.

  /// For the codes nearest to (x − low) · inverse: Σwq, Σwq², Σwqx.
  package func affineTrial(low: Floats, inverse: Floats, highest: Float) -> (Floats, Floats, Floats) {
    let top = Quad(repeating: highest)
    return quarters { quarter in
      let (low, inverse) = (low.quad(quarter), inverse.quad(quarter))
      var (first, second, product) = (Quad(), Quad(), Quad())
      forEachQuad(quarter) { value, weight in
        let code = Self.code((value - low) * inverse, top)
        let weighted = weight * code
        first += weighted
        second += weighted * code
        product += weighted * value
      }
      return (first, second, product)
    }
  }

  /// The weighted squared error, and Σwq, for x ≈ scale · q + low with the nearest codes.
  package func affineError(scale: Floats, low: Floats, highest: Float) -> (error: Floats, codeSum: Floats) {
    let inverses = Self.reciprocal(scale)
    let top = Quad(repeating: highest)
    let (errors, sums, _) = quarters { quarter in
      let (scale, low, inverse) = (scale.quad(quarter), low.quad(quarter), inverses.quad(quarter))
      var (error, sum) = (Quad(), Quad())
      forEachQuad(quarter) { value, weight in
        let centred = value - low
        let code = Self.code(centred * inverse, top)
        let difference = centred - scale * code
        error += weight * difference * difference
        sum += weight * code
      }
      return (error, sum, Quad())
    }
    return (errors, sums)
  }

  /// For the levels nearest to x · inverse: Σwxq, Σwq².
  package func scaleTrial(inverse: Floats, _ levels: BlockLevels) -> (product: Floats, square: Floats) {
    switch levels {
    case .uniform(let lowest, let highest):
      scaleTrial(inverse: inverse, UniformRounding(lowest: lowest, highest: highest))
    case .curved: scaleTrial(inverse: inverse, CurvedRounding())
    }
  }

  @inline(__always)
  private func scaleTrial(inverse: Floats, _ rounding: some LaneRounding) -> (product: Floats, square: Floats) {
    let (products, squares, _) = quarters { quarter in
      let inverse = inverse.quad(quarter)
      var (product, square) = (Quad(), Quad())
      forEachQuad(quarter) { value, weight in
        let level = rounding.level(value * inverse)
        let weighted = weight * level
        product += weighted * value
        square += weighted * level
      }
      return (product, square, Quad())
    }
    return (products, squares)
  }

  /// The weighted squared error of x ≈ scale · level with the nearest levels.
  package func scaleError(scale: Floats, _ levels: BlockLevels) -> Floats {
    switch levels {
    case .uniform(let lowest, let highest):
      scaleError(scale: scale, UniformRounding(lowest: lowest, highest: highest))
    case .curved: scaleError(scale: scale, CurvedRounding())
    }
  }

  @inline(__always)
  private func scaleError(scale: Floats, _ rounding: some LaneRounding) -> Floats {
    let inverses = Self.reciprocal(scale)
    return quarters { quarter in
      let (scale, inverse) = (scale.quad(quarter), inverses.quad(quarter))
      var error = Quad()
      forEachQuad(quarter) { value, weight in
        let difference = value - scale * rounding.level(value * inverse)
        error += weight * difference * difference
      }
      return (error, Quad(), Quad())
    }.0
  }

  /// Results of the four quarters side by side. Written out, so that no lane is set by a number known only at run time.
  @inline(__always)
  private func quarters(_ body: (_ quarter: Int) -> (Quad, Quad, Quad)) -> (Floats, Floats, Floats) {
    let (a, b, c, d) = (body(0), body(1), body(2), body(3))
    func joined(_ a: Quad, _ b: Quad, _ c: Quad, _ d: Quad) -> Floats {
      Floats(lowHalf: SIMD8(lowHalf: a, highHalf: b), highHalf: SIMD8(lowHalf: c, highHalf: d))
    }
    return (joined(a.0, b.0, c.0, d.0), joined(a.1, b.1, c.1, d.1), joined(a.2, b.2, c.2, d.2))
  }

  /// The nearest whole number from 0 to `top`.
  @inline(__always)
  private static func code(_ position: Quad, _ top: Quad) -> Quad {
    let nearest = (position + Quad(repeating: roundingShift)) - Quad(repeating: roundingShift)
    return nearest.atLeast(Quad()).atMost(top)
  }

  /// Four lanes of each value and weight in turn. Bounds: 16 · index + 4 · quarter + 3 < 16 · length.
  @inline(__always)
  private func forEachQuad(_ quarter: Int, _ body: (_ value: Quad, _ weight: Quad) -> Void) {
    let length = length
    withPointers { x, w in
      for index in 0..<length {
        body(x.lanes(index &* 16 &+ quarter &* 4), w.lanes(index &* 16 &+ quarter &* 4))
      }
    }
  }

  // MARK: Codes

  /// The codes nearest to (x − low) / scale, group by group in the order of the values.
  package func affineCodes(scale: Floats, low: Floats, highest: Float, into codes: inout [UInt8]) {
    let inverse = Self.reciprocal(scale)
    let top = Floats(repeating: highest)
    collect(into: &codes) { value in
      var code = ((value - low) * inverse + roundingShift) - roundingShift
      code.replace(with: Floats(), where: code .< 0)
      code.replace(with: top, where: code .> top)
      return (code + roundingShift).words
    }
  }

  /// The codes of the levels nearest to x / scale; those of uniform levels count from the lowest.
  package func codes(scale: Floats, _ levels: BlockLevels, into codes: inout [UInt8]) {
    let inverse = Self.reciprocal(scale)
    switch levels {
    case .uniform(let lowest, let highest):
      collect(into: &codes) { value in
        var level = (value * inverse + roundingShift) - roundingShift
        level.replace(with: Floats(repeating: lowest), where: level .< lowest)
        level.replace(with: Floats(repeating: highest), where: level .> highest)
        return (level - lowest + roundingShift).words
      }
    case .curved:
      let midpoints = CurvedRounding.midpoints
      collect(into: &codes) { value in
        let position = value * inverse
        var code = Floats()
        for midpoint in midpoints {
          code += Floats().replacing(with: Floats(repeating: 1), where: position .>= midpoint)
        }
        return (code + roundingShift).words
      }
    }
  }

  /// min(highest, ⌊(x − low) · inverse + shift⌋), for results that are not negative.
  package func truncatedCodes(
    low: Floats, inverse: Floats, shift: Float, highest: Float, into codes: inout [UInt8]
  ) {
    collect(into: &codes) { value in
      var code = Self.floor((value - low) * inverse + shift)
      code.replace(with: Floats(repeating: highest), where: code .> highest)
      return (code + roundingShift).words
    }
  }

  /// x · inverse rounded to the nearest whole number, halves away from zero, as a byte in two's complement.
  package func roundedCodes(inverse: Floats, into codes: inout [UInt8]) {
    collect(into: &codes) { value in
      let position = value * inverse
      let magnitude = (position.words & 0x7fff_ffff).floats
      let whole = Self.floor(magnitude)
      let rounded = whole + Floats().replacing(with: Floats(repeating: 1), where: magnitude - whole .>= 0.5)
      let sign = position.words & Int32.min
      return ((rounded.words | sign).floats + roundingShift).words
    }
  }

  /// FP4 codes of x · first · second: the nearest of 0, 1, 2, 3, 4, 6, 8, 12, at ties the smaller. Two powers of two,
  /// because their product may be beyond the range of floats.
  package func smallFloatCodes(_ first: Floats, times second: Floats, into codes: inout [UInt8]) {
    collect(into: &codes) { value in
      let magnitude = (value.words & 0x7fff_ffff).floats * first * second
      var code = Floats()
      for midpoint: Float in [0.5, 1.5, 2.5, 3.5, 5, 7, 10] {
        code += Floats().replacing(with: Floats(repeating: 1), where: magnitude .> midpoint)
      }
      let sign = Floats().replacing(with: Floats(repeating: 8), where: value .< 0 .& code .> 0)
      return (code + sign + roundingShift).words
    }
  }

  /// ⌊x⌋ for magnitudes below 2^22.
  @inline(__always)
  private static func floor(_ value: Floats) -> Floats {
    let nearest = (value + roundingShift) - roundingShift
    return nearest - Floats().replacing(with: Floats(repeating: 1), where: nearest .> value)
  }

  @inline(__always)
  private func collect(into codes: inout [UInt8], _ body: (Floats) -> Words) {
    codes.resize(to: length * Self.count)
    let length = length
    codes.withUnsafeMutableBufferPointer { codes in
      guard let output = codes.baseAddress else { return }
      withPointers { x, _ in
        // Bounds: group · length + index < 16 · length.
        for start in stride(from: 0, to: length &- 15, by: 16) {
          var tile = ByteTile()
          for index in 0..<16 { tile[index] = body(x.lanes((start &+ index) &* 16)).lowBytes }
          tile.transpose()
          for group in 0..<Self.count { output.store(tile[group], at: group &* length &+ start) }
        }
        for index in (length &- length % 16)..<length {
          let bytes = body(x.lanes(index &* 16)).lowBytes
          for group in 0..<Self.count { output[group &* length &+ index] = bytes[group] }
        }
      }
    }
  }

  /// Lanes rounded to binary16, as `Half.half(from:)` does.
  package static func halves(_ values: Floats) -> Floats {
    let words = values.words
    let magnitude = words & 0x7fff_ffff
    let normal = (magnitude &+ 0xfff &+ ((magnitude &>> 13) & 1)) & ~0x1fff
    // Below 2^-14 the result is a multiple of 2^-24, to which adding one half rounds.
    let small = ((magnitude.floats + 0.5) - 0.5).words
    let isSmall = (magnitude &- 0x3880_0000) &>> 31
    // Infinity from 65520 on; NaN stays NaN.
    let isLarge = (0x477f_efff &- magnitude) &>> 31
    let large = Words(repeating: 0x7f80_0000) | (((0x7f80_0000 &- magnitude) &>> 31) & 0x40_0000)
    let finite = (normal & ~isSmall) | (small & isSmall)
    return ((finite & ~isLarge) | (large & isLarge) | (words & Int32.min)).floats
  }

  /// 1 / scale; 0 where the scale is zero or so small that its reciprocal is infinite.
  package static func reciprocal(_ scale: Floats) -> Floats {
    // In quarters: a mask of sixteen lanes is gone through lane by lane, which took a third of a search's time.
    func finite(_ quarter: Int) -> Quad {
      let inverse = 1 / scale.quad(quarter)
      return Quad().replacing(with: inverse, where: inverse * 0 .== 0)
    }
    return Floats(
      lowHalf: SIMD8(lowHalf: finite(0), highHalf: finite(1)), highHalf: SIMD8(lowHalf: finite(2), highHalf: finite(3)))
  }

  /// Bounds: both arrays hold length · 16 values, and callers read sixteen from index · 16, index < length.
  @inline(__always)
  private func withPointers(_ body: (UnsafePointer<Float>, UnsafePointer<Float>) -> Void) {
    values.withUnsafeBufferPointer { values in
      weights.withUnsafeBufferPointer { weights in
        guard let x = values.baseAddress, let w = weights.baseAddress else { return }
        body(x, w)
      }
    }
  }
}

private typealias Quad = SIMD4<Float>

extension SIMD4 where Scalar == Float {
  @inline(__always)
  fileprivate func atLeast(_ other: Self) -> Self { replacing(with: other, where: self .< other) }

  @inline(__always)
  fileprivate func atMost(_ other: Self) -> Self { replacing(with: other, where: self .> other) }
}

extension SIMD16 where Scalar == Float {
  /// Four lanes.
  @inline(__always)
  fileprivate func quad(_ quarter: Int) -> SIMD4<Float> {
    let half = quarter < 2 ? lowHalf : highHalf
    return quarter & 1 == 0 ? half.lowHalf : half.highHalf
  }
}

/// Rounds positions, in units of the scale, to the levels of a type.
private protocol LaneRounding {
  func level(_ position: Quad) -> Quad
}

private struct UniformRounding: LaneRounding {
  let lowest: Float
  let highest: Float

  @inline(__always)
  func level(_ position: Quad) -> Quad {
    let nearest = (position + Quad(repeating: roundingShift)) - Quad(repeating: roundingShift)
    return nearest.atLeast(Quad(repeating: lowest)).atMost(Quad(repeating: highest))
  }
}

/// The nearest of IQ4's levels; halfway between two the upper one.
private struct CurvedRounding: LaneRounding {
  /// Midpoints between levels.
  static let midpoints = zip(BlockLevels.curve, BlockLevels.curve.dropFirst()).map { ($0 + $1) / 2 }

  // Every midpoint passed adds the step from its lower level to the upper.
  @inline(__always)
  func level(_ position: Quad) -> Quad {
    func part(_ midpoint: Float, _ step: Float) -> Quad {
      Quad().replacing(with: Quad(repeating: step), where: position .>= Quad(repeating: midpoint))
    }
    var first = Quad(repeating: -127)
    first += part(-115.5, 23)
    first += part(-93.5, 21)
    first += part(-74, 18)
    first += part(-57, 16)
    first += part(-42, 14)
    first += part(-28.5, 13)
    first += part(-16, 12)
    first += part(-4.5, 11)
    var second = part(7, 12)
    second += part(19, 12)
    second += part(31.5, 13)
    second += part(45.5, 15)
    second += part(61, 16)
    second += part(79, 20)
    second += part(101, 24)
    return first + second
  }
}
