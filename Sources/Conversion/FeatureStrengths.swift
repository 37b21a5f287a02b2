import Checkpoints
import OrderedCollections

/// How strongly the features of a layer's input differ: few that tower above the rest make a layer hard to quantize, for
/// the errors of their weights count most (outlier features: arXiv 2208.07339, section 3).
package struct FeatureStrengths: Hashable, Codable, Sendable {
  /// Features of the input.
  package let count: Int
  /// The median over features of √E[x²].
  package let median: Float
  /// The strongest, strongest first, with their √E[x²].
  package let strongest: [Strength]
  /// Features that reach `outlierFactor` times the median.
  package let outliers: Int

  package struct Strength: Hashable, Codable, Sendable {
    package let feature: Int
    package let rootMeanSquare: Float
  }

  /// LLM.int8() calls values outliers that reach 6 where most are about 1; here the layer's own median is the measure,
  /// so that layers whose inputs are not normalized compare.
  package static let outlierFactor: Float = 6
  private static let listed = 8

  /// - Parameter meanSquares: E[x²] of each feature. Nil where no token reached the layer.
  package init?(meanSquares: [Float]) {
    guard meanSquares.contains(where: { $0 > 0 }) else { return nil }
    let roots = meanSquares.map { $0.squareRoot() }
    let sorted = roots.sorted()
    let median = sorted[sorted.count / 2]
    count = roots.count
    self.median = median
    strongest = roots.indices.sorted { (roots[$1], $0) < (roots[$0], $1) }.prefix(Self.listed)
      .map { Strength(feature: $0, rootMeanSquare: roots[$0]) }
    outliers = roots.count { median > 0 && $0 >= Self.outlierFactor * median }
  }

  func json(tensor: String, expert: Int?) -> JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(tensor)]
    if let expert { fields["expert"] = .integer(expert) }
    fields["features"] = .integer(count)
    fields["median_rms"] = .number("\(median)")
    fields["outliers"] = .integer(outliers)
    fields["strongest"] = .array(
      strongest.map { .array([.integer($0.feature), .number("\($0.rootMeanSquare)")]) })
    return .object(fields)
  }
}
