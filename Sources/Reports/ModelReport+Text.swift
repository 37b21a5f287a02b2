import Checkpoints
import Quantization

extension ModelReport {
  /// The whole report for a terminal.
  package func text(path: String) -> String {
    let ledger = Ledger(self)
    let findings = Findings(self, ledger)
    var parts = [headline(path: path)]
    if !findings.answers.isEmpty {
      parts.append(findings.answers.map { "\($0.question)\n  \($0.answer)" }.joined(separator: "\n"))
    }
    if !findings.warnings.isEmpty { parts.append(Self.text(of: findings.warnings)) }
    if let evaluation { parts.append(Self.text(of: evaluation)) }
    if !ledger.kinds.isEmpty { parts.append(kindTable(ledger)) }
    if !quantized.isEmpty {
      let measured = quantized.filter { !$0.isFolded }
      let folded = quantized.filter(\.isFolded)
      if !measured.isEmpty { parts.append("Quantized\n" + Self.errorTable(measured)) }
      if !folded.isEmpty { parts.append(Self.foldedTitle + Self.foldedTable(folded)) }
      if measured.count > 10 { parts.append("Worst ten by relative error\n" + Self.errorTable(worst(10))) }
    }
    if let calibration, calibration.isMeasured { parts.append(calibration.text) }
    if let calibration, !calibration.inputFeatures.isEmpty { parts.append(calibration.featureText) }
    if !profiles.isEmpty { parts.append(Self.profileTable(ledger)) }
    if !kept.isEmpty {
      let rows = kept.map { report in
        [report.name.printable, Figures.bytes(report.storedByteCount), report.reason]
      }
      let columns = [
        TableColumn(title: "kept"), TableColumn(title: "bytes", isNumber: true), TableColumn(title: "why"),
      ]
      parts.append("Kept as they were\n" + table(columns, rows))
    }
    if let provenance { parts.append(Self.text(of: provenance)) }
    parts.append(accounting)
    return parts.joined(separator: "\n\n")
  }

  /// A few lines, for the end of a conversion.
  package func shortText(path: String, seconds: Double) -> String {
    var lines = [headline(path: path)]
    if !worst(2).isEmpty, quantized.count > 1 {
      let worst = worst(3).map {
        "\($0.name.printable) (\(Figures.percent($0.distortion?.relativeError ?? 0)))"
      }
      lines.append("Worst: " + worst.joined(separator: ", "))
    }
    lines.append(accounting)
    lines.append(
      "Took \(Figures.fixed(seconds, 2)) s."
        + (coverage == .all
          ? "" : " Errors are measured on a sample of the weights; `convert-model report` measures all."))
    return lines.joined(separator: "\n")
  }

  private func headline(path: String) -> String {
    var line = "\(path): \(Figures.count(quantized.count, "tensor")) quantized, \(kept.count) kept"
    line += ", \(Figures.bytes(sourceFileBytes)) → \(Figures.bytes(storedFileBytes))"
    line += " (\(Figures.fixed(compressionRatio, 2))×)"
    if let bits = quantizedBitsPerWeight {
      line += "\nQuantized weights: \(Figures.fixed(bits, 3)) bits each, scales included"
      if let error = relativeError {
        line += "; relative error \(Figures.percent(error)), SQNR \(Figures.fixed(Self.decibels(error), 2)) dB"
      }
    }
    if !folded.isEmpty {
      line += "\nScales are folded into, or tuning changed, \(Figures.count(folded.count, "tensor")), whose values are"
      line += " not compared with the source's"
    }
    return line
  }

  private var accounting: String {
    let tensorBytes = tensors.reduce(0) { $0 + $1.storedByteCount }
    var text = "Accounted for: \(tensors.count) source tensors in \(tensorBytes) bytes + codebooks \(codebookBytes)"
    text += " + headers \(headerBytes) = \(storedFileBytes) bytes of files."
    for report in altered { text += "\nALTERED: '\(report.name.printable)' was to be kept, but its bytes differ." }
    return text
  }

  private static func errorTable(_ reports: [TensorReport]) -> String {
    let columns = [
      TableColumn(title: "tensor"), TableColumn(title: "scheme"), TableColumn(title: "rel. error", isNumber: true),
      TableColumn(title: "SQNR dB", isNumber: true), TableColumn(title: "cosine", isNumber: true),
      TableColumn(title: "largest error", isNumber: true), TableColumn(title: "at"),
      TableColumn(title: "before", isNumber: true), TableColumn(title: "after", isNumber: true),
      TableColumn(title: "bits/w", isNumber: true),
    ]
    let rows: [[String]] = reports.compactMap { report in
      guard case .quantized(let scheme, let distortion) = report.outcome else { return nil }
      return [
        report.name.printable, scheme, Figures.percent(distortion.relativeError), Figures.fixed(distortion.sqnr, 2),
        Figures.fixed(distortion.cosine, 6), Figures.short(distortion.largestError),
        Figures.shape(report.largestErrorIndex ?? []), Figures.bytes(report.sourceByteCount),
        Figures.bytes(report.storedByteCount), Figures.fixed(report.bitsPerWeight, 3),
      ]
    }
    return table(columns, rows)
  }

  private static let foldedTitle =
    "Quantized with scales folded in (output error on held-out tokens, of calibration)\n"

  private static func foldedTable(_ reports: [TensorReport]) -> String {
    let columns = [
      TableColumn(title: "tensor"), TableColumn(title: "scheme"), TableColumn(title: "output error", isNumber: true),
      TableColumn(title: "of rounding", isNumber: true), TableColumn(title: "before", isNumber: true),
      TableColumn(title: "after", isNumber: true), TableColumn(title: "bits/w", isNumber: true),
    ]
    let rows: [[String]] = reports.compactMap { report in
      guard case .folded(let scheme, _, let error) = report.outcome else { return nil }
      return [
        report.name.printable, scheme ?? "", error.map { Figures.percent($0.own) } ?? "–",
        error.map { Figures.percent($0.plain) } ?? "–", Figures.bytes(report.sourceByteCount),
        Figures.bytes(report.storedByteCount), Figures.fixed(report.bitsPerWeight, 3),
      ]
    }
    return table(columns, rows)
  }

  /// SQNR of a relative error.
  static func decibels(_ relativeError: Double) -> Double { -20 * decimalLogarithm(relativeError) }
}

extension TensorReport {
  fileprivate var reason: String {
    switch outcome {
    case .kept(let reason, let isIdentical): isIdentical ? reason : "ALTERED: \(reason)"
    case .folded(_, let reason, _): reason
    case .quantized: ""
    }
  }
}
