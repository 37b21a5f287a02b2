import Checkpoints
import OrderedCollections
import Quantization

/// What a reader of a report asks first, answered from its values, and what deserves attention.
package struct Findings: Sendable {
  package struct Answer: Hashable, Sendable {
    package let question: String
    package let answer: String
  }

  package struct Warning: Hashable, Sendable {
    package enum Kind: String, CaseIterable, Hashable, Sendable {
      case altered
      case worse = "worse_than_rtn"
      case fallback = "rounded_to_nearest"
      case unseen = "no_tokens"
      case rerouted = "few_tokens_routed"
      case fewTokens = "fewer_tokens_than_inputs"
      case dampening = "dampening_raised"
      case deadColumns = "dead_columns"
      case unusedCodes = "unused_codes"
    }

    package let kind: Kind
    package let tensor: String
    package let expert: Int?
    package let text: String

    var name: String { tensor.printable + (expert.map { ", expert \($0)" } ?? "") }
  }

  package let answers: [Answer]
  /// By kind, in the order of the tensors within one.
  package let warnings: [Warning]
  package let kept: [Ledger.SizeSummary]

  package init(_ report: ModelReport, _ ledger: Ledger) {
    answers = AnswerBook(report: report, ledger: ledger).answers
    warnings = Self.warnings(report, ledger)
    kept = ledger.sizeSummaries.filter { !$0.isQuantized }
  }

  private static func warnings(_ report: ModelReport, _ ledger: Ledger) -> [Warning] {
    var found: [Warning] = []
    func add(_ kind: Warning.Kind, _ tensor: String, _ expert: Int?, _ text: String) {
      found.append(Warning(kind: kind, tensor: tensor, expert: expert, text: text))
    }
    for tensor in report.altered { add(.altered, tensor.name, nil, "was to be kept, but its bytes differ") }
    for layer in report.calibration?.layers ?? [] {
      if layer.isWorse, let ratio = layer.ratio {
        let margin = layer.ratioMargin.map { " ± \(Figures.fixed($0, 3))" } ?? ""
        add(
          .worse, layer.tensor, layer.expert, "output error \(Figures.fixed(ratio, 3))\(margin) times that of rounding")
      }
      if let reason = layer.fallback { add(.fallback, layer.tensor, layer.expert, reason.printable) }
      if layer.tokens == 0 || layer.routedTokens == 0 {
        add(
          .unseen, layer.tensor, layer.expert,
          layer.tokens == 0 ? "nothing is known of its inputs" : "the router sent it none; all of its mixture stand in")
      } else if let routed = layer.routedTokens {
        add(.rerouted, layer.tensor, layer.expert, "the router sent it \(routed); all of its mixture stand in")
      } else if let inputs = layer.inputs, layer.tokens < inputs, layer.fallback == nil {
        add(.fewTokens, layer.tensor, layer.expert, "\(layer.tokens) tokens for \(inputs) inputs")
      }
      if let asked = layer.askedDampening, let used = layer.dampening, used > asked {
        add(.dampening, layer.tensor, layer.expert, "from \(Figures.short(asked)) to \(Figures.short(used))")
      }
      if layer.deadColumns > 0 {
        add(.deadColumns, layer.tensor, layer.expert, "\(Figures.count(layer.deadColumns, "input feature"))")
      }
    }
    for entry in ledger.entries {
      // Codes of few bits are each worth a share of the range; of eight bits some are always idle. One code is idle by nature
      // where ranges are symmetric, and as a minus zero.
      if let profile = entry.profile, (2...16).contains(profile.codes.count), profile.unusedCodes > 1 {
        add(.unusedCodes, entry.report.name, nil, "\(profile.unusedCodes) of \(profile.codes.count)")
      }
    }
    return Warning.Kind.allCases.flatMap { kind in found.filter { $0.kind == kind } }
  }
}

