/// Models that the runtimes of a layout do not load, whatever their weights hold.
extension RuntimeLayout {
  /// Why a model of this `model_type` cannot be written, with the alternatives; nil where nothing speaks against it.
  package func obstacle(modelType: String) -> String? {
    switch modelType {
    case "gpt2", "openai-gpt", "imagegpt", "decision_transformer": convolutionObstacle(isGPT2: modelType == "gpt2")
    case "qwen2_moe" where self == .bitsandbytes, "qwen3_moe" where self == .bitsandbytes:
      "transformers does not load packed experts of it" + Self.mixtureAlternatives
    case "llama4" where isMLX, "llama4_text" where isMLX:
      "mlx-lm takes its experts stacked only, and splits them itself; convert with --layout pack-quantized, gptq or"
        + " bitsandbytes, or without --layout"
    case "qwen3_moe" where isMLX:
      "mlx-lm stacks the weights of its experts but not their scales" + Self.mixtureAlternatives
    default: nil
    }
  }

  private static let mixtureAlternatives =
    "; convert with --layout pack-quantized or gptq, to a .gguf file, or without --layout"

  /// Of models whose linear layers are transformers' Conv1D.
  private func convolutionObstacle(isGPT2: Bool) -> String? {
    let alternatives =
      "; convert with --layout bitsandbytes\(isGPT2 ? " or gptq, to a .gguf file," : "") or without --layout"
    return switch self {
    case .bitsandbytes: nil
    case .gptq, .gptqV2, .awq: isGPT2 ? nil : "GPTQModel has no such model" + alternatives
    case .mlx, .mlxMXFP4:
      "mlx-lm turns weights of this kind round while it loads them, which packed ones do not survive" + alternatives
    case .packQuantized, .intQuantized, .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4:
      "its layers are Conv1D, which compressed-tensors does not replace in transformers" + alternatives
    }
  }
}
