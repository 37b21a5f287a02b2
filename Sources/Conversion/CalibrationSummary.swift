import Calibration
import Checkpoints
import OrderedCollections

/// What calibration did to each layer, as it is written beside the weights and shown at a conversion's end.
package struct CalibrationSummary: Sendable {
  package static let fileName = "calibration_report.json"

  package let outcomes: [LayerOutcome]
  private let windows: CalibrationWindows

  package init(_ outcomes: [LayerOutcome], windows: CalibrationWindows) {
    self.outcomes = outcomes
    self.windows = windows
  }

  /// Layers whose outputs, on tokens they were not calibrated on, are worse than after rounding to nearest.
  package var worse: [LayerOutcome] { outcomes.filter { ($0.heldOut?.ratio ?? 0) > 1 } }

  package var text: String {
    let ratios = outcomes.compactMap { $0.heldOut?.ratio }.sorted()
    var lines = ["Calibrated on \(windows.windows.count) windows, \(windows.tokenCount) tokens."]
    if let first = ratios.first, let last = ratios.last {
      let median = ratios[ratios.count / 2]
      lines[0] +=
        " Output error on \(windows.heldOut.count) others: \(share(median)) of round-to-nearest's (median layer; best"
        + " \(share(first)), worst \(share(last)))."
    }
    for outcome in worse {
      let margin = outcome.heldOut?.ratioMargin.map { " ± \(share($0))" } ?? ""
      lines.append("Worse than round-to-nearest: \(name(outcome)) (\(share(outcome.heldOut?.ratio ?? 0))\(margin))")
    }
    for outcome in outcomes {
      if let reason = outcome.fallback { lines.append("Rounded to nearest: \(name(outcome)): \(reason)") }
    }
    return lines.joined(separator: "\n")
  }

  private func name(_ outcome: LayerOutcome) -> String {
    outcome.tensor.printable + (outcome.expert.map { ", expert \($0)" } ?? "")
  }

  private func share(_ ratio: Double) -> String { "\((ratio * 1000).rounded() / 1000)" }

  package var json: JSONValue {
    [
      "windows": windows.record,
      "layers": .array(
        outcomes.map { outcome in
          var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(outcome.tensor)]
          if let expert = outcome.expert { fields["expert"] = .integer(expert) }
          fields["tokens"] = .integer(outcome.tokens)
          fields["dampening"] = outcome.dampening.map { .real($0) } ?? .null
          fields["dead_columns"] = .integer(outcome.deadColumns)
          if let fallback = outcome.fallback { fields["rounded_to_nearest"] = .string(fallback) }
          if let heldOut = outcome.heldOut {
            fields["output_error"] = .real(heldOut.error)
            fields["output_error_rtn"] = .real(heldOut.plainError)
            fields["ratio"] = .real(heldOut.ratio)
            fields["ratio_margin_95"] = heldOut.ratioMargin.map { .real($0) } ?? .null
          }
          return .object(fields)
        }),
    ]
  }
}
