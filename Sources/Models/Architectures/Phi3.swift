extension Architecture {
  /// Phi-3 and Phi-4-mini (arXiv 2404.14219): Llama with fused tensors and, in the long variants, LongRoPE.
  static let phi3 = Architecture(modelTypes: ["phi3"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names, defaultEpsilon: 1e-5, rotaryIsPartial: true)
    family.usesFusedTensors = true
    let window = try configuration.integerIfPresent("sliding_window")
    family.window = { _ in window }
    return family.outline()
  }
}
