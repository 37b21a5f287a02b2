import Foundation
import Kernels

extension Architecture {
  /// Llama 1 to 3, and what is shaped like it.
  static let llama = Architecture(modelTypes: ["llama"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names)
    family.inputBias = try configuration.flag("attention_bias", default: false)
    family.outputBias = family.inputBias
    family.feedForwardBias = try configuration.flag("mlp_bias", default: false)
    return family.outline()
  }
}

/// The settings in which the descendants of Llama differ: a residual stream with RMS norms, rotary positions, grouped
/// query heads and a gated feed-forward layer (arXiv 2302.13971, §2.2; arXiv 2307.09288, §2.2).
struct LlamaFamily {
  var prefix: String
  var hidden: Int
  var vocabulary: Int
  var blockCount: Int
  var feedForward: Int
  var sizes: HeadSizes
  var epsilon: Double
  /// Added to the stored weights of norms.
  var normOffset: Float = 0
  var activation: Activation
  var inputBias = false
  var outputBias = false
  var feedForwardBias = false
  var hasHeadNorms = false
  var hasOutputNorms = false
  var scale: Double
  var scoreCap: Double?
  var logitCap: Double?
  var embeddingScale: Float = 1
  var isTied: Bool
  var usesFusedTensors = false
  /// The rotation of a layer.
  var rotary: @Sendable (Int) -> RotaryEmbedding
  /// The keys that a query of a layer sees, itself included; nil: all before it.
  var window: @Sendable (Int) -> Int? = { _ in nil }
  /// The feed-forward part of a layer, where it is not the usual one.
  var mixture: (@Sendable (_ prefix: String, _ layer: Int) -> FeedForwardDescription?)?

  init(
    _ configuration: ModelConfiguration, _ names: TensorNames, activationKey: String = "hidden_act",
    defaultActivation: String = "silu", defaultHeadDimension: Int? = nil, defaultKeyValueHeads: Int? = nil,
    defaultEpsilon: Double = 1e-6, defaultTheta: Double = 10_000, isTiedByDefault: Bool = false,
    rotaryIsPartial: Bool = false
  ) throws(ModelError) {
    prefix = names.prefix(
      of: "embed_tokens.weight", among: ["model.", "", "language_model.model.", "model.language_model."])
    hidden = try configuration.integer("hidden_size")
    vocabulary = try configuration.integer("vocab_size")
    blockCount = try configuration.integer("num_hidden_layers")
    feedForward = try configuration.integer("intermediate_size")
    sizes = try HeadSizes(
      configuration, hidden: hidden, defaultKeyValueHeads: defaultKeyValueHeads,
      defaultDimension: defaultHeadDimension)
    epsilon = try configuration.positive("rms_norm_eps", default: defaultEpsilon)
    activation = try configuration.activation(activationKey, default: defaultActivation)
    scale = pow(Double(sizes.dimension), -0.5)
    isTied = try configuration.flag("tie_word_embeddings", default: isTiedByDefault)
    let rotary = try RotaryEmbedding(
      configuration, headDimension: sizes.dimension, theta: defaultTheta, alwaysPartial: rotaryIsPartial)
    self.rotary = { _ in rotary }
  }

  func outline() -> ModelOutline {
    let head = prefix.hasSuffix("model.") ? String(prefix.dropLast("model.".count)) : ""
    let tokens = prefix + "embed_tokens.weight"
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(
        tokens: tokens, vocabulary: vocabulary, width: hidden, scale: embeddingScale),
      head: HeadDescription(
        norm: norm(prefix + "norm"),
        linear: LinearDescription(
          weight: isTied ? tokens : head + "lm_head.weight", bias: nil, outputs: vocabulary, inputs: hidden,
          storage: .outputsFirst),
        softCap: logitCap.map { Float($0) }),
      blockCount: blockCount, block: block)
  }

  private func norm(_ name: String) -> NormDescription {
    .rootMeanSquare(name, hidden, epsilon, offset: normOffset)
  }

  private func block(_ layer: Int) -> BlockDescription {
    let base = "\(prefix)layers.\(layer)."
    let attention = base + "self_attn."
    let width = sizes.dimension
    let queries = sizes.heads * width
    let keys = sizes.keyValueHeads * width
    let input =
      usesFusedTensors
      ? [LinearDescription(attention + "qkv_proj", queries + 2 * keys, hidden, hasBias: inputBias)]
      : [
        LinearDescription(attention + "q_proj", queries, hidden, hasBias: inputBias),
        LinearDescription(attention + "k_proj", keys, hidden, hasBias: inputBias),
        LinearDescription(attention + "v_proj", keys, hidden, hasBias: inputBias),
      ]
    func headNorm(_ name: String) -> NormDescription? {
      hasHeadNorms ? .rootMeanSquare(attention + name, width, epsilon, offset: normOffset) : nil
    }
    return BlockDescription(
      prefix: base,
      attention: AttentionDescription(
        form: AttentionForm(
          heads: sizes.heads, keyValueHeads: sizes.keyValueHeads, headDimension: width, scale: Float(scale),
          softCap: scoreCap.map { Float($0) }, before: window(layer).map { $0 - 1 }),
        input: ProjectionDescription(input),
        output: LinearDescription(attention + "o_proj", hidden, queries, hasBias: outputBias),
        queryNorm: headNorm("q_norm"), keyNorm: headNorm("k_norm"), rotary: rotary(layer)),
      attentionNorms: BranchNorms(
        before: norm(base + "input_layernorm"),
        after: hasOutputNorms ? norm(base + "post_attention_layernorm") : nil),
      feedForward: mixture?(base, layer) ?? dense(base + "mlp."),
      feedForwardNorms: hasOutputNorms
        ? BranchNorms(
          before: norm(base + "pre_feedforward_layernorm"), after: norm(base + "post_feedforward_layernorm"))
        : BranchNorms(before: norm(base + "post_attention_layernorm")))
  }

  private func dense(_ name: String) -> FeedForwardDescription {
    let input =
      usesFusedTensors
      ? [LinearDescription(name + "gate_up_proj", 2 * feedForward, hidden)]
      : [
        LinearDescription(name + "gate_proj", feedForward, hidden, hasBias: feedForwardBias),
        LinearDescription(name + "up_proj", feedForward, hidden, hasBias: feedForwardBias),
      ]
    return .gated(
      input: ProjectionDescription(input),
      output: LinearDescription(name + "down_proj", hidden, feedForward, hasBias: feedForwardBias), activation)
  }
}

/// Which layers look at a window only: by the list `layer_types`, or else by a rule of the model.
func slidingLayers(
  _ configuration: ModelConfiguration, count: Int, otherwise rule: (Int) -> Bool
) throws(ModelError) -> [Bool] {
  guard configuration.has("layer_types") else { return (0..<min(count, 100_000)).map(rule) }
  let types = try configuration.textsIfPresent("layer_types", count: count) ?? []
  for type in types where !["sliding_attention", "full_attention"].contains(type) {
    throw configuration.refusal(of: "layer_types", expected: "full_attention or sliding_attention for each layer")
  }
  return types.map { $0 == "sliding_attention" }
}
