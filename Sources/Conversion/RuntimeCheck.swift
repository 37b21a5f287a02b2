import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import SystemPackage

/// A program that loads models.
package enum Runtime: String, CaseIterable, Hashable, Sendable {
  case vllm
  case transformers
  case gptqmodel
  case autoawq
  case mlx
  case llamaCpp = "llama.cpp"
}

/// Says from the files alone whether a runtime will load a folder.
///
/// What runtimes take is as of vLLM 0.33, transformers 5.23, GPTQModel 7.7, AutoAWQ 0.2.9 and mlx-lm 0.32.
package struct RuntimeCheck: Sendable {
  /// Something that keeps a folder from loading, or may surprise.
  package struct Finding: Hashable, Sendable {
    package let isFatal: Bool
    package let problem: String
    package let remedy: String
  }

  private let checkpoint: Checkpoint
  private let layout: LayoutCheckpoint?
  private let isPacked: Bool
  private let runtime: Runtime
  private let parts: Int

  /// What there is to say of a folder or a GGUF file, fatal findings first.
  /// - Parameter parts: the devices that layers are split over (tensor parallelism).
  package static func findings(of path: FilePath, runtime: Runtime, parts: Int = 1) throws -> [Finding] {
    if GGUFFile.isGGUF(path) { return findings(of: try GGUFFile(path), runtime: runtime) }
    return try RuntimeCheck(path, runtime: runtime, parts: parts).findings()
  }

  /// - Parameter parts: the devices that layers are split over (tensor parallelism).
  package init(_ path: FilePath, runtime: Runtime, parts: Int = 1) throws {
    checkpoint = try Checkpoint(path)
    isPacked = PackedCheckpoint.isPacked(path)
    layout = isPacked ? nil : try LayoutCheckpoint(checkpoint)
    self.runtime = runtime
    self.parts = parts
  }

  /// Fatal findings first.
  package func findings() throws -> [Finding] {
    var findings: [Finding] = []
    if let refused = formatFinding {
      findings.append(refused)
    } else if let layout {
      findings += try layoutFindings(layout)
    }
    findings += fileFindings + tieFindings
    return findings.filter(\.isFatal) + findings.filter { !$0.isFatal }
  }

  static func fatal(_ problem: String, _ remedy: String) -> Finding {
    Finding(isFatal: true, problem: problem, remedy: remedy)
  }

  private static func fatal(_ error: LayoutError) -> Finding { fatal(error.halves.problem, error.halves.remedy) }

  static func warning(_ problem: String, _ remedy: String) -> Finding {
    Finding(isFatal: false, problem: problem, remedy: remedy)
  }

  // MARK: The format as a whole

  /// The layouts to write for a runtime, but for those that it does not load this model in.
  private var remedies: String {
    let layouts: [RuntimeLayout]
    switch runtime {
    case .vllm: layouts = [.packQuantized, .intQuantized, .gptq, .awq]
    case .transformers: layouts = [.packQuantized, .gptq, .awq, .bitsandbytes]
    case .gptqmodel: layouts = [.gptqV2, .gptq]
    case .autoawq: layouts = [.awq]
    case .mlx: layouts = [.mlx]
    case .llamaCpp: return "convert to a file named .gguf"
    }
    let modelType = checkpoint.configuration?["model_type"]?.string ?? ""
    let names = layouts.filter { $0.obstacle(modelType: modelType) == nil }.map(\.rawValue)
    guard let last = names.last else {
      return "no layout that it reads holds a model of type '\(modelType.printable)': unpack it, or take another"
        + " runtime"
    }
    return "convert with --layout " + (names.count > 1 ? names.dropLast().joined(separator: ", ") + " or " : "") + last
  }

  private var formatFinding: Finding? {
    if isPacked {
      return Self.fatal(
        "the folder is in the packed format of convert-model, which \(runtime.rawValue) does not read",
        "`convert-model unpack` makes an ordinary checkpoint, or " + remedies)
    }
    if runtime == .llamaCpp { return Self.fatal("llama.cpp does not read safetensors", remedies) }
    guard let layout else { return nil }
    let isRead =
      switch (runtime, layout.family) {
      case (.vllm, .gptq), (.vllm, .awq), (.vllm, .compressedTensors): true
      case (.transformers, .mlx): false
      case (.transformers, _): true
      case (.gptqmodel, .gptq), (.gptqmodel, .awq), (.autoawq, .awq), (.mlx, .mlx), (.mlx, .awq): true
      default: false
      }
    return isRead ? nil : Self.fatal("\(runtime.rawValue) does not read the layout of \(layout.family.name)", remedies)
  }

  // MARK: Layouts

  private func layoutFindings(_ layout: LayoutCheckpoint) throws -> [Finding] {
    var findings: [Finding] = []
    let quantization = LayoutFamily.quantization(checkpoint)
    if quantization == nil {
      findings.append(
        Self.fatal("config.json does not say how the weights are quantized", "add its quantization_config"))
    }
    switch layout.family {
    case .gptq(let version): findings += try gptqFindings(layout, quantization, version)
    case .compressedTensors: findings += compressedFindings(layout, quantization)
    case .mlx:
      if checkpoint["lm_head.scales"] != nil, isTied {
        findings.append(Self.fatal("the embeddings are tied, but lm_head is stored", "remove lm_head.*"))
      }
    case .awq:
      if quantization?["bits"] == nil, quantization?["w_bit"] != nil {
        findings.append(
          Self.fatal("w_bit and q_group_size are ignored: 4 bits and 128 are assumed", "name them bits and group_size"))
      }
    case .bitsandbytes: break
    }
    findings += undeclared(layout, quantization) + expertFindings(layout)
    if runtime == .vllm { findings += try splitFindings(layout) }
    return findings
  }

  private func gptqFindings(
    _ layout: LayoutCheckpoint, _ quantization: JSONValue?, _ version: GPTQLayout.Version
  ) throws -> [Finding] {
    var findings: [Finding] = []
    let isSymmetric = quantization?["sym"]?.bool ?? true
    let bits = quantization?["bits"]?.integer ?? 4
    guard let record = layout.records.first(where: { $0.label != nil }), let weight = try layout.weight(record) else {
      return []
    }
    // Symmetric zero points are all the middle; one off tells that the other version was written.
    if isSymmetric, let first = weight.zeroPoints.first, first != weight.middle,
      weight.zeroPoints.allSatisfy({ $0 == first })
    {
      let isV1 = version == .v1
      if first == weight.middle + (isV1 ? 1 : -1) {
        findings.append(
          Self.fatal(
            "zero points are \(Int(first)) where symmetric ones are \(Int(weight.middle)): the file was written as"
              + " \(isV1 ? "gptq_v2" : "gptq") but says \(isV1 ? "gptq" : "gptq_v2")",
            "set checkpoint_format to \(isV1 ? "gptq_v2" : "gptq")"))
      }
    }
    if quantization?["is_marlin_format"] != nil, runtime == .gptqmodel {
      findings.append(Self.fatal("GPTQModel refuses the key is_marlin_format", "remove it from quantization_config"))
    }
    if !isSymmetric, version == .v1, runtime == .gptqmodel,
      !(quantization?["meta"]?["quantizer"]?.array ?? []).contains(where: {
        $0.string?.hasPrefix("gptqmodel:") ?? false
      })
    {
      findings.append(
        Self.fatal("GPTQModel takes zero points of version 1 only from itself", "convert with --layout gptq_v2"))
    }
    if runtime == .vllm {
      if !isSymmetric || ![4, 8].contains(bits) {
        findings.append(
          Self.fatal(
            "vLLM takes symmetric GPTQ weights of 4 or 8 bits, not \(bits) bits"
              + (isSymmetric ? "" : " with zero points"), "convert with --layout pack-quantized"))
      }
      if weight.groupIndex != nil {
        findings.append(
          Self.fatal(
            "groups follow the order of activations, and vLLM ignores g_idx",
            "convert again: groups of convert-model keep the order of columns"))
      }
    }
    if runtime != .vllm, checkpoint[record.name.dropSuffix(".weight") + ".g_idx"] == nil {
      findings.append(Self.fatal("g_idx is missing, which \(runtime.rawValue) needs", "convert with --layout gptq"))
    }
    return findings
  }

  private func compressedFindings(_ layout: LayoutCheckpoint, _ quantization: JSONValue?) -> [Finding] {
    var findings: [Finding] = []
    let status = quantization?["quantization_status"]?.string
    if runtime == .transformers, status != "compressed" {
      findings.append(
        Self.fatal(
          "quantization_status is '\(status ?? "missing")': transformers then leaves the weights random",
          "set it to compressed"))
    }
    let groups = quantization?["config_groups"]?.object?.values.map { $0 } ?? []
    let weights = groups.compactMap { $0["weights"] }
    if runtime == .transformers, weights.contains(where: { !($0["symmetric"]?.bool ?? true) }) {
      findings.append(
        Self.warning(
          "packed zero points load in transformers only with CompressedTensorsConfig(dequantize=True)",
          "pass it, or convert symmetrically"))
    }
    if weights.contains(where: { ["group", "dynamic"].contains($0["actorder"]?.string ?? "") }) {
      findings.append(
        Self.fatal("activation order with groups of its own is no longer read", "convert again"))
    }
    if runtime == .transformers, checkpoint.configuration?["dtype"]?.string != "bfloat16",
      weights.contains(where: { $0["type"]?.string == "float" && $0["num_bits"]?.integer == 4 })
    {
      findings.append(
        Self.warning("4-bit floats decode to bfloat16, but config.json names another dtype", "load with bfloat16"))
    }
    return findings
  }

  /// Mixtral's experts have names of their own in vLLM, and in mlx-lm.
  private func expertFindings(_ layout: LayoutCheckpoint) -> [Finding] {
    guard runtime == .transformers && layout.family != .bitsandbytes || runtime == .gptqmodel,
      layout.records.contains(where: { $0.label != nil && $0.name.contains(".block_sparse_moe.experts.") })
    else { return [] }
    return [
      Self.fatal(
        "experts are named block_sparse_moe.experts.N.w1, as vLLM knows them; \(runtime.rawValue) asks for"
          + " mlp.experts.N.gate_proj", "run it with vLLM, or convert with --layout bitsandbytes or mlx")
    ]
  }

  /// Linear layers in float that the configuration does not declare.
  private func undeclared(_ layout: LayoutCheckpoint, _ quantization: JSONValue?) -> [Finding] {
    let kept = layout.records.compactMap { record -> String? in
      guard let tensor = record.tensor, TensorRole(tensor.entry) == .linear || TensorRole(tensor.entry) == .router
      else { return nil }
      return Plan.module(of: record.name)
    }
    guard !kept.isEmpty else { return [] }
    let key: String
    var declared: [String]
    switch layout.family {
    case .compressedTensors: (key, declared) = ("ignore", strings(quantization?["ignore"]))
    case .awq: (key, declared) = ("modules_to_not_convert", strings(quantization?["modules_to_not_convert"]))
    case .bitsandbytes: (key, declared) = ("llm_int8_skip_modules", strings(quantization?["llm_int8_skip_modules"]))
    case .gptq:
      // Either list will do; what is listed there is what is quantized.
      if quantization?["modules_in_block_to_quantize"]?.array != nil { return [] }
      (key, declared) = ("dynamic", quantization?["dynamic"]?.object?.keys.map { $0 } ?? [])
    case .mlx: return []
    }
    declared = declared.map { $0.replacing("\\.", with: ".") }
    let missing = kept.filter { name in
      !declared.contains { $0.hasPrefix("re:") || $0.contains(name) || name.hasSuffix($0) }
    }
    guard let first = missing.first else { return [] }
    return [
      Self.fatal(
        "\(missing.count) linear layers are not quantized but not declared, '\(first.printable)' among them",
        "add them to \(key) of quantization_config")
    ]
  }

  private func strings(_ value: JSONValue?) -> [String] { value?.array?.compactMap(\.string) ?? [] }

  private func splitFindings(_ layout: LayoutCheckpoint) throws -> [Finding] {
    var findings: [Finding] = []
    var schemes: [String: String?] = [:]
    for record in layout.records {
      if let module = Plan.module(of: record.name), record.shape.count == 2 { schemes[module] = .some(record.label) }
    }
    do {
      try FusedLayers.check(schemes)
    } catch {
      findings.append(Self.fatal(error))
    }
    guard parts > 1 else { return findings }
    do {
      try FusedLayers.checkHeads(checkpoint.configuration, parts: parts)
    } catch {
      findings.append(Self.fatal(error))
    }
    for record in layout.records where record.label != nil {
      guard let module = Plan.module(of: record.name) else { continue }
      let shape = record.isTransposed ? exchangingLastTwo(record.shape) : record.shape
      do {
        try FusedLayers.checkSplit(
          module, rows: shape[0], columns: shape[1], groupLength: record.groupLength ?? shape[1], parts: parts)
      } catch {
        findings.append(Self.fatal(error))
        break
      }
    }
    return findings
  }

  // MARK: Files

  private var isTied: Bool { checkpoint.configuration?["tie_word_embeddings"]?.bool ?? false }

  private var tieFindings: [Finding] {
    guard checkpoint.configuration != nil, checkpoint["model.embed_tokens.weight"] != nil else { return [] }
    let hasHead = checkpoint.tensors.contains { $0.name.hasPrefix("lm_head.") }
    if !isTied, !hasHead, checkpoint.configuration?["tie_word_embeddings"] != nil {
      return [
        Self.fatal(
          "config.json says that the head is not tied, but lm_head is missing", "set tie_word_embeddings to true")
      ]
    }
    return []
  }

  private var fileFindings: [Finding] {
    let names = Set((try? FileManager.default.contentsOfDirectory(atPath: checkpoint.folder.string)) ?? [])
    var findings: [Finding] = []
    if checkpoint.configuration == nil {
      findings.append(Self.fatal("config.json is missing", "copy it from the original model"))
    }
    if names.isDisjoint(with: ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"]) {
      findings.append(Self.warning("no tokenizer lies in the folder", "copy it from the original model"))
    }
    if names.contains(Checkpoint.singleName), names.contains(Checkpoint.indexName) {
      findings.append(
        Self.warning("model.safetensors lies beside an index of shards, which it hides", "remove one of them"))
    }
    if checkpoint.files.count > 1,
      (try? readJSONObject(checkpoint.folder.appending(Checkpoint.indexName)))?["metadata"] == nil
    {
      findings.append(Self.fatal("the index of shards has no 'metadata', which transformers needs", "add it"))
    }
    return findings
  }
}

extension String {
  fileprivate func dropSuffix(_ suffix: String) -> String {
    hasSuffix(suffix) ? String(dropLast(suffix.count)) : self
  }
}
