import Checkpoints
import Kernels
import OrderedCollections
import Packing

/// Whether a runtime will load a GGUF file.
extension RuntimeCheck {
  /// Fatal findings first.
  static func findings(of file: GGUFFile, runtime: Runtime) -> [Finding] {
    var findings: [Finding] = []
    switch runtime {
    case .llamaCpp: findings = LlamaCppCheck(file: file).findings
    case .transformers:
      findings = [
        warning(
          "transformers decodes the file to float as it loads it", "pass its folder, with gguf_file= naming the file")
      ]
    case .vllm:
      findings = [warning("vLLM reads GGUF experimentally", "prefer a folder: convert with --layout pack-quantized")]
    case .gptqmodel, .autoawq, .mlx:
      findings = [
        fatal(
          "\(runtime.rawValue) does not read GGUF files",
          "`convert-model unpack` makes an ordinary checkpoint; convert that with --layout")
      ]
    }
    return findings.filter(\.isFatal) + findings.filter { !$0.isFatal }
  }
}

/// What llama.cpp asks of a file before it runs it: architecture, keys, tensors, tokenizer.
private struct LlamaCppCheck {
  typealias Finding = RuntimeCheck.Finding

  let file: GGUFFile

  private var metadata: GGUFMetadata { file.header.metadata }

  private func problem(_ problem: String, _ remedy: String = "convert the model again") -> Finding {
    RuntimeCheck.fatal(problem, remedy)
  }

  var findings: [Finding] {
    var findings = tokenizerFindings
    guard let name = metadata["general.architecture"]?.string else {
      return [problem("general.architecture is missing")] + findings
    }
    if let parts = metadata["split.count"]?.integer, parts > 1 {
      findings.append(
        RuntimeCheck.warning(
          "the model is split over \(parts) files", "keep all of them in one folder; tensors are not checked here"))
      return findings
    }
    guard let architecture = GGUFArchitecture.named(name, metadata) else {
      let known = GGUFArchitecture.all.map(\.name).joined(separator: ", ")
      return findings + [
        RuntimeCheck.warning(
          "architecture '\(name)' is not known here: its keys and tensors are not checked", "known are \(known)")
      ]
    }
    for key in architecture.requiredKeys where metadata["\(name).\(key)"]?.double == nil {
      findings.append(problem("\(name).\(key) is missing, or no number"))
    }
    return findings + tensorFindings(architecture)
  }

  private func tensorFindings(_ architecture: GGUFArchitecture) -> [Finding] {
    var findings: [Finding] = []
    let blocks = metadata["\(architecture.name).block_count"]?.integer ?? 0
    let missing = architecture.requiredTensors(blockCount: min(max(blocks, 0), 1 << 16)).filter { file[$0] == nil }
    if let first = missing.first {
      findings.append(
        problem("\(missing.count) tensors are missing, '\(first)' among them, for \(blocks) blocks"))
    }
    let strangers = file.header.tensors.filter { tensor in
      guard !tensor.name.hasPrefix("rope_") else { return false }
      if architecture.expertSource(of: tensor.name) != nil {
        let experts = metadata["\(architecture.name).expert_count"]?.integer ?? 0
        return tensor.shape.count != 3 || tensor.shape[0] != experts
      }
      guard let place = architecture.source(of: tensor.name)?.place else { return true }
      return place.layer.map { $0 >= blocks } ?? false
    }
    if let first = strangers.first {
      findings.append(
        problem(
          "\(strangers.count) tensors have no place in a model of \(blocks) blocks, '\(first.name)' among them:"
            + " llama.cpp counts them"))
    }
    if let width = metadata["\(architecture.name).embedding_length"]?.integer,
      let embedding = file["token_embd.weight"],
      embedding.shape.count != 2 || embedding.columns != width
    {
      findings.append(problem("token_embd.weight has shape \(embedding.shape), expected \(width) columns"))
    }
    // Norms, biases and positions in anything but F32 stop at an operation that takes no other type.
    let vectors = file.header.tensors.filter { $0.shape.count == 1 && $0.type != .f32 }
    if let first = vectors.first {
      findings.append(
        problem("\(vectors.count) vectors are not F32, '\(first.name)' (\(first.type.name)) among them"))
    }
    return findings
  }

  private var tokenizerFindings: [Finding] {
    let prefix = "tokenizer.ggml."
    let again = "convert again from a folder with its tokenizer"
    guard let model = metadata[prefix + "model"]?.string else {
      return [problem("\(prefix)model is missing, and with it the tokenizer", again)]
    }
    guard model != "none" else {
      return [RuntimeCheck.warning("the file has no tokenizer: llama.cpp takes token numbers only", again)]
    }
    var findings: [Finding] = []
    let count = metadata[prefix + "tokens"]?.elements?.count ?? 0
    if count == 0 {
      findings.append(problem("\(prefix)tokens is missing", again))
    } else if let rows = file["token_embd.weight"]?.shape.first, rows != count {
      findings.append(problem("the tokenizer has \(count) tokens, the embedding \(rows) rows", again))
    }
    for (key, needed) in [("scores", model == "llama"), ("merges", model == "gpt2")]
    where needed && metadata[prefix + key]?.elements == nil {
      findings.append(problem("\(prefix)\(key) is missing, which a tokenizer of kind '\(model)' needs", again))
    }
    if model == "gpt2", metadata[prefix + "pre"]?.string ?? "default" == "default" {
      findings.append(
        RuntimeCheck.warning(
          "\(prefix)pre does not say how words are cut: llama.cpp takes its default, which most models were not made"
            + " with", again))
    }
    return findings
  }
}
