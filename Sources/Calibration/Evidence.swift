import Checkpoints
import Kernels
import Models
import Quantization

/// A linear layer, as evidence names it.
package struct EvidencedLayer: Hashable, Sendable, CustomStringConvertible {
  /// The name of the weight's tensor.
  package let weight: String
  /// Position among the matrices that the tensor stacks; nil where it is one matrix.
  package let expert: Int?

  package init(weight: String, expert: Int? = nil) {
    self.weight = weight
    self.expert = expert
  }

  package init(_ linear: LinearDescription) {
    weight = linear.weight
    if case .expert(let index, _) = linear.storage { expert = index } else { expert = nil }
  }

  /// As messages show it.
  package var description: String { "'\(weight)'" + (expert.map { ", expert \($0)" } ?? "") }
}

/// What calibration has to gather.
package struct EvidenceOptions: Hashable, Sendable {
  /// The magnitude from which a value counts as an outlier.
  package var threshold: Float
  /// Whether Σ xᵀ·x is summed too: as much work as a layer of as many outputs as inputs.
  package var sumsHessians: Bool

  package init(threshold: Float = FeatureStatistics.usualThreshold, sumsHessians: Bool = false) {
    self.threshold = threshold
    self.sumsHessians = sumsHessians
  }
}

/// What is known of one input: a tensor of activations that one or several linear layers read.
package struct InputEvidence: Sendable {
  /// At least one; they share the input.
  package let layers: [EvidencedLayer]
  package private(set) var statistics: FeatureStatistics
  /// nil where it was not asked for.
  package private(set) var hessian: Hessian?

  /// Calibration tokens that reached the layers; of an expert those that the router sent it.
  package var tokens: Int { statistics.tokens }
  /// Features of the input.
  package var dimension: Int { statistics.dimension }

  package init(_ layers: [EvidencedLayer], dimension: Int, _ options: EvidenceOptions) {
    self.layers = layers
    statistics = FeatureStatistics(dimension: dimension, threshold: options.threshold)
    hessian = options.sumsHessians ? Hessian(dimension: dimension) : nil
  }

  /// Evidence that was gathered before.
  package init(_ layers: [EvidencedLayer], _ statistics: FeatureStatistics, _ hessian: Hessian?) {
    precondition(hessian == nil || hessian?.dimension == statistics.dimension)
    self.layers = layers
    self.statistics = statistics
    self.hessian = hessian
  }

  /// Adds the evidence of other tokens for the same layers, gathered in the same way.
  package mutating func merge(_ other: InputEvidence, workers: Int) throws(HessianError) {
    precondition(layers == other.layers && (hessian == nil) == (other.hessian == nil))
    if let more = other.hessian { try hessian?.merge(more, workers: workers) }
    statistics.merge(other.statistics)
  }

  /// Adds the rows in use of `x`, `[tokens, dimension]`.
  /// - Throws: where a value is not finite, or its square beyond float32. The evidence is then of no use.
  package mutating func add(_ x: Matrix, workers: Int) throws(HessianError) {
    if hessian == nil { try Hessian.requireFiniteSquares(x, workers: workers) }
    try hessian?.add(x, workers: workers)
    statistics.add(x, workers: workers)
  }
}

/// The evidence of a whole model, without Hessians too many for memory unless they were asked for.
package struct Evidence: Sendable {
  package private(set) var inputs: [InputEvidence] = []

  package init() {}

  package mutating func append(_ input: InputEvidence) { inputs.append(input) }

  /// The statistics of every weight's inputs, by tensor name. A tensor that stacks experts has the
  /// tokens of all of them.
  package var columnStatistics: [String: FeatureStatistics] {
    var result: [String: FeatureStatistics] = [:]
    for input in inputs {
      for layer in input.layers {
        result[
          layer.weight, default: FeatureStatistics(dimension: input.dimension, threshold: input.statistics.threshold)
        ]
        .merge(input.statistics)
      }
    }
    return result
  }
}

/// Activations or sums of a layer that cannot be used.
package struct EvidenceError: Error, Hashable, CustomStringConvertible {
  /// The model or the file that they come from.
  package let place: String
  package let layers: [EvidencedLayer]
  package let problem: HessianError

  package init(_ place: String, _ layers: [EvidencedLayer], _ problem: HessianError) {
    self.place = place
    self.layers = layers
    self.problem = problem
  }

  package var description: String {
    "\(place.printable): layer \(layers.map(\.description.printable).joined(separator: ", ")): \(problem)"
  }
}
