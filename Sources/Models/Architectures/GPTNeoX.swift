import Foundation
import Kernels

extension Architecture {
  /// GPT-NeoX and Pythia (arXiv 2204.06745): both branches read the block's input; queries, keys and values are stored
  /// head by head; a part of each head is rotated.
  static let gptNeoX = Architecture(modelTypes: ["gpt_neox"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embed_in.weight", among: ["gpt_neox.", ""])
    let hidden = try configuration.integer("hidden_size")
    let vocabulary = try configuration.integer("vocab_size")
    let sizes = try HeadSizes(configuration, hidden: hidden, usesDimensionKey: false)
    let inner = try configuration.integer("intermediate_size")
    let activation = try configuration.activation("hidden_act", default: "gelu")
    let epsilon = try configuration.positive("layer_norm_eps", default: 1e-5)
    let isParallel = try configuration.flag("use_parallel_residual", default: true)
    let hasBias = try configuration.flag("attention_bias", default: true)
    let share = try configuration.number("rotary_pct", default: 0.25)
    let rotary = try RotaryEmbedding(
      configuration, headDimension: sizes.dimension,
      theta: try configuration.number("rotary_emb_base", default: 10_000),
      alwaysPartial: true, partial: share)
    let isTied = try configuration.flag("tie_word_embeddings", default: false)
    let heads = ["embed_out.weight", "lm_head.weight"]
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(tokens: prefix + "embed_in.weight", vocabulary: vocabulary, width: hidden),
      head: HeadDescription(
        norm: .layer(prefix + "final_layer_norm", hidden, epsilon),
        linear: LinearDescription(
          weight: isTied ? prefix + "embed_in.weight" : heads.first { names.contains($0) } ?? heads[0], bias: nil,
          outputs: vocabulary, inputs: hidden, storage: .outputsFirst)),
      blockCount: try configuration.integer("num_hidden_layers")
    ) { layer in
      let base = "\(prefix)layers.\(layer)."
      return BlockDescription(
        prefix: base,
        attention: AttentionDescription(
          form: AttentionForm(
            heads: sizes.heads, keyValueHeads: sizes.heads, headDimension: sizes.dimension,
            scale: Float(pow(Double(sizes.dimension), -0.5))),
          input: ProjectionDescription(
            [LinearDescription(base + "attention.query_key_value", 3 * hidden, hidden, hasBias: hasBias)],
            order: .headsOfQueryKeyValue(heads: sizes.heads)),
          output: LinearDescription(base + "attention.dense", hidden, hidden, hasBias: hasBias), rotary: rotary),
        attentionNorms: BranchNorms(before: .layer(base + "input_layernorm", hidden, epsilon)),
        feedForward: .plain(
          input: LinearDescription(base + "mlp.dense_h_to_4h", inner, hidden, hasBias: true),
          output: LinearDescription(base + "mlp.dense_4h_to_h", hidden, inner, hasBias: true), activation),
        feedForwardNorms: BranchNorms(before: .layer(base + "post_attention_layernorm", hidden, epsilon)),
        isParallel: isParallel)
    }
  }
}
