import Calibration
import Checkpoints
import Models
import OrderedCollections
import Packing
import Quantization

extension ImportanceMatrix {
  /// The architecture that names the layers of a model.
  /// - Throws: where GGUF has none, which is best known before the model is run.
  @discardableResult
  package static func architecture(
    of source: any WeightSource, configuration: JSONValue?
  ) throws(GGUFError) -> GGUFArchitecture {
    let modelType = configuration?["model_type"]?.string ?? ""
    guard let architecture = GGUFArchitecture.of(modelType: modelType) else {
      throw GGUFError(file: source.place, .unknownModelType(modelType))
    }
    return architecture
  }

  /// E[x²] of the inputs of every layer, whichever way its weight is stored, from what was gathered of them.
  /// - Parameters:
  ///   - source: the model that the evidence is of.
  ///   - configuration: its config.json.
  ///   - datasets: the names of the texts.
  /// - Throws: where GGUF has no names for the model, or the evidence says nothing of its layers.
  package init(
    _ inputs: some Sequence<InputEvidence>, of source: any WeightSource, configuration: JSONValue?, datasets: [String]
  ) throws(GGUFError) {
    let architecture = try Self.architecture(of: source, configuration: configuration)
    var statistics: OrderedDictionary<Layer, FeatureStatistics> = [:]
    for input in inputs {
      for layer in input.layers {
        statistics[
          Layer(weight: layer.weight, expert: layer.expert),
          default: FeatureStatistics(dimension: input.dimension, threshold: input.statistics.threshold)
        ].merge(input.statistics)
      }
    }
    self.init(statistics, of: architecture, tensorNames: source.tensorNames)
    guard !means.isEmpty else {
      throw GGUFError(file: source.place, .importance("the evidence says nothing of the layers of this model"))
    }
    self.datasets = datasets
  }
}
