import Models

/// The inputs of linear layers that a run over the blocks gives evidence of.
package struct LinearInput: Hashable, Sendable {
  /// The layers that read it.
  package let layers: [EvidencedLayer]
  /// Features.
  package let dimension: Int

  package init(layers: [EvidencedLayer], dimension: Int) {
    self.layers = layers
    self.dimension = dimension
  }

  fileprivate init(_ projection: ProjectionDescription) {
    self.init(layers: projection.linears.map { EvidencedLayer($0) }, dimension: projection.inputs)
  }
}

extension ModelDescription {
  /// All inputs, in the order in which `BlockCalibration.collect` hands out their evidence.
  package var linearInputs: [LinearInput] {
    blocks.flatMap { block in
      let attention = [
        LinearInput(block.attention.input), LinearInput(ProjectionDescription([block.attention.output])),
      ]
      let feedForward: [LinearInput] =
        switch block.feedForward {
        case .gated(let input, let output, _): [LinearInput(input), LinearInput(ProjectionDescription([output]))]
        case .plain(let input, let output, _):
          [LinearInput(ProjectionDescription([input])), LinearInput(ProjectionDescription([output]))]
        case .mixture(let mixture):
          mixture.experts.flatMap { [LinearInput($0.input), LinearInput(ProjectionDescription([$0.output]))] }
        }
      return attention + feedForward
    }
  }
}
