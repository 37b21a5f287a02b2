/// Models that the runtimes of a layout do not load, whatever their weights hold.
extension RuntimeLayout {
  /// Why a model of this `model_type` cannot be written, with the alternatives; nil where nothing speaks against it.
  package func obstacle(modelType: String) -> String? {
    switch modelType {
    case "gpt2", "openai-gpt", "imagegpt", "decision_transformer":
      let others =
        "; convert with --layout bitsandbytes\(modelType == "gpt2" ? " or gptq, to a .gguf file," : "") or without --layout"
      switch self {
      case .bitsandbytes: return nil
      case .gptq, .gptqV2, .awq: return modelType == "gpt2" ? nil : "GPTQModel has no such model" + others
      case .mlx, .mlxMXFP4:
        return "mlx-lm turns weights of this kind round while it loads them, which packed ones do not survive" + others
      case .packQuantized, .intQuantized, .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4:
        return "its layers are Conv1D, which compressed-tensors does not replace in transformers" + others
      }
    case "qwen3_moe" where isMLX:
      return
        "mlx-lm stacks the weights of its experts but not their scales; convert with --layout pack-quantized or gptq,"
        + " to a .gguf file, or without --layout"
    default: return nil
    }
  }
}
