import Kernels

extension Architecture {
  /// Qwen 2 and 2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values.
  static let qwen2 = Architecture(modelTypes: ["qwen2"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names)
    family.inputBias = true
    try family.readQwenWindow(configuration)
    return family.outline()
  }

  /// Qwen 3 (arXiv 2505.09388): norms on the heads of queries and keys instead of biases.
  static let qwen3 = Architecture(modelTypes: ["qwen3"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names, defaultHeadDimension: 128)
    family.hasHeadNorms = true
    family.inputBias = try configuration.flag("attention_bias", default: false)
    family.outputBias = family.inputBias
    try family.readQwenWindow(configuration)
    return family.outline()
  }

  /// Qwen 3 with experts in most layers.
  static let qwen3Mixture = Architecture(modelTypes: ["qwen3_moe"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names, defaultKeyValueHeads: 4)
    family.hasHeadNorms = true
    family.inputBias = try configuration.flag("attention_bias", default: false)
    family.outputBias = family.inputBias
    if try configuration.flag("use_sliding_window", default: false) {
      let window = try configuration.integer("sliding_window", default: 4096)
      family.window = { _ in window }
    }
    // Newer files have Mixtral's key.
    let count = try configuration.integer("num_experts", or: "num_local_experts", default: 128)
    let width = try configuration.integer("moe_intermediate_size", default: 768)
    let chosen = try configuration.integer("num_experts_per_tok", default: 8, most: count)
    let normalizes = try configuration.flag("norm_topk_prob", default: false)
    let step = try configuration.integer("decoder_sparse_step", default: 1)
    let dense = Set(try configuration.integersIfPresent("mlp_only_layers") ?? [])
    let (hidden, activation) = (family.hidden, family.activation)
    family.mixture = { base, layer in
      guard !dense.contains(layer), (layer + 1) % step == 0 else { return nil }
      return .mixture(
        ExpertNames.qwen.mixture(
          base + "mlp.", names, count: count, chosen: chosen, normalizes: normalizes, hidden: hidden, width: width,
          activation))
    }
    return family.outline()
  }
}

extension LlamaFamily {
  /// Layers from `max_window_layers` on look at a window, where `use_sliding_window` is set.
  fileprivate mutating func readQwenWindow(_ configuration: ModelConfiguration) throws(ModelError) {
    guard try configuration.flag("use_sliding_window", default: false) else { return }
    let window = try configuration.integer("sliding_window", default: 4096)
    let first = try configuration.integer("max_window_layers", default: 28, least: 0)
    let sliding = try slidingLayers(configuration, count: blockCount) { $0 >= first }
    self.window = { $0 < sliding.count && sliding[$0] ? window : nil }
  }
}
