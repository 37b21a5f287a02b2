import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// Layouts that are recognized and read alike.
package enum LayoutFamily: Hashable, Sendable {
  case gptq(GPTQLayout.Version)
  case awq
  case compressedTensors
  case bitsandbytes
  case mlx

  package var name: String {
    switch self {
    case .gptq(.v1): "GPTQ (v1)"
    case .gptq(.v2): "GPTQ (v2)"
    case .awq: "AWQ"
    case .compressedTensors: "compressed-tensors"
    case .bitsandbytes: "bitsandbytes"
    case .mlx: "MLX"
    }
  }

  /// What follows a module's name in the names of its tensors; the first of a module's tensors that are looked for says
  /// that it is quantized.
  private var suffixes: (marks: [String], others: [String]) {
    switch self {
    case .gptq: ([".qweight"], [".qzeros", ".scales", ".g_idx"])
    case .awq: ([".qweight"], [".qzeros", ".scales"])
    case .compressedTensors:
      (
        [".weight_scale", ".weight_packed"],
        [
          ".weight", ".weight_zero_point", ".weight_shape", ".weight_global_scale", ".weight_g_idx", ".input_scale",
          ".input_zero_point", ".input_global_scale",
        ]
      )
    case .bitsandbytes:
      (
        [".SCB", BitsandbytesLayout.statePrefix + "nf4", BitsandbytesLayout.statePrefix + "fp4"],
        [
          ".weight", ".weight_format", ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
          ".weight.nested_quant_map",
        ]
      )
    case .mlx: ([".scales"], [".weight", ".biases"])
    }
  }

  /// Tensors that belong to no module's weight but only to a running model.
  func isAuxiliary(_ name: String) -> Bool {
    self == .compressedTensors && [".k_scale", ".v_scale", ".q_scale"].contains { name.hasSuffix($0) }
  }

  /// Whether a name is that of a tensor which only has a meaning beside others of a quantized weight, such as its scales.
  package func isCompanion(_ name: String) -> Bool {
    let (marks, others) = suffixes
    return (marks + others).contains { $0 != ".weight" && name.hasSuffix($0) }
  }

  /// The modules that are quantized, in file order.
  func modules(of checkpoint: Checkpoint) -> [StoredModule] {
    let (marks, others) = suffixes
    var names: OrderedSet<String> = []
    for tensor in checkpoint.tensors {
      if let mark = marks.first(where: { tensor.name.hasSuffix($0) && tensor.name.utf8.count > $0.utf8.count }) {
        names.append(String(tensor.name.dropLast(mark.count)))
      }
    }
    return names.map { name in
      var tensors: [String: CheckpointTensor] = [:]
      for suffix in marks + others { tensors[suffix] = checkpoint[name + suffix] }
      return StoredModule(name: name, tensors: tensors, folder: checkpoint.folder.string)
    }
  }

  /// How a module's weight is stored, as its tensors show it.
  func layout(of module: StoredModule, _ checkpoint: Checkpoint) throws(CheckpointError) -> any WeightLayout {
    let configuration = Self.quantization(checkpoint)
    switch self {
    case .gptq(let version): return try GPTQLayout(module, configuration, version: version)
    case .awq: return try AWQLayout(module, configuration)
    case .mlx: return try MLXLayout(module, configuration)
    case .bitsandbytes:
      if module[".SCB"] != nil { return try LLMInt8Layout(module) }
      return try BitsandbytesLayout(module)
    case .compressedTensors:
      let groups = configuration?["config_groups"]?.object?.values.compactMap { $0["weights"] } ?? []
      guard module[".weight_packed"] != nil else {
        let block = groups.compactMap { $0["block_structure"]?.array?.compactMap(\.integer) }.first
        return try NaiveQuantizedLayout(module, block: block)
      }
      if module[".weight_packed"]?.type == .u8 { return try FourBitFloatLayout(module) }
      var widths: OrderedSet<Int> = []
      widths.append(contentsOf: groups.compactMap { $0["num_bits"]?.integer }.filter { (1...8).contains($0) })
      return try PackQuantizedLayout(module, widths: Array(widths))
    }
  }

  // MARK: Recognition

  /// The object that describes the quantization, wherever it is.
  package static func quantization(_ checkpoint: Checkpoint) -> JSONValue? {
    let configuration = checkpoint.configuration
    for key in ["quantization_config", "compression_config", "quantization"] {
      guard let value = configuration?[key], value.object != nil else { continue }
      // Old compressed-tensors files nest it.
      if value["config_groups"] == nil, let inner = value["quantization_config"], inner.object != nil { return inner }
      return value
    }
    for name in ["quantize_config.json", "quant_config.json"] {
      if let value = try? readJSONObject(checkpoint.folder.appending(name)) { return value }
    }
    return nil
  }

  /// - Throws: where configuration and tensors contradict each other, or a layout is one of those not read here.
  init?(of checkpoint: Checkpoint) throws(CheckpointError) {
    let file = checkpoint.folder.appending("config.json").string
    let configuration = Self.quantization(checkpoint)
    let found = Self.byNames(checkpoint)
    guard let configuration else {
      guard let found else { return nil }
      self = found
      return
    }
    let stated: LayoutFamily?
    let version: GPTQLayout.Version =
      (configuration["checkpoint_format"] ?? configuration["format"])?.string == "gptq_v2" ? .v2 : .v1
    switch configuration["quant_method"]?.string {
    case "gptq", "gptqmodel": stated = .gptq(version)
    case "awq":
      let kind = configuration["version"]?.string?.lowercased() ?? "gemm"
      guard kind == "gemm" else {
        throw CheckpointError(
          file: file, .field("version", expected: "'gemm', the AWQ layout read here, not '\(kind.printable)'"))
      }
      stated = .awq
    case "auto-round":
      let format = configuration["packing_format"]?.string ?? "auto_round"
      stated = format.hasSuffix("awq") ? .awq : .gptq(format == "auto_round:auto_gptq" ? .v1 : .v2)
    case "compressed-tensors": stated = .compressedTensors
    case "bitsandbytes": stated = .bitsandbytes
    case nil where configuration["config_groups"] != nil: stated = .compressedTensors
    case nil where configuration["load_in_4bit"]?.bool ?? false || configuration["load_in_8bit"]?.bool ?? false:
      stated = .bitsandbytes
    case nil where configuration["group_size"] != nil && configuration["bits"] != nil:
      stated = found == .mlx ? .mlx : .gptq(version)
    default: stated = nil
    }
    guard let found else { return nil }
    guard let stated else {
      self = found
      return
    }
    // GPTQ and AWQ share names of tensors; the versions of GPTQ all of them.
    switch (stated, found) {
    case (.gptq, .gptq), (.awq, .awq), (.compressedTensors, .compressedTensors), (.bitsandbytes, .bitsandbytes),
      (.mlx, .mlx):
      self = stated
    default:
      throw CheckpointError(
        file: file, .field("quantization_config", expected: "of the layout that the tensors have, \(found.name)"))
    }
  }

  /// The family that names, types and shapes of tensors tell.
  private static func byNames(_ checkpoint: Checkpoint) -> LayoutFamily? {
    for tensor in checkpoint.tensors {
      let name = tensor.name
      if name.hasSuffix(".qweight") {
        let module = String(name.dropLast(".qweight".count))
        if checkpoint[module + ".g_idx"] != nil { return .gptq(.v1) }
        guard let outputs = checkpoint[module + ".scales"]?.entry.shape.last else { return .gptq(.v1) }
        return tensor.entry.shape.last == outputs ? .gptq(.v1) : .awq
      }
      if name.contains(BitsandbytesLayout.statePrefix) || name.hasSuffix(".SCB") { return .bitsandbytes }
      if name.hasSuffix(".weight_packed") || name.hasSuffix(".weight_scale") { return .compressedTensors }
      if name.hasSuffix(".scales"),
        checkpoint[String(name.dropLast(".scales".count)) + ".weight"]?.entry.type == .u32
      {
        return .mlx
      }
    }
    return nil
  }
}
