extension Architecture {
  /// Mistral (arXiv 2310.06825): Llama with a window over the last tokens in every layer.
  static let mistral = Architecture(modelTypes: ["mistral"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(configuration, names, defaultKeyValueHeads: 8)
    let window =
      configuration.isNull("sliding_window") ? nil : try configuration.integer("sliding_window", default: 4096)
    family.window = { _ in window }
    return family.outline()
  }
}
