import Foundation
import Kernels

extension Architecture {
  /// BERT (arXiv 1810.04805), and sentence-embedding models made of it.
  static let bert = Architecture(modelTypes: ["bert"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embeddings.word_embeddings.weight", among: ["bert.", ""])
    return try Encoder(configuration, names, prefix: prefix, hasTypes: true, positionOffset: 0).outline()
  }

  /// RoBERTa (arXiv 1907.11692) and its multilingual and French kin: BERT whose positions begin after the padding's.
  static let roberta = Architecture(modelTypes: ["roberta", "xlm-roberta", "camembert"]) {
    configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embeddings.word_embeddings.weight", among: ["roberta.", ""])
    let padding = try configuration.integer("pad_token_id", default: 1, least: 0)
    return try Encoder(configuration, names, prefix: prefix, hasTypes: true, positionOffset: padding + 1).outline()
  }

  /// MPNet (arXiv 2004.09297): BERT without token types, with a bias on scores that all layers share.
  static let mpnet = Architecture(modelTypes: ["mpnet"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embeddings.word_embeddings.weight", among: ["mpnet.", ""])
    var encoder = try Encoder(configuration, names, prefix: prefix, hasTypes: false, positionOffset: 2)
    encoder.names = .mpnet
    encoder.relativeBias = RelativeBias(
      table: prefix + "encoder.relative_attention_bias.weight", buckets: 32, heads: encoder.heads, farthest: 128)
    return encoder.outline()
  }

  /// DistilBERT (arXiv 1910.01108): BERT's shape under other names, without token types.
  static let distilBERT = Architecture(modelTypes: ["distilbert"]) { configuration, names throws(ModelError) in
    let prefix = names.prefix(of: "embeddings.word_embeddings.weight", among: ["distilbert.", ""])
    return try Encoder(configuration, names, distilledWith: prefix).outline()
  }
}

/// The encoders with norms after each branch and attention in both directions.
private struct Encoder {
  /// The parts of a layer's name, after the layer's prefix.
  struct Names {
    let layers: String
    let query: String
    let key: String
    let value: String
    let attentionOutput: String
    let attentionNorm: String
    let input: String
    let output: String
    let outputNorm: String

    static let bert = Names(
      layers: "encoder.layer.", query: "attention.self.query", key: "attention.self.key",
      value: "attention.self.value", attentionOutput: "attention.output.dense",
      attentionNorm: "attention.output.LayerNorm", input: "intermediate.dense", output: "output.dense",
      outputNorm: "output.LayerNorm")
    static let mpnet = Names(
      layers: "encoder.layer.", query: "attention.attn.q", key: "attention.attn.k", value: "attention.attn.v",
      attentionOutput: "attention.attn.o", attentionNorm: "attention.LayerNorm", input: "intermediate.dense",
      output: "output.dense", outputNorm: "output.LayerNorm")
    static let distilled = Names(
      layers: "transformer.layer.", query: "attention.q_lin", key: "attention.k_lin", value: "attention.v_lin",
      attentionOutput: "attention.out_lin", attentionNorm: "sa_layer_norm", input: "ffn.lin1", output: "ffn.lin2",
      outputNorm: "output_layer_norm")
  }

  let tensors: TensorNames
  var names: Names
  var relativeBias: RelativeBias?
  let prefix: String
  let hidden: Int
  let heads: Int
  let layers: Int
  let inner: Int
  let vocabulary: Int
  let positions: Int
  let positionOffset: Int
  let types: Int?
  let activation: Activation
  let epsilon: Double

  init(
    _ configuration: ModelConfiguration, _ tensors: TensorNames, prefix: String, hasTypes: Bool, positionOffset: Int
  ) throws(ModelError) {
    self.tensors = tensors
    names = .bert
    self.prefix = prefix
    hidden = try configuration.integer("hidden_size", default: 768)
    heads = try HeadSizes(configuration, hidden: hidden, usesDimensionKey: false).heads
    layers = try configuration.integer("num_hidden_layers", default: 12)
    inner = try configuration.integer("intermediate_size", default: 3072)
    vocabulary = try configuration.integer("vocab_size", default: 30_522)
    positions = try configuration.integer("max_position_embeddings", default: 512)
    self.positionOffset = positionOffset
    types = hasTypes ? try configuration.integer("type_vocab_size", default: 2) : nil
    activation = try configuration.activation("hidden_act", default: "gelu")
    epsilon = try configuration.positive("layer_norm_eps", default: 1e-12)
    let kind = try configuration.text("position_embedding_type", default: "absolute")
    guard kind == "absolute" else {
      throw configuration.refusal(of: "position_embedding_type", expected: "absolute, the only kind that runs here")
    }
  }

  init(_ configuration: ModelConfiguration, _ tensors: TensorNames, distilledWith prefix: String) throws(ModelError) {
    self.tensors = tensors
    names = .distilled
    self.prefix = prefix
    hidden = try configuration.integer("dim", default: 768)
    heads = try HeadSizes(configuration, hidden: hidden, heads: "n_heads", usesDimensionKey: false).heads
    layers = try configuration.integer("n_layers", default: 6)
    inner = try configuration.integer("hidden_dim", default: 3072)
    vocabulary = try configuration.integer("vocab_size", default: 30_522)
    positions = try configuration.integer("max_position_embeddings", default: 512)
    positionOffset = 0
    types = nil
    activation = try configuration.activation("activation", default: "gelu")
    epsilon = 1e-12
  }

  /// Old checkpoints call a norm's weight gamma and its bias beta.
  private func norm(_ name: String) -> NormDescription {
    let isOld = tensors.contains(name + ".gamma")
    return NormDescription(
      kind: .layer, weight: name + (isOld ? ".gamma" : ".weight"), bias: name + (isOld ? ".beta" : ".bias"),
      width: hidden, epsilon: Float(epsilon))
  }

  func outline() -> ModelOutline {
    let embeddings = prefix + "embeddings."
    return ModelOutline(
      hiddenSize: hidden,
      embedding: EmbeddingDescription(
        tokens: embeddings + "word_embeddings.weight", vocabulary: vocabulary, width: hidden,
        positions: PositionTable(
          table: TableDescription(name: embeddings + "position_embeddings.weight", rows: positions),
          offset: positionOffset),
        tokenType: types.map { TableDescription(name: embeddings + "token_type_embeddings.weight", rows: $0) },
        norm: norm(embeddings + "LayerNorm")),
      head: HeadDescription(), blockCount: layers, block: block)
  }

  private func block(_ layer: Int) -> BlockDescription {
    let base = "\(prefix)\(names.layers)\(layer)."
    func linear(_ name: String, _ outputs: Int, _ inputs: Int) -> LinearDescription {
      LinearDescription(base + name, outputs, inputs, hasBias: true)
    }
    return BlockDescription(
      prefix: base,
      attention: AttentionDescription(
        form: AttentionForm(
          heads: heads, keyValueHeads: heads, headDimension: hidden / heads,
          scale: Float(pow(Double(hidden / heads), -0.5)), after: nil),
        input: ProjectionDescription([names.query, names.key, names.value].map { linear($0, hidden, hidden) }),
        output: linear(names.attentionOutput, hidden, hidden), relativeBias: relativeBias),
      attentionNorms: BranchNorms(onSum: norm(base + names.attentionNorm)),
      feedForward: .plain(
        input: linear(names.input, inner, hidden), output: linear(names.output, hidden, inner), activation),
      feedForwardNorms: BranchNorms(onSum: norm(base + names.outputNorm)))
  }
}
