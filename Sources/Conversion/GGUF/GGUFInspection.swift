import Checkpoints
import Evaluation
import Kernels
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// What a GGUF file's header tells.
extension Inspection {
  init(_ file: GGUFFile) {
    let metadata = file.header.metadata
    let architecture = metadata["general.architecture"]?.string
    let known = architecture.flatMap { GGUFArchitecture.named($0, metadata) }
    let pairs = metadata.map { (key: $0.key, value: Self.shown($0.value)) }
    self.init(
      path: file.path.string, kind: "GGUF version \(file.header.version), \(metadata.count) metadata keys",
      modelType: architecture, files: [(file.path.lastComponent?.string ?? "", file.fileSize, "weights")],
      tensors: file.header.tensors.map { tensor in
        Inspection.Tensor(
          name: tensor.name, shape: tensor.shape, format: tensor.type.name,
          role: Self.role(tensor, known), elementCount: tensor.elementCount, byteCount: tensor.bytes.count,
          isQuantized: !tensor.type.isPlain)
      }, sourceByteCount: nil, metadata: pairs)
    provenance = Provenance(.gguf(file, nil)).rows
    oddities = Self.oddities(file, known)
  }

  private static func oddities(_ file: GGUFFile, _ architecture: GGUFArchitecture?) -> [Oddity] {
    let metadata = file.header.metadata
    guard let name = metadata["general.architecture"]?.string else {
      return [Oddity("it has no general.architecture: no program can tell how to run it")]
    }
    var oddities: [Oddity] = []
    let stated = metadata["\(name).block_count"]?.integer
    oddities += BlockNames(file.header.tensors.map(\.name), numberOf: BlockNames.gguf)
      .oddities(stated: stated, key: "\(name.printable).block_count")
    if metadata["tokenizer.ggml.model"]?.string ?? "none" == "none" { oddities.append(Oddity("no tokenizer is in it")) }
    if let architecture {
      let strange = file.header.tensors.filter {
        !$0.name.hasPrefix("rope_") && architecture.source(of: $0.name) == nil
          && architecture.expertSource(of: $0.name) == nil
      }
      if let first = strange.first {
        oddities.append(
          Oddity(
            "\(strange.count) tensors that \(name.printable) does not have here, such as '\(first.name.printable)'"))
      }
      if file["token_embd.weight"] == nil { oddities.append(Oddity("token_embd.weight, the embedding, is missing")) }
    } else {
      oddities.append(Oddity("its architecture, \(name.printable), is listed here, but not read"))
    }
    let unread = file.header.tensors.filter { !$0.type.isReadable }
    if let first = unread.first {
      oddities.append(
        Oddity("\(unread.count) tensors are of types that are not decoded here, such as \(first.type.name)"))
    }
    let end = file.header.tensors.map(\.bytes.upperBound).max() ?? file.header.dataStart
    // Writers pad the last tensor to the alignment.
    if file.fileSize - end > 1 << 16 {
      oddities.append(Oddity("\(file.fileSize - end) bytes follow the last tensor"))
    }
    return oddities
  }

  private static func role(_ tensor: GGUFTensor, _ architecture: GGUFArchitecture?) -> String {
    switch architecture?.source(of: tensor.name)?.place.part ?? tensor.name {
    case "token_embd", "position_embd": "embedding"
    case "output": "head"
    case "ffn_gate_inp", "ffn_gate_inp_shexp": "router"
    case let part where part.hasSuffix("norm"): "norm"
    case _ where tensor.shape.count == 1: "vector"
    default: "linear"
    }
  }

  /// A value on one line; of lists the first few.
  private static func shown(_ value: GGUFValue) -> String {
    switch value {
    case .array(let elements):
      let few = elements.prefix(4).map { shown($0) }.joined(separator: ", ")
      return "\(elements.count) × \(elements.type): \(few)\(elements.count > 4 ? ", …" : "")"
    case .string(let text):
      let short = text.count > 60 ? text.prefix(60) + "…" : text[...]
      return "\"\(String(short).printable)\""
    case .bool(let flag): return "\(flag)"
    default: return value.integer.map { "\($0)" } ?? value.double.map { "\(Float($0))" } ?? ""
    }
  }
}
