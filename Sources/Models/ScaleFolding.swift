import Kernels

extension BlockWeights {
  /// Divides what gives a group's input by scales.
  ///
  /// A norm's weights are rounded as they will be stored, and the scales changed so that the quotient is exact: layers
  /// that are quantized behind it lose nothing by the norm's rounding. A feature keeps a scale of one where its weight
  /// is zero, or where weight or bias would leave their type.
  /// - Parameters:
  ///   - scales: one per feature, positive; the same for features that share one.
  ///   - storage: the type that a tensor is stored in.
  /// - Returns: the scales that the columns of the readers are to be multiplied by.
  package mutating func divide(
    _ group: ScaleGroup, by scales: [Float], storage: (String) -> ElementType?
  ) -> [Float] {
    switch group.absorber {
    case nil: return scales.map { _ in 1 }
    case .norm:
      let isAttention = group.place == .attentionInput
      guard let norm = isAttention ? attentionNorms.before : feedForwardNorms.before else { return scales }
      let (divided, exact) = norm.divided(by: scales, storage)
      if isAttention { attentionNorms.before = divided } else { feedForwardNorms.before = divided }
      return exact
    case .rows(let rows, _, let degree):
      var factors = [Float](repeating: 1, count: rows.count)
      for (feature, scale) in scales.enumerated() {
        factors[group.sets?[feature] ?? feature] = 1 / (degree == 2 ? scale.squareRoot() : scale)
      }
      if case .feedForwardOutput(let expert) = group.place {
        feedForward[expert].input.multiplyRows(from: rows.lowerBound, by: factors)
      } else {
        attentionInput.multiplyRows(from: rows.lowerBound, by: factors)
      }
      return scales
    }
  }

  /// Multiplies the columns of what reads an input.
  package func multiplyReaders(at place: ScaleGroup.Place, by scales: [Float], workers: Int) {
    for linear in readers(at: place) { scaleColumns(linear.weight, by: scales, workers: workers) }
  }

  /// What reads an input; of the feed-forward layer's input all experts and the router.
  package func readers(at place: ScaleGroup.Place) -> [LoadedLinear] {
    switch place {
    case .attentionInput: [attentionInput]
    case .attentionOutput: [attentionOutput]
    case .feedForwardInput: feedForward.map(\.input) + (router.map { [$0] } ?? [])
    case .feedForwardOutput(let expert): [feedForward[expert].output]
    }
  }
}

extension LoadedLinear {
  /// Multiplies rows of the weight, and the bias with them.
  fileprivate mutating func multiplyRows(from first: Int, by factors: [Float]) {
    scaleRows(weight, from: first, by: factors)
    guard bias != nil else { return }
    for (index, factor) in factors.enumerated() { bias?[first + index] *= factor }
  }
}

extension LoadedNorm {
  /// - Returns: the norm with weights and bias divided and rounded, and the scales by which it was divided in fact.
  fileprivate func divided(
    by scales: [Float], _ storage: (String) -> ElementType?
  ) -> (norm: LoadedNorm, scales: [Float]) {
    var (weight, bias) = (self.weight, self.bias)
    var exact = scales
    let weightType = description.weight.flatMap(storage) ?? .f32
    let biasType = description.bias.flatMap(storage) ?? .f32
    for (feature, scale) in scales.enumerated() {
      let stored = rounded(weight[feature] / scale - description.offset, to: weightType)
      let divided = stored + description.offset
      let factor = weight[feature] / divided
      let shifted = rounded(bias[feature] / factor, to: biasType)
      guard factor.isNormal, (1 / factor).isNormal, factor > 0, stored.isFinite, shifted.isFinite else {
        exact[feature] = 1
        continue
      }
      (weight[feature], bias[feature], exact[feature]) = (divided, shifted, factor)
    }
    return (LoadedNorm(description: description, weight: weight, bias: bias), exact)
  }

  /// The weight as it is stored.
  package var storedWeight: [Float] { description.offset == 0 ? weight : weight.map { $0 - description.offset } }
}

extension NormDescription {
  /// What is added to the stored weight.
  var offset: Float { if case .rootMeanSquare(let offset) = kind { offset } else { 0 } }
}

extension BlockWeights {
  /// Rounds tensors to their stored types, in memory too, and gives their values in the checkpoint's order, matrices
  /// `[outputs, inputs]` unless they are stored the other way round.
  /// - Parameters:
  ///   - storage: the type of a tensor to store; nil for the others.
  ///   - body: receives a name, the first element, and values.
  package mutating func store(
    _ block: BlockDescription, storage: (String) -> ElementType?,
    _ body: (_ tensor: String, _ first: Int, _ values: [Float]) throws -> Void
  ) throws {
    for norm in [attentionNorms.before, feedForwardNorms.before].compactMap({ $0 }) {
      if let name = norm.description.weight, storage(name) != nil { try body(name, 0, norm.storedWeight) }
      if let name = norm.description.bias, storage(name) != nil { try body(name, 0, norm.bias) }
    }
    try attentionInput.store(block.attention.input, storage: storage, body)
    try attentionOutput.store(ProjectionDescription([block.attention.output]), storage: storage, body)
    switch block.feedForward {
    case .gated(let input, let output, _):
      try feedForward[0].input.store(input, storage: storage, body)
      try feedForward[0].output.store(ProjectionDescription([output]), storage: storage, body)
    case .plain(let input, let output, _):
      try feedForward[0].input.store(ProjectionDescription([input]), storage: storage, body)
      try feedForward[0].output.store(ProjectionDescription([output]), storage: storage, body)
    case .mixture(let mixture):
      try router?.store(ProjectionDescription([mixture.router]), storage: storage, body)
      for (index, expert) in mixture.experts.enumerated() {
        try feedForward[index].input.store(expert.input, storage: storage, body)
        try feedForward[index].output.store(ProjectionDescription([expert.output]), storage: storage, body)
      }
    }
  }
}

extension LoadedLinear {
  fileprivate mutating func store(
    _ projection: ProjectionDescription, storage: (String) -> ElementType?,
    _ body: (_ tensor: String, _ first: Int, _ values: [Float]) throws -> Void
  ) throws {
    let order = projection.rowOrder ?? Array(0..<weight.rows)
    var first = 0
    for linear in projection.linears {
      let rows = first..<(first + linear.outputs)
      first = rows.upperBound
      if let type = storage(linear.weight) {
        Kernels.round(Matrix(sharing: weight, rows: rows), to: type)
        var values = [Float](repeating: 0, count: linear.outputs * linear.inputs)
        for row in rows {
          let target = (order[row] - rows.lowerBound) * linear.inputs
          values.replaceSubrange(target..<(target + linear.inputs), with: weight.values(ofRows: row..<(row + 1)))
        }
        if linear.storage == .inputsFirst {
          values = (0..<linear.inputs).flatMap { column in
            (0..<linear.outputs).map { values[$0 * linear.inputs + column] }
          }
        }
        var element = 0
        if case .expert(let index, _) = linear.storage { element = index * values.count }
        try body(linear.weight, element, values)
      }
      if let name = linear.bias, let type = storage(name), bias != nil {
        var values = [Float](repeating: 0, count: linear.outputs)
        for row in rows {
          let value = rounded(bias?[row] ?? 0, to: type)
          bias?[row] = value
          values[order[row] - rows.lowerBound] = value
        }
        try body(name, 0, values)
      }
    }
  }
}
