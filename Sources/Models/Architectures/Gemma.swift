import Foundation

extension Architecture {
  /// Gemma 2 (arXiv 2408.00118): norms on both sides of each branch, capped scores and logits, windows in every other
  /// layer.
  static let gemma2 = Architecture(modelTypes: ["gemma2"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily.gemma(configuration, names)
    family.scoreCap = try configuration.cap("attn_logit_softcapping", default: 50)
    family.logitCap = try configuration.cap("final_logit_softcapping", default: 30)
    let window = try configuration.integerIfPresent("sliding_window") ?? 4096
    let sliding = try slidingLayers(configuration, count: family.blockCount) { $0 % 2 == 0 }
    family.window = { $0 < sliding.count && sliding[$0] ? window : nil }
    return family.outline()
  }

  /// Gemma 3 (arXiv 2503.19786), its text part: norms on query and key heads, two rotary bases.
  static let gemma3 = Architecture(modelTypes: ["gemma3_text", "gemma3"]) { configuration, names throws(ModelError) in
    let text = try configuration.object("text_config") ?? configuration
    var family = try LlamaFamily.gemma(text, names)
    family.hasHeadNorms = true
    family.logitCap = try text.cap("final_logit_softcapping", default: nil)
    let window = try text.integerIfPresent("sliding_window") ?? 4096
    let older = try text.integerIfPresent("_sliding_window_pattern")
    let period = try text.integer("sliding_window_pattern", default: older ?? 6)
    let sliding = try slidingLayers(text, count: family.blockCount) { ($0 + 1) % period != 0 }
    family.window = { $0 < sliding.count && sliding[$0] ? window : nil }
    let global = try RotaryEmbedding(
      text, headDimension: family.sizes.dimension, theta: 1_000_000, layerType: "full_attention")
    let local: RotaryEmbedding
    if let base = try text.numberIfPresent("rope_local_base_freq") {
      guard base > 1 else { throw text.refusal(of: "rope_local_base_freq", expected: "a number above 1") }
      local = RotaryEmbedding(theta: base, dimensions: family.sizes.dimension, scaling: .none)
    } else {
      let settings = try text.object("rope_parameters")?.object("sliding_attention")
      let base = try settings?.positive("rope_theta", default: 10_000) ?? 10_000
      local = RotaryEmbedding(theta: max(base, 1.0000001), dimensions: family.sizes.dimension, scaling: .none)
    }
    family.rotary = { $0 < sliding.count && sliding[$0] ? local : global }
    return family.outline()
  }
}

extension LlamaFamily {
  fileprivate static func gemma(_ configuration: ModelConfiguration, _ names: TensorNames) throws(ModelError) -> Self {
    var family = try LlamaFamily(
      configuration, names, activationKey: "hidden_activation", defaultActivation: "gelu_pytorch_tanh",
      defaultHeadDimension: 256, defaultKeyValueHeads: 4, isTiedByDefault: true)
    family.normOffset = 1
    family.hasOutputNorms = true
    family.inputBias = try configuration.flag("attention_bias", default: false)
    family.outputBias = family.inputBias
    family.scale = pow(try configuration.positive("query_pre_attn_scalar", default: 256), -0.5)
    family.embeddingScale = Float(Double(family.hidden).squareRoot())
    return family
  }
}

extension ModelConfiguration {
  /// A soft cap: null turns it off, an absent key means the default.
  fileprivate func cap(_ key: String, default fallback: Double?) throws(ModelError) -> Double? {
    if isNull(key) { return nil }
    guard let cap = try numberIfPresent(key) ?? fallback else { return nil }
    guard cap > 0 else { throw refusal(of: key, expected: "a number above zero, or null") }
    return cap
  }
}
