import Foundation
import Kernels
import Quantization
import TestSupport
import Testing

/// AWQ, smoothing, and ranges by the error of outputs, against naive sums in double precision.
@Suite struct ScalingLaws {
  let rows = 24
  let columns = 40
  let tokens = 96
  let w: [Float]
  let x: [Float]
  let weight: Matrix
  let inputs: Matrix
  let hessian: Hessian
  let statistics: FeatureStatistics

  init() throws {
    var generator = SplitMix64(seed: 21)
    w = generator.weights(rows * columns, scale: 0.05)
    var values = generator.weights(tokens * columns, scale: 1)
    // Some features are large, and features go together.
    for token in 0..<tokens {
      for column in 0..<columns {
        values[token * columns + column] *= column % 7 == 0 ? 12 : 1
        if column % 5 == 1 { values[token * columns + column] += 0.7 * values[token * columns + column - 1] }
      }
    }
    x = values
    weight = Matrix(rows: rows, columns: columns, w)
    inputs = Matrix(rows: tokens, columns: columns, x)
    var hessian = Hessian(dimension: columns)
    try hessian.add(inputs, workers: 1)
    self.hessian = hessian
    var statistics = FeatureStatistics(dimension: columns)
    statistics.add(inputs, workers: 1)
    self.statistics = statistics
  }

  private func scheme(_ method: Quantization.Method, bits: Int = 3, search: ScaleSearch = .none) throws -> WeightScheme
  {
    try WeightScheme(method: method, bits: bits, granularity: .group(16), scaleSearch: search)
  }

  /// Σ over tokens of ‖(Q(W·s)/s − W)·x‖², by definition.
  private func naiveLoss(_ scheme: WeightScheme, _ scales: [Float]) throws -> Double {
    let scaled = Matrix(
      rows: rows, columns: columns, w.indices.map { w[$0] * scales[$0 % columns] })
    let decoded = Matrix(rows: rows, columns: columns)
    try AffineWeight(roundingToNearest: scaled, scheme, importance: nil, workers: 1).decode(into: decoded, workers: 1)
    let found = decoded.values()
    var total = 0.0
    for token in 0..<tokens {
      for row in 0..<rows {
        var sum = 0.0
        for column in 0..<columns {
          let index = row * columns + column
          let error = Double(found[index]) / Double(scales[column]) - Double(w[index])
          sum += error * Double(x[token * columns + column])
        }
        total += sum * sum
      }
    }
    return total
  }

  @Test("The loss from XᵀX is the loss over tokens", arguments: [Quantization.Method.absmax, .zeroPoint])
  func lossIsExact(_ method: Quantization.Method) throws {
    let scheme = try scheme(method)
    var generator = SplitMix64(seed: 22)
    let scales = (0..<3).map { _ in (0..<columns).map { _ in Float.random(in: 0.5...2, using: &generator) } }
    let found = try ActivationAwareScales.losses(
      [ScaledLayer(weight: weight, scheme: scheme)], hessian: hessian, scales, workers: 2)
    for (loss, scales) in zip(found, scales) {
      let expected = try naiveLoss(scheme, scales)
      #expect(abs(loss / expected - 1) < 1e-4)
    }
  }

  @Test func searchAgreesWithItsTwin() throws {
    let scheme = try scheme(.zeroPoint)
    let layer = ScaledLayer(weight: weight, scheme: scheme)
    let found = try ActivationAwareScales.search(
      [layer], hessian: hessian, statistics: statistics, sets: nil, workers: 2)
    let means = (0..<columns).map { column in
      (0..<tokens).reduce(0.0) { $0 + abs(Double(x[$1 * columns + column])) } / Double(tokens)
    }
    let weights = (0..<columns).map { column in
      (0..<rows).reduce(0.0) { $0 + abs(Double(w[$1 * columns + column])) } / Double(rows)
    }
    var best = (loss: Double.infinity, scales: [Float]())
    for isDuo in [false, true] {
      for step in 0..<20 {
        let strength = Double(step) / 20
        let raw = (0..<columns).map { pow(means[$0], strength) / (isDuo ? pow(weights[$0], 1 - strength) + 1e-6 : 1) }
        let middle = ((raw.min() ?? 1) * (raw.max() ?? 1)).squareRoot()
        let scales = raw.map { Float($0 / middle) }
        let loss = try naiveLoss(scheme, scales)
        if loss < best.loss { best = (loss, scales) }
      }
    }
    #expect(zip(found.scales, best.scales).allSatisfy { abs($0 / $1 - 1) < 1e-4 })
    #expect(abs((found.lossAfter ?? 0) / best.loss - 1) < 1e-3)
    #expect((found.lossAfter ?? .infinity) < 0.95 * (found.lossBefore ?? 0))
    let alone = try ActivationAwareScales.search(
      [layer], hessian: hessian, statistics: statistics, sets: nil, workers: 1)
    #expect(alone == found)
  }

