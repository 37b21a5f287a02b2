import Foundation
import Kernels

extension Architecture {
  /// ModernBERT (arXiv 2412.13663): an encoder with rotary positions, gated feed-forward layers and norms before the
  /// branches; most layers look at a window on both sides.
  static let modernBERT = Architecture(modelTypes: ["modernbert"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embeddings.tok_embeddings.weight", among: ["model.", ""])
    let hidden = try configuration.integer("hidden_size", default: 768)
    let sizes = try HeadSizes(configuration, hidden: hidden, usesDimensionKey: false)
    let inner = try configuration.integer("intermediate_size", default: 1152)
    let epsilon = try configuration.positive("norm_eps", default: 1e-5)
    let normHasBias = try configuration.flag("norm_bias", default: false)
    let attentionHasBias = try configuration.flag("attention_bias", default: false)
    let hasBias = try configuration.flag("mlp_bias", default: false)
    let activation = try configuration.activation("hidden_activation", default: "gelu")
    let layers = try configuration.integer("num_hidden_layers", default: 22)
    let window = try configuration.integer("local_attention", default: 128)
    let period = try configuration.integer("global_attn_every_n_layers", default: 3)
    let sliding = try slidingLayers(configuration, count: layers) { $0 % period != 0 }
    let global = try RotaryEmbedding(
      configuration, headDimension: sizes.dimension,
      theta: try configuration.positive("global_rope_theta", default: 160_000), layerType: "full_attention")
    let local = try RotaryEmbedding(
      configuration, headDimension: sizes.dimension,
      theta: try configuration.positive("local_rope_theta", default: 10_000), layerType: "sliding_attention")
    func norm(_ name: String) -> NormDescription {
      NormDescription(
        kind: .layer, weight: name + ".weight", bias: normHasBias ? name + ".bias" : nil, width: hidden,
        epsilon: Float(epsilon))
    }
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(
        tokens: prefix + "embeddings.tok_embeddings.weight", vocabulary: try configuration.integer("vocab_size"),
        width: hidden, norm: norm(prefix + "embeddings.norm")),
      head: HeadDescription(norm: norm(prefix + "final_norm")), blockCount: layers
    ) { layer in
      let base = "\(prefix)layers.\(layer)."
      let isSliding = layer < sliding.count && sliding[layer]
      return BlockDescription(
        prefix: base,
        attention: AttentionDescription(
          form: AttentionForm(
            heads: sizes.heads, keyValueHeads: sizes.heads, headDimension: sizes.dimension,
            scale: Float(pow(Double(sizes.dimension), -0.5)), before: isSliding ? window / 2 : nil,
            after: isSliding ? window / 2 : nil),
          input: ProjectionDescription([
            LinearDescription(base + "attn.Wqkv", 3 * hidden, hidden, hasBias: attentionHasBias)
          ]),
          output: LinearDescription(base + "attn.Wo", hidden, hidden, hasBias: attentionHasBias),
          rotary: isSliding ? local : global),
        // The embedding's norm serves the first layer's attention, too.
        attentionNorms: BranchNorms(before: layer == 0 ? nil : norm(base + "attn_norm")),
        feedForward: .gated(
          input: ProjectionDescription([LinearDescription(base + "mlp.Wi", 2 * inner, hidden, hasBias: hasBias)]),
          output: LinearDescription(base + "mlp.Wo", hidden, inner, hasBias: hasBias), activation),
        feedForwardNorms: BranchNorms(before: norm(base + "mlp_norm")))
    }
  }
}