extension Findings.Warning.Kind {
  /// What the warnings of a kind have in common.
  package var title: String {
    switch self {
    case .altered: "Altered, though they were to be kept: a defect"
    case .worse: "Worse than rounding to nearest"
    case .fallback: "Rounded to nearest instead of calibrated"
    case .unseen: "No token of the calibration text reached them"
    case .rerouted: "Experts that were sent too few tokens"
    case .fewTokens: "Fewer tokens than inputs, so that dampening decides"
    case .dampening: "Dampening raised, for the Hessian could not be factored"
    case .deadColumns: "Input features that were never active"
    case .unusedCodes: "Codes that no weight uses"
    }
  }
}

/// Puts the answers into words.
private struct AnswerBook {
  let report: ModelReport
  let ledger: Ledger

  var answers: [Findings.Answer] {
    [lostMost, againstRounding, scales, moreBits].compactMap(\.self)
  }

  private func name(_ entry: Ledger.Entry) -> String { entry.report.name.printable }

  private func median(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : values.sorted()[values.count / 2]
  }

  private var lostMost: Findings.Answer? {
    let ranked = ledger.byLoss
    guard let worst = ranked.first, let error = ledger.error(worst) else { return nil }
    var text = "\(name(worst)): \(Figures.percent(error)) of "
    text += ledger.isCalibrated ? "its output's norm" : "its norm"
    if let middle = median(ranked.compactMap(ledger.error)) { text += " (median \(Figures.percent(middle)))" }
    let reasons = reasons(for: worst, among: ranked)
    text += reasons.isEmpty ? ". Nothing known of it stands out." : ". " + reasons.joined(separator: " ")
    return Findings.Answer(question: "Which tensor lost most, and why?", answer: text)
  }

  /// What sets the worst tensor apart from the others, in sentences.
  private func reasons(for worst: Ledger.Entry, among all: [Ledger.Entry]) -> [String] {
    var reasons: [String] = []
    if let rounding = worst.roundingError, let error = worst.outputError, rounding < 0.7 * error {
      var text = "Rounding it adds \(Figures.percent(rounding)); the rest came in with its inputs and the residual"
      text += " stream, from errors of the layers before it"
      if let plain = worst.plainError, error > 0.75 * plain { text += ", and is why calibration gains little here" }
      reasons.append(text + ".")
      let ownWorst = all.filter { $0.roundingError != nil }.max {
        ($0.roundingError ?? 0, $1.report.name) < ($1.roundingError ?? 0, $0.report.name)
      }
      if let ownWorst, let own = ownWorst.roundingError, ownWorst.report.name != worst.report.name {
        reasons.append("By its own rounding \(name(ownWorst)) lost most: \(Figures.percent(own)).")
      }
    }
    if let layer = worst.layers.first {
      if let reason = layer.fallback { reasons.append("It was rounded to nearest: \(reason.printable).") }
      if let inputs = layer.inputs, layer.tokens < 4 * inputs {
        reasons.append("Only \(layer.tokens) tokens reached its \(inputs) inputs.")
      }
    }
    if let peak = worst.inputPeak, peak > 6 {
      reasons.append("Its strongest input feature is \(Figures.fixed(peak, 1)) times the median one.")
    }
    if let peak = worst.profile?.peak, let middle = median(all.compactMap { $0.profile?.peak }), peak > 1.5 * middle {
      reasons.append(
        "Its largest weight is \(Figures.fixed(peak, 1)) standard deviations out (median \(Figures.fixed(middle, 1))).")
    }
    if let bits = median(all.map(\.report.bitsPerWeight)), worst.report.bitsPerWeight < bits - 0.4 {
      reasons.append(
        "It has \(Figures.fixed(worst.report.bitsPerWeight, 2)) bits per weight (median \(Figures.fixed(bits, 2))).")
    }
    if ledger.isCalibrated, reasons.isEmpty, let own = worst.report.distortion?.relativeError,
      let middle = median(all.compactMap { $0.report.distortion?.relativeError }), own > 1.2 * middle
    {
      reasons.append("Its weights lost \(Figures.percent(own)) of their norm (median \(Figures.percent(middle))).")
    }
    return reasons
  }

