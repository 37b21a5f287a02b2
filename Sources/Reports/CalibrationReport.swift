import Checkpoints
import OrderedCollections

/// What calibration did to each layer, as `calibration_report.json` beside the weights tells.
package struct CalibrationReport: Hashable, Sendable {
  /// A linear layer, or one expert of a tensor that stacks them.
  package struct Layer: Hashable, Sendable {
    package let tensor: String
    package let expert: Int?
    /// Features of its input; nil in reports of older versions.
    package let inputs: Int?
    /// Tokens that reached it.
    package let tokens: Int
    /// Of an expert that was sent too few tokens, and calibrated on all of its mixture: how many it was sent.
    package let routedTokens: Int?
    /// The share added to the Hessian's diagonal; nil where it was rounded to nearest.
    package let dampening: Double?
    /// The share that was to be added, where more was needed.
    package let askedDampening: Double?
    package let deadColumns: Int
    /// Why it was rounded to nearest.
    package let fallback: String?
    /// Relative error of its output on tokens that were not calibrated on.
    package let outputError: Double?
    /// The same of rounding to nearest with the same codes and groups.
    package let plainError: Double?
    /// What of `outputError` rounding alone adds; the rest came in with the inputs. Nil where that is not known.
    package let roundingError: Double?
    /// Half the width of the 95 % interval of their ratio.
    package let ratioMargin: Double?

    package var ratio: Double? {
      guard let outputError, let plainError, plainError > 0 else { return nil }
      return outputError / plainError
    }

    package var isWorse: Bool { (ratio ?? 0) > 1 }
  }

  package static let fileName = "calibration_report.json"

  /// How the features of a layer's input differ.
  package struct InputFeatures: Hashable, Sendable {
    package struct Strength: Hashable, Sendable {
      package let feature: Int
      /// √E[x²].
      package let rootMeanSquare: Double
    }

    package let tensor: String
    package let expert: Int?
    /// Features of the input.
    package let count: Int
    /// The median over features of √E[x²].
    package let median: Double
    /// Features of six times the median and more.
    package let outliers: Int
    /// The strongest, strongest first.
    package let strongest: [Strength]

    /// The strongest feature over the median one; nil for a median of zero.
    package var peak: Double? { median > 0 ? strongest.first.map { $0.rootMeanSquare / median } : nil }
  }

  package let layers: [Layer]
  /// Whether the errors are those of products with 8-bit weights and inputs, with outlier columns apart and, in place of
  /// rounding to nearest, without.
  package let isOutlierSplit: Bool
  package let inputFeatures: [InputFeatures]
  package let windows: JSONValue
  package let evidence: JSONValue

  /// - Returns: nil if it is not such a report.
  package init?(_ json: JSONValue) {
    guard let items = json["layers"]?.array else { return nil }
    var layers: [Layer] = []
    for item in items {
      guard let tensor = item["tensor"]?.string else { return nil }
      layers.append(
        Layer(
          tensor: tensor, expert: item["expert"]?.integer, inputs: item["inputs"]?.integer,
          tokens: item["tokens"]?.integer ?? 0, routedTokens: item["routed_tokens"]?.integer,
          dampening: item["dampening"]?.double, askedDampening: item["dampening_asked"]?.double,
          deadColumns: item["dead_columns"]?.integer ?? 0,
          fallback: item["rounded_to_nearest"]?.string, outputError: item["output_error"]?.double,
          plainError: item["output_error_rtn"]?.double, roundingError: item["output_error_rounding"]?.double,
          ratioMargin: item["ratio_margin_95"]?.double))
    }
    let split = json["outlier_split"]
    isOutlierSplit = layers.isEmpty && split != nil
    for item in split?["layers"]?.array ?? [] where isOutlierSplit {
      guard let tensor = item["tensor"]?.string else { return nil }
      layers.append(
        Layer(
          tensor: tensor, expert: item["expert"]?.integer, inputs: item["inputs"]?.integer,
          tokens: split?["tokens"]?.integer ?? 0, routedTokens: nil, dampening: nil, askedDampening: nil,
          deadColumns: 0,
          fallback: nil, outputError: item["output_error"]?.double,
          plainError: item["output_error_without_split"]?.double, roundingError: nil, ratioMargin: nil))
    }
    self.layers = layers
    inputFeatures = (json["input_features"]?.array ?? []).compactMap(InputFeatures.init)
    evidence = json["evidence"] ?? .null
    windows = json["windows"] ?? .null
  }
}

