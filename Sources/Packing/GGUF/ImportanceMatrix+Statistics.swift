import OrderedCollections
import Quantization

extension ImportanceMatrix {
  /// E[x²] of the inputs of layers, gathered over calibration tokens.
  /// - Parameters:
  ///   - statistics: by the checkpoint's names of the weights.
  ///   - tensorNames: all names of the checkpoint, which tell its prefix.
  /// Layers that the architecture has no GGUF name for, or that saw no token, are left out.
  package init(
    _ statistics: OrderedDictionary<String, FeatureStatistics>, of architecture: GGUFArchitecture,
    tensorNames: [String]
  ) {
    self.init()
    let prefix = architecture.prefix(of: tensorNames)
    for (weight, found) in statistics where found.tokens > 0 {
      if let place = architecture.place(of: weight, prefix: prefix) { means[place.name] = found.meanSquares }
    }
  }
}
