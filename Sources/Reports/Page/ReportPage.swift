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
  let findings: Findings

  package init(title: String, report: ModelReport) {
    self.title = title
    self.report = report
    ledger = Ledger(report)
    findings = Findings(report, ledger)
  }

  package func html() throws -> String {
    let template = try MustacheTemplate(string: PageTemplate.html)
    return template.render(context)
  }

  private var context: [String: Any] {
    var context: [String: Any] = [
      "title": title, "style": PageTemplate.style, "script": PageTemplate.script,
      "tiles": tiles.map { ["label": $0.0, "value": $0.1, "note": $0.2] },
      "answers": findings.answers.map { ["question": $0.question, "answer": $0.answer] },
      "warnings": warningContext, "hasWarnings": !findings.warnings.isEmpty, "warningCount": findings.warnings.count,
      "kept": keptContext, "hasKept": !findings.kept.isEmpty,
      "measured": ledger.isCalibrated ? "output error" : "weight error", "measuredLong": measuredNote,
      "maps": maps.map { ["table": $0.table, "note": $0.note] }, "isDeep": ledger.depths.count > 40,
      "depth": depthLines, "kinds": kindContext,
      "hasBlocks": !ledger.kinds.isEmpty, "inputMap": inputMap ?? "", "hasInputs": inputMap != nil,
      "inputRows": inputContext, "weights": weightBars, "sizes": sizeContext, "bits": bitBars,
      "hasOutliers": ledger.entries.contains { $0.outlierByteCount > 0 },
      "hasRatio": ledger.entries.contains { $0.ratio != nil }, "coverage": coverageNote,
      "columns": columns.map { $0.hint.isEmpty ? ["title": $0.title] : ["title": $0.title, "hint": $0.hint] },
      "tensors": tensorContext, "count": report.tensors.count, "first": worstPosition, "profiles": profileJSON,
      "provenance": (report.provenance?.tables ?? []).map { table -> [String: Any] in
        ["title": table.title, "rows": table.rows.map { ["name": $0.name, "value": $0.value] }]
      },
      "hasProvenance": report.provenance != nil, "files": fileContext, "hasFiles": !fileContext.isEmpty,
      "hasEvaluation": report.evaluation != nil,
    ]
    let recipe = report.provenance?.recipe
    let bits = (recipe?["bits"]?.integer ?? 3) + 1
    // The types of a GGUF file's tensors are those of a mix.
    context["trial"] = recipe?["mix"] == nil ? "--override '*KIND.weight: bits=\(bits)'" : "--type MIX"
    if let recurring = report.calibration?.recurringFeatures { context["recurring"] = recurring }
    if let subtitle { context["subtitle"] = subtitle }
    if let evaluation = report.evaluation {
      context["setting"] = evaluation.setting
      context["evaluation"] = evaluation.rows.map {
        ["name": $0.name, "value": $0.value, "interval": $0.interval, "meaning": $0.meaning]
      }
    }
    return context
  }

  // MARK: The top

  private var subtitle: String? {
    var parts: [String] = []
    if let provenance = report.provenance {
      if let method = provenance.method { parts.append(method) }
      parts.append(provenance.form)
      if let producer = provenance.producer { parts.append(producer) }
      if let tokens = provenance.windows["tokens"]?.integer { parts.append("calibrated on \(tokens) tokens") }
      if let run = provenance.run {
        parts.append("made in \(Figures.fixed(run.seconds, 1)) s with at most \(Figures.bytes(run.peakByteCount))")
      }
    }
    return parts.isEmpty ? nil : parts.joined(separator: " · ")
  }

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
    let ratios = ledger.entries.compactMap(\.ratio).sorted()
    if !ratios.isEmpty {
      let better = ratios.count { $0 < 1 }
      tiles.append(
        (
          "Output error against rounding", Figures.fixed(ratios[ratios.count / 2], 3) + "×",
          "median; better in \(better) of \(ratios.count) linear layers"
        ))
    }
    if let error = report.relativeError {
      tiles.append(("Weight error", Figures.percent(error), "SQNR \(Figures.fixed(ModelReport.decibels(error), 1)) dB"))
    }
    if let evaluation = report.evaluation {
      if let divergence = evaluation.divergence {
        let margin = divergence.margin.map { "± \(String(format: "%.1g", $0)) " } ?? ""
        tiles.append(("KL divergence", Figures.short(divergence.value), "\(margin)nats per token"))
      }
      let ratio = evaluation.againstPerplexity.map { "the original's is \(Figures.fixed($0, 3))" }
      tiles.append(("Perplexity", Figures.fixed(evaluation.perplexity.value, 3), ratio ?? ""))
    }
    return tiles
  }

  private var measuredNote: String {
    guard ledger.isCalibrated else {
      return "No output errors are known of this conversion. The error of weights stands for them: ‖W − Ŵ‖ / ‖W‖."
    }
    if report.calibration?.isOutlierSplit ?? false {
      return """
        The output error of a linear layer is ‖T − Y‖ / ‖T‖ on tokens that were held out of calibration: T is its output \
        in full precision, Y that of 8-bit weights and 8-bit inputs with outlier columns apart. Rounding stands for the \
        same without columns apart. Choose a cell to see the tensor.
        """
    }
    return """
      The output error of a linear layer is ‖T − X·Ŵᵀ‖ / ‖T‖ on tokens that were held out of calibration: X is what it reads \
      in the quantized model, T what it should give. Choose a cell to see the tensor.
      """
  }

  private var coverageNote: String {
    switch report.coverage {
    case .all: "Weight errors are measured over all weights, decoded from the bytes on disk."
    case .oneTileIn(let step): "Weight errors are measured on one tile in \(step), decoded from the bytes on disk."
    }
  }

  private var warningContext: [[String: Any]] {
    Findings.Warning.Kind.allCases.compactMap { kind in
      let found = findings.warnings.filter { $0.kind == kind }
      guard !found.isEmpty else { return nil }
      var group: [String: Any] = [
        "title": "\(kind.title): \(found.count)",
        "items": found.prefix(ModelReport.listedWarnings).map { ["name": $0.name, "text": $0.text] },
      ]
      if found.count > ModelReport.listedWarnings { group["more"] = found.count - ModelReport.listedWarnings }
      return group
    }
  }

  private var keptContext: [[String: Any]] {
    findings.kept.map { kept in
      let more = kept.tensors > kept.examples.count ? ", …" : ""
      return [
        "reason": kept.name.replacing("kept: ", with: "").printable, "count": Figures.count(kept.tensors, "tensor"),
        "bytes": Figures.bytes(kept.storedBytes),
        "examples": kept.examples.map(\.printable).joined(separator: ", ") + more,
      ]
    }
  }

  private var fileContext: [[String: String]] {
    (report.provenance?.files ?? []).map {
      [
        "name": $0.name.printable, "side": $0.side.rawValue, "bytes": "\($0.byteCount)",
        "hash": $0.sha256 ?? "not computed",
      ]
    }
  }

  // MARK: Pictures

  private func cells(_ value: (Ledger.Entry) -> Double?) -> [[Pictures.Cell?]]? {
    let cells = ledger.depths.map { depth in
      ledger.kinds.map { kind -> Pictures.Cell? in
        let positions = ledger.positions(depth: depth, kind: kind)
        let found = positions.compactMap { value(ledger.entries[$0]) }
        guard !found.isEmpty else { return nil }
        return Pictures.Cell(value: found.reduce(0, +) / Double(found.count), position: positions.first)
      }
    }
    return cells.contains { $0.contains { $0 != nil } } ? cells : nil
  }

  private func heatMap(
    _ caption: String, limit: Double? = nil, _ value: (Ledger.Entry) -> Double?, _ format: (Double) -> String
  ) -> String? {
    cells(value).map {
      Pictures.heatMap(
        caption, rows: ledger.depths.map(String.init), columns: shortKinds, cells: $0, limit: limit, format: format)
    }
  }

  private static func percentage(_ value: Double) -> String { Figures.fixed(value * 100, 2) }

  private var maps: [(table: String, note: String)] {
    var maps: [(String?, String)] = []
    if ledger.isCalibrated {
      maps = [
        (heatMap("Output error, %", \.outputError, Self.percentage), "The whole of it, from whatever cause."),
        (
          heatMap("Of it by rounding alone, %", \.roundingError, Self.percentage),
          "‖X·Gᵀ − X·Ŵᵀ‖ / ‖T‖, with G the weight that was rounded. The rest came in with X from the layers before."
        ),
        (
          heatMap("Output error over that of rounding to nearest", limit: 1, \.ratio) { Figures.fixed($0, 3) },
          "With equal codes and groups. Above 1, framed: the method did harm."
        ),
      ]
    }
    maps.append(
      (
        heatMap("Weight error, %", { $0.report.distortion?.relativeError }, Self.percentage),
        "‖W − Ŵ‖ / ‖W‖" + (ledger.isCalibrated ? ". Calibration gives up some of it for a better output." : ".")
      ))
    let bits = ledger.entries.filter { $0.depth != nil && $0.report.isQuantized }.map(\.report.bitsPerWeight)
    if let low = bits.min(), let high = bits.max(), high > low + 0.005 {
      maps.append((heatMap("Bits per weight", \.report.bitsPerWeight) { Figures.fixed($0, 3) }, "Scales included."))
    }
    maps.append(
      (
        heatMap("PQ index of the weights", { $0.profile?.sparsity }) { Figures.fixed($0, 3) },
        "A measure of sparsity, 1 − (Σ√|w|)² / (d·Σ|w|): 0 where all weights are equally large, towards 1 where few carry"
          + " all. Normally distributed weights have 0.153. Sparser tensors bear fewer bits (arXiv 2302.05601)."
      ))
    return maps.compactMap { table, note in table.map { ($0, note) } }
  }

  private var inputMap: String? {
    heatMap("Strongest input feature, times the median one", \.inputPeak) { Figures.fixed($0, 1) }
  }

  private var inputContext: [[String: Any]] {
    (report.calibration?.strongInputs ?? []).prefix(12).map { input in
      let strongest = input.features.strongest.prefix(4).map {
        "\($0.feature) (\(Figures.fixed($0.rootMeanSquare / input.features.median, 1)))"
      }
      return [
        "name": input.name, "count": input.features.count, "outliers": input.features.outliers,
        "strongest": strongest.joined(separator: ", "),
      ]
    }
  }

  /// The last part of a kind says it, where the others do not end alike.
  private var shortKinds: [String] {
    let short = ledger.kinds.map { $0.split(separator: ".").last.map(String.init) ?? $0 }
    return Set(short).count == short.count ? short : ledger.kinds
  }

  private var depthLines: String {
    let values = cells(ledger.error) ?? []
    let names = shortKinds
    return Pictures.lines(
      ledger.isCalibrated ? "Output error against depth" : "Weight error against depth",
      names.indices.map { column in
        Pictures.Line(
          name: names[column],
          points: zip(ledger.depths, values).compactMap { depth, row in
            row[column].flatMap { $0.value.isFinite ? (Double(depth), $0.value) : nil }
          })
      }, format: Figures.percent)
  }

  private var bitBars: String {
    Pictures.bars(
      "Bits per weight by block", ledger.blockSummaries.map { ("\($0.depth)", $0.bitsPerWeight) },
      axis: "block", format: { Figures.fixed($0, 2) })
  }

  private var weightBars: String {
    Pictures.weights(
      "Bytes before and after, by kind of tensor",
      ledger.sizeSummaries.map {
        Pictures.Weight(
          name: $0.name.printable, before: Double($0.sourceBytes),
          after: [Double($0.codeBytes), Double($0.scaleBytes), Double($0.outlierBytes)])
      }, format: { Figures.bytes(Int($0)) })
  }

  // MARK: Tables

  private var kindContext: [[String: Any]] {
    ledger.kindSummaries.map { kind in
      [
        "kind": kind.kind, "count": kind.tensors, "bytes": Figures.bytes(kind.storedBytes),
        "codes": Figures.bytes(kind.codeBytes), "scales": Figures.bytes(kind.scaleBytes),
        "error": kind.error.map(Figures.percent) ?? "–", "rounding": kind.roundingError.map(Figures.percent) ?? "–",
        "share": Figures.percent(kind.share), "bit": kind.bitBytes.map(Figures.bytes) ?? "–",
        "cost": kind.bitBytes.map { Figures.percent(report.fileShare($0)) } ?? "–",
        "gain": kind.bitGain.map(Figures.percent) ?? "–",
        "worth": report.worth(kind).map { Figures.fixed($0, 1) + "×" } ?? "–",
      ]
    }
  }

  private var sizeContext: [[String: Any]] {
    func row(_ name: String, _ count: Int?, _ before: Int, _ after: Int, _ scales: Int?) -> [String: Any] {
      [
        "name": name, "count": count.map { "\($0)" } ?? "", "before": Figures.bytes(before),
        "after": Figures.bytes(after), "scales": scales.map(Figures.bytes) ?? "",
        "share": before > 0 ? Figures.percent(Double(after) / Double(before)) : "",
      ]
    }
    var rows = ledger.sizeSummaries.map {
      row($0.name.printable, $0.tensors, $0.sourceBytes, $0.storedBytes, $0.isQuantized ? $0.scaleBytes : nil)
    }
    let tensors = report.tensors.reduce(0) { $0 + $1.sourceByteCount }
    rows.append(
      row(
        "headers, codebooks and the like", nil, max(0, report.sourceFileBytes - tensors),
        report.headerBytes + report.codebookBytes, nil))
    rows[rows.count - 1]["share"] = ""
    rows.append(
      row(
        "all files with weights", report.tensors.count, report.sourceFileBytes, report.storedFileBytes,
        ledger.entries.reduce(0) { $0 + $1.scaleByteCount }))
    return rows
  }
}
