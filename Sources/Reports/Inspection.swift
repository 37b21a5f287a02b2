import Checkpoints
import Kernels
import OrderedCollections

/// What is in a file or folder, as headers and manifest tell.
package struct Inspection: Sendable {
  /// One tensor of the model: a packed one counts once, with all its members.
  package struct Tensor: Hashable, Sendable {
    package let name: String
    package let shape: [Int]
    /// The dtype, or the scheme of a packed tensor.
    package let format: String
    /// What it is for: linear, embedding, norm and so on.
    package let role: String
    /// Weights; 0 for what holds none of its own.
    package let elementCount: Int
    package let byteCount: Int

    package init(name: String, shape: [Int], format: String, role: String, elementCount: Int, byteCount: Int) {
      self.name = name
      self.shape = shape
      self.format = format
      self.role = role
      self.elementCount = elementCount
      self.byteCount = byteCount
    }

    package var bitsPerWeight: Double { elementCount > 0 ? Double(byteCount) * 8 / Double(elementCount) : 0 }
  }

  package let path: String
  /// One line: what this is, and who wrote it.
  package let kind: String
  package let modelType: String?
  package let files: [(name: String, byteCount: Int, note: String)]
  package let tensors: [Tensor]
  /// Bytes of the same tensors as they were before packing; nil where nothing is packed.
  package let sourceByteCount: Int?
  /// Keys and values beside the tensors, for formats that have them.
  package let metadata: [(key: String, value: String)]

  package init(
    path: String, kind: String, modelType: String?, files: [(name: String, byteCount: Int, note: String)],
    tensors: [Tensor], sourceByteCount: Int?, metadata: [(key: String, value: String)] = []
  ) {
    self.metadata = metadata
    self.path = path
    self.kind = kind
    self.modelType = modelType
    self.files = files
    self.tensors = tensors
    self.sourceByteCount = sourceByteCount
  }

  package var weightCount: Int { tensors.reduce(0) { $0 + $1.elementCount } }
  package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }

  package struct RoleTotal: Hashable, Sendable {
    package let role: String
    package var tensorCount = 0
    package var weightCount = 0
    package var byteCount = 0
  }

  /// Totals by role, largest first.
  package var roleTotals: [RoleTotal] {
    var totals: [String: RoleTotal] = [:]
    for tensor in tensors {
      var total = totals[tensor.role] ?? RoleTotal(role: tensor.role)
      total.tensorCount += 1
      total.weightCount += tensor.elementCount
      total.byteCount += tensor.byteCount
      totals[tensor.role] = total
    }
    return totals.values.sorted { ($0.byteCount, $1.role) > ($1.byteCount, $0.role) }
  }

  /// What the weights of this model take in memory at common precisions, by rule of thumb: weights × bits / 8.
  package var memoryByPrecision: [(precision: String, byteCount: Int)] {
    [("f32", 32), ("f16", 16), ("int8", 8), ("4-bit", 4)].map { ($0, weightCount / 8 * $1 + weightCount % 8 * $1 / 8) }
  }
}

// MARK: - Text

extension Inspection {
  package var text: String {
    var lines = ["\(path): \(kind.printable)"]
    if let modelType { lines.append("Model type: \(modelType.printable)") }
    var parts = [lines.joined(separator: "\n")]
    if !metadata.isEmpty {
      parts.append(
        table([TableColumn(title: "key"), TableColumn(title: "value")], metadata.map { [$0.key.printable, $0.value] }))
    }
    if !tensors.isEmpty {
      let columns = [
        TableColumn(title: "tensor"), TableColumn(title: "shape"), TableColumn(title: "format"),
        TableColumn(title: "bits/w", isNumber: true), TableColumn(title: "bytes", isNumber: true),
      ]
      let rows = tensors.map { tensor in
        [
          tensor.name.printable, Figures.shape(tensor.shape), tensor.format, Figures.fixed(tensor.bitsPerWeight, 3),
          "\(tensor.byteCount)",
        ]
      }
      parts.append(table(columns, rows))
      parts.append(totalsTable)
      parts.append(memory)
    }
    let fileRows = files.map { [$0.name.printable, Figures.bytes($0.byteCount), $0.note] }
    if fileRows.count > 1 || tensors.isEmpty {
      let columns = [
        TableColumn(title: "file"), TableColumn(title: "size", isNumber: true), TableColumn(title: "what"),
      ]
      parts.append(table(columns, fileRows))
    }
    return parts.joined(separator: "\n\n")
  }

