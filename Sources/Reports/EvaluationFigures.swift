import Checkpoints
import OrderedCollections

/// What `evaluate --json` printed of an output, to be shown in its report.
package struct EvaluationFigures: Hashable, Sendable {
  /// A figure with its standard error, which a single window does not give.
  package struct Estimate: Hashable, Sendable {
    package let value: Double
    package let error: Double?

    /// Half the width of a 95 % confidence interval.
    package var margin: Double? { error.map { 1.96 * $0 } }
  }

  package let model: String
  package let against: String?
  package let text: String
  package let tokens: Int
  package let window: Int
  package let stride: Int
  package let perplexity: Estimate
  /// Of the model compared with.
  package let againstPerplexity: Double?
  package let perplexityRatio: Estimate?
  package let divergence: Estimate?
  package let divergence99: Double?
  package let agreement: Estimate?
  package let acceptance: Double?

  /// - Returns: nil if it is not such a document.
  package init?(_ json: JSONValue) {
    guard let perplexity = json["perplexity"]?.double, let tokens = json["tokens"]?.integer,
      let window = json["window"]?.integer, let stride = json["stride"]?.integer, let text = json["text"]?.string
    else { return nil }
    func estimate(_ key: String, _ errorKey: String) -> Estimate? {
      json[key]?.double.map { Estimate(value: $0, error: json[errorKey]?.double) }
    }
    model = json["model"]?.string ?? ""
    against = json["against"]?.string
    self.text = text
    self.tokens = tokens
    self.window = window
    self.stride = stride
    self.perplexity = Estimate(value: perplexity, error: json["standardError"]?.double)
    againstPerplexity = json["againstPerplexity"]?.double
    perplexityRatio = estimate("perplexityRatio", "perplexityRatioStandardError")
    divergence = estimate("klDivergence", "klDivergenceStandardError")
    divergence99 = json["klDivergence99"]?.double
    agreement = estimate("top1Agreement", "top1AgreementStandardError")
    acceptance = json["draftAcceptance"]?.double
  }
}

extension EvaluationFigures {
  struct Row {
    let name: String
    let value: String
    /// With its bounds; empty where it is not known.
    let interval: String
    let meaning: String
  }

  var rows: [Row] {
    func row(
      _ name: String, _ estimate: Estimate?, within bounds: ClosedRange<Double> = 0...Double.infinity,
      _ shown: (Double) -> String, _ meaning: String
    ) -> Row? {
      estimate.map { estimate in
        let interval = estimate.margin.map {
          shown(max(bounds.lowerBound, estimate.value - $0)) + " to "
            + shown(min(bounds.upperBound, estimate.value + $0))
        }
        return Row(name: name, value: shown(estimate.value), interval: interval ?? "", meaning: meaning)
      }
    }
    func plain(_ value: Double?) -> Estimate? { value.map { Estimate(value: $0, error: nil) } }
    func four(_ value: Double) -> String { Figures.fixed(value, 4) }
    func five(_ value: Double) -> String { Figures.fixed(value, 5) }
    return [
      row("KL divergence", divergence, five, "nats per token from the original; 0 where both predict the same"),
      row("KL divergence, 99th percentile", plain(divergence99), five, "what 99 % of the tokens do not exceed"),
      row("same most likely token", agreement, within: 0...1, Figures.percent, "share of tokens"),
      row("perplexity", perplexity, four, "smaller is better; its interval is mostly the text's own spread"),
      row("perplexity of the original", plain(againstPerplexity), four, "on the same tokens"),
      row("perplexity over the original's", perplexityRatio, four, "on the same tokens, so that the spread cancels"),
      row("accepted as a draft", plain(acceptance), Figures.percent, "of its tokens, by speculative decoding"),
    ].compactMap(\.self)
  }

  /// What was run, in a line.
  var setting: String {
    "\(tokens) predicted tokens of \(text.printable), in windows of \(window)"
      + (stride < window ? ", one every \(stride)" : "") + (against.map { ", against \($0.printable)" } ?? "") + "."
  }

  var json: JSONValue {
    func estimate(_ value: Estimate?) -> JSONValue {
      guard let value else { return .null }
      return ["value": .real(value.value), "standard_error": value.error.map { .real($0) } ?? .null]
    }
    func plain(_ value: Double?) -> JSONValue { value.map { .real($0) } ?? .null }
    return [
      "model": .string(model), "against": against.map { .string($0) } ?? .null, "text": .string(text),
      "tokens": .integer(tokens), "window": .integer(window), "stride": .integer(stride),
      "perplexity": estimate(perplexity), "against_perplexity": plain(againstPerplexity),
      "perplexity_ratio": estimate(perplexityRatio), "kl_divergence": estimate(divergence),
      "kl_divergence_99": plain(divergence99), "top1_agreement": estimate(agreement),
      "draft_acceptance": plain(acceptance),
    ]
  }
}
