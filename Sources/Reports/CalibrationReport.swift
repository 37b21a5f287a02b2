import Checkpoints

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
