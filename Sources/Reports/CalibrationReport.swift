import Checkpoints
import OrderedCollections

/// What calibration did to each layer, as `calibration_report.json` beside the weights tells.
package struct CalibrationReport: Hashable, Sendable {
  /// A linear layer, or one expert of a tensor that stacks them.
  package struct Layer: Hashable, Sendable {
    package let tensor: String
    package let expert: Int?
    /// Tokens that reached it.
    package let tokens: Int
    /// The share added to the Hessian's diagonal; nil where it was rounded to nearest.
    package let dampening: Double?
    package let deadColumns: Int
    /// Why it was rounded to nearest.
    package let fallback: String?
    /// Relative error of its output on tokens that were not calibrated on.
    package let outputError: Double?
    /// The same of rounding to nearest with the same codes and groups.
    package let plainError: Double?
    /// Half the width of the 95 % interval of their ratio.
    package let ratioMargin: Double?

    package var ratio: Double? {
      guard let outputError, let plainError, plainError > 0 else { return nil }
      return outputError / plainError
    }

    package var isWorse: Bool { (ratio ?? 0) > 1 }
  }

  package static let fileName = "calibration_report.json"

  package let layers: [Layer]
  package let windows: JSONValue

  /// - Returns: nil if it is not such a report.
  package init?(_ json: JSONValue) {
    guard let items = json["layers"]?.array else { return nil }
    var layers: [Layer] = []
    for item in items {
      guard let tensor = item["tensor"]?.string else { return nil }
      layers.append(
        Layer(
          tensor: tensor, expert: item["expert"]?.integer, tokens: item["tokens"]?.integer ?? 0,
          dampening: item["dampening"]?.double, deadColumns: item["dead_columns"]?.integer ?? 0,
          fallback: item["rounded_to_nearest"]?.string, outputError: item["output_error"]?.double,
          plainError: item["output_error_rtn"]?.double, ratioMargin: item["ratio_margin_95"]?.double))
    }
    self.layers = layers
    windows = json["windows"] ?? .null
  }
}

extension CalibrationReport {
  /// Whether errors were measured on held-out tokens.
  var isMeasured: Bool { layers.contains { $0.outputError != nil } }

  /// The errors of outputs as a table.
  var text: String {
    let columns = [
      TableColumn(title: "layer"), TableColumn(title: "tokens", isNumber: true),
      TableColumn(title: "output error", isNumber: true), TableColumn(title: "of rounding", isNumber: true),
      TableColumn(title: "ratio, 95 %", isNumber: true), TableColumn(title: "note"),
    ]
    let rows = layers.map { layer in
      [
        layer.name, "\(layer.tokens)", layer.outputError.map(Figures.percent) ?? "–",
        layer.plainError.map(Figures.percent) ?? "–",
        layer.ratio.map {
          Figures.fixed($0, 3) + (layer.ratioMargin.map { " ± \(Figures.fixed($0, 3))" } ?? "")
        } ?? "–",
        layer.fallback.map { "rounded to nearest: \($0)" } ?? (layer.isWorse ? "WORSE than rounding to nearest" : ""),
      ]
    }
    return "Output error on tokens held out of calibration, and that of rounding to nearest\n" + table(columns, rows)
  }
}

extension CalibrationReport.Layer {
  var name: String { tensor.printable + (expert.map { ", expert \($0)" } ?? "") }

  var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(tensor)]
    if let expert { fields["expert"] = .integer(expert) }
    fields["tokens"] = .integer(tokens)
    fields["output_error"] = outputError.map { .real($0) } ?? .null
    fields["output_error_rtn"] = plainError.map { .real($0) } ?? .null
    fields["ratio"] = ratio.map { .real($0) } ?? .null
    fields["ratio_margin_95"] = ratioMargin.map { .real($0) } ?? .null
    fields["worse_than_rtn"] = .bool(isWorse)
    if let fallback { fields["rounded_to_nearest"] = .string(fallback) }
    return .object(fields)
  }
}
