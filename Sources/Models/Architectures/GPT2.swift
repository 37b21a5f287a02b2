import Foundation
import Kernels

extension Architecture {
  /// GPT-2: learned positions, layer norms, and linears stored `[inputs, outputs]` (Conv1D).
  static let gpt2 = Architecture(modelTypes: ["gpt2"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "wte.weight", among: ["transformer.", ""])
    let hidden = try configuration.integer("n_embd", or: "hidden_size", default: 768)
    let vocabulary = try configuration.integer("vocab_size", default: 50_257)
    let positions = try configuration.integer("n_positions", or: "n_ctx", default: 1024)
    let headKey = configuration.has("n_head") ? "n_head" : "num_attention_heads"
    let heads = try configuration.integer(headKey, default: 12)
    guard hidden % heads == 0 else {
      throw configuration.refusal(of: headKey, expected: "a divisor of the hidden size \(hidden)")
    }
    let inner = try configuration.integer("n_inner", default: 4 * hidden)
    let activation = try configuration.activation("activation_function", default: "gelu_new")
    let epsilon = try configuration.positive("layer_norm_epsilon", default: 1e-5)
    let isScaled = try configuration.flag("scale_attn_weights", default: true)
    let isScaledByLayer = try configuration.flag("scale_attn_by_inverse_layer_idx", default: false)
    let isTied = try configuration.flag("tie_word_embeddings", default: true)
    let layers = try configuration.integer("n_layer", or: "num_hidden_layers", default: 12)
    func linear(_ name: String, _ outputs: Int, _ inputs: Int) -> LinearDescription {
      LinearDescription(name, outputs, inputs, hasBias: true, storage: .inputsFirst)
    }
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(
        tokens: prefix + "wte.weight", vocabulary: vocabulary, width: hidden,
        positions: PositionTable(table: TableDescription(name: prefix + "wpe.weight", rows: positions), offset: 0)),
      head: HeadDescription(
        norm: .layer(prefix + "ln_f", hidden, epsilon),
        linear: LinearDescription(
          weight: isTied ? prefix + "wte.weight" : "lm_head.weight", bias: nil, outputs: vocabulary, inputs: hidden,
          storage: .outputsFirst)),
      blockCount: layers
    ) { layer in
      let base = "\(prefix)h.\(layer)."
      var scale = isScaled ? pow(Double(hidden / heads), -0.5) : 1
      if isScaledByLayer { scale /= Double(layer + 1) }
      return BlockDescription(
        prefix: base,
        attention: AttentionDescription(
          form: AttentionForm(
            heads: heads, keyValueHeads: heads, headDimension: hidden / heads, scale: Float(scale)),
          input: ProjectionDescription([linear(base + "attn.c_attn", 3 * hidden, hidden)]),
          output: linear(base + "attn.c_proj", hidden, hidden)),
        attentionNorms: BranchNorms(before: .layer(base + "ln_1", hidden, epsilon)),
        feedForward: .plain(
          input: linear(base + "mlp.c_fc", inner, hidden), output: linear(base + "mlp.c_proj", hidden, inner),
          activation),
        feedForwardNorms: BranchNorms(before: .layer(base + "ln_2", hidden, epsilon)))
    }
  }
}
