import Checkpoints
import OrderedCollections

extension Inspection {
  /// For a terminal: what it is, how it was made, what is odd, what is in it.
  /// - Parameter all: whether every tensor has its line, not only every family of them.
  package func text(all: Bool = false) -> String {
    var parts = [headline]
    if let depth { parts.append(depth.text) }
    if !tensors.isEmpty {
      parts.append(totalsTable)
      parts.append(all ? tensorTable : familyTable)
      parts.append(memory)
    }
    let fileRows = files.map { [$0.name.printable, Figures.bytes($0.byteCount), $0.note] }
    if fileRows.count > 1 || tensors.isEmpty {
      let columns = [
        TableColumn(title: "file"), TableColumn(title: "size", isNumber: true), TableColumn(title: "what"),
      ]
      parts.append(table(columns, fileRows))
    }
    if !metadata.isEmpty {
      parts.append(
        table([TableColumn(title: "key"), TableColumn(title: "value")], metadata.map { [$0.key.printable, $0.value] }))
    }
    return parts.joined(separator: "\n\n")
  }

  private var headline: String {
    var lines = ["\(path.printable): \(kind.printable)"]
    if let modelType { lines.append("Model type: \(modelType.printable)") }
    lines += provenance.map { "\($0.name): \($0.value)" }
    lines += summary
    if oddities.isEmpty, !tensors.isEmpty {
      lines.append("Odd: nothing found in the headers")
    }
    for oddity in oddities { lines.append("\(oddity.isDefect ? "DEFECT" : "Odd"): \(oddity.text)") }
    return lines.joined(separator: "\n")
  }

  /// What is quantized, how far, and what is not.
  package var summary: [String] {
    guard !tensors.isEmpty else { return [] }
    var lines: [String] = []
    let layers = tensors.filter { $0.role == "linear" }
    if quantized.isEmpty {
      lines.append(
        "Quantized: nothing; \(Figures.fixed(bitsPerWeight, 3)) bits per weight,"
          + " \(Figures.count(layers.count, "linear weight"))")
      return lines
    }
    let bytes = quantized.reduce(0) { $0 + $1.byteCount }
    let weights = quantized.reduce(0) { $0 + $1.elementCount }
    let inLayers = layers.count(where: \.isQuantized)
    let others = quantized.count - inLayers
    lines.append(
      "Quantized: \(inLayers) of \(Figures.count(layers.count, "linear weight"))"
        + (others > 0 ? " and \(Figures.count(others, "other tensor"))" : "")
        + ", \(Figures.fixed(Double(bytes) * 8 / Double(max(weights, 1)), 3)) bits per weight with scales;"
        + " \(Figures.fixed(bitsPerWeight, 3)) over everything")
    let kept = formatTotals.filter { !$0.isQuantized && $0.weightCount > 0 }
    if !kept.isEmpty {
      lines.append(
        "Not quantized: " + kept.map { "\($0.tensorCount) \($0.role) \($0.format)" }.joined(separator: ", "))
    }
    return lines
  }

  private var totalsTable: String {
    let columns = [
      TableColumn(title: "kind"), TableColumn(title: "format"), TableColumn(title: "tensors", isNumber: true),
      TableColumn(title: "weights", isNumber: true), TableColumn(title: "bytes", isNumber: true),
      TableColumn(title: "share", isNumber: true), TableColumn(title: "bits/w", isNumber: true),
    ]
    func row(_ name: String, _ format: String, _ count: Int, _ weights: Int, _ bytes: Int) -> [String] {
      [
        name, format, "\(count)", Figures.millions(weights), Figures.bytes(bytes),
        Figures.fixed(100 * Double(bytes) / Double(max(byteCount, 1)), 1) + " %",
        weights > 0 ? Figures.fixed(Double(bytes) * 8 / Double(weights), 3) : "",
      ]
    }
    var rows = formatTotals.map { row($0.role, $0.format, $0.tensorCount, $0.weightCount, $0.byteCount) }
    rows.append(row("total", "", tensors.count, weightCount, byteCount))
    return table(columns, rows)
  }

  private var tensorTable: String {
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
    return table(columns, rows)
  }

  private var familyTable: String {
    let columns = [
      TableColumn(title: "tensors"), TableColumn(title: "", isNumber: true), TableColumn(title: "shape"),
      TableColumn(title: "format"), TableColumn(title: "bits/w", isNumber: true),
      TableColumn(title: "bytes", isNumber: true),
    ]
    let rows = families.map { family in
      [
        family.name.printable, family.members.count > 1 ? "×\(family.members.count)" : "",
        Figures.shape(family.members[0].shape), family.members[0].format,
        Figures.fixed(family.members[0].bitsPerWeight, 3), Figures.bytes(family.byteCount),
      ]
    }
    let isFolded = families.count < tensors.count
    return table(columns, rows) + (isFolded ? "\n(--all lists the \(tensors.count) tensors one by one)" : "")
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
    let fields: JSONValue = [
      "path": .string(path),
      "kind": .string(kind),
      "model_type": modelType.map { .string($0) } ?? .null,
      "weights": .integer(weightCount),
      "bytes": .integer(byteCount),
      "bits_per_weight": .real(bitsPerWeight),
      "source_bytes": sourceByteCount.map { .integer($0) } ?? .null,
      "compression_ratio": sourceByteCount.map { .real(Double($0) / Double(max(byteCount, 1))) } ?? .null,
    ]
    guard case .object(var members) = fields else { return fields }
    members["made_by"] = .array(provenance.map { ["name": .string($0.name), "value": .string($0.value)] })
    members["odd"] = .array(oddities.map { ["defect": .bool($0.isDefect), "text": .string($0.text)] })
    members["totals"] = .array(
      roleTotals.map {
        [
          "kind": .string($0.role), "tensors": .integer($0.tensorCount), "weights": .integer($0.weightCount),
          "bytes": .integer($0.byteCount),
        ]
      })
    members["formats"] = .array(
      formatTotals.map {
        [
          "kind": .string($0.role), "format": .string($0.format), "quantized": .bool($0.isQuantized),
          "tensors": .integer($0.tensorCount), "weights": .integer($0.weightCount), "bytes": .integer($0.byteCount),
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
          "kind": .string($0.role), "quantized": .bool($0.isQuantized), "bits_per_weight": .real($0.bitsPerWeight),
          "bytes": .integer($0.byteCount),
        ]
      })
    if let depth { members["values"] = depth.json }
    return .object(members)
  }
}
