import Kernels

/// A vector of a block that a checkpoint stores as a tensor: a norm's weight or bias, or the bias of a linear layer.
package struct BlockVector: Hashable, Sendable {
  package enum Part: Hashable, Sendable {
    case normWeight(NormPlace)
    case normBias(NormPlace)
    /// Where each element of the tensor stands in the bias of the projection as it is run.
    case bias(LinearPlace, elements: [Int])
  }

  package let tensor: String
  package let part: Part
  package let count: Int
}

extension BlockDescription {
  package func norm(at place: NormPlace) -> NormDescription? {
    switch place {
    case .attentionBefore: attentionNorms.before
    case .attentionAfter: attentionNorms.after
    case .attentionSum: attentionNorms.onSum
    case .query: attention.queryNorm
    case .key: attention.keyNorm
    case .feedForwardBefore: feedForwardNorms.before
    case .feedForwardAfter: feedForwardNorms.after
    case .feedForwardSum: feedForwardNorms.onSum
    }
  }

  /// Those of its norms, then those of its linear layers. Biases that stacked experts share a tensor for are left out.
  package var vectors: [BlockVector] {
    var vectors: [BlockVector] = []
    for place in NormPlace.allCases {
      guard let norm = norm(at: place) else { continue }
      if let name = norm.weight {
        vectors.append(BlockVector(tensor: name, part: .normWeight(place), count: norm.width))
      }
      if norm.kind == .layer, let name = norm.bias {
        vectors.append(BlockVector(tensor: name, part: .normBias(place), count: norm.width))
      }
    }
    for (place, projection) in projections {
      let order = projection.rowOrder ?? Array(0..<projection.outputs)
      var first = 0
      for linear in projection.linears {
        let rows = first..<(first + linear.outputs)
        first = rows.upperBound
        guard let name = linear.bias, linear.storage == .outputsFirst else { continue }
        var elements = [Int](repeating: 0, count: linear.outputs)
        for (run, stored) in order.enumerated() where rows.contains(stored) { elements[stored - rows.lowerBound] = run }
        vectors.append(BlockVector(tensor: name, part: .bias(place, elements: elements), count: linear.outputs))
      }
    }
    return vectors
  }
}

extension BlockWeights {
  /// The values as the checkpoint has them; empty for what this block lacks.
  package subscript(vector: BlockVector) -> [Float] {
    get {
      switch vector.part {
      case .normWeight(let place): return self[place]?.storedWeight ?? []
      case .normBias(let place): return self[place]?.bias ?? []
      case .bias(let place, let elements):
        guard let bias = self[place].bias else { return [] }
        return elements.map { bias[$0] }
      }
    }
    set {
      switch vector.part {
      case .normWeight(let place):
        let offset = self[place]?.description.offset ?? 0
        self[place]?.weight = newValue.map { $0 + offset }
      case .normBias(let place): self[place]?.bias = newValue
      case .bias(let place, let elements):
        for (element, value) in zip(elements, newValue) { self[place].bias?[element] = value }
      }
    }
  }
}

extension BlockGradients {
  /// Makes room for the gradient of a vector.
  package mutating func add(_ vector: BlockVector, of weights: BlockWeights) {
    switch vector.part {
    case .normWeight(let place), .normBias(let place):
      guard let norm = weights[place], norms[place] == nil else { return }
      norms[place] = Matrix(rows: 2, columns: norm.weight.count)
    case .bias(let place, _):
      guard biases[place] == nil else { return }
      biases[place] = Matrix(rows: 1, columns: weights[place].weight.rows)
    }
  }

  /// The gradient by each element of a vector that there is room for.
  package subscript(vector: BlockVector) -> [Float] {
    switch vector.part {
    case .normWeight(let place): return norms[place]?.values(ofRows: 0..<1) ?? []
    case .normBias(let place): return norms[place]?.values(ofRows: 1..<2) ?? []
    case .bias(let place, let elements):
      guard let sums = biases[place]?.values() else { return [] }
      return elements.map { sums[$0] }
    }
  }
}
