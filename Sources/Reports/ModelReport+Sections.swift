import Checkpoints
import Foundation
import OrderedCollections
import Quantization

/// The parts of a report for a terminal that its page has as well.
extension ModelReport {
  /// Warnings of a kind that are listed one by one.
  static let listedWarnings = 20

  static func text(of warnings: [Findings.Warning]) -> String {
    Findings.Warning.Kind.allCases.compactMap { kind in
      let found = warnings.filter { $0.kind == kind }
      guard !found.isEmpty else { return nil }
      var lines = ["\(kind.title): \(found.count)"]
      lines += found.prefix(listedWarnings).map { "  \($0.name): \($0.text)" }
      if found.count > listedWarnings { lines.append("  and \(found.count - listedWarnings) more") }
      return lines.joined(separator: "\n")
    }.joined(separator: "\n")
  }

  static func text(of evaluation: EvaluationFigures) -> String {
    let columns = [
      TableColumn(title: "evaluated"), TableColumn(title: "value", isNumber: true),
      TableColumn(title: "95 % interval", isNumber: true),
    ]
    return table(columns, evaluation.rows.map { [$0.name, $0.value, $0.interval.isEmpty ? "–" : $0.interval] }) + "\n"
      + evaluation.setting
  }

  static func text(of provenance: ConversionRecord) -> String {
    var lines: [String] = []
    for table in provenance.tables {
      lines.append(table.title)
      let width = table.rows.map(\.name.count).max() ?? 0
      lines += table.rows.map { "  " + $0.name.padding(toLength: width + 2, withPad: " ", startingAt: 0) + $0.value }
    }
    guard !provenance.files.isEmpty else { return lines.joined(separator: "\n") }
    let columns = [
      TableColumn(title: "file"), TableColumn(title: "of"), TableColumn(title: "bytes", isNumber: true),
      TableColumn(title: "SHA-256"),
    ]
    let rows = provenance.files.map {
      [$0.name.printable, $0.side.rawValue, "\($0.byteCount)", $0.sha256 ?? "not computed"]
    }
    return lines.joined(separator: "\n") + "\n\n" + table(columns, rows)
  }

  /// What kinds of tensors weigh and lose, and what one more bit would cost and take off.
  func kindTable(_ ledger: Ledger) -> String {
    let measured = ledger.isCalibrated ? "output error" : "weight error"
    let columns = [
      TableColumn(title: "kind"), TableColumn(title: "stored", isNumber: true),
      TableColumn(title: "codes", isNumber: true), TableColumn(title: "scales", isNumber: true),
      TableColumn(title: measured, isNumber: true), TableColumn(title: "by rounding", isNumber: true),
      TableColumn(title: "share of squares", isNumber: true), TableColumn(title: "a bit more costs", isNumber: true),
      TableColumn(title: "of the files", isNumber: true), TableColumn(title: "takes off", isNumber: true),
    ]
    let rows = ledger.kindSummaries.map { kind in
      [
        kind.kind.printable, Figures.bytes(kind.storedBytes), Figures.bytes(kind.codeBytes),
        Figures.bytes(kind.scaleBytes), kind.error.map(Figures.percent) ?? "–",
        kind.roundingError.map(Figures.percent) ?? "–", Figures.percent(kind.share),
        kind.bitBytes.map { Figures.bytes($0) } ?? "–", kind.bitBytes.map { Figures.percent(fileShare($0)) } ?? "–",
        kind.bitGain.map(Figures.percent) ?? "–",
      ]
    }
    return "By kind of linear layer\n" + table(columns, rows)
  }

  static func profileTable(_ ledger: Ledger) -> String {
    let columns = [
      TableColumn(title: "weights, codes, scales"), TableColumn(title: "peak", isNumber: true),
      TableColumn(title: "PQ index", isNumber: true), TableColumn(title: "codes used", isNumber: true),
      TableColumn(title: "entropy, bits", isNumber: true), TableColumn(title: "scale bytes", isNumber: true),
      TableColumn(title: "scales, powers of two", isNumber: true),
    ]
    let rows: [[String]] = ledger.entries.compactMap { entry in
      guard let profile = entry.profile else { return nil }
      return [
        entry.report.name.printable, Figures.fixed(profile.peak, 1), Figures.fixed(profile.sparsity, 3),
        profile.codes.isEmpty ? "–" : "\(profile.codes.count - profile.unusedCodes) of \(profile.codes.count)",
        profile.entropy.map { Figures.fixed($0, 3) } ?? "–", "\(profile.scaleByteCount)",
        profile.scales.map { "\(Figures.fixed(Double($0.low), 2)) to \(Figures.fixed(Double($0.high), 2))" } ?? "–",
      ]
    }
    return table(columns, rows)
  }
}

extension CalibrationReport {
  /// An input with features that stand out, and the tensors that read it.
  struct StrongInput {
    let features: InputFeatures
    let tensors: [String]

    /// The block and the kinds that read it, where it is in a block.
    var name: String {
      let places = tensors.map(Ledger.place)
      guard let depth = places[0].depth, places.allSatisfy({ $0.depth == depth }) else {
        return tensors.map(\.printable).joined(separator: ", ")
      }
      let kinds = places.map { $0.kind.split(separator: ".").last.map(String.init)?.printable ?? "" }
      return "block \(depth): " + kinds.joined(separator: ", ")
    }
  }

  /// Those whose features differ most first.
  var strongInputs: [StrongInput] {
    // Layers that read the same input know the same of it.
    struct Key: Hashable {
      let depth: Int?
      let median: Double
      let strongest: [InputFeatures.Strength]
    }
    var inputs: OrderedDictionary<Key, StrongInput> = [:]
    for features in inputFeatures where features.peak != nil {
      let key = Key(
        depth: Ledger.place(of: features.tensor).depth, median: features.median, strongest: features.strongest)
      let tensors = (inputs[key]?.tensors ?? []) + [features.tensor]
      inputs[key] = StrongInput(features: inputs[key]?.features ?? features, tensors: tensors)
    }
    return inputs.values.sorted {
      ($1.features.peak ?? 0, $0.features.tensor) < ($0.features.peak ?? 0, $1.features.tensor)
    }
  }

  /// Features that are outliers of several inputs, as those of the residual stream are, in words; nil where none is.
  var recurringFeatures: String? {
    var counts: [Int: Int] = [:]
    for input in strongInputs {
      for strength in input.features.strongest.prefix(input.features.outliers) {
        counts[strength.feature, default: 0] += 1
      }
    }
    let found = counts.filter { $0.value > 1 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
    guard !found.isEmpty else { return nil }
    let listed = found.prefix(8).map { "\($0.key) (\($0.value) inputs)" }.joined(separator: ", ")
    return "Outliers of several inputs: \(listed)\(found.count > 8 ? ", …" : "")."
  }

  var featureText: String {
    let columns = [
      TableColumn(title: "input of"), TableColumn(title: "features", isNumber: true),
      TableColumn(title: "outliers", isNumber: true), TableColumn(title: "strongest", isNumber: true),
      TableColumn(title: "over the median", isNumber: true),
    ]
    let rows = strongInputs.prefix(10).map { input in
      [
        input.name,
        "\(input.features.count)", "\(input.features.outliers)",
        input.features.strongest.first.map { "\($0.feature)" } ?? "–",
        input.features.peak.map { Figures.fixed($0, 2) + "×" } ?? "–",
      ]
    }
    return "Inputs whose features differ most (outliers: √E[x²] of six times the median and more)\n"
      + table(columns, rows) + (recurringFeatures.map { "\n" + $0 } ?? "")
  }
}
