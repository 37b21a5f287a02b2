import Checkpoints
import Kernels
import OrderedCollections
import Quantization

/// In what two models on disk differ, tensor by tensor; with a source, which of them is nearer to it.
package struct DifferenceReport: Sendable {
  /// One of the two models.
  package struct Side: Hashable, Sendable {
    package let path: String
    /// What it is, in a few words.
    package let kind: String
    package let tensorCount: Int
    package let weightCount: Int
    package let byteCount: Int

    package init(path: String, kind: String, tensorCount: Int, weightCount: Int, byteCount: Int) {
      self.path = path
      self.kind = kind
      self.tensorCount = tensorCount
      self.weightCount = weightCount
      self.byteCount = byteCount
    }

    package var bitsPerWeight: Double { weightCount > 0 ? Double(byteCount) * 8 / Double(weightCount) : 0 }
  }

  /// How a side stores a tensor.
  package struct Form: Hashable, Sendable {
    package let shape: [Int]
    /// The dtype, block type or scheme.
    package let format: String
    package let byteCount: Int

    package init(shape: [Int], format: String, byteCount: Int) {
      self.shape = shape
      self.format = format
      self.byteCount = byteCount
    }
  }

  /// How far the values of one tensor are from those of another, which counts as the true one.
  package struct Distance: Hashable, Sendable {
    package let figures: Distortion
    /// Pairs of which one value is infinite or NaN and the other is not the same; they are not among the figures.
    package let nonFinite: Int

    package init(_ figures: Distortion, nonFinite: Int) {
      self.figures = figures
      self.nonFinite = nonFinite
    }

    package var isZero: Bool { figures.squaredError == 0 && nonFinite == 0 && figures.largestError == 0 }
  }

  package enum Outcome: Hashable, Sendable {
    case onlyInFirst
    case onlyInSecond
    /// Shapes differ; values were not compared.
    case reshaped
    /// The same form and the same bytes.
    case same
    /// Another form, but equal values.
    case restored
    /// Other values: how far the second's are from the first's.
    case changed(Distance)
    /// Other bytes of a type that is not decoded here.
    case unreadable
  }

  package struct Tensor: Hashable, Sendable {
    /// The first side's name, where it has the tensor.
    package let name: String
    package let first: Form?
    package let second: Form?
    package let outcome: Outcome
    /// How far each side is from the source; nil where there is nothing to compare with, or scales are folded in.
    package let toSource: ToSource?

    package init(name: String, first: Form?, second: Form?, outcome: Outcome, toSource: ToSource? = nil) {
      self.name = name
      self.first = first
      self.second = second
      self.outcome = outcome
      self.toSource = toSource
    }

    package var distance: Distance? { if case .changed(let distance) = outcome { distance } else { nil } }
  }

  package struct ToSource: Hashable, Sendable {
    package let first: Distance
    package let second: Distance

    package init(first: Distance, second: Distance) {
      self.first = first
      self.second = second
    }

    package enum Nearer: String, Hashable, Sendable {
      case first = "A"
      case second = "B"
      case neither = "="
    }

    package var nearer: Nearer {
      let (own, other) = (first.rank, second.rank)
      return own < other ? .first : other < own ? .second : .neither
    }
  }

  package let first: Side
  package let second: Side
  /// The path of the source; nil where none was given.
  package let source: String?
  /// In natural order of names.
  package let tensors: [Tensor]
  /// Other files of the two folders that are not the same, in words.
  package let otherFiles: [String]
  /// Tensors of both sides that the source lacks, or has in another shape, or whose scales are folded.
  package let withoutSource: Int

  package init(
    first: Side, second: Side, source: String?, tensors: [Tensor], otherFiles: [String], withoutSource: Int = 0
  ) {
    self.first = first
    self.second = second
    self.source = source
    self.tensors = tensors.sorted { $0.name.naturallyPrecedes($1.name) }
    self.otherFiles = otherFiles
    self.withoutSource = withoutSource
  }

  // MARK: Conclusions

  /// - Parameter ignoringFormat: whether equal values in another form count as the same.
  package func isSame(ignoringFormat: Bool) -> Bool {
    tensors.allSatisfy { $0.outcome == .same || ignoringFormat && $0.outcome == .restored }
  }

  package func count(of outcome: Outcome) -> Int { tensors.count { $0.outcome == outcome } }

  /// Those with other values, the farthest first.
  package var changed: [Tensor] {
    tensors.filter { $0.distance != nil }.sorted {
      let (a, b) = ($0.distance?.rank ?? 0, $1.distance?.rank ?? 0)
      return a == b ? $0.name.naturallyPrecedes($1.name) : a > b
    }
  }

  /// ‖A − B‖ / ‖A‖ over all tensors with other values together; nil if there are none.
  package var relativeDistance: Double? { Self.total(changed.compactMap(\.distance)) }

  /// Relative errors against the source, over the tensors that differ together; nil where nothing was compared.
  package var sourceErrors: (first: Double, second: Double)? {
    let found = tensors.compactMap(\.toSource)
    guard let first = Self.total(found.map(\.first)), let second = Self.total(found.map(\.second)) else { return nil }
    return (first, second)
  }

  package func wins(_ nearer: ToSource.Nearer) -> Int { tensors.count { $0.toSource?.nearer == nearer } }

  private static func total(_ distances: [Distance]) -> Double? {
    guard !distances.isEmpty else { return nil }
    let error = distances.reduce(0) { $0 + $1.figures.squaredError }
    let norm = distances.reduce(0) { $0 + $1.figures.squaredNorm }
    return error == 0 ? 0 : norm == 0 ? .infinity : (error / norm).squareRoot()
  }
}

