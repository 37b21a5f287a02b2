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
    package let isQuantized: Bool

    package init(
      name: String, shape: [Int], format: String, role: String, elementCount: Int, byteCount: Int,
      isQuantized: Bool = false
    ) {
      self.name = name
      self.shape = shape
      self.format = format
      self.role = role
      self.elementCount = elementCount
      self.byteCount = byteCount
      self.isQuantized = isQuantized
    }

    package var bitsPerWeight: Double { elementCount > 0 ? Double(byteCount) * 8 / Double(elementCount) : 0 }
  }

  /// Something that is not as it should be, or that a reader would not expect.
  package struct Oddity: Hashable, Sendable {
    /// Whether programs will refuse it, or load something else than was meant.
    package let isDefect: Bool
    package let text: String

    package init(_ text: String, isDefect: Bool = false) {
      self.isDefect = isDefect
      self.text = text
    }
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
  /// Tool, method and settings, as far as the files tell.
  package var provenance: [(name: String, value: String)] = []
  package var oddities: [Oddity] = []
  /// What reading all values showed; nil where that was not asked for.
  package var depth: DeepInspection?

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
  package var bitsPerWeight: Double { weightCount > 0 ? Double(byteCount) * 8 / Double(weightCount) : 0 }
  package var quantized: [Tensor] { tensors.filter(\.isQuantized) }
  /// Whether something is wrong with it, as opposed to unusual.
  package var isDefective: Bool { oddities.contains(where: \.isDefect) }

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

  /// Tensors of one role and one format.
  package struct FormatTotal: Hashable, Sendable {
    package let role: String
    package let format: String
    package let isQuantized: Bool
    package var tensorCount = 0
    package var weightCount = 0
    package var byteCount = 0
  }

  /// Totals by role and format: the quantized ones first, then by falling size.
  package var formatTotals: [FormatTotal] {
    var totals: OrderedDictionary<[String], FormatTotal> = [:]
    for tensor in tensors {
      let key = [tensor.role, tensor.format]
      var total =
        totals[key] ?? FormatTotal(role: tensor.role, format: tensor.format, isQuantized: tensor.isQuantized)
      total.tensorCount += 1
      total.weightCount += tensor.elementCount
      total.byteCount += tensor.byteCount
      totals[key] = total
    }
    return totals.values.sorted {
      $0.isQuantized != $1.isQuantized
        ? $0.isQuantized : ($0.byteCount, $1.role + $1.format) > ($1.byteCount, $0.role + $0.format)
    }
  }

  /// What all weights would take in memory at other precisions.
  package var memoryByPrecision: [(precision: String, byteCount: Int)] {
    [("f32", 32), ("f16", 16), ("int8", 8), ("4-bit", 4)].map {
      ($0, weightCount / 8 * $1 + weightCount % 8 * $1 / 8)
    }
  }

  // MARK: Tensors that differ in their numbers alone

  /// Tensors of one shape and format whose names differ only in numbers, such as those of blocks and experts.
  package struct Family: Hashable, Sendable {
    /// With the numbers put together, such as `model.layers.0-31.mlp.up_proj.weight`.
    package let name: String
    package let members: [Tensor]

    package var byteCount: Int { members.reduce(0) { $0 + $1.byteCount } }
    package var weightCount: Int { members.reduce(0) { $0 + $1.elementCount } }
  }

  /// In the order of the first member of each.
  package var families: [Family] {
    struct Key: Hashable {
      let parts: [String]
      let shape: [Int]
      let format: String
      let byteCount: Int
    }
    var found: OrderedDictionary<Key, [(tensor: Tensor, numbers: [Int])]> = [:]
    for tensor in tensors {
      var numbers: [Int] = []
      let parts = tensor.name.split(separator: ".", omittingEmptySubsequences: false).map { part in
        guard let number = Int(part), String(number) == part else { return String(part) }
        numbers.append(number)
        return "\u{0}"
      }
      let key = Key(parts: parts, shape: tensor.shape, format: tensor.format, byteCount: tensor.byteCount)
      found[key, default: []].append((tensor, numbers))
    }
    return found.map { key, members in
      let count = members[0].numbers.count
      let places = (0..<count).map { place in Set(members.map { $0.numbers[place] }).sorted() }
      // Stops growing beyond the number of names, so that no names make it overflow.
      let isWhole = places.reduce(1) { $0 > members.count ? $0 : $0 * $1.count } == members.count
      var shown = places.map { isWhole || $0.count == 1 ? Self.runs($0) : "*" }[...]
      let name = key.parts.map { $0 == "\u{0}" ? shown.removeFirst() : $0 }.joined(separator: ".")
      return Family(name: members.count == 1 ? members[0].tensor.name : name, members: members.map(\.tensor))
    }
  }

  /// Rising numbers in short: `0-3,5`; `*` where that is long.
  private static func runs(_ numbers: [Int]) -> String {
    var runs: [ClosedRange<Int>] = []
    for number in numbers {
      if let last = runs.last, last.upperBound + 1 == number {
        runs[runs.count - 1] = last.lowerBound...number
      } else {
        runs.append(number...number)
      }
    }
    let text = runs.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
    return runs.count > 6 ? "*" : text.joined(separator: ",")
  }
}