  private var againstRounding: Findings.Answer? {
    let known = ledger.entries.filter { $0.ratio != nil }
    guard !known.isEmpty else { return nil }
    let worse = known.filter { ($0.ratio ?? 0) > 1 }
    let ratios = known.compactMap(\.ratio)
    var text: String
    if worse.isEmpty {
      text = "Yes, in all \(Figures.count(known.count, "linear layer")):"
    } else {
      let listed = worse.prefix(5).map { "\(name($0)) (\(Figures.fixed($0.ratio ?? 0, 3)))" }.joined(separator: ", ")
      text = "No, not in \(worse.count) of \(known.count) linear layers: \(listed)\(worse.count > 5 ? ", …" : "");"
    }
    text += " their output errors are \(Figures.fixed(ratios.min() ?? 0, 3)) to \(Figures.fixed(ratios.max() ?? 0, 3))"
    text += " times those of rounding, median \(Figures.fixed(median(ratios) ?? 0, 3))."
    let unsure = known.filter { entry in
      guard let ratio = entry.ratio, ratio <= 1, entry.layers.count == 1, let margin = entry.layers[0].ratioMargin
      else { return false }
      return ratio + margin > 1
    }
    if !unsure.isEmpty { text += " In \(unsure.count) of them the 95 % interval reaches beyond 1." }
    let isSplit = report.calibration?.isOutlierSplit ?? false
    return Findings.Answer(
      question: isSplit
        ? "Is keeping outlier columns apart better than rounding them, everywhere?"
        : "Is it better than rounding to nearest everywhere?", answer: text)
  }

  private var scales: Findings.Answer? {
    let quantized = ledger.entries.filter { $0.report.isQuantized && $0.profile != nil }
    guard !quantized.isEmpty else { return nil }
    let bytes = quantized.reduce(0) { $0 + $1.scaleByteCount }
    let stored = quantized.reduce(0) { $0 + $1.report.storedByteCount }
    let weights = quantized.reduce(0) { $0 + $1.report.elementCount }
    var text = "\(bytes) bytes, zero points included: \(Figures.percent(Double(bytes) / Double(max(1, stored)))) of the"
    text += " \(Figures.bytes(stored)) of quantized tensors,"
    text += " \(Figures.percent(Double(bytes) / Double(max(1, report.storedFileBytes)))) of the files,"
    text += " \(Figures.fixed(Double(bytes) * 8 / Double(max(1, weights)), 3)) bits a weight."
    let outliers = quantized.reduce(0) { $0 + $1.outlierByteCount }
    if outliers > 0 { text += " Weights of outlier columns take \(Figures.bytes(outliers)) more." }
    return Findings.Answer(question: "How many bytes are scales?", answer: text)
  }

  private var moreBits: Findings.Answer? {
    let kinds = ledger.kindSummaries.filter { $0.share > 0 && $0.hasRoom }
    guard kinds.count > 1 else { return nil }
    let ranked = kinds.sorted { (report.worth($1) ?? 0, $0.kind) < (report.worth($0) ?? 0, $1.kind) }
    func line(_ kind: Ledger.KindSummary) -> String {
      let (gain, bytes) = (kind.bitGain ?? 0, kind.bitBytes ?? 0)
      return "\(kind.kind.printable) (\(Figures.percent(gain)) of all squared rounding error for"
        + " \(Figures.bytes(bytes)), \(Figures.percent(report.fileShare(bytes))) of the files)"
    }
    var text = "Most for their bytes in " + ranked.prefix(2).map(line).joined(separator: ", then ")
    if let last = ranked.last, ranked.count > 2 { text += "; least in " + line(last) }
    text += ". One more bit for everything costs \(Figures.bytes(ranked.reduce(0) { $0 + ($1.bitBytes ?? 0) }))."
    return Findings.Answer(question: "Would one more bit be worth it?", answer: text)
  }
}

extension ModelReport {
  func fileShare(_ bytes: Int) -> Double { Double(bytes) / Double(max(1, storedFileBytes)) }

  /// Squared rounding error taken off by one more bit, for each part of the files that it costs.
  func worth(_ kind: Ledger.KindSummary) -> Double? {
    guard let bytes = kind.bitBytes, let gain = kind.bitGain else { return nil }
    return bytes > 0 ? gain / fileShare(bytes) : 0
  }
}
