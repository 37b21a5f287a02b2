import Foundation
import Kernels

/// A linear layer as the checkpoint stores it: y = x·Wᵀ + b.
package struct LinearDescription: Hashable, Sendable {
  package enum Storage: Hashable, Sendable {
    /// `[outputs, inputs]`, as torch's Linear.
    case outputsFirst
    /// `[inputs, outputs]`, as GPT-2's Conv1D.
    case inputsFirst
    /// One of the matrices `[outputs, inputs]` that a tensor stacks along its first dimension.
    case expert(Int, of: Int)
  }

  package let weight: String
  package let bias: String?
  package let outputs: Int
  package let inputs: Int
  package let storage: Storage

  /// The shape that the tensor must have.
  package var shape: [Int] {
    switch storage {
    case .outputsFirst: [outputs, inputs]
    case .inputsFirst: [inputs, outputs]
    case .expert(_, let count): [count, outputs, inputs]
    }
  }
}

/// Linear layers that read the same input, run as one product: their outputs stand side by side.
package struct ProjectionDescription: Hashable, Sendable {
  package enum Order: Hashable, Sendable {
    case asStored
    /// Stored head by head, each with its query, key and value rows; run as all queries, all keys, all values.
    case headsOfQueryKeyValue(heads: Int)
  }

  package let linears: [LinearDescription]
  package let order: Order

  package init(_ linears: [LinearDescription], order: Order = .asStored) {
    self.linears = linears
    self.order = order
  }

  package var outputs: Int { linears.reduce(0) { $0 + $1.outputs } }
  package var inputs: Int { linears.first?.inputs ?? 0 }

  /// The stored row of each row as it is run; nil where they are the same.
  package var rowOrder: [Int]? {
    guard case .headsOfQueryKeyValue(let heads) = order else { return nil }
    let width = outputs / (3 * heads)
    return (0..<3).flatMap { part in
      (0..<heads).flatMap { head in (0..<width).map { (head * 3 + part) * width + $0 } }
    }
  }
}

package struct NormDescription: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    /// Root mean square; `offset` is added to the stored weight (1 in Gemma).
    case rootMeanSquare(offset: Float)
    /// Mean and variance.
    case layer
  }

  package let kind: Kind
  /// nil: ones.
  package let weight: String?
  /// nil: zeros.
  package let bias: String?
  package let width: Int
  package let epsilon: Float
}

package struct AttentionDescription: Hashable, Sendable {
  package var form: AttentionForm
  /// Outputs: all query heads, all key heads, all value heads.
  package var input: ProjectionDescription
  package var output: LinearDescription
  /// Over each head, before the rotation.
  package var queryNorm: NormDescription?
  package var keyNorm: NormDescription?
  package var rotary: RotaryEmbedding?
  package var relativeBias: RelativeBias?
}

/// A bias on scores that depends on the distance of query and key, by buckets that widen with it (arXiv 1910.10683,
/// §2.1).
package struct RelativeBias: Hashable, Sendable {
  /// `[buckets, heads]`.
  package let table: String
  package let buckets: Int
  package let heads: Int
  /// Distances from here on share the last bucket.
  package let farthest: Int

  /// The bucket of a key at a distance (key's position less the query's): half of the buckets for each direction, half
  /// of these for a single distance each.
  package func bucket(ofDistance distance: Int) -> Int {
    let half = buckets / 2
    let exact = half / 2
    let magnitude = abs(distance)
    let side = distance > 0 ? half : 0
    guard magnitude >= exact else { return side + magnitude }
    let share = log(Float(magnitude) / Float(exact)) / log(Float(farthest) / Float(exact))
    return side + min(half - 1, exact + Int(share * Float(half - exact)))
  }
}

package struct ExpertDescription: Hashable, Sendable {
  package let input: ProjectionDescription
  package let output: LinearDescription
}

/// Experts of which each token uses a few (arXiv 2401.04088, §2.1).
package struct MixtureDescription: Hashable, Sendable {
  package let router: LinearDescription
  package let experts: [ExpertDescription]
  package let activation: Activation
  /// Experts a token uses: those of highest probability.
  package let chosen: Int
  /// Whether the probabilities of the chosen ones are divided by their sum.
  package let normalizes: Bool
}