  @Test func featuresOfASetShareAScale() throws {
    let sets = (0..<columns).map { $0 / 8 * 4 + $0 % 4 }
    let layers = [ScaledLayer(weight: weight, scheme: try scheme(.zeroPoint))]
    let found = [
      try ActivationAwareScales.search(layers, hessian: hessian, statistics: statistics, sets: sets, workers: 1),
      SmoothingScales.scales(layers, statistics: statistics, strength: 0.5, sets: sets, workers: 1),
    ]
    for scales in found.map(\.scales) {
      for column in 0..<columns { #expect(scales[column] == scales[sets.firstIndex(of: sets[column]) ?? 0]) }
      #expect(Set(scales).count > 1)
    }
  }

  @Test func featuresThatWereNeverSeenGetTheSmallestScale() throws {
    let silent = Matrix(
      rows: tokens, columns: columns, x.enumerated().map { $0 % columns == 3 ? 0 : $1 })
    var hessian = Hessian(dimension: columns)
    try hessian.add(silent, workers: 1)
    var statistics = FeatureStatistics(dimension: columns)
    statistics.add(silent, workers: 1)
    let layers = [ScaledLayer(weight: weight, scheme: try scheme(.zeroPoint))]
    let found = try ActivationAwareScales.search(
      layers, hessian: hessian, statistics: statistics, sets: nil, workers: 1)
    #expect(found.scales[3] == found.scales.min())
    let none = FeatureStatistics(dimension: columns)
    let empty = try ActivationAwareScales.search(
      layers, hessian: Hessian(dimension: columns), statistics: none, sets: nil, workers: 1)
    #expect(empty.scales == [Float](repeating: 1, count: columns))
    #expect(
      SmoothingScales.scales(layers, statistics: none, strength: 0.5, sets: nil, workers: 1).scales == empty.scales)
  }

