import Quantization

/// The tensors of a report with all that is known of each, and where in the model each stands.
package struct Ledger: Sendable {
  package struct Entry: Sendable {
    package let report: TensorReport
    package let profile: TensorProfile?
    /// One, or the experts of a stacked tensor; empty where it was not calibrated.
    package let layers: [CalibrationReport.Layer]
    /// The number of its block; nil outside of blocks.
    package let depth: Int?
    /// What it is within its block, numbers of experts left open: `mlp.experts.*.down_proj`.
    package let kind: String

    /// Relative error of the layer's output on held-out tokens; over experts the root of the mean square.
    package var outputError: Double? { Self.rootMeanSquare(layers.compactMap(\.outputError)) }
    /// The same of rounding to nearest.
    package var plainError: Double? { Self.rootMeanSquare(layers.compactMap(\.plainError)) }
    package var ratio: Double? {
      guard let outputError, let plainError, plainError > 0 else { return nil }
      return outputError / plainError
    }
    /// Of the output where it was measured, else of the weights.
    package var error: Double? { outputError ?? report.distortion?.relativeError }

    private static func rootMeanSquare(_ values: [Double]) -> Double? {
      values.isEmpty ? nil : (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
    }
  }

  package let entries: [Entry]
  /// Blocks, by number.
  package let depths: [Int]
  /// Kinds of quantized tensors in blocks, in the order of their first.
  package let kinds: [String]
  package let isCalibrated: Bool

  package init(_ report: ModelReport, profiles: [String: TensorProfile]) {
    let layers = Dictionary(grouping: report.calibration?.layers ?? [], by: \.tensor)
    entries = report.tensors.map { tensor in
      let place = Self.place(of: tensor.name)
      return Entry(
        report: tensor, profile: profiles[tensor.name], layers: layers[tensor.name] ?? [], depth: place.depth,
        kind: place.kind)
    }
    let quantized = entries.filter { $0.report.isQuantized && $0.depth != nil }
    depths = Set(quantized.compactMap(\.depth)).sorted()
    var kinds: [String] = []
    for entry in quantized where !kinds.contains(entry.kind) { kinds.append(entry.kind) }
    self.kinds = kinds
    isCalibrated = entries.contains { $0.outputError != nil }
  }

  /// Reads block number and kind off a name: the first whole number is the block's.
  package static func place(of name: String) -> (depth: Int?, kind: String) {
    var parts = name.split(separator: ".").map(String.init)
    if parts.count > 1, parts.last == "weight" { parts.removeLast() }
    guard let index = parts.firstIndex(where: { Int($0) != nil }) else { return (nil, parts.joined(separator: ".")) }
    let rest = parts[(index + 1)...].map { Int($0) == nil ? $0 : "*" }
    return (Int(parts[index]), rest.joined(separator: "."))
  }

  /// The quantized tensors of a kind in a block: one, or several experts'.
  package func entries(depth: Int, kind: String) -> [Entry] {
    entries.filter { $0.depth == depth && $0.kind == kind && $0.report.isQuantized }
  }

  /// What a kind of tensor weighs, and what it loses.
  package struct KindSummary: Sendable {
    package let kind: String
    package let weights: Int
    package let storedBytes: Int
    package let scaleBytes: Int
    /// Mean square of the errors of its tensors.
    package let squaredError: Double
    /// Its share of the sum of squared errors over all kinds.
    package let share: Double
    /// Bytes that one more bit a code would take.
    package var bitBytes: Int { weights / 8 }
    /// The share of all squared error that one more bit, which halves a rounding error, would take off.
    package var bitGain: Double { 0.75 * share }
  }

  package var kindSummaries: [KindSummary] {
    let groups = kinds.map { kind in (kind, entries.filter { $0.kind == kind && $0.report.isQuantized }) }
    let squares = groups.map { $0.1.reduce(0) { $0 + ($1.error ?? 0) * ($1.error ?? 0) } }
    let total = squares.reduce(0, +)
    return zip(groups, squares).map { group, square in
      KindSummary(
        kind: group.0, weights: group.1.reduce(0) { $0 + $1.report.elementCount },
        storedBytes: group.1.reduce(0) { $0 + $1.report.storedByteCount },
        scaleBytes: group.1.reduce(0) { $0 + ($1.profile?.scaleByteCount ?? 0) },
        squaredError: square / Double(max(1, group.1.count)), share: total > 0 ? square / total : 0)
    }
  }

  /// The quantized tensors, those that lost most first.
  package var byLoss: [Entry] {
    entries.filter { $0.error != nil }.sorted {
      ($1.error ?? 0, $0.report.name) < ($0.error ?? 0, $1.report.name)
    }
  }

  /// Bits per weight of everything in a block.
  package func bitsPerWeight(depth: Int) -> Double {
    let block = entries.filter { $0.depth == depth }
    let weights = block.reduce(0) { $0 + $1.report.elementCount }
    return Double(block.reduce(0) { $0 + $1.report.storedByteCount }) * 8 / Double(max(1, weights))
  }
}
