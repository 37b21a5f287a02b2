import Checkpoints
import Kernels
import OrderedCollections

/// What a GGUF file holds, or will hold.
package struct GGUFSummary: Sendable {
  package struct Tensor: Hashable, Sendable {
    package let name: String
    package let type: BlockType
    package let shape: [Int]
    package let byteCount: Int
    /// Whether importances of columns were at hand.
    package let isWeighed: Bool

    package init(name: String, type: BlockType, shape: [Int], byteCount: Int, isWeighed: Bool) {
      self.name = name
      self.type = type
      self.shape = shape
      self.byteCount = byteCount
      self.isWeighed = isWeighed
    }
  }

  package struct Dropped: Hashable, Sendable {
    package let name: String
    package let reason: String

    package init(name: String, reason: String) {
      self.name = name
      self.reason = reason
    }
  }

  package let architecture: String
  package let mix: String
  package let fileSize: Int
  package let tensors: [Tensor]
  package let dropped: [Dropped]

  package init(architecture: String, mix: String, fileSize: Int, tensors: [Tensor], dropped: [Dropped]) {
    self.architecture = architecture
    self.mix = mix
    self.fileSize = fileSize
    self.tensors = tensors
    self.dropped = dropped
  }

  private var weights: Int { tensors.reduce(0) { $0 + $1.shape.reduce(1, *) } }
  private var bitsPerWeight: Double { Double(tensors.reduce(0) { $0 + $1.byteCount }) * 8 / Double(max(weights, 1)) }

  /// - Parameter plan: what the conversion takes of memory, where it is only planned; every tensor is listed then.
  package func text(path: String, seconds: Double?, plan: PlanSummary.Memory?) -> String {
    var parts: [String] = []
    if plan != nil {
      let columns = [
        TableColumn(title: "tensor"), TableColumn(title: "shape"), TableColumn(title: "type"),
        TableColumn(title: "bytes", isNumber: true), TableColumn(title: "imatrix"),
      ]
      parts.append(
        table(
          columns,
          tensors.map {
            [$0.name.printable, Figures.shape($0.shape), $0.type.name, "\($0.byteCount)", $0.isWeighed ? "yes" : ""]
          }))
    }
    let types = BlockType.known.compactMap { type in
      let count = tensors.count { $0.type == type }
      return count > 0 ? "\(count) \(type.name)" : nil
    }
    var lines = [
      "\(path): GGUF, \(architecture), \(mix), \(Figures.bytes(fileSize)), \(Figures.fixed(bitsPerWeight, 3)) bits per weight"
        + (seconds.map { ", \(Figures.fixed($0, 2)) s" } ?? ""),
      "Tensors: \(types.joined(separator: ", ")); \(tensors.count { $0.isWeighed }) weighed by an imatrix",
    ]
    lines += dropped.map { "Left out: \($0.name.printable), \($0.reason)" }
    parts.append(lines.joined(separator: "\n"))
    if let plan { parts.append(plan.text) }
    return parts.joined(separator: "\n\n")
  }

  /// - Parameter plan: see `text`.
  package func json(path: String, seconds: Double?, plan: PlanSummary.Memory?) -> JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [
      "path": .string(path), "format": "gguf", "architecture": .string(architecture), "type": .string(mix),
      "bytes": .integer(fileSize), "weights": .integer(weights), "bits_per_weight": .real(bitsPerWeight),
      "seconds": seconds.map { .real($0) } ?? .null,
      "tensors": .array(
        tensors.map {
          [
            "name": .string($0.name), "type": .string($0.type.name), "shape": .array($0.shape.map { .integer($0) }),
            "bytes": .integer($0.byteCount), "weighed": .bool($0.isWeighed),
          ]
        }),
      "left_out": .array(dropped.map { ["name": .string($0.name), "reason": .string($0.reason)] }),
    ]
    if let plan { fields["memory"] = plan.json }
    return .object(fields)
  }
}
