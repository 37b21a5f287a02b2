import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import SystemPackage

/// A model as GGUF describes it: made from config.json, or read from a file's metadata and made config.json again.
package struct GGUFModel: Sendable {
  package let architecture: GGUFArchitecture
  /// The keys that describe the architecture, in the order in which they are written.
  package private(set) var metadata: GGUFMetadata = [:]
  package let blockCount: Int
  package let heads: Int
  package let keyValueHeads: Int
  package let headDimension: Int
  /// Whether the embedding serves as output head.
  package let isTied: Bool
  /// Of each mixture; 0 where there are none.
  package let expertCount: Int
  /// Tensors that the configuration becomes: what the frequencies of rotary positions are divided by.
  package private(set) var constants: OrderedDictionary<String, [Float]> = [:]

  /// The window of attention that runtimes will not keep to, though it is shorter than the context: beyond it they differ
  /// from the original. Nil where there is none.
  package let ignoredWindow: Int?

  /// - Parameters:
  ///   - configuration: config.json.
  ///   - file: for messages.
  package init(configuration: JSONValue?, file: String) throws(GGUFError) {
    guard let configuration else { throw GGUFError(file: file, .noConfiguration) }
    let reader = ConfigurationReader(values: configuration, file: file)
    let modelType = configuration["model_type"]?.string ?? ""
    guard let architecture = GGUFArchitecture.of(modelType: modelType) else {
      throw GGUFError(file: file, .unknownModelType(modelType))
    }
    self.architecture = architecture
    for assumption in architecture.assumptions {
      let found = configuration[assumption.key].flatMap { $0 == .null ? nil : $0 } ?? assumption.fallback
      guard found == assumption.value else {
        throw reader.error(
          assumption.key, "\(assumption.value.text()), which runtimes of GGUF's '\(architecture.name)' assume")
      }
    }
    let prefix = architecture.name + "."
    var keys: GGUFMetadata = [:]
    for key in architecture.keys {
      guard let number = try reader.number(key) else { continue }
      switch key.kind {
      case .real: keys[prefix + key.name] = .float32(Float(number))
      case .integer:
        guard let whole = UInt32(exactly: number) else {
          throw reader.error(key.configuration, "a whole number from 0 to \(UInt32.max)")
        }
        keys[prefix + key.name] = .uint32(whole)
      }
    }
    let read = keys
    func whole(_ name: String) -> Int? { read[prefix + name]?.integer }
    guard let hidden = whole("embedding_length"), let blocks = whole("block_count"), blocks > 0, blocks < 1 << 20,
      let heads = whole("attention.head_count"), heads > 0
    else { throw reader.error("num_attention_heads", "a number above 0") }
    blockCount = blocks
    expertCount = architecture.experts == nil ? 0 : whole("expert_count") ?? 0
    guard architecture.experts == nil || (1..<1 << 16).contains(expertCount) else {
      throw reader.error("the number of experts", "from 1 to 65535")
    }
    self.heads = heads
    keyValueHeads = whole("attention.head_count_kv") ?? heads
    guard keyValueHeads > 0, heads % keyValueHeads == 0 else {
      throw reader.error("num_key_value_heads", "a divisor of \(heads) heads")
    }
    let own = configuration["head_dim"]?.integer ?? architecture.defaultHeadDimension
    guard own != nil || hidden % heads == 0 else { throw reader.error("num_attention_heads", "a divisor of \(hidden)") }
    headDimension = own ?? hidden / heads
    guard headDimension > 0, headDimension % 2 == 0, headDimension < 1 << 30 else {
      throw reader.error("head_dim", "an even number above 0")
    }
    guard hidden < 1 << 30 else { throw reader.error("hidden_size", "below 2^30") }
    // Two things of Gemma that have no key: runtimes assume them.
    if let special = architecture.widthScaledBlockCount {
      let scalar = configuration["query_pre_attn_scalar"]?.double ?? 256
      let allowed = blocks == special ? hidden / heads : headDimension
      guard scalar == Double(allowed) else {
        throw reader.error("query_pre_attn_scalar", "\(allowed), which runtimes of GGUF files assume")
      }
    }
    if architecture.name == "gemma3", let types = configuration["layer_types"]?.array {
      let usual = types.indices.map { ($0 + 1) % 6 == 0 ? "full_attention" : "sliding_attention" }
      guard types.map(\.string) == usual else {
        throw reader.error("layer_types", "full attention in every sixth layer, which runtimes of GGUF files assume")
      }
    }
    let hasWindow = configuration["use_sliding_window"]?.bool ?? architecture.hasWindowByDefault
    let window = hasWindow ? configuration["sliding_window"]?.integer : nil
    let isKept = whole("attention.sliding_window") != nil && !architecture.ignoresWindow
    ignoredWindow = isKept ? nil : window.flatMap { $0 > 0 && $0 < whole("context_length") ?? 0 ? $0 : nil }
    metadata = keys
    isTied = configuration["tie_word_embeddings"]?.bool ?? architecture.isTiedByDefault
    if whole("feed_forward_length") == nil { metadata[prefix + "feed_forward_length"] = .uint32(UInt32(4 * hidden)) }
    metadata[prefix + "attention.head_count_kv"] = .uint32(UInt32(keyValueHeads))
    if let size = configuration["vocab_size"]?.integer {
      metadata[prefix + "vocab_size"] = .uint32(UInt32(clamping: size))
    }
    if architecture.isRotary {
      metadata[prefix + "attention.key_length"] = .uint32(UInt32(headDimension))
      metadata[prefix + "attention.value_length"] = .uint32(UInt32(headDimension))
      try setRotation(reader, prefix)
    }
  }

  private mutating func setRotation(_ reader: ConfigurationReader, _ prefix: String) throws(GGUFError) {
    let values = reader.values
    var settings = values["rope_parameters"] ?? values["rope_scaling"] ?? .null
    // Gemma 3 has settings for each kind of layer.
    if let usual = architecture.defaultWindowTheta {
      let own = values["rope_local_base_freq"]?.double ?? settings["sliding_attention"]?["rope_theta"]?.double ?? usual
      metadata[prefix + "rope.freq_base_swa"] = .float32(Float(own))
    }
    if let full = settings["full_attention"] { settings = full }
    let theta = values["rope_theta"]?.double ?? settings["rope_theta"]?.double ?? architecture.defaultTheta
    let share = values["partial_rotary_factor"]?.double ?? settings["partial_rotary_factor"]?.double ?? 1
    let dimensions = (0...1).contains(share) ? Int(Double(headDimension) * share) : 0
    guard dimensions > 0, dimensions <= headDimension, dimensions % 2 == 0 else {
      throw reader.error("partial_rotary_factor", "a share that gives an even number of dimensions")
    }
    metadata[prefix + "rope.dimension_count"] = .uint32(UInt32(dimensions))
    metadata[prefix + "rope.freq_base"] = .float32(Float(theta))
    let type = settings["rope_type"]?.string ?? settings["type"]?.string ?? "default"
    func number(_ key: String) throws(GGUFError) -> Double {
      guard let number = (settings[key] ?? values[key])?.double, number > 0, number.isFinite else {
        throw reader.error("rope_scaling.\(key)", "a number above 0")
      }
      return number
    }
    switch type {
    case "default": break
    case "linear":
      metadata[prefix + "rope.scaling.type"] = .string("linear")
      metadata[prefix + "rope.scaling.factor"] = .float32(Float(try number("factor")))
    case "llama3":
      let (factor, low, high) = (try number("factor"), try number("low_freq_factor"), try number("high_freq_factor"))
      let trained = try number("original_max_position_embeddings")
      guard high > low else { throw reader.error("rope_scaling.high_freq_factor", "more than low_freq_factor") }
      constants["rope_freqs.weight"] = (0..<(dimensions / 2)).map { pair in
        let length = 2 * Double.pi * pow(theta, 2 * Double(pair) / Double(dimensions))
        if length < trained / high { return 1 }
        if length > trained / low { return Float(factor) }
        let share = (trained / length - low) / (high - low)
        return Float(1 / ((1 - share) / factor + share))
      }
    case "yarn" where settings["short_factor"] == nil:
      metadata[prefix + "rope.scaling.type"] = .string("yarn")
      metadata[prefix + "rope.scaling.factor"] = .float32(Float(try number("factor")))
      let trained = settings["original_max_position_embeddings"]?.integer ?? values["max_position_embeddings"]?.integer
      metadata[prefix + "rope.scaling.original_context_length"] = .uint32(UInt32(clamping: trained ?? 0))
    case "longrope", "su", "yarn":
      for (key, name) in [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")] {
        let factors = settings[key]?.array?.compactMap { $0.double.map { Float($0) } } ?? []
        guard factors.count == dimensions / 2 else {
          throw reader.error("rope_scaling.\(key)", "a list of \(dimensions / 2) numbers")
        }
        constants[name] = factors
      }
      let limit = try number("max_position_embeddings")
      let trained = try number("original_max_position_embeddings")
      let factor = limit / trained
      metadata[prefix + "rope.scaling.original_context_length"] = .uint32(UInt32(min(trained, Double(UInt32.max))))
      let scale = factor <= 1 ? 1 : (1 + log(factor) / log(trained)).squareRoot()
      metadata[prefix + "rope.scaling.attn_factor"] = .float32(Float(scale))
    default:
      throw reader.error("rope_scaling.rope_type", "one of default, linear, llama3, yarn, longrope")
    }
  }
}

