import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Quantization

/// The table of all tensors, and what the page's script shows of the one that is chosen.
extension ReportPage {
  struct LedgerColumn {
    let title: String
    /// What it means, in a line; empty where the title says it.
    let hint: String
    let value: (Ledger.Entry) -> String
  }

  private static func percentage(_ value: Double?) -> String { value.map { Figures.fixed($0 * 100, 2) } ?? "" }

  /// After the name.
  var columns: [LedgerColumn] {
    func column(_ title: String, _ hint: String, _ value: @escaping (Ledger.Entry) -> String) -> LedgerColumn {
      LedgerColumn(title: title, hint: hint, value: value)
    }
    var columns = [
      column("tensor", "") { $0.report.name.printable }, column("scheme", "", Self.scheme),
      column("weights", "") { Figures.millions($0.report.elementCount) },
      column("bits", "stored bits per weight, scales included") { Figures.fixed($0.report.bitsPerWeight, 3) },
      column("stored", "") { Figures.bytes($0.report.storedByteCount) },
      column("scales", "of it scales and zero points") {
        $0.profile == nil ? "" : Figures.bytes($0.scaleByteCount)
      },
      column("weight error %", "‖W − Ŵ‖ / ‖W‖") { Self.percentage($0.report.distortion?.relativeError) },
    ]
    if ledger.isCalibrated {
      columns += [
        column("output error %", "‖T − X·Ŵᵀ‖ / ‖T‖ on held-out tokens") { Self.percentage($0.outputError) },
        column("by rounding %", "what of the output error rounding this tensor adds") {
          Self.percentage($0.roundingError)
        },
        column("against rounding", "output error over that of rounding to nearest, ± half its 95 % interval") { entry in
          guard let ratio = entry.ratio else { return "" }
          let margin = entry.layers.count == 1 ? entry.layers[0].ratioMargin : nil
          return Figures.fixed(ratio, 3) + (margin.map { " ± " + Figures.fixed($0, 3) } ?? "")
        },
      ]
    }
    if ledger.entries.contains(where: { $0.inputPeak != nil }) {
      columns.append(
        column("input", "√E[x²] of the strongest input feature over that of the median one") {
          $0.inputPeak.map { Figures.fixed($0, 1) } ?? ""
        })
    }
    columns += [
      column("peak", "largest weight over the standard deviation") {
        $0.profile.map { Figures.fixed($0.peak, 1) } ?? ""
      },
      column(
        "PQ index", "1 − (Σ√|w|)² / (d·Σ|w|): 0 where all weights are equally large, towards 1 where few carry all"
      ) {
        $0.profile.map { Figures.fixed($0.sparsity, 3) } ?? ""
      },
    ]
    return columns
  }

  private static func scheme(_ entry: Ledger.Entry) -> String {
    switch entry.report.outcome {
    case .quantized(let scheme, _): scheme
    case .folded(let scheme, let reason, _): scheme ?? "kept: " + reason
    case .kept(let reason, let isIdentical): (isIdentical ? "kept: " : "ALTERED: ") + reason
    }
  }

  var tensorContext: [[String: Any]] {
    let columns = columns.dropFirst()
    return ledger.entries.map { entry in
      // What the filter looks for: quantized, worse than rounding, kept.
      let state = entry.report.isQuantized ? ((entry.ratio ?? 0) > 1 ? "q w" : "q") : "k"
      return [
        "name": entry.report.name.printable, "state": state, "hasProfile": entry.profile != nil,
        "cells": columns.map { $0.value(entry) },
      ]
    }
  }

  /// The row of the tensor that lost most.
  var worstPosition: Int {
    guard let worst = ledger.byLoss.first else { return ledger.entries.firstIndex { $0.profile != nil } ?? 0 }
    return ledger.entries.firstIndex { $0.report.name == worst.report.name } ?? 0
  }

  /// Histograms and facts for the script, in the order of the rows: counts in thousandths of the largest, and the share
  /// that the largest is.
  var profileJSON: String {
    func scaled(_ counts: [Int]) -> JSONValue {
      let most = Double(max(1, counts.max() ?? 1))
      return .array(counts.map { .integer(Int((Double($0) * 1000 / most).rounded(.up))) })
    }
    func largestShare(_ counts: [Int]) -> JSONValue {
      .number(Figures.fixed(Double(counts.max() ?? 0) / Double(max(1, counts.reduce(0, +))), 5))
    }
    let profiles: [JSONValue] = ledger.entries.map { entry in
      guard let profile = entry.profile else { return .null }
      var fields: OrderedDictionary<String, JSONValue> = [
        "w": scaled(profile.weights.counts), "m": .real(Double(Figures.short(profile.weights.high)) ?? 0),
      ]
      var shares = [largestShare(profile.weights.counts)]
      if !profile.codes.isEmpty { fields["c"] = scaled(profile.codes) }
      shares.append(largestShare(profile.codes))
      if let scales = profile.scales {
        fields["s"] = scaled(scales.counts)
        fields["l"] = .array([scales.low, scales.high].map { .number(Figures.fixed(Double($0), 3)) })
        shares.append(largestShare(scales.counts))
      }
      fields["p"] = .array(shares)
      fields["x"] = .array(facts(entry, profile).map { .array([.string($0.0), .string($0.1)]) })
      return .object(fields)
    }
    // Nothing in a script element may look like its end.
    return JSONValue.array(profiles).text().replacing("<", with: "\\u003c")
  }

  private func facts(_ entry: Ledger.Entry, _ profile: TensorProfile) -> [(String, String)] {
    var facts = [("shape", "\(entry.report.sourceType.rawValue) \(Figures.shape(entry.report.shape))")]
    facts.append(("scheme", Self.scheme(entry)))
    if let distortion = entry.report.distortion {
      facts.append(("SQNR", Figures.fixed(distortion.sqnr, 2) + " dB"))
      facts.append(("cosine", Figures.fixed(distortion.cosine, 6)))
      let place = Figures.shape(entry.report.largestErrorIndex ?? [])
      facts.append(("largest error", "\(Figures.short(distortion.largestError)) at \(place)"))
    }
    if let entropy = profile.entropy {
      facts.append(("codes used", "\(profile.codes.count - profile.unusedCodes) of \(profile.codes.count)"))
      facts.append(("their entropy", Figures.fixed(entropy, 3) + " bits"))
    }
    facts.append(("scales", "\(profile.scaleByteCount) bytes"))
    if profile.outlierByteCount > 0 { facts.append(("outlier columns", "\(profile.outlierByteCount) bytes")) }
    if let layer = entry.layers.first, entry.layers.count == 1 {
      facts.append(("calibrated on", "\(layer.tokens) tokens"))
      if let dampening = layer.dampening { facts.append(("dampening", Figures.short(dampening))) }
    }
    if let features = entry.features.first, entry.features.count == 1, features.median > 0 {
      let listed = features.strongest.prefix(4).map {
        "\($0.feature) (\(Figures.fixed($0.rootMeanSquare / features.median, 1))×)"
      }
      facts.append(("strongest inputs", listed.joined(separator: ", ")))
    }
    return facts
  }
}
