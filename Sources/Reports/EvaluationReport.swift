import Checkpoints
import Evaluation
import Foundation
import Kernels
import OrderedCollections

/// What `evaluate` found, for people and programs.
package struct EvaluationReport: Hashable, Sendable {
  /// Which linear layers ran with 8-bit inputs.
  package struct IntegerProducts: Hashable, Sendable {
    package let layers: Int
    package let allLayers: Int
    package let splitsOutliers: Bool

    package init(layers: Int, allLayers: Int, splitsOutliers: Bool) {
      self.layers = layers
      self.allLayers = allLayers
      self.splitsOutliers = splitsOutliers
    }
  }

  package let model: String
  package let against: String?
  package let text: String
  package let evaluation: Evaluation
  /// Tokens of the text that fill windows, of all that it has.
  package let usedTokens: Int
  package let textTokens: Int
  package let unusedTensors: [String]
  /// Nil where all layers ran in float32.
  package let integerProducts: IntegerProducts?
  package let seconds: Double

  package init(
    model: String, against: String?, text: String, evaluation: Evaluation, usedTokens: Int, textTokens: Int,
    unusedTensors: [String], integerProducts: IntegerProducts? = nil, seconds: Double
  ) {
    self.model = model
    self.against = against
    self.text = text
    self.evaluation = evaluation
    self.usedTokens = usedTokens
    self.textTokens = textTokens
    self.unusedTensors = unusedTensors
    self.integerProducts = integerProducts
    self.seconds = seconds
  }

  private var tokensPerSecond: Double { Double(usedTokens) / max(seconds, 1e-9) }

  package var rendered: String {
    let error = evaluation.standardError.map { " ± \(Figures.fixed($0, 4))" } ?? ""
    var rows = [["perplexity", Figures.fixed(evaluation.perplexity, 5) + error]]
    if let comparison = evaluation.comparison {
      func margin(_ error: Double?, _ shown: (Double) -> String) -> String { error.map { " ± " + shown($0) } ?? "" }
      rows += [
        ["perplexity of the other", Figures.fixed(comparison.perplexity, 5)],
        [
          "ratio of the two",
          Figures.fixed(comparison.perplexityRatio, 5)
            + margin(comparison.perplexityRatioError) { Figures.fixed($0, 5) },
        ],
        [
          "KL divergence, mean",
          Figures.fixed(comparison.divergence, 6) + margin(comparison.divergenceError) { Figures.fixed($0, 6) }
            + " nats",
        ],
        ["KL divergence, 99 % of tokens", Figures.fixed(comparison.divergence99, 6) + " nats at most"],
        [
          "same most probable token",
          Figures.percent(comparison.agreement) + margin(comparison.agreementError, Figures.percent),
        ],
        ["accepted as a draft", Figures.percent(comparison.acceptance)],
      ]
    }
    if let products = integerProducts {
      let split = products.splitsOutliers ? "" : ", outlier columns rounded too"
      rows.append(["8-bit inputs", "\(products.layers) of \(products.allLayers) linear layers\(split)"])
    }
    rows += [
      ["predicted tokens", "\(evaluation.tokens)"],
      ["windows", windows],
      ["text", "\(text.printable): \(usedTokens) of \(textTokens) tokens"],
      ["time", "\(Figures.fixed(seconds, 2)) s, \(Figures.fixed(tokensPerSecond, 0)) tokens/s"],
    ]
    let title = model.printable + (against.map { " against \($0.printable)" } ?? "")
    let width = rows.map { $0[0].count }.max() ?? 0
    var lines = [title] + rows.map { "  " + $0[0].padding(toLength: width + 2, withPad: " ", startingAt: 0) + $0[1] }
    if !unusedTensors.isEmpty {
      let names = unusedTensors.prefix(3).map(\.printable).joined(separator: ", ")
      lines.append(
        "not part of the model as it was run: \(Figures.count(unusedTensors.count, "tensor")) (\(names)"
          + (unusedTensors.count > 3 ? ", …)" : ")"))
    }
    return lines.joined(separator: "\n")
  }

  private var windows: String {
    "\(evaluation.window) tokens"
      + (evaluation.stride < evaluation.window
        ? ", one every \(evaluation.stride) (each token predicted once)" : ", not overlapping")
  }

  package var json: JSONValue {
    var members: [(String, JSONValue)] = [
      ("model", .string(model)), ("text", .string(text)), ("perplexity", .real(evaluation.perplexity)),
      ("standardError", evaluation.standardError.map { .real($0) } ?? .null),
      ("tokens", .integer(evaluation.tokens)), ("window", .integer(evaluation.window)),
      ("stride", .integer(evaluation.stride)), ("usedTokens", .integer(usedTokens)),
      ("textTokens", .integer(textTokens)),
    ]
    if let comparison = evaluation.comparison {
      members += [
        ("against", .string(against ?? "")), ("klDivergence", .real(comparison.divergence)),
        ("klDivergenceStandardError", comparison.divergenceError.map { .real($0) } ?? .null),
        ("klDivergence99", .real(comparison.divergence99)), ("top1Agreement", .real(comparison.agreement)),
        ("top1AgreementStandardError", comparison.agreementError.map { .real($0) } ?? .null),
        ("againstPerplexity", .real(comparison.perplexity)), ("perplexityRatio", .real(comparison.perplexityRatio)),
        ("perplexityRatioStandardError", comparison.perplexityRatioError.map { .real($0) } ?? .null),
        ("draftAcceptance", .real(comparison.acceptance)),
      ]
    }
    if let products = integerProducts {
      members += [
        ("activations", "int8"), ("integerLayers", .integer(products.layers)),
        ("splitsOutliers", .bool(products.splitsOutliers)),
      ]
    }
    members += [
      ("unusedTensors", .array(unusedTensors.map { .string($0) })), ("seconds", .real(seconds)),
      ("tokensPerSecond", .real(tokensPerSecond)),
    ]
    return .object(.init(uniqueKeysWithValues: members))
  }
}
