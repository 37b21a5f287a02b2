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
    let known = architecture.flatMap { GGUFArchitecture.named($0) }
    let pairs = metadata.map { (key: $0.key, value: Self.shown($0.value)) }
    self.init(
      path: file.path.string, kind: "GGUF version \(file.header.version), \(metadata.count) metadata keys",
      modelType: architecture, files: [(file.path.lastComponent?.string ?? "", file.fileSize, "weights")],
      tensors: file.header.tensors.map { tensor in
        Inspection.Tensor(
          name: tensor.name, shape: tensor.shape, format: tensor.type.name,
          role: Self.role(tensor, known), elementCount: tensor.elementCount, byteCount: tensor.bytes.count)
      }, sourceByteCount: nil, metadata: pairs)
  }

  private static func role(_ tensor: GGUFTensor, _ architecture: GGUFArchitecture?) -> String {
    switch architecture?.source(of: tensor.name)?.place.part ?? tensor.name {
    case "token_embd", "position_embd": "embedding"
    case "output": "head"
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