  private var totalsTable: String {
    let columns = [
      TableColumn(title: "kind"), TableColumn(title: "tensors", isNumber: true),
      TableColumn(title: "weights", isNumber: true), TableColumn(title: "bytes", isNumber: true),
      TableColumn(title: "share", isNumber: true), TableColumn(title: "bits/w", isNumber: true),
    ]
    func row(_ name: String, _ count: Int, _ weights: Int, _ bytes: Int) -> [String] {
      [
        name, "\(count)", Figures.millions(weights), Figures.bytes(bytes),
        Figures.fixed(100 * Double(bytes) / Double(max(byteCount, 1)), 1) + " %",
        weights > 0 ? Figures.fixed(Double(bytes) * 8 / Double(weights), 3) : "",
      ]
    }
    var rows = roleTotals.map { row($0.role, $0.tensorCount, $0.weightCount, $0.byteCount) }
    rows.append(row("total", tensors.count, weightCount, byteCount))
    return table(columns, rows)
  }

  private var memory: String {
    var lines: [String] = []
    if let sourceByteCount {
      let ratio = Double(sourceByteCount) / Double(max(byteCount, 1))
      lines.append(
        "Compression: \(Figures.bytes(sourceByteCount)) → \(Figures.bytes(byteCount)), \(Figures.fixed(ratio, 2))×")
    }
    let others = memoryByPrecision.map { "\($0.precision) \(Figures.bytes($0.byteCount))" }.joined(separator: ", ")
    lines.append("Memory for the weights: \(Figures.bytes(byteCount)) as stored; all weights in \(others)")
    return lines.joined(separator: "\n")
  }
}

// MARK: - JSON

extension Inspection {
  package var json: JSONValue {
    var fields: JSONValue = [
      "path": .string(path),
      "kind": .string(kind),
      "model_type": modelType.map { .string($0) } ?? .null,
      "weights": .integer(weightCount),
      "bytes": .integer(byteCount),
      "source_bytes": sourceByteCount.map { .integer($0) } ?? .null,
      "compression_ratio": sourceByteCount.map { .real(Double($0) / Double(max(byteCount, 1))) } ?? .null,
    ]
    guard case .object(var members) = fields else { return fields }
    members["totals"] = .array(
      roleTotals.map {
        [
          "kind": .string($0.role), "tensors": .integer($0.tensorCount), "weights": .integer($0.weightCount),
          "bytes": .integer($0.byteCount),
        ]
      })
    var memory: JSONValue = ["as_stored": .integer(byteCount)]
    if case .object(var precisions) = memory {
      for (precision, bytes) in memoryByPrecision { precisions[precision] = .integer(bytes) }
      memory = .object(precisions)
    }
    members["memory_bytes"] = memory
    members["files"] = .array(
      files.map { ["name": .string($0.name), "bytes": .integer($0.byteCount), "what": .string($0.note)] })
    if !metadata.isEmpty {
      members["metadata"] = .array(metadata.map { ["key": .string($0.key), "value": .string($0.value)] })
    }
    members["tensors"] = .array(
      tensors.map {
        [
          "name": .string($0.name), "shape": .array($0.shape.map { .integer($0) }), "format": .string($0.format),
          "kind": .string($0.role), "bits_per_weight": .real($0.bitsPerWeight), "bytes": .integer($0.byteCount),
        ]
      })
    fields = .object(members)
    return fields
  }
}