extension CalibrationReport.InputFeatures {
  fileprivate init?(_ json: JSONValue) {
    guard let tensor = json["tensor"]?.string, let count = json["features"]?.integer,
      let median = json["median_rms"]?.double, let outliers = json["outliers"]?.integer
    else { return nil }
    self.tensor = tensor
    expert = json["expert"]?.integer
    self.count = count
    self.median = median
    self.outliers = outliers
    var strongest: [Strength] = []
    for item in json["strongest"]?.array ?? [] {
      guard let pair = item.array, pair.count == 2, let feature = pair[0].integer, let root = pair[1].double else {
        return nil
      }
      strongest.append(Strength(feature: feature, rootMeanSquare: root))
    }
    self.strongest = strongest
  }

  var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(tensor)]
    if let expert { fields["expert"] = .integer(expert) }
    fields["features"] = .integer(count)
    fields["median_rms"] = .real(median)
    fields["outliers"] = .integer(outliers)
    fields["strongest"] = .array(
      strongest.map { strength -> JSONValue in
        ["feature": .integer(strength.feature), "rms": .real(strength.rootMeanSquare)]
      })
    return .object(fields)
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
      TableColumn(title: "ratio, 95 %", isNumber: true), TableColumn(title: "by its rounding", isNumber: true),
      TableColumn(title: "note"),
    ]
    func percent(_ value: Double?) -> String { value.map(Figures.percent) ?? "–" }
    let rows: [[String]] = layers.map { layer in
      let margin = layer.ratioMargin.map { " ± " + Figures.fixed($0, 3) } ?? ""
      let ratio = layer.ratio.map { Figures.fixed($0, 3) + margin } ?? "–"
      let note =
        layer.fallback.map { "rounded to nearest: \($0)" } ?? (layer.isWorse ? "WORSE than rounding to nearest" : "")
      return [
        layer.name, "\(layer.tokens)", percent(layer.outputError), percent(layer.plainError), ratio,
        percent(layer.roundingError), note,
      ]
    }
    let title =
      isOutlierSplit
      ? "Output error with 8-bit weights and inputs on held-out tokens, and that without outlier columns apart\n"
      : "Output error on tokens held out of calibration, and that of rounding to nearest\n"
    return title + table(columns, rows)
  }
}

extension CalibrationReport.Layer {
  var name: String { tensor.printable + (expert.map { ", expert \($0)" } ?? "") }

  var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(tensor)]
    if let expert { fields["expert"] = .integer(expert) }
    if let inputs { fields["inputs"] = .integer(inputs) }
    fields["tokens"] = .integer(tokens)
    if let routedTokens { fields["routed_tokens"] = .integer(routedTokens) }
    fields["dampening"] = dampening.map { .real($0) } ?? .null
    if let askedDampening { fields["dampening_asked"] = .real(askedDampening) }
    fields["dead_columns"] = .integer(deadColumns)
    fields["output_error"] = outputError.map { .real($0) } ?? .null
    fields["output_error_rtn"] = plainError.map { .real($0) } ?? .null
    fields["output_error_rounding"] = roundingError.map { .real($0) } ?? .null
    fields["ratio"] = ratio.map { .real($0) } ?? .null
    fields["ratio_margin_95"] = ratioMargin.map { .real($0) } ?? .null
    fields["worse_than_rtn"] = .bool(isWorse)
    if let fallback { fields["rounded_to_nearest"] = .string(fallback) }
    return .object(fields)
  }
}
