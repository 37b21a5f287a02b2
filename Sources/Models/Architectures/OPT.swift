import Foundation
import Kernels

extension Architecture {
  /// OPT (arXiv 2205.01068): learned positions with two rows before the first; norms before the branches or, in one
  /// size, after them.
  static let opt = Architecture(modelTypes: ["opt"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embed_tokens.weight", among: ["model.decoder.", "decoder.", ""])
    let hidden = try configuration.integer("hidden_size")
    let vocabulary = try configuration.integer("vocab_size")
    let width = try configuration.integer("word_embed_proj_dim", default: hidden)
    let sizes = try HeadSizes(configuration, hidden: hidden, usesDimensionKey: false)
    let inner = try configuration.integer("ffn_dim")
    let activation = try configuration.activation("activation_function", default: "relu")
    let hasBias = try configuration.flag("enable_bias", default: true)
    let hasWeights = try configuration.flag("layer_norm_elementwise_affine", default: true)
    let isBefore = try configuration.flag("do_layer_norm_before", default: true)
    let lacksFinalNorm = try configuration.flag("_remove_final_layer_norm", default: false)
    let isTied = try configuration.flag("tie_word_embeddings", default: true)
    func norm(_ name: String) -> NormDescription {
      hasWeights
        ? .layer(name, hidden, 1e-5)
        : NormDescription(kind: .layer, weight: nil, bias: nil, width: hidden, epsilon: 1e-5)
    }
    func norms(_ name: String) -> BranchNorms {
      isBefore ? BranchNorms(before: norm(name)) : BranchNorms(onSum: norm(name))
    }
    let tokens = prefix + "embed_tokens.weight"
    let limit = try configuration.integer("max_position_embeddings", default: 2048)
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(
        tokens: tokens, vocabulary: vocabulary, width: width,
        projection: width == hidden ? nil : LinearDescription(prefix + "project_in", hidden, width),
        positions: PositionTable(
          table: TableDescription(name: prefix + "embed_positions.weight", rows: limit + 2), offset: 2)),
      head: HeadDescription(
        norm: isBefore && !lacksFinalNorm ? norm(prefix + "final_layer_norm") : nil,
        projection: width == hidden ? nil : LinearDescription(prefix + "project_out", width, hidden),
        linear: LinearDescription(
          weight: isTied ? tokens : "lm_head.weight", bias: nil, outputs: vocabulary, inputs: width,
          storage: .outputsFirst)),
      blockCount: try configuration.integer("num_hidden_layers")
    ) { layer in
      let base = "\(prefix)layers.\(layer)."
      let attention = base + "self_attn."
      return BlockDescription(
        prefix: base,
        attention: AttentionDescription(
          form: AttentionForm(
            heads: sizes.heads, keyValueHeads: sizes.heads, headDimension: sizes.dimension,
            scale: Float(pow(Double(sizes.dimension), -0.5))),
          input: ProjectionDescription(
            ["q_proj", "k_proj", "v_proj"].map { LinearDescription(attention + $0, hidden, hidden, hasBias: hasBias) }),
          output: LinearDescription(attention + "out_proj", hidden, hidden, hasBias: hasBias)),
        attentionNorms: norms(base + "self_attn_layer_norm"),
        feedForward: .plain(
          input: LinearDescription(base + "fc1", inner, hidden, hasBias: hasBias),
          output: LinearDescription(base + "fc2", hidden, inner, hasBias: hasBias), activation),
        feedForwardNorms: norms(base + "final_layer_norm"))
    }
  }
}
