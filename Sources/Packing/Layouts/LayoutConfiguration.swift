import Checkpoints
import Kernels
import OrderedCollections
import Quantization

/// What a folder in a runtime's layout says of itself: keys of `config.json`, and files of its own.
package struct LayoutConfiguration: Sendable {
  /// A quantized module and its scheme.
  package struct Module: Sendable {
    package let name: String
    /// Nil in layouts of floats.
    package let encoding: WeightEncoding?
    package let columns: Int

    package init(name: String, encoding: WeightEncoding?, columns: Int) {
      self.name = name
      self.encoding = encoding
      self.columns = columns
    }
  }

  package let layout: RuntimeLayout
  package let modules: [Module]
  /// Linear layers that are not quantized, routers and the output head among them.
  package let unquantized: [String]
  package let toolVersion: String
  /// The type of the weights in the source.
  package let type: ElementType

  /// - Throws: `mixedSchemes` where the layout holds one scheme and there are several.
  package init(
    layout: RuntimeLayout, modules: [Module], unquantized: [String], type: ElementType, toolVersion: String
  ) throws(LayoutError) {
    self.layout = layout
    self.modules = modules
    self.unquantized = unquantized
    self.type = type
    self.toolVersion = toolVersion
    let main = Self.mainEncoding(modules)
    let others = modules.filter { $0.encoding != main }
    if !others.isEmpty, !layout.rules.allowsMixedSchemes {
      throw .mixedSchemes(layout, modules: others.map(\.name))
    }
  }

  /// The scheme of most modules; of several, the first.
  private static func mainEncoding(_ modules: [Module]) -> WeightEncoding? {
    var counts: OrderedDictionary<WeightEncoding?, Int> = [:]
    for module in modules { counts[module.encoding, default: 0] += 1 }
    let largest = counts.values.max()
    return counts.first { $0.value == largest }?.key
  }

  private var exceptions: [Module] {
    let main = Self.mainEncoding(modules)
    return modules.filter { $0.encoding != main }
  }

  /// Keys to set in `config.json`.
  package var keys: OrderedDictionary<String, JSONValue> {
    layout.isMLX
      ? ["quantization": quantization, "quantization_config": quantization] : ["quantization_config": quantization]
  }

  /// Files to write beside the weights.
  package var files: OrderedDictionary<String, JSONValue> {
    layout == .gptq || layout == .gptqV2 ? ["quantize_config.json": quantization] : [:]
  }

  /// `__metadata__` of the weight files.
  package var fileMetadata: OrderedDictionary<String, String> { ["format": layout.isMLX ? "mlx" : "pt"] }

  private var quantization: JSONValue {
    switch layout {
    case .gptq, .gptqV2: gptq
    case .awq: awq
    case .bitsandbytes: bitsandbytes
    case .mlx, .mlxMXFP4: mlx
    case .packQuantized, .intQuantized, .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4: compressedTensors
    }
  }

  // MARK: GPTQ

  private var gptq: JSONValue {
    let main = Self.mainEncoding(modules)
    var dynamic: OrderedDictionary<String, JSONValue> = [:]
    for name in inBlocks { dynamic["-:^\(Self.escaped(name))$"] = [:] }
    for module in exceptions {
      guard let encoding = module.encoding else { continue }
      dynamic["+:^\(Self.escaped(module.name))$"] = [
        "bits": .integer(encoding.bits), "group_size": .integer(encoding.statedGroupLength ?? -1),
        "sym": .bool(encoding.levels == .affine(.middle)),
      ]
    }
    // transformers quantizes every linear layer of a block unless it is told the full names.
    let names: JSONValue = inBlocks.isEmpty ? .null : .array([.array(modules.map { .string($0.name) })])
    return [
      "quant_method": "gptq", "bits": .integer(main?.bits ?? 4),
      "group_size": .integer(main?.statedGroupLength ?? -1),
      "desc_act": .bool(modules.contains { $0.encoding?.hasGroupIndex ?? false }),
      "sym": .bool(main?.levels == .affine(.middle)), "checkpoint_format": .string(layout.rawValue),
      "lm_head": .bool(modules.contains { $0.name == "lm_head" }), "true_sequential": true,
      "damp_percent": .number("0.01"),
      "static_groups": false, "pack_dtype": "int32", "modules_in_block_to_quantize": names,
      "dynamic": dynamic.isEmpty ? .null : .object(dynamic),
      "meta": ["quantizer": [.string("convert-model:\(toolVersion)")]],
    ]
  }

  /// Layers that are not quantized although those beside them are.
  private var inBlocks: [String] {
    unquantized.filter { name in name.split(separator: ".").contains { Int($0) != nil } }
  }

  private static func escaped(_ name: String) -> String { name.replacing(".", with: "\\.") }

  // MARK: AWQ and bitsandbytes

  private var awq: JSONValue {
    let main = Self.mainEncoding(modules)
    let skipped = inBlocks
    return [
      "quant_method": "awq", "bits": 4, "group_size": .integer(main?.statedGroupLength ?? -1), "zero_point": true,
      "version": "gemm", "modules_to_not_convert": skipped.isEmpty ? .null : .array(skipped.map { .string($0) }),
    ]
  }

  private var bitsandbytes: JSONValue {
    let main = Self.mainEncoding(modules)
    var fourBit = false
    var book = NamedCodebook.nf4
    if case .codebook(let name)? = main?.levels { (fourBit, book) = (true, name) }
    let isNested = if case .nested? = main?.scales { true } else { false }
    let compute: String = type == .bf16 ? "bfloat16" : type == .f16 ? "float16" : "float32"
    // A list replaces what transformers leaves out by itself, the head among it.
    let skipped = inBlocks.isEmpty ? [] : inBlocks + unquantized.filter { !inBlocks.contains($0) } + ["lm_head"]
    var names: OrderedSet<String> = []
    names.append(contentsOf: skipped)
    return [
      "quant_method": "bitsandbytes", "load_in_4bit": .bool(fourBit), "load_in_8bit": .bool(!fourBit),
      "_load_in_4bit": .bool(fourBit), "_load_in_8bit": .bool(!fourBit), "bnb_4bit_quant_type": .string(book.rawValue),
      "bnb_4bit_use_double_quant": .bool(isNested), "bnb_4bit_compute_dtype": .string(compute),
      "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": .number("6.0"),
      "llm_int8_skip_modules": names.isEmpty ? .null : .array(names.map { .string($0) }),
      "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
    ]
  }

  // MARK: MLX

  private var mlx: JSONValue {
    func scheme(_ encoding: WeightEncoding?) -> OrderedDictionary<String, JSONValue> {
      [
        "group_size": .integer(encoding?.statedGroupLength ?? 32), "bits": .integer(encoding?.bits ?? 4),
        "mode": .string((layout == .mlx ? MLXLayout.Mode.affine : .mxfp4).rawValue),
      ]
    }
    var members = scheme(Self.mainEncoding(modules))
    for module in exceptions { members[module.name] = .object(scheme(module.encoding)) }
    for name in unquantized { members[name] = false }
    return .object(members)
  }

  // MARK: compressed-tensors

  private var compressedTensors: JSONValue {
    var groups: OrderedDictionary<WeightEncoding?, [String]> = [:]
    for module in modules { groups[module.encoding, default: []].append(module.name) }
    var members: OrderedDictionary<String, JSONValue> = [:]
    for (index, group) in groups.enumerated() {
      let targets: [JSONValue] = groups.count == 1 ? ["Linear"] : group.value.map { .string($0) }
      members["group_\(index)"] = [
        "targets": .array(targets), "weights": weightArguments(group.key), "input_activations": activationArguments,
        "output_activations": .null, "format": .string(layout.format),
      ]
    }
    return [
      "quant_method": "compressed-tensors", "format": .string(layout.format), "quantization_status": "compressed",
      "global_compression_ratio": .null, "ignore": .array(unquantized.map { .string($0) }), "kv_cache_scheme": .null,
      "config_groups": .object(members),
    ]
  }

  private func weightArguments(_ encoding: WeightEncoding?) -> JSONValue {
    func arguments(
      _ bits: Int, _ type: String, _ isSymmetric: Bool, _ strategy: String, _ groupLength: Int?
    ) -> OrderedDictionary<String, JSONValue> {
      var fields: OrderedDictionary<String, JSONValue> = [
        "num_bits": .integer(bits), "type": .string(type), "symmetric": .bool(isSymmetric),
        "strategy": .string(strategy), "dynamic": false,
      ]
      if let groupLength { fields["group_size"] = .integer(groupLength) }
      return fields
    }
    switch layout {
    case .floatQuantized, .floatQuantizedWeights: return .object(arguments(8, "float", true, "channel", nil))
    case .mxfp4:
      return .object(arguments(4, "float", true, "group", 32).merging(["scale_dtype": "torch.uint8"]) { $1 })
    case .nvfp4:
      let fields = arguments(4, "float", true, "tensor_group", 16)
      return .object(fields.merging(["scale_dtype": "torch.float8_e4m3fn"]) { $1 })
    default:
      let length = encoding?.statedGroupLength
      return .object(
        arguments(
          encoding?.bits ?? 8, "int", encoding?.levels == .affine(.middle), length == nil ? "channel" : "group", length)
      )
    }
  }

  private var activationArguments: JSONValue {
    guard layout == .intQuantized || layout == .floatQuantized else { return .null }
    return [
      "num_bits": 8, "type": layout == .intQuantized ? "int" : "float", "symmetric": true, "strategy": "token",
      "dynamic": true,
    ]
  }
}

extension WeightEncoding {
  /// The size of groups, nil where a row shares one scale.
  fileprivate var statedGroupLength: Int? {
    switch sharing {
    case .group(let size), .block(let size): size
    case .row, .tensor: nil
    }
  }
}
