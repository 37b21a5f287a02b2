import Calibration
import Checkpoints
import Crypto
import OrderedCollections
import Quantization
import Reports
import SystemPackage

/// What is in a file of evidence, for people.
package struct EvidenceSummary: Sendable {
  private struct Line {
    let layers: [EvidencedLayer]
    let features: Int
    let tokens: Int
    /// Features that reach the threshold for some token, the most frequent first.
    let outliers: [(feature: Int, tokens: Int)]
    let largest: Float
  }

  private let place: String
  private let header: EvidenceHeader
  private let lines: [Line]

  /// Reads all statistics, and checks them.
  package init(_ file: EvidenceFile, workers: Int) throws {
    place = file.place
    header = file.header
    lines = try file.inputs.indices.map { index in
      let input = try file.evidence(ofInput: index, withHessian: false, workers: workers)
      let counts = input.statistics.outlierTokens
      let outliers = counts.indices.filter { counts[$0] > 0 }.sorted {
        counts[$0] != counts[$1] ? counts[$0] > counts[$1] : $0 < $1
      }
      return Line(
        layers: input.layers, features: input.dimension, tokens: input.tokens,
        outliers: outliers.map { ($0, counts[$0]) }, largest: input.statistics.largestMagnitudes.max() ?? 0)
    }
  }

  package var text: String {
    let tokens = header.texts.reduce(0) { $0 + ($1["tokens"]?.integer ?? 0) }
    let kinds = header.hasHessians ? "statistics and Hessians" : "statistics"
    var result = [
      "\(place.printable): \(kinds) of \(lines.count) inputs of a \(header.modelType.printable) model, from \(tokens)"
        + " tokens."
    ]
    let singular = lines.filter { $0.tokens < $0.features }
    if header.hasHessians, !singular.isEmpty {
      result.append("Fewer tokens than features, so that dampening decides: \(singular.count) inputs.")
    }
    let starved = lines.filter { line in
      line.layers.contains { $0.expert != nil } && line.tokens < MixtureRule.leastTokens(inputs: line.features)
    }
    if !starved.isEmpty { result.append("Too few tokens for an expert: \(starved.count) inputs.") }
    result.append(
      EvidenceTable.text(
        lines.map { line in
          EvidenceTable.Line(
            layers: line.layers.map { $0.weight.printable + ($0.expert.map { "[\($0)]" } ?? "") }, tokens: line.tokens,
            features: line.features, outliers: line.outliers.count, largest: line.largest)
        }, threshold: header.threshold))
    return result.joined(separator: "\n")
  }

  package var json: JSONValue {
    [
      "path": .string(place), "model_type": .string(header.modelType), "model_sha256": .string(header.model),
      "outlier_threshold": .real(Double(header.threshold)), "hessians": .bool(header.hasHessians),
      "texts": .array(header.texts),
      "inputs": .array(
        lines.map { line in
          [
            "layers": .array(
              line.layers.map { layer in
                var fields: OrderedDictionary<String, JSONValue> = ["weight": .string(layer.weight)]
                if let expert = layer.expert { fields["expert"] = .integer(expert) }
                return .object(fields)
              }),
            "features": .integer(line.features), "tokens": .integer(line.tokens),
            "largest_magnitude": .real(Double(line.largest)),
            "outliers": .array(
              line.outliers.map { ["feature": .integer($0.feature), "tokens": .integer($0.tokens)] }),
          ]
        }),
    ]
  }
}

extension CalibrationWindows {
  /// The record of a text in evidence: with the SHA-256 that tells texts apart.
  package var evidenceRecord: JSONValue {
    var fields = record.object ?? [:]
    fields["sha256"] = .string(hexadecimal(SHA256.hash(data: identity)))
    return .object(fields)
  }
}
