import Kernels

extension Architecture {
  /// Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in every layer.
  static let mixtral = Architecture(modelTypes: ["mixtral"]) { configuration, names throws(ModelError) in
    var family = try LlamaFamily(
      configuration, names, defaultKeyValueHeads: 8, defaultEpsilon: 1e-5, defaultTheta: 1_000_000)
    let window = try configuration.integerIfPresent("sliding_window")
    family.window = { _ in window }
    let count = try configuration.integer("num_local_experts", default: 8)
    let chosen = try configuration.integer("num_experts_per_tok", default: 2, most: count)
    let (hidden, width, activation) = (family.hidden, family.feedForward, family.activation)
    family.mixture = { base, _ in
      let isFused = names.contains(base + "mlp.gate.weight")
      return .mixture(
        ExpertNames.mixtral.mixture(
          base + (isFused ? "mlp." : "block_sparse_moe."), names, count: count, chosen: chosen, normalizes: true,
          hidden: hidden, width: width, activation))
    }
    return family.outline()
  }
}

/// What the three matrices of an expert are called.
struct ExpertNames {
  let gate: String
  let up: String
  let down: String

  static let mixtral = ExpertNames(gate: "w1", up: "w3", down: "w2")
  static let qwen = ExpertNames(gate: "gate_proj", up: "up_proj", down: "down_proj")

  /// Experts of tensors of their own or, in files of newer writers, stacked in two tensors without `.weight`.
  func mixture(
    _ base: String, _ names: TensorNames, count: Int, chosen: Int, normalizes: Bool, hidden: Int, width: Int,
    _ activation: Activation
  ) -> MixtureDescription {
    let experts = base + "experts."
    let isStacked = names.contains(experts + "gate_up_proj")
    // Where not even the first expert is there, one description is enough to say so.
    let present = isStacked || names.contains("\(experts)0.\(gate).weight") ? count : 1
    return MixtureDescription(
      router: LinearDescription(base + "gate", count, hidden),
      experts: (0..<present).lazy.prefix {
        isStacked || $0 == 0 || names.contains("\(experts)\($0 - 1).\(gate).weight")
      }
      .map { index in
        isStacked
          ? ExpertDescription(
            input: ProjectionDescription([
              LinearDescription(
                weight: experts + "gate_up_proj", bias: nil, outputs: 2 * width, inputs: hidden,
                storage: .expert(index, of: count))
            ]),
            output: LinearDescription(
              weight: experts + "down_proj", bias: nil, outputs: hidden, inputs: width,
              storage: .expert(index, of: count)))
          : ExpertDescription(
            input: ProjectionDescription([
              LinearDescription("\(experts)\(index).\(gate)", width, hidden),
              LinearDescription("\(experts)\(index).\(up)", width, hidden),
            ]),
            output: LinearDescription("\(experts)\(index).\(down)", hidden, width))
      },
      activation: activation, chosen: chosen, normalizes: normalizes)
  }
}
