import Foundation
import Kernels
import Synchronization

/// The search for scales of AWQ (Lin et al., arXiv 2306.00978, §3.2, equations 4 and 5).
///
/// For the layers W that read one input x: s minimizes ‖Q(W·diag(s))·(diag(s)⁻¹·x) − W·x‖ over calibration tokens, Q being
/// rounding to nearest. s is one of 2 · 20 vectors, α = 0, 0.05 … 0.95:
///
///     s = mean |x|^α          s = mean |x|^α / mean |w|^(1−α)                        each divided by √(min s · max s)
///
/// The loss over all tokens needs H = Σ xᵀ·x alone, and no tokens:
///
///     loss = Σ over layers of tr(Δ·H·Δᵀ),   Δ = Q(W·diag(s))·diag(s)⁻¹ − W
///
/// α = 0 of the first form is no scaling, so that the loss never rises.
package enum ActivationAwareScales {
  static let gridSize = 20
  /// Rows that the search looks at, over all layers, evenly spread: a scale serves all rows, and so many tell it.
  package static let sampledRows = 1024
  private static let tileRows = 64

  /// - Parameters:
  ///   - layers: those to be quantized count; at least one.
  ///   - sets: for each feature the set whose features share a scale; nil: each its own.
  /// - Throws: where a weight is not finite.
  package static func search(
    _ layers: [ScaledLayer], hessian: Hessian, statistics: FeatureStatistics, sets: [Int]?, workers: Int
  ) throws -> FeatureScales {
    let means = FeatureScales.tied(statistics.meanMagnitudes, sets)
    let weights = FeatureScales.tied(meanMagnitudes(of: layers, workers: workers), sets)
    var candidates: [(form: FeatureScales.Form, strength: Double, scales: [Float])] = []
    for form in [FeatureScales.Form.activations, .activationsAndWeights] {
      for step in 0..<gridSize {
        let strength = Double(step) / Double(gridSize)
        let raw = zip(means, weights).map { mean, weight -> Double in
          guard mean > 0 else { return 0 }
          let activation = pow(Double(mean), strength)
          return form == .activations ? activation : activation / (pow(Double(weight), 1 - strength) + 1e-6)
        }
        candidates.append(
          (form, strength, step == 0 && form == .activations ? raw.map { _ in 1 } : FeatureScales.normalized(raw)))
      }
    }
    let losses = try self.losses(layers, hessian: hessian, candidates.map(\.scales), workers: workers)
    var best = 0
    for index in candidates.indices where losses[index] < losses[best] { best = index }
    return FeatureScales(
      scales: candidates[best].scales, form: candidates[best].form, strength: candidates[best].strength,
      lossBefore: losses[0], lossAfter: losses[best])
  }

  /// Mean |w| of each column over the layers' rows.
  private static func meanMagnitudes(of layers: [ScaledLayer], workers: Int) -> [Float] {
    var sums = [Double](repeating: 0, count: layers[0].weight.columns)
    for layer in layers {
      let found = columnStatistics(layer.weight, threshold: .infinity, workers: workers).magnitudeSums
      for column in sums.indices { sums[column] += found[column] }
    }
    let rows = layers.reduce(0) { $0 + $1.weight.rows }
    return sums.map { Float($0 / Double(max(1, rows))) }
  }

  /// The loss under each vector of scales.
  package static func losses(
    _ layers: [ScaledLayer], hessian: Hessian, _ scales: [[Float]], workers: Int
  ) throws -> [Double] {
    let reciprocals = scales.map { $0.map { 1 / $0 } }
    let columns = hessian.dimension
    var totals = [Double](repeating: 0, count: scales.count)
    let sum = hessian.sum
    let count = layers.count { $0.scheme != nil }
    for layer in layers {
      guard let scheme = layer.scheme else { continue }
      let weight = layer.weight
      let finder = RangeFinder(scheme.plain)
      let length = scheme.groupLength(columns: columns)
      let step = max(1, weight.rows / max(8, sampledRows / count))
      let rows = Array(stride(from: 0, to: weight.rows, by: step))
      let tiles = (rows.count + tileRows - 1) / tileRows
      let found = Mutex([[Double]](repeating: [], count: tiles))
      try runParallel(count: tiles, workers: workers) {
        (errors: OutputErrorTile(rows: tileRows, columns: columns), scaled: [Float](repeating: 0, count: columns))
      } body: { item, state in
        let chosen = rows[item * tileRows..<min((item + 1) * tileRows, rows.count)]
        var losses: [Double] = []
        for candidate in scales.indices {
          let (factors, inverses) = (scales[candidate], reciprocals[candidate])
          state.errors.begin(width: columns)
          for row in chosen {
            let index = state.errors.addRow()
            try weight.readRows(row..<(row + 1)) { values throws(QuantizationError) in
              multiply(values, factors.span, into: &state.scaled)
              for start in stride(from: 0, to: columns, by: length) {
                let span = start..<min(start + length, columns)
                let members = state.scaled.span.extracting(span)
                let largest = absoluteMaximum(members)
                guard largest.isFinite else {
                  let place = firstNonFinite(values.extracting(span)) ?? 0
                  throw .notFinite(element: row * columns + start + place, value: "\(values[start + place])")
                }
                var range = finder.range(of: members, largest: largest)
                if !range.scale.isFinite || !(1 / range.scale).isFinite { range.scale = 0 }
                state.errors.setErrors(
                  row: index, at: start, of: members, range, reciprocals: inverses.span.extracting(span))
              }
            }
          }
          state.errors.multiply(by: sum, from: 0)
          losses.append((0..<chosen.count).reduce(0) { $0 + state.errors.square(row: $1) })
        }
        let result = losses
        found.withLock { $0[item] = result }
      }
      for tile in found.withLock({ $0 }) {
        for candidate in totals.indices {
          totals[candidate] += tile[candidate] * Double(weight.rows) / Double(rows.count)
        }
      }
    }
    return totals
  }
}
