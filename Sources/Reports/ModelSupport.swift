import Checkpoints

/// Whether a checkpoint's model can be run here, which evaluation needs and conversion by itself does not.
package enum ModelSupport: Hashable, Sendable {
  /// Tensors that the forward pass does not use belong to no block: extra heads, for example.
  case runs(modelType: String, unusedTensors: [String])
  case cannotRun(reason: String)

  package var text: String {
    switch self {
    case .runs(let type, let unused) where unused.isEmpty: "The model can be run (\(type.printable))."
    case .runs(let type, let unused):
      "The model can be run (\(type.printable)) without \(Figures.count(unused.count, "tensor")) that belong to no block: "
        + unused.prefix(5).map(\.printable).joined(separator: ", ") + (unused.count > 5 ? ", …" : "")
    case .cannotRun(let reason): "The model cannot be run, only converted: \(reason)"
    }
  }

  package var json: JSONValue {
    switch self {
    case .runs(let type, let unused):
      ["can_run": true, "model_type": .string(type), "unused_tensors": .array(unused.map { .string($0) })]
    case .cannotRun(let reason): ["can_run": false, "reason": .string(reason)]
    }
  }
}
