import Checkpoints
import Foundation
import Kernels

/// What a tensor is for, read off its name and shape. Models differ in names, not in kinds, so kinds are rows of
/// patterns here; the first match counts.
package enum TensorRole: String, CaseIterable, Hashable, Sendable {
  case linear
  case embedding
  case head
  case router
  case norm
  case bias
  case vector
  case integer
  case float8
  case convolution
  case empty
  case other

  private static let patterns: [(role: TensorRole, patterns: [String])] = [
    (
      .embedding,
      [
        "*embed_tokens*.weight", "*embed_positions.weight", "*embed_in.weight", "*word_embeddings.weight",
        "*position_embeddings.weight", "*token_type_embeddings.weight", "*tok_embeddings.weight", "*embedding.weight",
        "*embeddings.weight", "*wte.weight", "*wpe.weight", "*shared.weight", "*relative_attention_bias.weight",
      ]
    ),
    (.head, ["lm_head.weight", "*.lm_head.weight", "embed_out.weight", "output.weight", "score.weight"]),
    (.router, ["*.gate.weight", "*.shared_expert_gate.weight", "*router.weight", "*.router.*.weight"]),
    (.norm, ["*norm.weight", "*norm?.weight", "*.ln_?.weight", "*LayerNorm.weight"]),
  ]

  package init(_ entry: TensorEntry) {
    self = Self.role(of: entry)
  }

  private static func role(of entry: TensorEntry) -> TensorRole {
    if entry.shape.contains(0) { return .empty }
    if !entry.type.isFullPrecision { return entry.type.isFloatingPoint ? .float8 : .integer }
    let name = entry.name
    let rank = entry.shape.count
    let named = patterns.first { row in row.patterns.contains { matches(name, pattern: $0) } }?.role
    if rank < 2 { return named == .norm ? .norm : name.hasSuffix("bias") ? .bias : .vector }
    if let named { return named }
    // Fused experts: matrices stacked along the first dimension.
    if rank == 3, name.contains("experts.") { return .linear }
    if rank > 2 { return .convolution }
    return name.hasSuffix(".weight") ? .linear : .other
  }

  /// Why a tensor of this role is kept as it is unless a pattern includes it; nil for those that are quantized.
  package var reasonToKeep: String? {
    switch self {
    case .linear: nil
    case .embedding: "embedding (quantized if included)"
    case .head: "output head (quantized if included)"
    case .router: "expert router"
    case .norm: "norm"
    case .bias: "bias"
    case .vector: "fewer than two dimensions"
    case .integer: "not a floating-point tensor"
    case .float8: "8-bit or narrower float, quantized already"
    case .convolution: "more than two dimensions"
    case .empty: "no elements"
    case .other: "not named like the weight of a linear layer"
    }
  }

  /// True where no pattern can make a tensor of this role quantized.
  package var isAlwaysKept: Bool { [.norm, .bias, .vector, .integer, .float8, .empty].contains(self) }
}

/// Shell-style matching (POSIX `fnmatch`) of a whole tensor name: `*`, `?` and `[…]`, in which `*` also spans dots.
package func matches(_ name: String, pattern: String) -> Bool { fnmatch(pattern, name, 0) == 0 }