package enum FeedForwardDescription: Hashable, Sendable {
  /// output(activation(gate) · up); the input projection gives gate, then up.
  case gated(input: ProjectionDescription, output: LinearDescription, Activation)
  /// output(activation(input)).
  case plain(input: LinearDescription, output: LinearDescription, Activation)
  case mixture(MixtureDescription)

  /// The experts; a layer that is no mixture is one.
  package var experts: [ExpertDescription] {
    switch self {
    case .gated(let input, let output, _): [ExpertDescription(input: input, output: output)]
    case .plain(let input, let output, _):
      [ExpertDescription(input: ProjectionDescription([input]), output: output)]
    case .mixture(let mixture): mixture.experts
    }
  }

  package var isMixture: Bool { if case .mixture = self { true } else { false } }
}

/// A branch of a block and the norms around it.
package struct BranchNorms: Hashable, Sendable {
  /// On the branch's input.
  package var before: NormDescription?
  /// On the branch's output, before it is added to the residual stream.
  package var after: NormDescription?
  /// On the stream, after the branch was added to it.
  package var onSum: NormDescription?

  package init(before: NormDescription? = nil, after: NormDescription? = nil, onSum: NormDescription? = nil) {
    self.before = before
    self.after = after
    self.onSum = onSum
  }
}

/// A transformer block: an attention and a feed-forward branch on a residual stream.
package struct BlockDescription: Hashable, Sendable {
  /// What the names of its tensors begin with.
  package var prefix: String
  package var attention: AttentionDescription
  package var attentionNorms: BranchNorms
  package var feedForward: FeedForwardDescription
  package var feedForwardNorms: BranchNorms
  /// Both branches read the block's input (GPT-NeoX), instead of one after the other.
  package var isParallel = false

  /// Whether a branch's output is added to the stream as it is, and nothing else is added or done to it.
  package func addsUnchanged(_ norms: BranchNorms) -> Bool { !isParallel && norms.after == nil && norms.onSum == nil }

  /// Floating-point operations of the products with weights, for a token; of a mixture, of the experts that it uses.
  package var operationsPerToken: Double {
    func operations(_ linears: [LinearDescription]) -> Double {
      linears.reduce(0) { $0 + 2 * Double($1.inputs) * Double($1.outputs) }
    }
    let experts = feedForward.experts
    let chosen = if case .mixture(let mixture) = feedForward { mixture.chosen } else { 1 }
    let feedForward = experts.reduce(0) { $0 + operations($1.input.linears + [$1.output]) }
    return operations(attention.input.linears + [attention.output])
      + feedForward * Double(chosen) / Double(max(1, experts.count))
  }
}

package struct EmbeddingDescription: Hashable, Sendable {
  /// `[vocabulary, width]`.
  package var tokens: String
  package var vocabulary: Int
  package var width: Int
  package var scale: Float = 1
  /// A linear from `width` to the hidden size.
  package var projection: LinearDescription?
  package var positions: PositionTable?
  /// A table whose first row is added to every token (BERT's token types).
  package var tokenType: TableDescription?
  package var norm: NormDescription?
}

package struct TableDescription: Hashable, Sendable {
  package let name: String
  package let rows: Int
}

/// Learned positions: token t takes row t + offset.
package struct PositionTable: Hashable, Sendable {
  package let table: TableDescription
  package let offset: Int
}

/// From the last hidden states to the logits of the vocabulary.
package struct HeadDescription: Hashable, Sendable {
  package var norm: NormDescription?
  /// A linear from the hidden size to the width of `linear`.
  package var projection: LinearDescription?
  /// nil where the model is an encoder.
  package var linear: LinearDescription?
  package var softCap: Float?
}

/// Everything that the forward pass must know of a model: sizes, names of tensors, order of operations.
package struct ModelDescription: Hashable, Sendable {
  package var modelType: String
  package var hiddenSize: Int
  package var embedding: EmbeddingDescription
  package var blocks: [BlockDescription]
  package var head: HeadDescription
  /// Positions beyond which there is nothing to look up; nil where positions are computed.
  package var positionLimit: Int? {
    embedding.positions.map { $0.table.rows - $0.offset }
  }
}
