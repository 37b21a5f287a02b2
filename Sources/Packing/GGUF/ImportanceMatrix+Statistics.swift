import OrderedCollections
import Quantization

extension ImportanceMatrix {
  /// A linear layer by the name of its weight and, in a tensor that stacks experts, its number.
  package struct Layer: Hashable, Sendable {
    package let weight: String
    package let expert: Int?

    package init(weight: String, expert: Int? = nil) {
      self.weight = weight
      self.expert = expert
    }
  }

  /// E[x²] of the inputs of layers, gathered over calibration tokens.
  /// - Parameters:
  ///   - statistics: of the inputs of each layer.
  ///   - tensorNames: all names of the checkpoint, which tell its prefix.
  /// Layers that the architecture has no GGUF name for, or that saw no token, are left out; of an expert that saw none all
  /// columns count alike.
  package init(
    _ statistics: OrderedDictionary<Layer, FeatureStatistics>, of architecture: GGUFArchitecture, tensorNames: [String]
  ) {
    self.init()
    let prefix = architecture.prefix(of: tensorNames)
    var experts: OrderedDictionary<String, [Int: FeatureStatistics]> = [:]
    for (layer, found) in statistics {
      if let place = architecture.place(of: layer.weight, prefix: prefix) {
        if found.tokens > 0 { means[place.name] = found.meanSquares }
        continue
      }
      for place in architecture.expertPlaces(of: layer.weight, prefix: prefix) {
        guard let expert = place.expert ?? layer.expert else { continue }
        experts[place.name, default: [:]][expert] = found
      }
    }
    for (name, found) in experts where found.values.contains(where: { $0.tokens > 0 }) {
      let count = (found.keys.max() ?? 0) + 1
      guard let width = found.values.first?.dimension, found.count == count,
        found.values.allSatisfy({ $0.dimension == width })
      else { continue }
      expertCounts[name] = count
      means[name] = (0..<count).flatMap { expert -> [Float] in
        guard let own = found[expert], own.tokens > 0 else { return [Float](repeating: 1, count: width) }
        return own.meanSquares
      }
    }
  }
}
