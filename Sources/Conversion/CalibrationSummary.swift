import Calibration
import Checkpoints
import OrderedCollections
import Quantization
import Reports
import SystemPackage

/// What calibration did to each layer, as it is written beside the weights and shown at a conversion's end.
package struct CalibrationSummary: Sendable {
  package static let fileName = "calibration_report.json"

  package let outcomes: [LayerOutcome]
  private let learning: [LearningRecord]
  private let windows: CalibrationWindows?
  private let evidence: (any StoredEvidence)?
  /// Of weights that were not calibrated layer by layer, in the order of the tensors.
  private let features: [(tensor: String, strengths: FeatureStrengths)]

  /// Nil where neither text nor evidence was used.
  package init?(
    _ outcomes: [LayerOutcome], learning: [LearningRecord] = [], windows: CalibrationWindows?,
    evidence: (any StoredEvidence)?, features: [(tensor: String, strengths: FeatureStrengths)] = []
  ) {
    self.features = features
    guard windows != nil || evidence != nil else { return nil }
    self.outcomes = outcomes
    self.learning = learning
    self.windows = windows
    self.evidence = evidence
  }

  /// Layers whose outputs, on tokens they were not calibrated on, are worse than after rounding to nearest.
  package var worse: [LayerOutcome] { outcomes.filter { ($0.heldOut?.ratio ?? 0) > 1 } }

  package var text: String {
    let ratios = outcomes.compactMap { $0.heldOut?.ratio }.sorted()
    let verb = outcomes.isEmpty ? "Scales weighed by E[x²]" : "Calibrated"
    var lines: [String] = []
    if let windows { lines.append("\(verb), on \(windows.windows.count) windows, \(windows.tokenCount) tokens.") }
    if let evidence { lines.append("\(verb), from \(evidence.place.printable).") }
    if evidence != nil, !outcomes.isEmpty {
      lines[0] += " It holds no activations, so that output errors are not known."
    }
    if let windows, let first = ratios.first, let last = ratios.last {
      let median = ratios[ratios.count / 2]
      lines[0] +=
        " Output error on \(windows.heldOut.count) others: \(share(median)) of round-to-nearest's (median layer; best"
        + " \(share(first)), worst \(share(last)))."
    }
    if let scaled = scaledText { lines.append(scaled) }
    for outcome in worse {
      let margin = outcome.heldOut?.ratioMargin.map { " ± \(share($0))" } ?? ""
      lines.append("Worse than round-to-nearest: \(name(outcome)) (\(share(outcome.heldOut?.ratio ?? 0))\(margin))")
    }
    for outcome in outcomes {
      if let routed = outcome.routedTokens {
        lines.append(
          "Calibrated on all tokens of its mixture, for the router sent it \(routed): \(name(outcome))")
      }
      if let reason = outcome.fallback { lines.append("Rounded to nearest: \(name(outcome)): \(reason)") }
    }
    let singular = outcomes.filter { $0.fallback == nil && $0.tokens < $0.inputs }
    if let first = singular.first {
      lines.append(
        "Fewer tokens than inputs, so that dampening decides: \(singular.count) layers, such as \(name(first))"
          + " (\(first.tokens) of \(first.inputs))")
    }
    return lines.joined(separator: "\n")
  }

  /// The inputs that scaling looked at, each once, in order.
  private var scalings: [LayerScaling] {
    var seen: OrderedDictionary<String, LayerScaling> = [:]
    for scaling in outcomes.compactMap(\.scaling) where seen[scaling.group] == nil { seen[scaling.group] = scaling }
    return Array(seen.values)
  }

  private var scaledText: String? {
    guard !scalings.isEmpty else { return nil }
    let scaled = scalings.filter { $0.found != nil }
    var text = "Scaled inputs: \(scaled.count) of \(scalings.count)."
    let strengths = scaled.compactMap(\.found?.strength).sorted()
    if let first = strengths.first, let last = strengths.last {
      text += " Strengths \(first) to \(last), median \(strengths[strengths.count / 2])."
    }
    var reasons: OrderedDictionary<String, Int> = [:]
    for scaling in scalings { if let obstacle = scaling.obstacle { reasons[obstacle, default: 0] += 1 } }
    for (reason, count) in reasons { text += "\nNot scaled: \(count) inputs: \(reason.printable)" }
    return text
  }

  /// The output errors that a folder's report gives, by tensor; of stacked experts the mean. Empty where there is none.
  static func outputErrors(in folder: FilePath) -> [String: TensorReport.OutputError] {
    guard let report = try? readJSONObject(folder.appending(fileName)) else { return [:] }
    var sums: [String: (own: Double, plain: Double, count: Double)] = [:]
    for layer in report["layers"]?.array ?? [] {
      guard let name = layer["tensor"]?.string, let own = layer["output_error"]?.double,
        let plain = layer["output_error_rtn"]?.double
      else { continue }
      let sum = sums[name] ?? (0, 0, 0)
      sums[name] = (sum.own + own, sum.plain + plain, sum.count + 1)
    }
    return sums.mapValues { TensorReport.OutputError(own: $0.own / $0.count, plain: $0.plain / $0.count) }
  }

  /// The names of tensors with scales folded in, and of those that were tuned, where no manifest tells them.
  static let foldedKey = "folded_tensors"
  static let tunedKey = "tuned_tensors"

  /// The tensors of a folder in a runtime's layout whose values are not those of the source, with what was done to them.
  static func changedTensors(in folder: FilePath) -> [String: String] {
    guard let report = try? readJSONObject(folder.appending(fileName)) else { return [:] }
    var changes: [String: String] = [:]
    for (key, change) in [(foldedKey, Plan.foldedNote), (tunedKey, Plan.tunedNote)] {
      for name in (report[key]?.array ?? []).compactMap(\.string) { changes[name] = change }
    }
    return changes
  }

  private func name(_ outcome: LayerOutcome) -> String {
    outcome.tensor.printable + (outcome.expert.map { ", expert \($0)" } ?? "")
  }

  private func share(_ ratio: Double) -> String { "\((ratio * 1000).rounded() / 1000)" }

  package var json: JSONValue {
    [
      "windows": windows?.evidenceRecord ?? .null, "evidence": evidence?.record ?? .null,
      "learning": .array(learning.map(\.json)),
      "layers": .array(
        outcomes.map { outcome in
          var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(outcome.tensor)]
          if let expert = outcome.expert { fields["expert"] = .integer(expert) }
          fields["inputs"] = .integer(outcome.inputs)
          fields["tokens"] = .integer(outcome.tokens)
          if let routed = outcome.routedTokens { fields["routed_tokens"] = .integer(routed) }
          fields["dampening"] = outcome.dampening.map { .real($0) } ?? .null
          if let asked = outcome.askedDampening, let used = outcome.dampening, used > asked {
            fields["dampening_asked"] = .real(asked)
          }
          fields["dead_columns"] = .integer(outcome.deadColumns)
          if let fallback = outcome.fallback { fields["rounded_to_nearest"] = .string(fallback) }
          if let heldOut = outcome.heldOut {
            fields["output_error"] = .real(heldOut.error)
            fields["output_error_rtn"] = .real(heldOut.plainError)
            fields["output_error_rounding"] = .real(heldOut.roundingError)
            fields["ratio"] = .real(heldOut.ratio)
            fields["ratio_margin_95"] = heldOut.ratioMargin.map { .real($0) } ?? .null
          }
          if let scaling = outcome.scaling { fields["scale_group"] = .string(scaling.group) }
          return .object(fields)
        }),
      "scale_groups": .array(scalings.map(\.json)),
      "input_features": .array(
        outcomes.compactMap { outcome in outcome.features?.json(tensor: outcome.tensor, expert: outcome.expert) }
          + features.map { $0.strengths.json(tensor: $0.tensor, expert: nil) }),
    ]
  }
}

extension LayerScaling {
  fileprivate var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["input": .string(group)]
    if let obstacle { fields["not_scaled"] = .string(obstacle) }
    guard let found else { return .object(fields) }
    fields["absorbed_by"] = .array(absorber.map { .string($0) })
    fields["form"] = .string(found.form.rawValue)
    fields["strength"] = .real(found.strength)
    fields["loss_before"] = found.lossBefore.map { .real($0) } ?? .null
    fields["loss_after"] = found.lossAfter.map { .real($0) } ?? .null
    fields["smallest_scale"] = .real(Double(factors?.min() ?? 1))
    fields["largest_scale"] = .real(Double(factors?.max() ?? 1))
    return .object(fields)
  }
}
