import Kernels

/// Which tokens an expert gets, and with what share of its output.
package struct ExpertRoute: Sendable {
  package var tokens: [Int] = []
  package var shares: [Float] = []
}

enum ExpertRouting {
  /// The experts of highest probability for each token; of equal ones the first.
  /// - Parameter scores: `[tokens, experts]`, before the softmax.
  static func routes(_ scores: Span<Float>, experts: Int, _ mixture: MixtureDescription) -> [ExpertRoute] {
    var routes = [ExpertRoute](repeating: ExpertRoute(), count: experts)
    for token in 0..<(scores.count / max(1, experts)) {
      let row = (0..<experts).map { scores[token * experts + $0] }
      let largest = row.max() ?? 0
      let powers = row.map { exponential($0 - largest) }
      let total = powers.reduce(0, +)
      let chosen = row.indices.sorted { (row[$0], $1) > (row[$1], $0) }.prefix(mixture.chosen)
      let share = mixture.normalizes ? chosen.reduce(0) { $0 + powers[$1] } : total
      for expert in chosen {
        routes[expert].tokens.append(token)
        routes[expert].shares.append(powers[expert] / share)
      }
    }
    return routes
  }
}