  @Test func smoothingFollowsItsEquation() throws {
    let layers = [ScaledLayer(weight: weight, scheme: try scheme(.absmax, bits: 8))]
    for strength in [0, 0.5, 0.8, 1] {
      let found = SmoothingScales.scales(layers, statistics: statistics, strength: strength, sets: nil, workers: 1)
      let raw = (0..<columns).map { column -> Double in
        let activation = (0..<tokens).map { abs(x[$0 * columns + column]) }.max() ?? 0
        let weight = (0..<rows).map { abs(w[$0 * columns + column]) }.max() ?? 0
        return pow(Double(activation), strength) / pow(Double(weight), 1 - strength)
      }
      let middle = ((raw.min() ?? 1) * (raw.max() ?? 1)).squareRoot()
      for (scale, value) in zip(found.scales, raw) { #expect(abs(Double(scale) * middle / value - 1) < 1e-5) }
    }
  }

  @Test func smoothingSearchLowersTheLoss() throws {
    let layers = [
      ScaledLayer(weight: weight, scheme: try WeightScheme(method: .absmax, bits: 8, granularity: .row))
    ]
    let found = try SmoothingScales.search(layers, tokens: inputs, statistics: statistics, sets: nil, workers: 2)
    let usual = SmoothingScales.scales(layers, statistics: statistics, strength: 0.5, sets: nil, workers: 1)
    let loss = try SmoothingScales.loss(layers, tokens: inputs, scales: usual.scales, workers: 1)
    #expect((found.lossAfter ?? .infinity) <= loss && loss < found.lossBefore ?? 0)
    #expect((found.lossAfter ?? .infinity) < 0.5 * (found.lossBefore ?? 0))
  }

  // MARK: Ranges

  /// Σ e·H·eᵀ within groups, by definition.
  private func groupError(_ decoded: [Float]) -> Double {
    let h = hessian.sum.values()
    var total = 0.0
    for row in 0..<rows {
      for first in stride(from: 0, to: columns, by: 16) {
        for i in first..<min(first + 16, columns) {
          for j in first..<min(first + 16, columns) {
            let a = Double(decoded[row * columns + i]) - Double(w[row * columns + i])
            let b = Double(decoded[row * columns + j]) - Double(w[row * columns + j])
            total += a * b * Double(h[i * columns + j])
          }
        }
      }
    }
    return total
  }

  private func decoded(_ weight: AffineWeight) -> [Float] {
    let matrix = Matrix(rows: rows, columns: columns)
    weight.decode(into: matrix, workers: 1)
    return matrix.values()
  }

  @Test(
    "Ranges by outputs beat plain ones and ones by the diagonal",
    arguments: [(Quantization.Method.zeroPoint, ScaleSearch.mse), (.absmax, .mse), (.absmax, .signedMSE)],
    [2, 3, 4])
  func rangesLowerTheError(_ kind: (Quantization.Method, ScaleSearch), bits: Int) throws {
    let scheme = try scheme(kind.0, bits: bits, search: kind.1)
    let own = groupError(
      decoded(try AffineWeight(roundingForOutputs: weight, scheme, hessian: hessian, workers: 2)))
    let plain = groupError(
      decoded(try AffineWeight(roundingToNearest: weight, scheme.plain, importance: nil, workers: 1)))
    let diagonal = groupError(
      decoded(try AffineWeight(roundingToNearest: weight, scheme, importance: hessian.importance, workers: 1)))
    #expect(own < 0.9 * plain && own < diagonal, "\(own) \(diagonal) \(plain)")
  }

  @Test func noShareOfBothEndsIsBetter() throws {
    let scheme = try scheme(.zeroPoint, bits: 3, search: .mse)
    let found = try AffineWeight(roundingForOutputs: weight, scheme, hessian: hessian, workers: 1)
    let h = hessian.sum.values()
    for row in 0..<rows {
      for (group, first) in stride(from: 0, to: columns, by: 16).enumerated() {
        let span = first..<min(first + 16, columns)
        func error(_ range: AffineRange) -> Double {
          let e = span.map { column in
            Double(range.value(of: range.code(of: w[row * columns + column]))) - Double(w[row * columns + column])
          }
          var total = 0.0
          for (i, a) in e.enumerated() {
            for (j, b) in e.enumerated() { total += a * b * Double(h[(first + i) * columns + first + j]) }
          }
          return total
        }
        let members = span.map { w[row * columns + $0] }
        let (low, high) = (min(members.min() ?? 0, 0), max(members.max() ?? 0, 0))
        let own = error(found.ranges[row * found.groupsPerRow + group])
        for step in 0..<18 {
          let share = 1 - 0.04 * Double(step)
          let scale = rounded(Float((Double(high) * share - Double(low) * share) / 7), to: .f16)
          let zero = min(max((-Double(low) * share / Double(scale)).rounded(.toNearestOrEven), 0), 7)
          let range = AffineRange(scale: scale, zeroPoint: Float(zero), highestCode: 7)
          #expect(own <= error(range) * 1.0001 + 1e-9)
        }
      }
    }
  }

  @Test func rangesDoNotDependOnThreads() throws {
    let scheme = try scheme(.zeroPoint, bits: 3, search: .mse)
    let one = try AffineWeight(roundingForOutputs: weight, scheme, hessian: hessian, workers: 1)
    #expect(try AffineWeight(roundingForOutputs: weight, scheme, hessian: hessian, workers: 2) == one)
  }

  @Test func withoutEvidenceRoundingIsPlain() throws {
    let scheme = try scheme(.zeroPoint, bits: 3, search: .mse)
    let none = Hessian(dimension: columns)
    #expect(
      try AffineWeight(roundingForOutputs: weight, scheme, hessian: none, workers: 1)
        == AffineWeight(roundingToNearest: weight, scheme, importance: nil, workers: 1))
    #expect(
      try AffineWeight(roundingForOutputs: weight, scheme.plain, hessian: hessian, workers: 1)
        == AffineWeight(roundingToNearest: weight, scheme.plain, importance: nil, workers: 1))
  }

  @Test func weightsThatAreNotFiniteAreNamed() throws {
    let damaged = Matrix(rows: rows, columns: columns, w.enumerated().map { $0 == 45 ? .infinity : $1 })
    let scheme = try scheme(.zeroPoint, bits: 3, search: .mse)
    #expect(throws: QuantizationError.notFinite(element: 45, value: "inf")) {
      _ = try AffineWeight(roundingForOutputs: damaged, scheme, hessian: hessian, workers: 1)
    }
    #expect(throws: QuantizationError.notFinite(element: 45, value: "inf")) {
      _ = try ActivationAwareScales.search(
        [ScaledLayer(weight: damaged, scheme: scheme)], hessian: hessian, statistics: statistics, sets: nil, workers: 1)
    }
  }

  @Test func evidenceOfScaledFeatures() throws {
    var generator = SplitMix64(seed: 23)
    let factors = (0..<columns).map { _ in Float.random(in: 0.5...2, using: &generator) }
    let scaled = Matrix(rows: tokens, columns: columns, x.indices.map { x[$0] * factors[$0 % columns] })
    var expected = Hessian(dimension: columns)
    try expected.add(scaled, workers: 1)
    let found = hessian.scaled(by: factors, workers: 2)
    #expect(found.tokens == tokens && firstAsymmetry(found.sum) == nil)
    let (a, b) = (found.sum.values(), expected.sum.values())
    #expect(zip(a, b).allSatisfy { abs($0 - $1) <= 1e-4 * (abs($1) + 1) })
  }
}
