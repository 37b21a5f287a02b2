import Kernels

/// A linear layer of a block, or a projection whose layers run as one product.
package enum LinearPlace: Hashable, Sendable {
  case attentionInput
  case attentionOutput
  /// Of an expert; 0 where there is one.
  case feedForwardInput(Int)
  case feedForwardOutput(Int)
}

/// A norm of a block.
package enum NormPlace: CaseIterable, Hashable, Sendable {
  case attentionBefore, attentionAfter, attentionSum, query, key
  case feedForwardBefore, feedForwardAfter, feedForwardSum
}

extension BlockWeights {
  package subscript(place: LinearPlace) -> LoadedLinear {
    get {
      switch place {
      case .attentionInput: attentionInput
      case .attentionOutput: attentionOutput
      case .feedForwardInput(let expert): feedForward[expert].input
      case .feedForwardOutput(let expert): feedForward[expert].output
      }
    }
    set {
      switch place {
      case .attentionInput: attentionInput = newValue
      case .attentionOutput: attentionOutput = newValue
      case .feedForwardInput(let expert): feedForward[expert].input = newValue
      case .feedForwardOutput(let expert): feedForward[expert].output = newValue
      }
    }
  }

  package subscript(place: NormPlace) -> LoadedNorm? {
    get {
      switch place {
      case .attentionBefore: attentionNorms.before
      case .attentionAfter: attentionNorms.after
      case .attentionSum: attentionNorms.onSum
      case .query: queryNorm
      case .key: keyNorm
      case .feedForwardBefore: feedForwardNorms.before
      case .feedForwardAfter: feedForwardNorms.after
      case .feedForwardSum: feedForwardNorms.onSum
      }
    }
    set {
      switch place {
      case .attentionBefore: attentionNorms.before = newValue
      case .attentionAfter: attentionNorms.after = newValue
      case .attentionSum: attentionNorms.onSum = newValue
      case .query: queryNorm = newValue
      case .key: keyNorm = newValue
      case .feedForwardBefore: feedForwardNorms.before = newValue
      case .feedForwardAfter: feedForwardNorms.after = newValue
      case .feedForwardSum: feedForwardNorms.onSum = newValue
      }
    }
  }

  /// In the order of the data.
  package var linearPlaces: [LinearPlace] {
    [.attentionInput, .attentionOutput]
      + feedForward.indices.flatMap { [LinearPlace.feedForwardInput($0), .feedForwardOutput($0)] }
  }

  package var normPlaces: [NormPlace] { NormPlace.allCases.filter { self[$0] != nil } }
}

extension BlockDescription {
  /// Its linear layers, by their places.
  package var projections: [(place: LinearPlace, projection: ProjectionDescription)] {
    let attention: [(LinearPlace, ProjectionDescription)] = [
      (.attentionInput, self.attention.input), (.attentionOutput, ProjectionDescription([self.attention.output])),
    ]
    switch feedForward {
    case .gated(let input, let output, _):
      return attention + [(.feedForwardInput(0), input), (.feedForwardOutput(0), ProjectionDescription([output]))]
    case .plain(let input, let output, _):
      return attention + [
        (.feedForwardInput(0), ProjectionDescription([input])),
        (.feedForwardOutput(0), ProjectionDescription([output])),
      ]
    case .mixture(let mixture):
      return attention
        + mixture.experts.enumerated().flatMap { index, expert in
          [
            (.feedForwardInput(index), expert.input),
            (.feedForwardOutput(index), ProjectionDescription([expert.output])),
          ]
        }
    }
  }
}

/// Sums of gradients of a loss by the parameters of a block.
package struct BlockGradients: Sendable {
  /// `[outputs, inputs]` each.
  package var weights: [LinearPlace: Matrix] = [:]
  /// `[1, outputs]` each.
  package var biases: [LinearPlace: Matrix] = [:]
  /// `[2, width]` each: of weight and bias.
  package var norms: [NormPlace: Matrix] = [:]

  package init() {}

  /// Zeros for the weights of all linear layers and, if asked for, for norms and biases.
  package init(_ weights: BlockWeights, norms wantsNorms: Bool) {
    for place in weights.linearPlaces {
      let linear = weights[place]
      self.weights[place] = Matrix(rows: linear.weight.rows, columns: linear.weight.columns)
      if wantsNorms, linear.bias != nil { biases[place] = Matrix(rows: 1, columns: linear.weight.rows) }
    }
    guard wantsNorms else { return }
    for place in weights.normPlaces {
      norms[place] = weights[place].map { Matrix(rows: 2, columns: $0.weight.count) }
    }
  }

  package func clear() {
    for matrix in [weights.values.map(\.self), biases.values.map(\.self), norms.values.map(\.self)].joined() {
      Kernels.clear(matrix)
    }
  }
}