private struct ConfigurationReader {
  let values: JSONValue
  let file: String

  func error(_ key: String, _ expected: String) -> GGUFError {
    GGUFError(file: file, .configuration(key: key, expected: expected))
  }

  /// nil where the key is optional and absent.
  func number(_ key: GGUFKey) throws(GGUFError) -> Double? {
    func present(_ name: String) -> JSONValue? { values[name].flatMap { $0 == .null ? nil : $0 } }
    guard let value = present(key.configuration) ?? key.other.flatMap(present) ?? key.fallback.map({ .number($0) })
    else {
      if key.isOptional || values[key.configuration] == .null { return nil }
      throw error(key.configuration, "a number")
    }
    guard let number = value.double, number.isFinite, number >= 0 else {
      throw error(key.configuration, "a number, 0 or above")
    }
    return number
  }
}

// MARK: - From a file

extension GGUFModel {
  /// Reads the keys of a file back into what config.json would say.
  package static func configuration(of file: GGUFFile) throws(GGUFError) -> (GGUFArchitecture, JSONValue) {
    let metadata = file.header.metadata
    let path = file.path.string
    let name = metadata["general.architecture"]?.string ?? ""
    guard let architecture = GGUFArchitecture.named(name, metadata) else {
      throw GGUFError(file: path, .unknownArchitecture(name))
    }
    let prefix = name + "."
    func integer(_ key: String) throws(GGUFError) -> Int? {
      guard let value = metadata[prefix + key] else { return nil }
      guard let number = value.integer, number >= 0, number < 1 << 30 else {
        throw GGUFError(file: path, .metadata(key: prefix + key, expected: "a whole number from 0 to 2^30"))
      }
      return number
    }
    func real(_ key: String) throws(GGUFError) -> JSONValue? {
      guard let value = metadata[prefix + key] else { return nil }
      guard let number = value.double, number.isFinite else {
        throw GGUFError(file: path, .metadata(key: prefix + key, expected: "a finite number"))
      }
      // As a float32 prints, so that 1e-5 does not become 9.99999974e-06.
      return .number("\(Float(number))")
    }
    var members: OrderedDictionary<String, JSONValue> = [
      "model_type": .string(architecture.modelTypes.first ?? name)
    ]
    for key in architecture.keys {
      let value: JSONValue? =
        switch key.kind {
        case .integer: try integer(key.name).map { .integer($0) }
        case .real: try real(key.name)
        }
      if let value {
        members[key.configuration] = value
      } else if !key.isOptional, key.fallback == nil {
        throw GGUFError(file: path, .metadata(key: prefix + key.name, expected: "there"))
      }
    }
    for assumption in architecture.assumptions { members[assumption.key] = assumption.value }
    // A window of 0 stands for none.
    if members["sliding_window"] == 0 { members["sliding_window"] = .null }
    if let size = try integer("attention.key_length") { members["head_dim"] = .integer(size) }
    if let theta = try real("rope.freq_base") { members["rope_theta"] = theta }
    if let rotated = try integer("rope.dimension_count"), let whole = members["head_dim"]?.integer, rotated < whole {
      members["partial_rotary_factor"] = .number("\(Double(rotated) / Double(whole))")
    }
    if let special = architecture.widthScaledBlockCount {
      let isSpecial = members["num_hidden_layers"]?.integer == special
      let width = members["hidden_size"]?.integer ?? 0
      members["query_pre_attn_scalar"] =
        isSpecial ? .integer(width / max(members["num_attention_heads"]?.integer ?? 1, 1)) : members["head_dim"]
    }
    if architecture.defaultWindowTheta != nil, let theta = try real("rope.freq_base_swa") {
      members["rope_local_base_freq"] = theta
    }
    members["rope_scaling"] = try scaling(of: file, prefix, integer, real)
    members["tie_word_embeddings"] = .bool(file["output.weight"] == nil)
    let embedding = file["token_embd.weight"]
    members["vocab_size"] = .integer(embedding?.shape.first ?? 0)
    for (key, name) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
      if let id = metadata["tokenizer.ggml.\(name)_token_id"]?.integer { members[key] = .integer(id) }
    }
    if name == "llama", file["blk.0.attn_q.bias"] != nil { members["attention_bias"] = true }
    if name == "llama", file["blk.0.ffn_down.bias"] != nil { members["mlp_bias"] = true }
    return (architecture, .object(members))
  }

  private static func scaling(
    of file: GGUFFile, _ prefix: String, _ integer: (String) throws(GGUFError) -> Int?,
    _ real: (String) throws(GGUFError) -> JSONValue?
  ) throws(GGUFError) -> JSONValue? {
    func factors(_ name: String) throws(GGUFError) -> JSONValue? {
      guard let tensor = file[name] else { return nil }
      var bytes: [UInt8] = []
      guard tensor.type == .f32, tensor.elementCount < 1 << 16,
        (try? file.read(0..<tensor.bytes.count, of: tensor, into: &bytes)) != nil
      else {
        throw GGUFError(file: file.path.string, tensor: name, .shape(tensor.shape, expected: "a short list of F32"))
      }
      return .array(
        (0..<tensor.elementCount).map { index in
          let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[index * 4 + $1]) << UInt32($1 * 8) }
          return .number("\(Float(bitPattern: bits))")
        })
    }
    // Llama 3's frequencies, divided by the same factors at any length: what LongRoPE expresses.
    if let all = try factors("rope_freqs.weight") {
      return [
        "rope_type": "longrope", "short_factor": all, "long_factor": all, "attention_factor": .number("1.0"),
        "factor": .number("1.0"),
      ]
    }
    if let long = try factors("rope_factors_long.weight"), let short = try factors("rope_factors_short.weight") {
      var members: OrderedDictionary<String, JSONValue> = [
        "rope_type": "longrope", "short_factor": short, "long_factor": long,
      ]
      if let factor = try real("rope.scaling.attn_factor") { members["attention_factor"] = factor }
      if let length = try integer("rope.scaling.original_context_length") {
        members["original_max_position_embeddings"] = .integer(length)
      }
      return .object(members)
    }
    guard let type = file.header.metadata[prefix + "rope.scaling.type"]?.string, type != "none" else { return nil }
    var members: OrderedDictionary<String, JSONValue> = ["rope_type": .string(type)]
    if let factor = try real("rope.scaling.factor") { members["factor"] = factor }
    if let length = try integer("rope.scaling.original_context_length") {
      members["original_max_position_embeddings"] = .integer(length)
    }
    return .object(members)
  }
}
