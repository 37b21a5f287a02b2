import Foundation
import Kernels

/// How positions turn the first dimensions of queries and keys (arXiv 2104.09864), and how that is stretched to more
/// positions than the model was trained on.
package struct RotaryEmbedding: Hashable, Sendable {
  package enum Scaling: Hashable, Sendable {
    case none
    /// Positions divided by a factor (arXiv 2306.15595).
    case linear(factor: Double)
    /// A base that grows with the length beyond the trained one ("NTK-aware", dynamic).
    case dynamic(factor: Double, trained: Int)
    /// Low frequencies divided, high ones kept, a ramp between (Llama 3.1).
    case llama3(factor: Double, low: Double, high: Double, trained: Double)
    /// The same idea by dimensions, with a temperature on the scores (YaRN, arXiv 2309.00071, §3.2 to 3.4).
    case yarn(factor: Double, trained: Double, fast: Double, slow: Double, truncates: Bool, attentionFactor: Double)
    /// A factor for every frequency, one set within the trained length and one beyond (LongRoPE, arXiv 2402.13753).
    case longrope(short: [Double], long: [Double], trained: Int, attentionFactor: Double)
  }

  /// The base of the frequencies.
  package let theta: Double
  /// Dimensions of a head that are rotated, from the first on; even.
  package let dimensions: Int
  package let scaling: Scaling

  /// What cosines and sines are multiplied by.
  package var attentionFactor: Double {
    switch scaling {
    case .yarn(_, _, _, _, _, let factor), .longrope(_, _, _, let factor): factor
    default: 1
    }
  }

  /// Radians per position of each pair of dimensions, for sequences of a length.
  package func frequencies(length: Int) -> [Float] {
    let half = dimensions / 2
    // In float32 as the models were trained: the error of a frequency is multiplied by the position.
    func plain(base: Double) -> [Float] {
      (0..<half).map { 1 / Float(pow(base, Double(Float(2 * $0) / Float(dimensions)))) }
    }
    let frequencies = plain(base: theta)
    switch scaling {
    case .none: return frequencies
    case .linear(let factor): return frequencies.map { $0 / Float(factor) }
    case .dynamic(let factor, let trained):
      guard length > trained, dimensions > 2 else { return frequencies }
      let growth = factor * Double(length) / Double(trained) - (factor - 1)
      return plain(base: theta * pow(growth, Double(dimensions) / Double(dimensions - 2)))
    case .llama3(let factor, let low, let high, let trained):
      return frequencies.map { frequency in
        let turns = trained * Double(frequency) / (2 * .pi)
        if turns > high { return frequency }
        if turns < low { return frequency / Float(factor) }
        let share = (turns - low) / (high - low)
        return Float((1 - share) * Double(frequency) / factor + share * Double(frequency))
      }
    case .yarn(let factor, let trained, let fast, let slow, let truncates, _):
      func dimension(turns: Double) -> Double {
        Double(dimensions) * log(trained / (turns * 2 * .pi)) / (2 * log(theta))
      }
      var first = dimension(turns: fast)
      var last = dimension(turns: slow)
      if truncates { (first, last) = (first.rounded(.down), last.rounded(.up)) }
      first = max(first, 0)
      last = min(last, Double(dimensions - 1))
      if first == last { last += 0.001 }
      return frequencies.enumerated().map { index, frequency in
        let ramp = min(max((Double(index) - first) / (last - first), 0), 1)
        return Float(Double(frequency) / factor * ramp + Double(frequency) * (1 - ramp))
      }
    case .longrope(let short, let long, let trained, _):
      return zip(frequencies, length > trained ? long : short).map { $0 / Float($1) }
    }
  }

  /// Whether frequencies change as a sequence grows.
  package var dependsOnLength: Bool {
    switch scaling {
    case .dynamic, .longrope: true
    default: false
    }
  }

  /// Cosines and sines for the positions of a sequence of a length, `[rows, dimensions / 2]` each.
  package func tables(length: Int, rows: Int) -> RotaryTables {
    let frequencies = frequencies(length: length)
    let cosines = Matrix(rows: rows, columns: frequencies.count)
    let sines = Matrix(rows: rows, columns: frequencies.count)
    let factor = attentionFactor
    for position in 0..<rows {
      cosines.withRows(position..<(position + 1)) { cosine in
        sines.withRows(position..<(position + 1)) { sine in
          for (index, frequency) in frequencies.enumerated() {
            let angle = Double(Float(position) * frequency)
            cosine[index] = Float(cos(angle) * factor)
            sine[index] = Float(sin(angle) * factor)
          }
        }
      }
    }
    return RotaryTables(cosines: cosines, sines: sines)
  }
}

