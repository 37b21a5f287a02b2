import Kernels
import Quantization
import TestSupport

/// GPTQ as its paper writes it, in double precision: the inverse of H, its upper Cholesky factor, one column after the
/// other, every open column updated at once.
struct GPTQTwin {
  let scheme: WeightScheme
  var isOrderedByActivation = false
  var hasCorrectedRanges = false
  var dampening = 0.01
  var weighsRanges = false
  /// Σ (x̃ − x)ᵀ·x and its strength.
  var asymmetry: (sum: [[Double]], strength: Double)?

  struct Answer {
    var codes: [UInt8]
    var scales: [Float]
    var groupIndex: [Int]
    var loss: Double
  }

  func quantize(_ weight: [[Double]], hessian: [[Double]]) throws -> Answer {
    let (rows, n) = (weight.count, hessian.count)
    let diagonal = (0..<n).map { hessian[$0][$0] }
    let live = diagonal.filter { $0 > 0 }
    let mean = live.reduce(0, +) / Double(live.count)
    var order = Array(0..<n)
    if isOrderedByActivation { order.sort { diagonal[$0] != diagonal[$1] ? diagonal[$0] > diagonal[$1] : $0 < $1 } }
    var h = order.map { row in order.map { hessian[row][$0] } }
    for index in 0..<n { h[index][index] = h[index][index] == 0 ? mean : h[index][index] + dampening * mean }
    let u = Self.upperFactorOfInverse(h)
    var p: [[Double]]?
    if let asymmetry {
      let g = order.map { row in order.map { asymmetry.sum[row][$0] } }
      p = Self.product(Self.product(g, Self.transposed(u), keep: { $1 > $0 }), u).map {
        $0.map { $0 * asymmetry.strength }
      }
    }

    let length = if case .group(let size) = scheme.granularity { min(size, n) } else { n }
    let groups = (n + length - 1) / length
    var answer = Answer(
      codes: .init(repeating: 0, count: rows * n), scales: .init(repeating: 0, count: rows * groups),
      groupIndex: .init(repeating: 0, count: n), loss: 0)
    for step in 0..<n { answer.groupIndex[order[step]] = (hasCorrectedRanges ? step : order[step]) / length }
    for row in 0..<rows {
      var w = order.map { diagonal[$0] == 0 ? 0 : weight[row][$0] }
      var ranges = [AffineRange?](repeating: nil, count: groups)
      for step in 0..<n {
        let group = answer.groupIndex[order[step]]
        if ranges[group] == nil {
          let members = (0..<n).filter { answer.groupIndex[order[$0]] == group }.sorted {
            hasCorrectedRanges ? $0 < $1 : order[$0] < order[$1]
          }
          let original = members.map { diagonal[order[$0]] == 0 ? 0 : weight[row][order[$0]] }
          let values = hasCorrectedRanges ? members.map { w[$0] } : original
          ranges[group] = try range(
            of: values.map(Float.init), importance: members.map { Float(diagonal[order[$0]] / mean) })
          answer.scales[row * groups + group] = ranges[group]?.scale ?? 0
        }
        guard let range = ranges[group] else { continue }
        let code = range.code(of: Float(w[step]))
        answer.codes[row * n + order[step]] = code
        let error = (w[step] - Double(range.value(of: code))) / u[step][step]
        answer.loss += error * error
        let own = w[step]
        for later in (step + 1)..<max(n, step + 1) {
          w[later] -= error * u[step][later]
          if let p { w[later] += own * p[step][later] }
        }
      }
    }
    return answer
  }

  private func range(of values: [Float], importance: [Float]) throws -> AffineRange {
    let one = try WeightScheme(
      method: scheme.method, bits: scheme.bits, granularity: .row, scaleType: scheme.scaleType,
      scaleSearch: scheme.scaleSearch)
    let quantizer = TileQuantizer(scheme: one, shape: [1, values.count], importance: weighsRanges ? importance : nil)
    var tile = QuantizedTile()
    try quantizer.quantize(values.span, first: 0, facts: TensorFacts(), into: &tile)
    return AffineRange(
      scale: tile.scales[0], zeroPoint: tile.zeroPoints.first ?? one.encoding.middle,
      highestCode: one.encoding.highestCode)
  }

  // MARK: Linear algebra

  static func transposed(_ a: [[Double]]) -> [[Double]] { a.indices.map { column in a.map { $0[column] } } }

  static func product(
    _ a: [[Double]], _ b: [[Double]], keep: (Int, Int) -> Bool = { _, _ in true }
  ) -> [[Double]] {
    a.indices.map { row in
      var sums = [Double](repeating: 0, count: b.count)
      for inner in b.indices where a[row][inner] != 0 {
        for column in b.indices { sums[column] += a[row][inner] * b[inner][column] }
      }
      return sums.indices.map { keep(row, $0) ? sums[$0] : 0 }
    }
  }

  static func lowerFactor(_ a: [[Double]]) -> [[Double]] {
    var l = [[Double]](repeating: [Double](repeating: 0, count: a.count), count: a.count)
    for row in a.indices {
      for column in 0...row {
        var sum = a[row][column]
        for inner in 0..<column { sum -= l[row][inner] * l[column][inner] }
        l[row][column] = row == column ? sum.squareRoot() : sum / l[column][column]
      }
    }
    return l
  }

  static func lowerInverse(_ l: [[Double]]) -> [[Double]] {
    var result = [[Double]](repeating: [Double](repeating: 0, count: l.count), count: l.count)
    for column in l.indices {
      for row in column..<l.count {
        var sum = row == column ? 1.0 : 0.0
        for inner in column..<row { sum -= l[row][inner] * result[inner][column] }
        result[row][column] = sum / l[row][row]
      }
    }
    return result
  }

  /// U with H⁻¹ = Uᵀ·U.
  static func upperFactorOfInverse(_ h: [[Double]]) -> [[Double]] {
    let m = lowerInverse(lowerFactor(h))
    let inverse = product(transposed(m), m)
    return transposed(lowerFactor(inverse))
  }
}
