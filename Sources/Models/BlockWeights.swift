import Kernels

/// The weights of one block in memory, as float32.
package struct BlockWeights: Sendable {
  package struct Expert: Sendable {
    package internal(set) var input: LoadedLinear
    package internal(set) var output: LoadedLinear
  }

  package struct Norms: Sendable {
    package internal(set) var before: LoadedNorm?
    package internal(set) var after: LoadedNorm?
    package internal(set) var onSum: LoadedNorm?

    fileprivate init(_ norms: BranchNorms, _ loader: WeightLoader) throws {
      before = try loader.norm(norms.before)
      after = try loader.norm(norms.after)
      onSum = try loader.norm(norms.onSum)
    }
  }

  package internal(set) var attentionInput: LoadedLinear
  package internal(set) var attentionOutput: LoadedLinear
  package internal(set) var queryNorm: LoadedNorm?
  package internal(set) var keyNorm: LoadedNorm?
  package internal(set) var attentionNorms: Norms
  /// `[heads, buckets]`.
  package let relativeBias: [[Float]]?
  package internal(set) var feedForwardNorms: Norms
  package internal(set) var router: LoadedLinear?
  /// One, or the experts of a mixture.
  package internal(set) var feedForward: [Expert]

  package init(_ block: BlockDescription, _ loader: WeightLoader) throws {
    attentionInput = try loader.projection(block.attention.input)
    attentionOutput = try loader.linear(block.attention.output)
    queryNorm = try loader.norm(block.attention.queryNorm)
    keyNorm = try loader.norm(block.attention.keyNorm)
    attentionNorms = try Norms(block.attentionNorms, loader)
    relativeBias = try block.attention.relativeBias.map { bias in
      let values = try loader.values(bias.table, count: bias.buckets * bias.heads)
      return (0..<bias.heads).map { head in (0..<bias.buckets).map { values[$0 * bias.heads + head] } }
    }
    feedForwardNorms = try Norms(block.feedForwardNorms, loader)
    switch block.feedForward {
    case .gated(let input, let output, _):
      router = nil
      feedForward = [Expert(input: try loader.projection(input), output: try loader.linear(output))]
    case .plain(let input, let output, _):
      router = nil
      feedForward = [Expert(input: try loader.linear(input), output: try loader.linear(output))]
    case .mixture(let mixture):
      router = try loader.linear(mixture.router)
      feedForward = try mixture.experts.map {
        Expert(input: try loader.projection($0.input), output: try loader.linear($0.output))
      }
    }
  }

  /// The matrices, to give back to their pool.
  package var matrices: [Matrix] {
    [attentionInput.weight, attentionOutput.weight] + (router.map { [$0.weight] } ?? [])
      + feedForward.flatMap { [$0.input.weight, $0.output.weight] }
  }
}