package struct RotaryTables: Sendable {
  package let cosines: Matrix
  package let sines: Matrix
  /// For the backward pass, which turns the other way.
  let negatedSines: Matrix

  init(cosines: Matrix, sines: Matrix) {
    self.cosines = cosines
    self.sines = sines
    negatedSines = Matrix(rows: sines.rows, columns: sines.columns)
    subtract(sines, from: negatedSines, workers: 1)
  }
}

extension RotaryEmbedding {
  /// Reads the keys of `config.json`: `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
  /// - Parameters:
  ///   - headDimension: dimensions of a head, all of which are rotated unless a partial factor counts.
  ///   - theta: the model's default base.
  ///   - layerType: which entry of `rope_parameters` counts, where it has one for each type of layer.
  ///   - alwaysPartial: whether `partial_rotary_factor` counts without any scaling, too.
  ///   - partial: its default.
  package init(
    _ configuration: ModelConfiguration, headDimension: Int, theta fallback: Double = 10_000, layerType: String? = nil,
    alwaysPartial: Bool = false, partial: Double = 1, isScaled: Bool = true
  ) throws(ModelError) {
    var settings = try configuration.object("rope_parameters")
    if let layerType, let own = try settings?.object(layerType) { settings = own }
    if let older = try configuration.object("rope_scaling"), isScaled { settings = older }
    let outer = try configuration.positive("rope_theta", default: fallback)
    theta = try settings?.numberIfPresent("rope_theta") ?? outer
    guard theta > 1 else { throw configuration.refusal(of: "rope_theta", expected: "a number above 1") }
    let oldType = try settings?.text("type", default: "default") ?? "default"
    let type = try settings?.text("rope_type", default: oldType) ?? oldType
    let outerShare = try configuration.number("partial_rotary_factor", default: partial)
    let share = try settings?.numberIfPresent("partial_rotary_factor") ?? outerShare
    guard share > 0, share <= 1 else {
      throw configuration.refusal(of: "partial_rotary_factor", expected: "a number above 0, at most 1")
    }
    let counts = alwaysPartial || type != "default"
    dimensions = counts ? Int(Double(headDimension) * share) : headDimension
    guard dimensions % 2 == 0, dimensions > 0 else {
      throw configuration.refusal(of: "partial_rotary_factor", expected: "an even number of rotated dimensions")
    }
    guard let settings, isScaled else {
      scaling = .none
      return
    }
    scaling = try Self.scaling(type, settings, configuration, dimensions: dimensions)
  }

  private static func scaling(
    _ type: String, _ settings: ModelConfiguration, _ configuration: ModelConfiguration, dimensions: Int
  ) throws(ModelError) -> Scaling {
    let limit = try configuration.integer("max_position_embeddings", default: 2048)
    // A key at the top level overrides the one inside.
    let inner = try settings.integer("original_max_position_embeddings", default: limit)
    let trained = try configuration.integer("original_max_position_embeddings", default: inner)
    switch type {
    case "default": return .none
    case "linear": return .linear(factor: try settings.positive("factor"))
    case "dynamic": return .dynamic(factor: try settings.positive("factor"), trained: limit)
    case "llama3":
      let low = try settings.positive("low_freq_factor")
      let high = try settings.positive("high_freq_factor")
      guard high > low else { throw settings.refusal(of: "high_freq_factor", expected: "more than low_freq_factor") }
      return .llama3(factor: try settings.positive("factor"), low: low, high: high, trained: Double(trained))
    // Phi-3 files call it by all three names.
    case _ where ["longrope", "su", "yarn"].contains(type) && settings.has("short_factor"):
      let factor = try settings.positive("factor", default: Double(limit) / Double(trained))
      let usual = factor <= 1 ? 1 : (1 + log(factor) / log(Double(max(2, trained)))).squareRoot()
      return .longrope(
        short: try settings.numbers("short_factor", count: dimensions / 2),
        long: try settings.numbers("long_factor", count: dimensions / 2), trained: trained,
        attentionFactor: try settings.positive("attention_factor", default: usual))
    case "yarn":
      let factor = try settings.positive("factor", default: Double(limit) / Double(trained))
      func temperature(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
      let scale = try settings.number("mscale", default: 0)
      let scaleOfAll = try settings.number("mscale_all_dim", default: 0)
      let usual = scale != 0 && scaleOfAll != 0 ? temperature(scale) / temperature(scaleOfAll) : temperature(1)
      return .yarn(
        factor: factor, trained: Double(trained), fast: try settings.positive("beta_fast", default: 32),
        slow: try settings.positive("beta_slow", default: 1), truncates: try settings.flag("truncate", default: true),
        attentionFactor: try settings.positive("attention_factor", default: usual))
    default:
      throw settings.refusal(
        of: settings.has("rope_type") ? "rope_type" : "type",
        expected: "one of default, linear, dynamic, llama3, yarn, longrope (with short_factor and long_factor)")
    }
  }
}
