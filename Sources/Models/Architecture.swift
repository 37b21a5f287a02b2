import Kernels

/// How the checkpoints of a `model_type` become a description that the forward pass runs: one row, one file.
package struct Architecture: Sendable {
  /// The values of `model_type` in `config.json`.
  package let modelTypes: [String]
  let outline: @Sendable (ModelConfiguration, TensorNames) throws(ModelError) -> ModelOutline

  package static let all: [Architecture] = [
    llama, mistral, qwen2, qwen3, qwen3Mixture, mixtral, phi3, gemma2, gemma3, gpt2, gptNeoX, opt, bert, roberta,
    distilBERT, mpnet, modernBERT,
  ]

  package static func named(_ modelType: String) -> Architecture? {
    all.first { $0.modelTypes.contains(modelType) }
  }
}

/// A description whose blocks are made one by one, so that a configuration that asks for more layers than the
/// checkpoint has fails at the first missing one.
struct ModelOutline {
  var hiddenSize: Int
  var embedding: EmbeddingDescription
  var head: HeadDescription
  var blockCount: Int
  var block: (Int) throws(ModelError) -> BlockDescription
}

/// The names of a checkpoint's tensors, where an architecture has several spellings.
package struct TensorNames: Sendable {
  private let names: Set<String>

  package init(_ names: some Sequence<String>) { self.names = Set(names) }

  package func contains(_ name: String) -> Bool { names.contains(name) }

  /// The first prefix with which a tensor of the checkpoint is named; the first of all if none is.
  func prefix(of probe: String, among prefixes: [String]) -> String {
    prefixes.first { contains($0 + probe) } ?? prefixes.first ?? ""
  }
}

extension LinearDescription {
  /// A linear layer with a `.weight` and, perhaps, a `.bias`.
  init(_ name: String, _ outputs: Int, _ inputs: Int, hasBias: Bool = false, storage: Storage = .outputsFirst) {
    self.init(
      weight: name + ".weight", bias: hasBias ? name + ".bias" : nil, outputs: outputs, inputs: inputs,
      storage: storage)
  }
}

extension NormDescription {
  static func rootMeanSquare(_ name: String, _ width: Int, _ epsilon: Double, offset: Float = 0) -> NormDescription {
    NormDescription(
      kind: .rootMeanSquare(offset: offset), weight: name + ".weight", bias: nil, width: width,
      epsilon: Float(epsilon))
  }

  static func layer(_ name: String, _ width: Int, _ epsilon: Double) -> NormDescription {
    NormDescription(
      kind: .layer, weight: name + ".weight", bias: name + ".bias", width: width, epsilon: Float(epsilon))
  }
}

/// Sizes of an attention's heads, read and checked.
struct HeadSizes {
  let heads: Int
  let keyValueHeads: Int
  let dimension: Int

  init(
    _ configuration: ModelConfiguration, hidden: Int, heads headsKey: String = "num_attention_heads",
    defaultKeyValueHeads: Int? = nil, defaultDimension: Int? = nil, usesDimensionKey: Bool = true
  ) throws(ModelError) {
    heads = try configuration.integer(headsKey)
    keyValueHeads = try configuration.integer("num_key_value_heads", default: defaultKeyValueHeads ?? heads)
    guard heads % keyValueHeads == 0 else {
      throw configuration.refusal(of: "num_key_value_heads", expected: "a divisor of \(heads) heads")
    }
    let own = usesDimensionKey ? try configuration.integerIfPresent("head_dim") : nil
    if let size = own ?? defaultDimension {
      dimension = size
    } else {
      guard hidden % heads == 0 else {
        throw configuration.refusal(of: headsKey, expected: "a divisor of the hidden size \(hidden)")
      }
      dimension = hidden / heads
    }
  }
}
