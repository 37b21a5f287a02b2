import Checkpoints
import Foundation
import Mustache
import OrderedCollections
import Quantization

/// The report as one page that needs nothing else: no network, no other file.
package struct ReportPage: Sendable {
  package let title: String
  package let report: ModelReport
  package let ledger: Ledger
  /// What `evaluate --json` printed.
  package let evaluation: JSONValue?
  /// How it was made: names and values, in order.
  package let provenance: [(name: String, value: String)]

  package init(
    title: String, report: ModelReport, profiles: [String: TensorProfile], evaluation: JSONValue?,
    provenance: [(name: String, value: String)]
  ) {
    self.title = title
    self.report = report
    ledger = Ledger(report, profiles: profiles)
    self.evaluation = evaluation
    self.provenance = provenance
  }

  package func html() throws -> String {
    let template = try MustacheTemplate(string: PageTemplate.html)
    return template.render(context)
  }

  private var context: [String: Any] {
    [
      "title": title, "style": PageTemplate.style, "script": PageTemplate.script,
      "tiles": tiles.map { ["label": $0.0, "value": $0.1, "note": $0.2] },
      "findings": findings, "warnings": warnings, "hasWarnings": !warnings.isEmpty,
      "measured": ledger.isCalibrated ? "output error" : "weight error",
      "measuredLong": ledger.isCalibrated
        ? "‖T − X·Ŵᵀ‖ / ‖T‖ on tokens that were not calibrated on, with the output T that it should give"
        : "‖W − Ŵ‖ / ‖W‖",
      "sizes": sizeContext, "heat": heat, "ratioHeat": ratioHeat ?? "", "hasRatio": ratioHeat != nil,
      "depth": depthLines, "legend": legend, "bits": bitBars, "kinds": kindContext,
      "hasBlocks": !ledger.kinds.isEmpty, "isCalibrated": ledger.isCalibrated,
      "tensors": tensorContext, "count": report.tensors.count, "profiles": profileJSON,
      "evaluation": evaluationContext, "hasEvaluation": !evaluationContext.isEmpty,
      "provenance": provenance.map { ["name": $0.name, "value": $0.value] },
      "coverage": coverageNote,
    ]
  }

  private var coverageNote: String {
    switch report.coverage {
    case .all: "Weight errors are measured over all weights, decoded from the bytes on disk."
    case .oneTileIn(let step): "Weight errors are measured on one tile in \(step), decoded from the bytes on disk."
    }
  }

  // MARK: The top

  private var tiles: [(String, String, String)] {
    var tiles = [
      (
        "Size", Figures.bytes(report.storedFileBytes),
        "from \(Figures.bytes(report.sourceFileBytes)), \(Figures.fixed(report.compressionRatio, 2))× smaller"
      )
    ]
    if let bits = report.quantizedBitsPerWeight {
      tiles.append(("Bits per quantized weight", Figures.fixed(bits, 3), "scales and zero points included"))
    }
    if let error = report.relativeError {
      tiles.append(("Weight error", Figures.percent(error), "SQNR \(Figures.fixed(ModelReport.decibels(error), 1)) dB"))
    }
    let ratios = ledger.entries.compactMap(\.ratio).sorted()
    if let median = Self.median(ratios) {
      let better = ratios.count { $0 < 1 }
      tiles.append(
        (
          "Output error against rounding", Figures.fixed(median, 3) + "×",
          "median; better in \(better) of \(ratios.count) linear layers"
        ))
    }
    if let divergence = evaluation?["klDivergence"]?.double {
      tiles.append(("KL divergence", String(format: "%.4g", divergence), "nats per token, from the original"))
    }
    return tiles
  }

  static func median(_ sorted: [Double]) -> Double? { sorted.isEmpty ? nil : sorted[sorted.count / 2] }

  private func name(_ entry: Ledger.Entry) -> String { entry.report.name.printable }

  /// Answers in words to what a reader asks first.
  private var findings: [String] {
    var lines: [String] = []
    let ranked = ledger.byLoss
    if let worst = ranked.first, let error = worst.error {
      let median = Self.median(ranked.compactMap(\.error).sorted()) ?? 0
      var line = "\(name(worst)) lost most: \(Figures.percent(error)) of "
      line += worst.outputError != nil ? "its output's norm" : "its norm"
      line += " (median \(Figures.percent(median)))."
      if let reason = reason(for: worst, among: ranked) { line += " " + reason }
      lines.append(line)
    }
    let ratios = ledger.entries.filter { $0.ratio != nil }
    if !ratios.isEmpty {
      let worse = ratios.filter { ($0.ratio ?? 0) > 1 }
      lines.append(
        worse.isEmpty
          ? "Better than rounding to nearest in all \(ratios.count) linear layers measured."
          : "Worse than rounding to nearest in \(worse.count) of \(ratios.count) linear layers: "
            + worse.prefix(5).map { "\(name($0)) (\(Figures.fixed($0.ratio ?? 0, 3))×)" }.joined(separator: ", ") + ".")
    }
    let quantized = ledger.entries.filter { $0.report.isQuantized }
    let scaleBytes = quantized.reduce(0) { $0 + ($1.profile?.scaleByteCount ?? 0) }
    let stored = quantized.reduce(0) { $0 + $1.report.storedByteCount }
    if scaleBytes > 0 {
      lines.append(
        "Scales and zero points take \(scaleBytes) bytes, \(Figures.percent(Double(scaleBytes) / Double(max(1, stored))))"
          + " of the \(Figures.bytes(stored)) of quantized tensors.")
    }
    if let best = ledger.kindSummaries.max(by: { worth($0) < worth($1) }), ledger.kinds.count > 1 {
      lines.append(
        "One more bit is worth most in \(best.kind): about \(Figures.percent(best.bitGain)) of all squared error for"
          + " \(Figures.bytes(best.bitBytes)), \(Figures.percent(fileShare(best.bitBytes))) of the files.")
    }
    return lines
  }

  private func fileShare(_ bytes: Int) -> Double { Double(bytes) / Double(max(1, report.storedFileBytes)) }

  /// Squared error taken off by one more bit, for each part of the files that it costs.
  private func worth(_ kind: Ledger.KindSummary) -> Double {
    kind.bitBytes > 0 ? kind.bitGain / fileShare(kind.bitBytes) : 0
  }

  /// What sets the worst layer apart from the others, if anything does.
  private func reason(for worst: Ledger.Entry, among all: [Ledger.Entry]) -> String? {
    var reasons: [String] = []
    let peaks = all.compactMap { $0.profile?.peak }.sorted()
    if let peak = worst.profile?.peak, let median = Self.median(peaks), peak > 1.5 * median {
      reasons.append(
        "its largest weight is \(Figures.fixed(peak, 1)) standard deviations out (median \(Figures.fixed(median, 1)))")
    }
    if let weightError = worst.report.distortion?.relativeError, let output = worst.outputError,
      output > 1.5 * weightError
    {
      reasons.append("its weights lost \(Figures.percent(weightError)) only: its inputs weigh on their errors")
    }
    if let layer = worst.layers.first {
      if layer.fallback != nil { reasons.append("it was rounded to nearest") }
      if let count = worst.report.shape.last, layer.tokens < 4 * count {
        reasons.append("only \(layer.tokens) tokens reached its \(count) inputs")
      }
    }
    if let depth = worst.depth, depth == ledger.depths.last, ledger.depths.count > 2, worst.outputError != nil {
      reasons.append("it is in the last block, where the errors of all others arrive")
    }
    return reasons.isEmpty ? nil : "Likely why: " + reasons.joined(separator: "; ") + "."
  }

  private var warnings: [String] {
    var lines = report.altered.map { "\($0.name.printable) was to be kept, but its bytes differ." }
    for layer in report.calibration?.layers ?? [] {
      let name = layer.name
      if let reason = layer.fallback { lines.append("\(name) was rounded to nearest: \(reason).") }
      if layer.isWorse, let ratio = layer.ratio {
        let margin = layer.ratioMargin.map { " ± \(Figures.fixed($0, 3))" } ?? ""
        lines.append("\(name): output error is \(Figures.fixed(ratio, 3))\(margin) times rounding to nearest's.")
      }
      if layer.deadColumns > 0 { lines.append("\(name): \(layer.deadColumns) input features were never activated.") }
      if layer.tokens == 0 { lines.append("\(name): no token of the calibration text reached it.") }
    }
    return lines
  }

  // MARK: Pictures and tables

  private var sizeContext: [String: Any] {
    var kinds: OrderedDictionary<String, (before: Int, after: Int, count: Int)> = [:]
    for entry in ledger.entries {
      let kind: String
      switch entry.report.outcome {
      case .quantized, .folded(_?, _, _): kind = entry.depth == nil ? entry.kind : "linear layers in blocks"
      case .kept(let reason, _), .folded(nil, let reason, _): kind = "kept: " + reason
      }
      let old = kinds[kind] ?? (0, 0, 0)
      kinds[kind] = (old.before + entry.report.sourceByteCount, old.after + entry.report.storedByteCount, old.count + 1)
    }
    let sorted = kinds.sorted { $0.value.before > $1.value.before }
    let rest = report.headerBytes + report.codebookBytes
    return [
      "picture": Pictures.stacks(
        "Bytes before and after, by kind of tensor",
        [
          ("before", sorted.map { Double($0.value.before) }), ("after", sorted.map { Double($0.value.after) }),
        ], format: { Figures.bytes(Int($0)) }),
      "rows": sorted.enumerated().map { index, item in
        [
          "class": "f\(index % 8)", "kind": item.key, "count": "\(item.value.count)",
          "before": Figures.bytes(item.value.before), "after": Figures.bytes(item.value.after),
        ]
      } + [["class": "", "kind": "headers and codebooks", "count": "", "before": "", "after": Figures.bytes(rest)]],
    ]
  }

  private func grid(_ value: (Ledger.Entry) -> Double?) -> [[Double?]] {
    ledger.depths.map { depth in
      ledger.kinds.map { kind in
        let found = ledger.entries(depth: depth, kind: kind).compactMap(value)
        return found.isEmpty ? nil : found.reduce(0, +) / Double(found.count)
      }
    }
  }

  private var heat: String {
    Pictures.heatMap(
      "Error by block and linear layer", rows: ledger.depths.map(String.init), columns: ledger.kinds.map(Self.short),
      values: grid(\.error), format: Figures.percent)
  }

  private var ratioHeat: String? {
    guard ledger.isCalibrated else { return nil }
    return Pictures.heatMap(
      "Output error as a share of rounding to nearest's, by block and linear layer",
      rows: ledger.depths.map(String.init), columns: ledger.kinds.map(Self.short), values: grid(\.ratio),
      format: { Figures.fixed($0, 2) + "×" })
  }

  /// The last part of a kind says it.
  private static func short(_ kind: String) -> String { kind.split(separator: ".").last.map(String.init) ?? kind }

  private var depthLines: String {
    let values = grid(\.error)
    return Pictures.lines(
      "Error against depth",
      ledger.kinds.indices.map { column in
        Pictures.Line(
          name: ledger.kinds[column],
          points: zip(ledger.depths, values).compactMap { depth, row in row[column].map { (Double(depth), $0) } })
      }, format: Figures.percent)
  }

  private var legend: [[String: Any]] {
    ledger.kinds.enumerated().map { ["class": "c\($0 % 8)", "name": $1] }
  }

  private var bitBars: String {
    Pictures.bars(
      "Bits per weight by block", ledger.depths.map { ("\($0)", ledger.bitsPerWeight(depth: $0)) },
      format: { Figures.fixed($0, 2) })
  }

  private var kindContext: [[String: Any]] {
    ledger.kindSummaries.map { summary in
      [
        "kind": summary.kind, "weights": Figures.millions(summary.weights),
        "bytes": Figures.bytes(summary.storedBytes), "scales": Figures.bytes(summary.scaleBytes),
        "error": Figures.percent(summary.squaredError.squareRoot()), "share": Figures.percent(summary.share),
        "bit": Figures.bytes(summary.bitBytes), "cost": Figures.percent(fileShare(summary.bitBytes)),
        "gain": Figures.percent(summary.bitGain),
        "worth": Figures.fixed(worth(summary), 1) + "×",
      ]
    }
  }

  private var evaluationContext: [[String: Any]] {
    guard let evaluation else { return [] }
    let rows: [(String, String, (Double) -> String)] = [
      ("perplexity", "perplexity", { Figures.fixed($0, 4) }),
      ("standardError", "its standard error", { Figures.fixed($0, 4) }),
      ("klDivergence", "mean KL divergence from the original, nats", { String(format: "%.5f", $0) }),
      ("klDivergence99", "KL divergence, 99th percentile", { String(format: "%.5f", $0) }),
      ("top1Agreement", "same most likely token", Figures.percent),
      ("tokens", "predicted tokens", { "\(Int($0))" }),
    ]
    return rows.compactMap { key, label, format in
      evaluation[key]?.double.map { ["name": label, "value": format($0)] }
    }
  }

  private var tensorContext: [[String: Any]] {
    ledger.entries.map { entry in
      let report = entry.report
      var cells: [String: Any] = [
        "name": report.name.printable, "bytes": Figures.bytes(report.storedByteCount),
        "bytesValue": report.storedByteCount, "bits": Figures.fixed(report.bitsPerWeight, 3),
        "hasProfile": entry.profile != nil,
      ]
      switch report.outcome {
      case .quantized(let scheme, let distortion):
        cells["scheme"] = scheme
        cells["error"] = Figures.percent(distortion.relativeError)
        cells["errorValue"] = distortion.relativeError
      case .folded(let scheme, let reason, _): cells["scheme"] = scheme ?? "kept: " + reason
      case .kept(let reason, let isIdentical): cells["scheme"] = (isIdentical ? "kept: " : "ALTERED: ") + reason
      }
      if let error = entry.outputError {
        cells["output"] = Figures.percent(error)
        cells["outputValue"] = error
      }
      if let ratio = entry.ratio {
        cells["ratio"] = Figures.fixed(ratio, 3)
        if let margin = entry.layers.count == 1 ? entry.layers.first?.ratioMargin : nil {
          cells["ratio"] = Figures.fixed(ratio, 3) + " ± " + Figures.fixed(margin, 3)
        }
        cells["ratioValue"] = ratio
      }
      if let profile = entry.profile {
        cells["peak"] = Figures.fixed(profile.peak, 1)
        cells["sparsity"] = Figures.fixed(profile.sparsity, 3)
      }
      return cells
    }
  }

  /// Histograms for the script, counts in thousandths of the largest.
  private var profileJSON: String {
    func scaled(_ counts: [Int]) -> JSONValue {
      let most = Double(max(1, counts.max() ?? 1))
      return .array(counts.map { .integer(Int((Double($0) * 1000 / most).rounded(.up))) })
    }
    var members: OrderedDictionary<String, JSONValue> = [:]
    for entry in ledger.entries {
      guard let profile = entry.profile else { continue }
      var fields: OrderedDictionary<String, JSONValue> = [
        "w": scaled(profile.weights.counts), "m": .real(Double(Figures.short(profile.weights.high)) ?? 0),
      ]
      if !profile.codes.isEmpty { fields["c"] = scaled(profile.codes) }
      if let scales = profile.scales {
        fields["s"] = scaled(scales.counts)
        fields["l"] = .array([.real(Double(scales.low)), .real(Double(scales.high))])
      }
      members[entry.report.name.printable] = .object(fields)
    }
    // Nothing in a script element may look like its end.
    return JSONValue.object(members).text().replacing("<", with: "\\u003c")
  }
}
