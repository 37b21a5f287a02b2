import Checkpoints
import Kernels
import OrderedCollections

/// What a conversion would do, for `--dry-run`.
package struct PlanSummary: Sendable {
  package struct Tensor: Hashable, Sendable {
    package let name: String
    package let shape: [Int]
    package let type: ElementType
    /// The scheme of a quantized tensor, nil for a kept one.
    package let scheme: String?
    package let reason: String?
    package let sourceByteCount: Int
    package let storedByteCount: Int

    package init(
      name: String, shape: [Int], type: ElementType, scheme: String?, reason: String?, sourceByteCount: Int,
      storedByteCount: Int
    ) {
      self.name = name
      self.shape = shape
      self.type = type
      self.scheme = scheme
      self.reason = reason
      self.sourceByteCount = sourceByteCount
      self.storedByteCount = storedByteCount
    }
  }

  package let tensors: [Tensor]
  package let files: [(name: String, byteCount: Int)]
  package let copiedFiles: [String]
  package let leftFiles: [(name: String, reason: String)]
  /// Every byte of the output folder.
  package let outputByteCount: Int
  package let support: ModelSupport
  package let memory: Memory

  /// What the conversion takes of memory at least, and where it goes.
  package struct Memory: Sendable {
    package let parts: [(what: String, byteCount: Int)]
    /// Activations that may go to a file.
    package let activationByteCount: Int

    package init(parts: [(what: String, byteCount: Int)], activationByteCount: Int) {
      self.parts = parts
      self.activationByteCount = activationByteCount
    }

    var least: Int { parts.reduce(0) { $0 + $1.byteCount } }

    var text: String {
      let rows = parts.sorted { $0.byteCount > $1.byteCount }.map { [$0.what, Figures.bytes($0.byteCount)] }
      let more =
        activationByteCount > 0 ? "; \(Figures.bytes(activationByteCount)) of activations go to a file as need be" : ""
      return table([TableColumn(title: "memory"), TableColumn(title: "at most", isNumber: true)], rows)
        + "\nMemory: \(Figures.bytes(least)) at most\(more)."
    }

    var json: JSONValue {
      [
        "bytes": .integer(least), "activation_bytes": .integer(activationByteCount),
        "parts": .array(parts.map { ["what": .string($0.what), "bytes": .integer($0.byteCount)] }),
      ]
    }
  }

  package init(
    tensors: [Tensor], files: [(name: String, byteCount: Int)], copiedFiles: [String],
    leftFiles: [(name: String, reason: String)], outputByteCount: Int, support: ModelSupport,
    memory: Memory
  ) {
    self.tensors = tensors
    self.files = files
    self.copiedFiles = copiedFiles
    self.leftFiles = leftFiles
    self.outputByteCount = outputByteCount
    self.support = support
    self.memory = memory
  }

  package var text: String {
    let columns = [
      TableColumn(title: "tensor"), TableColumn(title: "shape"), TableColumn(title: "dtype"),
      TableColumn(title: "becomes"), TableColumn(title: "before", isNumber: true),
      TableColumn(title: "after", isNumber: true),
    ]
    let rows = shownTensors.map { name, tensor, count in
      [
        name.printable, (count > 1 ? "\(count) × " : "") + Figures.shape(tensor.shape), tensor.type.rawValue,
        tensor.scheme ?? "kept: \(tensor.reason ?? "")", Figures.bytes(count * tensor.sourceByteCount),
        Figures.bytes(count * tensor.storedByteCount),
      ]
    }
    let fileRows = files.map { [$0.name, "\($0.byteCount)"] }
    let fileColumns = [TableColumn(title: "file"), TableColumn(title: "bytes", isNumber: true)]
    var text = table(columns, rows) + "\n\n" + table(fileColumns, fileRows)
    if !copiedFiles.isEmpty { text += "\n\nCopied: \(copiedFiles.joined(separator: ", "))" }
    if !leftFiles.isEmpty {
      text += "\nNot copied: " + leftFiles.map { "\($0.name) (\($0.reason))" }.joined(separator: ", ")
    }
    let quantized = tensors.count { $0.scheme != nil }
    text += "\n\n\(Figures.count(quantized, "tensor")) to quantize, \(tensors.count - quantized) to keep."
    text += " The output folder takes \(outputByteCount) bytes (\(Figures.bytes(outputByteCount)))."
    return text + "\n" + support.text + "\n\n" + memory.text
  }

  /// Beyond this, tensors whose names differ in numbers alone share a line.
  private static let longestList = 2000

  /// What a line shows: a tensor, or how many there are like it.
  private var shownTensors: [(name: String, tensor: Tensor, count: Int)] {
    guard tensors.count > Self.longestList else { return tensors.map { ($0.name, $0, 1) } }
    struct Kind: Hashable {
      let name: String
      let shape: [Int]
      let scheme: String?
      let type: ElementType
    }
    var found: OrderedDictionary<Kind, (tensor: Tensor, count: Int)> = [:]
    for tensor in tensors {
      let parts = tensor.name.split(separator: ".", omittingEmptySubsequences: false)
      let name = parts.map { Int($0) == nil ? String($0) : "*" }.joined(separator: ".")
      let kind = Kind(name: name, shape: tensor.shape, scheme: tensor.scheme, type: tensor.type)
      found[kind, default: (tensor, 0)].count += 1
    }
    return found.map { kind, value in (value.count > 1 ? kind.name : value.tensor.name, value.tensor, value.count) }
  }

  package var json: JSONValue {
    [
      "tensors": .array(
        tensors.map { tensor in
          var fields: JSONValue = [
            "name": .string(tensor.name), "shape": .array(tensor.shape.map { .integer($0) }),
            "dtype": .string(tensor.type.rawValue),
          ]
          if case .object(var members) = fields {
            members["bucket"] = tensor.scheme == nil ? "kept" : "quantized"
            if let scheme = tensor.scheme { members["scheme"] = .string(scheme) }
            if let reason = tensor.reason { members["reason"] = .string(reason) }
            members["source_bytes"] = .integer(tensor.sourceByteCount)
            members["stored_bytes"] = .integer(tensor.storedByteCount)
            fields = .object(members)
          }
          return fields
        }),
      "files": .array(files.map { ["name": .string($0.name), "bytes": .integer($0.byteCount)] }),
      "copied_files": .array(copiedFiles.map { .string($0) }),
      "left_files": .array(leftFiles.map { ["name": .string($0.name), "reason": .string($0.reason)] }),
      "output_bytes": .integer(outputByteCount), "memory": memory.json, "model": support.json,
    ]
  }
}
