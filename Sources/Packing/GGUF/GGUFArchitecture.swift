import Checkpoints
import OrderedCollections

/// An architecture of GGUF: its name there, the `model_type`s of config.json that become it, the names of tensors on
/// both sides, and the metadata keys with the configuration keys that they come from. A new one is a row.
package struct GGUFArchitecture: Sendable {
  package let name: String
  package let modelTypes: [String]
  /// What the names of all tensors may begin with, the usual one first.
  let prefixes: [String]
  /// What follows the prefix in the names of a block, before its number.
  let blocks: String
  /// Names outside blocks and inside, of the checkpoint (without prefix) and of GGUF, without `.weight` and `.bias`.
  let outer: OrderedDictionary<String, String>
  let inner: OrderedDictionary<String, String>
  let keys: [GGUFKey]
  /// Whether rows of query and key heads are stored with the two halves of a rotated pair side by side.
  package var permutesHeads = false
  /// Added to the weights of norms, which the checkpoint stores without.
  package var normOffset: Float = 0
  /// Inner names of matrices that the checkpoint stores `[inputs, outputs]`.
  var transposed: Set<String> = []
  /// Whether norms and matrices have biases that runtimes ask for.
  var hasBiases = false
  var isTiedByDefault = false
  /// Whether heads are rotated: then there are keys for base and dimensions.
  var isRotary = true
  var defaultTheta = 10_000.0
  /// Whether scores are divided by √(a number that has no key): the size of a head, or hidden size by heads for the model
  /// of so many blocks.
  var widthScaledBlockCount: Int?
  /// Whether a window of config.json counts where `use_sliding_window` is absent.
  var hasWindowByDefault = true
  /// Whether llama.cpp lets every layer see all tokens, whatever window the file names.
  var ignoresWindow = false
  /// The rotary base of layers with windows, where they have one of their own.
  var defaultWindowTheta: Double?
  /// The size of a head where config.json does not say; nil: hidden size by heads.
  var defaultHeadDimension: Int?
  /// Of architectures whose blocks all have a mixture of experts.
  var experts: GGUFExperts?
  var assumptions: [GGUFAssumption] = []

  /// The checkpoint's name of the output head, which has no prefix.
  static let head = "lm_head"

  package static let all: [GGUFArchitecture] = [
    llama, mixtral, qwen2, qwen3, qwen2Mixture, qwen3Mixture, gemma, gemma2, gemma3, phi3, gpt2,
  ]

  package static func of(modelType: String) -> GGUFArchitecture? { all.first { $0.modelTypes.contains(modelType) } }
  /// The architecture of a file with these metadata: of two of a name, the one with experts where there are some.
  package static func named(_ name: String, _ metadata: GGUFMetadata = [:]) -> GGUFArchitecture? {
    let rows = all.filter { $0.name == name }
    let hasExperts = metadata["\(name).expert_count"]?.integer ?? 0 > 0
    return rows.first { ($0.experts != nil) == hasExperts } ?? rows.first
  }

  private static let llamaOuter: OrderedDictionary = [
    "embed_tokens": "token_embd", "norm": "output_norm", head: "output",
  ]
  private static let attention: OrderedDictionary = [
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
  ]
  private static let feedForward: OrderedDictionary = [
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
  ]
  private static let router: OrderedDictionary = ["mlp.gate": "ffn_gate_inp"]
  private static let sharedExpert: OrderedDictionary = [
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
  ]
  /// llama.cpp reads experts in every block.
  private static let everyBlock = [
    GGUFAssumption(key: "decoder_sparse_step", value: 1, fallback: 1),
    GGUFAssumption(key: "mlp_only_layers", value: [], fallback: []),
  ]
  private static let headNorms: OrderedDictionary = [
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
  ]
  private static let twoNorms: OrderedDictionary = ["post_attention_layernorm": "ffn_norm"]
  private static let fourNorms: OrderedDictionary = [
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
  ]
  private static let textPrefixes = ["model.", "", "language_model.model.", "model.language_model."]

  private static func joined(_ parts: OrderedDictionary<String, String>...) -> OrderedDictionary<String, String> {
    parts.reduce(into: [:]) { result, part in result.merge(part) { first, _ in first } }
  }

  /// Llama 1 to 3, Mistral.
  static let llama = GGUFArchitecture(
    name: "llama", modelTypes: ["llama", "mistral"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, twoNorms, feedForward), keys: GGUFKey.llama(epsilon: 1e-6), permutesHeads: true)
  static let qwen2 = GGUFArchitecture(
    name: "qwen2", modelTypes: ["qwen2"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, twoNorms, feedForward), keys: GGUFKey.llama(epsilon: 1e-6), hasWindowByDefault: false)
  static let qwen3 = GGUFArchitecture(
    name: "qwen3", modelTypes: ["qwen3"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, headNorms, twoNorms, feedForward), keys: GGUFKey.llama(epsilon: 1e-6),
    hasWindowByDefault: false, defaultHeadDimension: 128)
  static let mixtral = GGUFArchitecture(
    name: "llama", modelTypes: ["mixtral"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, twoNorms, ["block_sparse_moe.gate": "ffn_gate_inp"], router),
    keys: GGUFKey.llama(epsilon: 1e-5) + [
      GGUFKey("num_local_experts", "expert_count", .integer, "8"),
      GGUFKey("num_experts_per_tok", "expert_used_count", .integer, "2"),
    ], permutesHeads: true, defaultTheta: 1_000_000, experts: .mixtral)
  static let qwen2Mixture = GGUFArchitecture(
    name: "qwen2moe", modelTypes: ["qwen2_moe"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, twoNorms, router, sharedExpert),
    keys: GGUFKey.llama(epsilon: 1e-6) + [
      GGUFKey("num_experts", "expert_count", .integer, "60"),
      GGUFKey("num_experts_per_tok", "expert_used_count", .integer, "4"),
      GGUFKey("moe_intermediate_size", "expert_feed_forward_length", .integer, "1408"),
      GGUFKey("shared_expert_intermediate_size", "expert_shared_feed_forward_length", .integer, "5632"),
    ], hasWindowByDefault: false, experts: .qwen,
    assumptions: everyBlock + [GGUFAssumption(key: "norm_topk_prob", value: false, fallback: false)])
  static let qwen3Mixture = GGUFArchitecture(
    name: "qwen3moe", modelTypes: ["qwen3_moe"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, headNorms, twoNorms, router),
    keys: GGUFKey.llama(epsilon: 1e-6) + [
      GGUFKey("num_experts", "expert_count", .integer, "128", other: "num_local_experts"),
      GGUFKey("num_experts_per_tok", "expert_used_count", .integer, "8"),
      GGUFKey("moe_intermediate_size", "expert_feed_forward_length", .integer, "768"),
    ], hasWindowByDefault: false, experts: .qwen,
    assumptions: everyBlock + [
      GGUFAssumption(key: "norm_topk_prob", value: true, fallback: false),
      GGUFAssumption(key: "attention_bias", value: false, fallback: false),
    ])
  static let gemma = GGUFArchitecture(
    name: "gemma", modelTypes: ["gemma"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, twoNorms, feedForward), keys: GGUFKey.llama(epsilon: 1e-6), normOffset: 1,
    isTiedByDefault: true, defaultHeadDimension: 256)
  static let gemma2 = GGUFArchitecture(
    name: "gemma2", modelTypes: ["gemma2"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, fourNorms, feedForward),
    keys: GGUFKey.llama(epsilon: 1e-6) + [
      GGUFKey("attn_logit_softcapping", "attn_logit_softcapping", .real, "50.0"),
      GGUFKey("final_logit_softcapping", "final_logit_softcapping", .real, "30.0"),
      GGUFKey("sliding_window", "attention.sliding_window", .integer, "4096"),
    ], normOffset: 1, isTiedByDefault: true, widthScaledBlockCount: 46, defaultHeadDimension: 256)
  static let gemma3 = GGUFArchitecture(
    name: "gemma3", modelTypes: ["gemma3_text"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(attention, headNorms, fourNorms, feedForward),
    keys: GGUFKey.llama(epsilon: 1e-6) + [GGUFKey("sliding_window", "attention.sliding_window", .integer, "4096")],
    normOffset: 1, isTiedByDefault: true, defaultTheta: 1_000_000, widthScaledBlockCount: 62,
    defaultWindowTheta: 10_000,
    defaultHeadDimension: 256)
  static let phi3 = GGUFArchitecture(
    name: "phi3", modelTypes: ["phi3"], prefixes: textPrefixes, blocks: "layers.", outer: llamaOuter,
    inner: joined(
      ["input_layernorm": "attn_norm", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output"], twoNorms,
      ["mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"]),
    keys: GGUFKey.llama(epsilon: 1e-5) + [GGUFKey("sliding_window", "attention.sliding_window", .integer, "0")],
    ignoresWindow: true)
  static let gpt2 = GGUFArchitecture(
    name: "gpt2", modelTypes: ["gpt2"], prefixes: ["transformer.", ""], blocks: "h.",
    outer: ["wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", head: "output"],
    inner: [
      "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
      "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    ],
    keys: [
      GGUFKey("n_positions", "context_length", .integer, "1024", other: "n_ctx"),
      GGUFKey("n_embd", "embedding_length", .integer, "768", other: "hidden_size"),
      GGUFKey("n_layer", "block_count", .integer, "12", other: "num_hidden_layers"),
      GGUFKey("n_inner", "feed_forward_length", .integer, nil, isOptional: true),
      GGUFKey("n_head", "attention.head_count", .integer, "12", other: "num_attention_heads"),
      GGUFKey("layer_norm_epsilon", "attention.layer_norm_epsilon", .real, "1e-05"),
    ],
    transposed: ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"], hasBiases: true, isTiedByDefault: true,
    isRotary: false)
}

/// A number of config.json and the metadata key, after the architecture's name and a dot, that holds it.
struct GGUFKey: Sendable {
  enum Kind: Sendable { case integer, real }

  let configuration: String
  let name: String
  let kind: Kind
  /// The value where config.json has none, as transformers fills it in.
  let fallback: String?
  /// Another name of the configuration's key.
  let other: String?
  let isOptional: Bool
  /// Whether runtimes refuse a file without it, not only models that need it.
  var isRequired: Bool { !name.contains("softcapping") && !name.contains("window") }

  init(
    _ configuration: String, _ name: String, _ kind: Kind, _ fallback: String? = nil, other: String? = nil,
    isOptional: Bool = false
  ) {
    self.configuration = configuration
    self.name = name
    self.kind = kind
    self.fallback = fallback
    self.other = other
    self.isOptional = isOptional
  }

  static func llama(epsilon: Double) -> [GGUFKey] {
    [
      GGUFKey("max_position_embeddings", "context_length", .integer, "2048"),
      GGUFKey("hidden_size", "embedding_length", .integer),
      GGUFKey("num_hidden_layers", "block_count", .integer),
      GGUFKey("intermediate_size", "feed_forward_length", .integer),
      GGUFKey("num_attention_heads", "attention.head_count", .integer),
      GGUFKey("num_key_value_heads", "attention.head_count_kv", .integer, isOptional: true),
      GGUFKey("rms_norm_eps", "attention.layer_norm_rms_epsilon", .real, "\(epsilon)"),
    ]
  }
}

// MARK: - Names

extension GGUFArchitecture {
  /// Where a tensor of a checkpoint goes.
  package struct Place: Hashable, Sendable {
    package let name: String
    /// The number of its block; nil outside blocks.
    package let layer: Int?
    /// The name without block number and ending, such as `attn_q`.
    package let part: String
    package let isTransposed: Bool
    /// Position in the order in which GGUF files have them.
    package let rank: Int
  }

  package var hasExperts: Bool { experts != nil }

  /// Metadata keys without which runtimes refuse a file, after the architecture's name and a dot.
  package var requiredKeys: [String] { keys.filter { !$0.isOptional && $0.isRequired }.map(\.name) }

  /// Names of the tensors without which they do, the output head left out: the embedding may serve as one.
  package func requiredTensors(blockCount: Int) -> [String] {
    let endings = hasBiases ? [".weight", ".bias"] : [".weight"]
    let outside = outer.filter { $0.key != Self.head }.values.flatMap { part in
      part.hasSuffix("norm") ? endings.map { part + $0 } : [part + ".weight"]
    }
    var parts = Set(inner.values).sorted().flatMap { part in endings.map { part + $0 } }
    if let experts { parts += experts.matrices.values.map { $0 + ".weight" } }
    return outside + (0..<blockCount).flatMap { layer in parts.map { "blk.\(layer).\($0)" } }
  }

  /// The prefix of a checkpoint's names, found by the name of its embedding.
  package func prefix(of names: some Collection<String>) -> String {
    let embedding = (outer.keys.first ?? "") + ".weight"
    let present = Set(names)
    return prefixes.first { present.contains($0 + embedding) } ?? prefixes.first ?? ""
  }

  /// Constants that older checkpoints carry along.
  package static func isBuffer(_ name: String) -> Bool {
    [".attn.bias", ".masked_bias", ".rotary_emb.inv_freq"].contains { name.hasSuffix($0) }
  }

  /// The place of a tensor; nil where the architecture has none for it.
  package func place(of tensor: String, prefix: String) -> Place? {
    guard let dot = tensor.lastIndex(of: ".") else { return nil }
    let ending = tensor[dot...]
    guard ending == ".weight" || ending == ".bias" else { return nil }
    let stem = tensor[..<dot]
    if stem == Self.head || prefix.hasSuffix("model.") && stem == prefix.dropLast("model.".count) + Self.head {
      return outer[Self.head].map {
        Place(name: $0 + ending, layer: nil, part: $0, isTransposed: false, rank: .max)
      }
    }
    guard stem.hasPrefix(prefix) else { return nil }
    let rest = stem.dropFirst(prefix.count)
    if let index = outer.index(forKey: String(rest)) {
      let part = outer.values[index]
      // The final norm comes after the blocks.
      let rank = part.hasPrefix("output") ? Int.max - 1 : index
      return Place(name: part + ending, layer: nil, part: part, isTransposed: false, rank: rank)
    }
    guard rest.hasPrefix(blocks) else { return nil }
    let numbered = rest.dropFirst(blocks.count)
    guard let end = numbered.firstIndex(of: "."), let layer = Int(numbered[..<end]), layer >= 0, layer < 1 << 20,
      let index = inner.index(forKey: String(numbered[numbered.index(after: end)...]))
    else { return nil }
    let part = inner.values[index]
    return Place(
      name: "blk.\(layer).\(part)\(ending)", layer: layer, part: part,
      isTransposed: transposed.contains(inner.keys[index]) && ending == ".weight",
      rank: (layer + 1) * 1000 + index * 2 + (ending == ".bias" ? 1 : 0))
  }

  /// The checkpoint's name of a tensor of a GGUF file, and what `place` tells of it; nil where there is none.
  package func source(of name: String) -> (name: String, place: Place)? {
    guard let dot = name.lastIndex(of: ".") else { return nil }
    let (stem, ending) = (String(name[..<dot]), name[dot...])
    let prefix = prefixes.first ?? ""
    var source: String?
    if let entry = outer.first(where: { $0.value == stem }) {
      source = entry.key == Self.head ? entry.key : prefix + entry.key
    } else {
      let parts = stem.split(separator: ".", maxSplits: 2)
      if parts.count == 3, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0,
        let entry = inner.first(where: { $0.value == parts[2] })
      {
        source = "\(prefix)\(blocks)\(layer).\(entry.key)"
      }
    }
    guard let source, let place = place(of: source + ending, prefix: prefix), place.name == name else { return nil }
    return (source + ending, place)
  }
}
