import Kernels

/// How the input features of layers are scaled before the layers are quantized: columns times s, what feeds them by 1/s.
package enum Scaling: Hashable, Sendable {
  /// AWQ (arXiv 2306.00978): large inputs keep more of their weights' precision.
  case activationAware
  /// SmoothQuant (arXiv 2211.10438): outliers of activations move into weights; nil searches the strength.
  case smooth(strength: Double?)

  package var name: String {
    switch self {
    case .activationAware: "awq"
    case .smooth: "smooth"
    }
  }
}

/// A layer that reads a scaled input.
package struct ScaledLayer: Sendable {
  /// `[outputs, inputs]`.
  package let weight: Matrix
  /// How it will be quantized; nil where it is kept.
  package let scheme: WeightScheme?

  package init(weight: Matrix, scheme: WeightScheme?) {
    self.weight = weight
    self.scheme = scheme
  }
}

/// Scales that a search has found for the features of one input.
package struct FeatureScales: Hashable, Codable, Sendable {
  package enum Form: String, Hashable, Codable, Sendable {
    /// s = mean |x|^α.
    case activations
    /// s = mean |x|^α / mean |w|^(1−α).
    case activationsAndWeights = "activations-and-weights"
    /// s = max |x|^α / max |w|^(1−α).
    case largest
  }

  /// What a feature's column is multiplied by: positive and finite.
  package let scales: [Float]
  package let form: Form
  package let strength: Double
  /// Of the quantized layers without scales, in the units of the search.
  package let lossBefore: Double?
  package let lossAfter: Double?

  /// Features that must share a scale: one index per feature. The mean of each set's values, for each feature.
  static func tied(_ values: [Float], _ sets: [Int]?) -> [Float] {
    guard let sets else { return values }
    var sums = [Double](repeating: 0, count: (sets.max() ?? -1) + 1)
    var counts = sums
    for (feature, set) in sets.enumerated() {
      sums[set] += Double(values[feature])
      counts[set] += 1
    }
    return sets.map { Float(sums[$0] / counts[$0]) }
  }

  /// The same with the largest of each set.
  static func tiedLargest(_ values: [Float], _ sets: [Int]?) -> [Float] {
    guard let sets else { return values }
    var largest = [Float](repeating: 0, count: (sets.max() ?? -1) + 1)
    for (feature, set) in sets.enumerated() { largest[set] = max(largest[set], values[feature]) }
    return sets.map { largest[$0] }
  }

  /// Divides by √(smallest · largest), so that scales lie around one. A feature without a usable value, because its
  /// inputs were all zero, gets the smallest scale of the others.
  static func normalized(_ raw: [Double]) -> [Float] {
    let usable = raw.filter { $0 > 0 && $0.isFinite }
    guard let smallest = usable.min(), let largest = usable.max() else { return raw.map { _ in 1 } }
    let middle = smallest.squareRoot() * largest.squareRoot()
    return raw.map { value in
      let scale = Float((value > 0 && value.isFinite ? value : smallest) / middle)
      return scale.isNormal && (1 / scale).isNormal ? scale : 1
    }
  }
}
