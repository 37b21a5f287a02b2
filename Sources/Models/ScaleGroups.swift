import Kernels

/// Linear layers that read one input, and what gives that input: with the layers' columns multiplied by s and what gives
/// the input divided by s, the block computes the same (AWQ, arXiv 2306.00978, §3.2; SmoothQuant, arXiv 2211.10438, §4).
package struct ScaleGroup: Hashable, Sendable {
  /// Which input of a block.
  package enum Place: Hashable, Sendable, CustomStringConvertible {
    case attentionInput
    case attentionOutput
    case feedForwardInput
    /// Of the feed-forward layer, or of one of its experts.
    case feedForwardOutput(expert: Int)

    package var description: String {
      switch self {
      case .attentionInput: "attention input"
      case .attentionOutput: "attention output"
      case .feedForwardInput: "feed-forward input"
      case .feedForwardOutput(let expert): "feed-forward output \(expert)"
      }
    }
  }

  /// What takes the division.
  package enum Absorber: Hashable, Sendable {
    /// Weight and bias of a norm.
    case norm(NormDescription)
    /// Rows of a projection in the order in which it is run, and their biases. Where the layer's function is homogeneous
    /// of a degree, rows are divided by that root of s.
    case rows(Range<Int>, of: ProjectionDescription, degree: Int)

    /// The tensors that change.
    package var tensors: [String] {
      switch self {
      case .norm(let norm): [norm.weight, norm.bias].compactMap { $0 }
      case .rows(let rows, let projection, _):
        projection.linears(holding: rows).flatMap { [$0.weight, $0.bias].compactMap { $0 } }
      }
    }
  }

  /// Why nothing can take it.
  package enum Obstacle: String, Hashable, Sendable {
    case noNorm = "no norm stands before it"
    case normWithoutWeight = "the norm before it has no weights"
    case sharedNorm = "the norm before it feeds the other branch, too"
    case activation = "the activation before it does not pass factors on"
  }

  package let place: Place
  /// What reads the input, a router included.
  package let readers: [LinearDescription]
  package let absorber: Absorber?
  package let obstacle: Obstacle?
  /// For each feature the set of features that share a scale; nil: each its own.
  package let sets: [Int]?

  init(
    _ place: Place, readers: [LinearDescription], absorber: Absorber? = nil, obstacle: Obstacle? = nil,
    sets: [Int]? = nil
  ) {
    self.place = place
    self.readers = readers
    self.absorber = absorber
    self.obstacle = obstacle
    self.sets = sets
  }

  package var inputs: Int { readers.first?.inputs ?? 0 }

  /// Every tensor that scaling changes.
  package var allTensors: [String] { readers.map(\.weight) + (absorber?.tensors ?? []) }
}

extension ProjectionDescription {
  /// The linears that hold some of the rows, counted in the order in which they are run.
  fileprivate func linears(holding rows: Range<Int>) -> [LinearDescription] {
    guard order == .asStored else { return linears }
    var first = 0
    return linears.filter { linear in
      defer { first += linear.outputs }
      return rows.overlaps(first..<(first + linear.outputs))
    }
  }
}

extension Activation {
  /// d with activation(c·x) = c^d·activation(x) for all c > 0; nil where there is none.
  package var degree: Int? {
    switch self {
    case .relu: 1
    case .reluSquared: 2
    case .silu, .gelu, .geluTanh, .quickGelu: nil
    }
  }
}

extension BlockDescription {
  /// The inputs of the block's linear layers, in the order of the data.
  package var scaleGroups: [ScaleGroup] {
    let form = attention.form
    let keyColumns = form.keyValueHeads * form.headDimension
    let values = (attention.input.outputs - keyColumns)..<attention.input.outputs
    // An output of attention is a mean of one value feature, which all query heads of a key-value head share.
    let sharing = form.heads / form.keyValueHeads
    let sets = (0..<attention.output.inputs).map { column in
      column / form.headDimension / sharing * form.headDimension + column % form.headDimension
    }
    var groups = [
      behindNorm(.attentionInput, attentionNorms.before, other: feedForwardNorms.before, attention.input.linears),
      ScaleGroup(
        .attentionOutput, readers: [attention.output],
        absorber: .rows(values, of: attention.input, degree: 1), sets: sharing > 1 ? sets : nil),
    ]
    func inner(_ index: Int, _ input: ProjectionDescription, _ output: LinearDescription) -> ScaleGroup {
      ScaleGroup(
        .feedForwardOutput(expert: index), readers: [output],
        absorber: .rows(output.inputs..<2 * output.inputs, of: input, degree: 1))
    }
    func behindFeedForwardNorm(_ readers: [LinearDescription]) -> ScaleGroup {
      behindNorm(.feedForwardInput, feedForwardNorms.before, other: attentionNorms.before, readers)
    }
    switch feedForward {
    case .gated(let input, let output, _):
      groups += [behindFeedForwardNorm(input.linears), inner(0, input, output)]
    case .plain(let input, let output, let activation):
      groups.append(behindFeedForwardNorm([input]))
      if let degree = activation.degree {
        groups.append(
          ScaleGroup(
            .feedForwardOutput(expert: 0), readers: [output],
            absorber: .rows(0..<input.outputs, of: ProjectionDescription([input]), degree: degree)))
      } else {
        groups.append(ScaleGroup(.feedForwardOutput(expert: 0), readers: [output], obstacle: .activation))
      }
    case .mixture(let mixture):
      groups.append(behindFeedForwardNorm(mixture.experts.flatMap(\.input.linears) + [mixture.router]))
      groups += mixture.experts.enumerated().map { inner($0, $1.input, $1.output) }
    }
    return groups
  }

  private func behindNorm(
    _ place: ScaleGroup.Place, _ norm: NormDescription?, other: NormDescription?, _ readers: [LinearDescription]
  ) -> ScaleGroup {
    guard let norm else { return ScaleGroup(place, readers: readers, obstacle: .noNorm) }
    guard let weight = norm.weight else { return ScaleGroup(place, readers: readers, obstacle: .normWithoutWeight) }
    guard other?.weight != weight else { return ScaleGroup(place, readers: readers, obstacle: .sharedNorm) }
    return ScaleGroup(place, readers: readers, absorber: .norm(norm))
  }
}