extension DifferenceReport.Distance {
  /// For ordering: the relative error; values that are not finite come first.
  fileprivate var rank: Double { nonFinite > 0 ? .infinity : figures.relativeError }
}

// MARK: - Text

extension DifferenceReport {
  private static let shownRows = 20

  /// - Parameter all: whether every tensor is listed, not the farthest only.
  package func text(all: Bool) -> String {
    var parts = [headline]
    let tables: [(title: String, rows: [Tensor])] = [
      ("Only in A", tensors.filter { $0.outcome == .onlyInFirst }),
      ("Only in B", tensors.filter { $0.outcome == .onlyInSecond }),
      ("Of another shape", tensors.filter { $0.outcome == .reshaped }),
      ("Other bytes, of types that are not decoded here", tensors.filter { $0.outcome == .unreadable }),
    ]
    for (title, rows) in tables where !rows.isEmpty { parts.append(title + "\n" + formTable(rows, all: all)) }
    if !changed.isEmpty {
      let shown = all ? changed : Array(changed.prefix(Self.shownRows))
      parts.append("Other values, the farthest first\n" + valueTable(shown) + more(changed.count - shown.count))
    }
    let restored = tensors.filter { $0.outcome == .restored }
    if !restored.isEmpty { parts.append("Equal values, stored otherwise\n" + formTable(restored, all: all)) }
    if all {
      let same = tensors.filter { $0.outcome == .same }
      if !same.isEmpty { parts.append("The same\n" + formTable(same, all: true)) }
    }
    if !otherFiles.isEmpty { parts.append("Other files: " + otherFiles.joined(separator: "; ")) }
    return parts.joined(separator: "\n\n")
  }

  private func more(_ count: Int) -> String { count > 0 ? "\n… and \(count) more; --all lists them" : "" }

  private var headline: String {
    var lines = [line("A", first), line("B", second)]
    let (added, removed) = (count(of: .onlyInSecond), count(of: .onlyInFirst))
    var parts = ["\(count(of: .same)) the same"]
    if count(of: .restored) > 0 { parts.append("\(count(of: .restored)) stored otherwise with equal values") }
    if !changed.isEmpty { parts.append("\(changed.count) with other values") }
    if count(of: .reshaped) > 0 { parts.append("\(count(of: .reshaped)) of another shape") }
    if count(of: .unreadable) > 0 { parts.append("\(count(of: .unreadable)) with other bytes") }
    if removed > 0 { parts.append("\(removed) only in A") }
    if added > 0 { parts.append("\(added) only in B") }
    lines.append("\(Figures.count(tensors.count, "tensor")): " + parts.joined(separator: ", "))
    if let relativeDistance {
      lines.append(
        "Distance of those with other values together: ‖A − B‖ / ‖A‖ = \(Figures.percent(relativeDistance))")
    }
    if let source, let errors = sourceErrors {
      let compared = tensors.count { $0.toSource != nil }
      lines.append(
        "Nearer to \(source.printable): A in \(wins(.first)) of \(Figures.count(compared, "tensor")), B in"
          + " \(wins(.second)), equal in \(wins(.neither)). Relative error of these together: A"
          + " \(Figures.percent(errors.first)), B \(Figures.percent(errors.second))")
    }
    if withoutSource > 0 {
      lines.append(
        "\(Figures.count(withoutSource, "tensor")) cannot be compared with the source: it lacks them, scales are"
          + " folded in, or they were tuned")
    }
    return lines.joined(separator: "\n")
  }

  private func line(_ letter: String, _ side: Side) -> String {
    "\(letter)  \(side.path.printable): \(side.kind), \(Figures.count(side.tensorCount, "tensor")),"
      + " \(Figures.bytes(side.byteCount)), \(Figures.fixed(side.bitsPerWeight, 3)) bits per weight"
  }

  private func formTable(_ tensors: [Tensor], all: Bool) -> String {
    let shown = all ? tensors : Array(tensors.prefix(Self.shownRows))
    var columns = [TableColumn(title: "tensor")]
    if tensors.contains(where: { $0.first != nil }) { columns.append(TableColumn(title: "A")) }
    if tensors.contains(where: { $0.second != nil }) { columns.append(TableColumn(title: "B")) }
    let rows = shown.map { tensor in
      [tensor.name.printable]
        + [tensor.first, tensor.second].compactMap { $0.map { "\($0.format) \(Figures.shape($0.shape))" } }
    }
    return table(columns, rows) + more(tensors.count - shown.count)
  }

