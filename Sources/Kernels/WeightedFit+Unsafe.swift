extension AffineFit {
  /// Adds the sums of one more run of values, each weighted: Σ h·(w − ŵ)² and so on. The same blocks and order as
  /// without weights.
  package mutating func add(_ values: Span<Float>, importance: Span<Float>, _ range: AffineRange) {
    precondition(importance.count == values.count)
    let count = values.count
    values.withUnsafeBufferPointer { source in
      importance.withUnsafeBufferPointer { weights in
        guard let input = source.baseAddress, let weight = weights.baseAddress else { return }
        var index = 0
        if range.isSummable {
          let inverse = 1 / range.scale
          let lowest = Floats(repeating: -range.zeroPoint)
          let highest = Floats(repeating: Float(range.highestCode) - range.zeroPoint)
          let fractional = range.zeroPoint - range.zeroPoint.rounded(.down)
          // Bounds: reads sixteen elements of both while index + 16 ≤ count.
          while index &+ 16 <= count {
            let end = min(index &+ 1024, count &- 15)
            var error = Floats(repeating: 0)
            var cross = error
            var squares = error
            while index < end {
              let x: Floats = input.lanes(index)
              let h: Floats = weight.lanes(index)
              var step = ((x * inverse + fractional) + roundingShift) - roundingShift - fractional
              step = step.replacing(with: lowest, where: step .< lowest)
              step = step.replacing(with: highest, where: step .> highest)
              let difference = x - step * range.scale
              let weighted = h * step
              error += h * difference * difference
              cross += weighted * x
              squares += weighted * step
              index &+= 16
            }
            squaredError += Double(error.total)
            product += Double(cross.total)
            codeSquares += Double(squares.total)
          }
        }
        while index < count {
          let step = Float(range.code(of: input[index])) - range.zeroPoint
          let difference = Double(input[index]) - Double(step * range.scale)
          let h = Double(weight[index])
          squaredError += h * difference * difference
          product += h * Double(input[index]) * Double(step)
          codeSquares += h * Double(step) * Double(step)
          index &+= 1
        }
      }
    }
  }
}

extension Codebook {
  /// The weighted squared error of a group's codes, and the scale that would minimize it: Σ h·w·l / Σ h·l².
  package func fit(
    _ values: Span<Float>, importance: Span<Float>, _ codes: Span<UInt8>, scale: Float
  ) -> (squaredError: Double, bestScale: Double?) {
    var (error, product, squares) = (0.0, 0.0, 0.0)
    for index in 0..<values.count {
      let level = Double(levels[Int(codes[index])])
      let value = Double(values[index])
      let weight = Double(importance[index])
      let difference = value - Double(Float(level) * scale)
      error += weight * difference * difference
      product += weight * value * level
      squares += weight * level * level
    }
    return (error, squares > 0 ? product / squares : nil)
  }
}
