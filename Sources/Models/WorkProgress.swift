/// How far a run of a model is: the work that is done and all of it, by kind, and where it is.
///
/// Work is in estimated floating-point operations, so that kinds and layers weigh what they cost.
package struct WorkProgress: Hashable, Sendable {
  package enum Kind: String, CaseIterable, Hashable, Sendable {
    /// The forward pass of the model, or of a reference beside it.
    case run
    case reference
    case head
    /// Evidence of what layers read.
    case gather
    /// Codes from evidence.
    case quantize
    /// Scales of inputs.
    case scale
    /// Gradient steps within a block, those over the whole model, and what the curvature of predictions takes.
    case learn
    case distill
    case curvature

    /// Seconds that an operation takes, about, on two cores: what counts until some of the kind has been done.
    package var secondsPerOperation: Double {
      switch self {
      case .run, .reference: 1.1e-12
      case .gather: 1.6e-12
      case .quantize: 2e-12
      case .head, .scale: 2.3e-12
      case .curvature: 2.1e-12
      case .distill: 1.45e-12
      case .learn: 3.6e-12
      }
    }
  }

  package var done: [Kind: Double]
  package var total: [Kind: Double]
  /// The block that is worked on, from 0 on.
  package var block: Int?
  package var blockCount: Int
  /// How much of the block is done.
  package var blockShare: Double
  /// The layer that is worked on.
  package var layer: String?
  /// What gradient steps lower, on windows that none is taken on.
  package var loss: Loss?

  package struct Loss: Hashable, Sendable {
    package let before: Double
    /// The least so far.
    package let least: Double

    package init(before: Double, least: Double) { (self.before, self.least) = (before, least) }
  }

  package init(
    done: [Kind: Double] = [:], total: [Kind: Double] = [:], block: Int? = nil, blockCount: Int = 0,
    blockShare: Double = 0, layer: String? = nil
  ) {
    self.done = done
    self.total = total
    self.block = block
    self.blockCount = blockCount
    self.blockShare = blockShare
    self.layer = layer
  }

  /// A task of one kind.
  package init(_ kind: Kind, share: Double, layer: String? = nil) {
    self.init(done: [kind: share], total: [kind: 1], layer: layer)
  }
}