  private func valueTable(_ tensors: [Tensor]) -> String {
    let hasSource = tensors.contains { $0.toSource != nil }
    var columns = [
      TableColumn(title: "tensor"), TableColumn(title: "A"), TableColumn(title: "B"),
      TableColumn(title: "A to B", isNumber: true), TableColumn(title: "cosine", isNumber: true),
      TableColumn(title: "largest", isNumber: true), TableColumn(title: "at"),
    ]
    if hasSource {
      columns += [
        TableColumn(title: "error of A", isNumber: true), TableColumn(title: "of B", isNumber: true),
        TableColumn(title: "nearer"),
      ]
    }
    let rows = tensors.map { tensor -> [String] in
      let distance = tensor.distance
      let place = distance.map { position(of: $0.figures.largestErrorElement, in: tensor.first?.shape ?? []) } ?? []
      var row = [
        tensor.name.printable, tensor.first?.format ?? "", tensor.second?.format ?? "", Self.error(distance),
        Figures.fixed(distance?.figures.cosine ?? 0, 6), Figures.short(distance?.figures.largestError ?? 0),
        Figures.shape(place),
      ]
      if hasSource {
        row += [Self.error(tensor.toSource?.first), Self.error(tensor.toSource?.second)]
        row.append(tensor.toSource?.nearer.rawValue ?? "–")
      }
      return row
    }
    return table(columns, rows)
  }

  private static func error(_ distance: Distance?) -> String {
    guard let distance else { return "–" }
    let odd = distance.nonFinite > 0 ? " + \(distance.nonFinite) not finite" : ""
    // Small differences, such as those of rounding, are not shown as none.
    let error = distance.figures.relativeError
    return (error > 0 && error < 5e-5 ? Figures.short(Float(error * 100)) + " %" : Figures.percent(error)) + odd
  }
}

// MARK: - JSON

extension DifferenceReport {
  package func json(ignoringFormat: Bool) -> JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [
      "a": first.json, "b": second.json, "same": .bool(isSame(ignoringFormat: ignoringFormat)),
      "counts": .object(
        OrderedDictionary(
          tensors.map { ($0.outcome.name, JSONValue.integer(1)) },
          uniquingKeysWith: { .integer(($0.integer ?? 0) + ($1.integer ?? 0)) })),
      "relative_distance": relativeDistance.map { .real($0) } ?? .null,
    ]
    if let source {
      fields["source"] = .string(source)
      fields["nearer"] = [
        "a": .integer(wins(.first)), "b": .integer(wins(.second)), "equal": .integer(wins(.neither)),
      ]
      fields["relative_error_a"] = sourceErrors.map { .real($0.first) } ?? .null
      fields["relative_error_b"] = sourceErrors.map { .real($0.second) } ?? .null
      fields["without_source"] = .integer(withoutSource)
    }
    fields["tensors"] = .array(tensors.map(\.json))
    fields["other_files"] = .array(otherFiles.map { .string($0) })
    return .object(fields)
  }
}

extension DifferenceReport.Side {
  fileprivate var json: JSONValue {
    [
      "path": .string(path), "kind": .string(kind), "tensors": .integer(tensorCount), "weights": .integer(weightCount),
      "bytes": .integer(byteCount), "bits_per_weight": .real(bitsPerWeight),
    ]
  }
}

extension DifferenceReport.Outcome {
  fileprivate var name: String {
    switch self {
    case .onlyInFirst: "only_in_a"
    case .onlyInSecond: "only_in_b"
    case .reshaped: "other_shape"
    case .same: "same"
    case .restored: "equal_values"
    case .changed: "other_values"
    case .unreadable: "other_bytes"
    }
  }
}

extension DifferenceReport.Tensor {
  fileprivate var json: JSONValue {
    func form(_ form: DifferenceReport.Form?) -> JSONValue {
      form.map {
        [
          "shape": .array($0.shape.map { .integer($0) }), "format": .string($0.format),
          "bytes": .integer($0.byteCount),
        ]
      } ?? .null
    }
    var fields: OrderedDictionary<String, JSONValue> = [
      "name": .string(name), "outcome": .string(outcome.name), "a": form(first), "b": form(second),
    ]
    if let distance { fields["distance"] = distance.json(shape: first?.shape ?? []) }
    if let toSource {
      fields["error_a"] = toSource.first.json(shape: first?.shape ?? [])
      fields["error_b"] = toSource.second.json(shape: first?.shape ?? [])
      fields["nearer"] = toSource.nearer == .neither ? .null : .string(toSource.nearer.rawValue.lowercased())
    }
    return .object(fields)
  }
}

extension DifferenceReport.Distance {
  fileprivate func json(shape: [Int]) -> JSONValue {
    [
      "relative": .real(figures.relativeError), "cosine": .real(figures.cosine),
      "largest": .real(Double(figures.largestError)),
      "largest_at": .array(position(of: figures.largestErrorElement, in: shape).map { .integer($0) }),
      "not_finite": .integer(nonFinite),
    ]
  }
}
