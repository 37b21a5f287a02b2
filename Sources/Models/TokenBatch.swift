/// The tokens that go through a block together: sequences, one after the other in the rows of the hidden states.
package struct TokenBatch: Sendable {
  /// Rows of each sequence.
  package let sequences: [Range<Int>]
  /// Tokens before the sequences' first ones, whose keys and values are in a cache. Only with a single sequence.
  package let past: Int

  package init(lengths: [Int], past: Int = 0) {
    precondition(past == 0 || lengths.count == 1)
    var ranges: [Range<Int>] = []
    for length in lengths {
      let start = ranges.last?.upperBound ?? 0
      ranges.append(start..<(start + length))
    }
    sequences = ranges
    self.past = past
  }

  package var tokenCount: Int { sequences.last?.upperBound ?? 0 }
  package var positions: [Int] { sequences.flatMap { 0..<$0.count }.map { $0 + past } }
  package var longest: Int { (sequences.map(\.count).max() ?? 0) + past }

  /// Some of its sequences, and their rows.
  package struct Part: Sendable {
    package let rows: Range<Int>
    package let batch: TokenBatch

    package init(rows: Range<Int>, batch: TokenBatch) { (self.rows, self.batch) = (rows, batch) }
  }

  /// Whole sequences in their order, as many together as have at most so many tokens.
  /// - Parameter start: where the first row stands.
  /// - Returns: nil where a sequence has more.
  package func parts(tokens limit: Int, from start: Int = 0) -> [Part]? {
    var parts: [Part] = []
    var pending: [Int] = []
    var end = start
    func close() {
      let batch = TokenBatch(lengths: pending)
      parts.append(Part(rows: (end - batch.tokenCount)..<end, batch: batch))
      pending = []
    }
    for sequence in sequences {
      guard sequence.count <= limit else { return nil }
      if !pending.isEmpty, pending.reduce(0, +) + sequence.count > limit { close() }
      pending.append(sequence.count)
      end += sequence.count
    }
    if !pending.isEmpty { close() }
    return parts
  }
}

extension BlockDescription {
  /// Values of the widest activations up to which a part's tokens are worked on by one thread, so that what one step
  /// writes is still near for the next, and threads need not wait for each other after each.
  private static let partValues = 1 << 20
  /// Parts below which some threads would have nothing to do for too long.
  package static let fewestParts = 8

  /// The most tokens of a part. The steps of a mixture's experts are no part's.
  package var partTokens: Int {
    var widths = [attention.input.outputs, attention.output.inputs]
    if !feedForward.isMixture { widths += feedForward.experts.map(\.input.outputs) }
    return Self.partValues / max(1, widths.max() ?? 1)
  }
}
