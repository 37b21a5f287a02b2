import Checkpoints
import OrderedCollections

/// The tokens that a model is calibrated with, as windows that it sees one by one, and windows held out to judge by.
package struct CalibrationWindows: Hashable, Codable, Sendable {
  /// How documents become windows.
  package enum Layout: String, CaseIterable, Codable, Sendable {
    /// A source's documents one after another, cut into windows that are all full.
    case packed
    /// Each document its own window, cut off at the sequence length. Shorter ones stay shorter: no padding is run.
    case padded
  }

  package struct Options: Hashable, Codable, Sendable {
    /// Windows to calibrate with, over all sources; at least 1.
    package var samples: Int
    /// Tokens of a full window; at least 2.
    package var sequenceLength: Int
    package var layout: Layout
    /// Windows to hold out.
    package var heldOut: Int

    /// The most windows that can be asked for, calibrated and held out each.
    package static let windowLimit = 1 << 32

    package init(samples: Int, sequenceLength: Int, layout: Layout = .packed, heldOut: Int = 0) {
      precondition(samples >= 1 && sequenceLength >= 2 && heldOut >= 0)
      precondition(max(samples, heldOut) <= Self.windowLimit)
      self.samples = samples
      self.sequenceLength = sequenceLength
      self.layout = layout
      self.heldOut = heldOut
    }
  }

  /// What one source gave.
  package struct Contribution: Hashable, Codable, Sendable {
    package let name: String
    package let bytes: Int
    /// Of all windows; the shares add up to 1.
    package let share: Double
    package let requestedSamples: Int
    package let requestedHeldOut: Int
    package internal(set) var samples = 0
    package internal(set) var heldOut = 0
    /// Documents that were read.
    package internal(set) var documents = 0
    /// Documents that the padded layout left out, for they have fewer than 2 tokens.
    package internal(set) var dropped = 0

    /// True where the text is too short for what was asked of it.
    package var isShort: Bool { samples < requestedSamples || heldOut < requestedHeldOut }
  }

  package let options: Options
  package let sources: [Contribution]
  /// All windows' tokens, window after window: first those to calibrate with, then those held out.
  package let tokens: [Int32]
  /// The windows to calibrate with, as ranges of ``tokens``; at least one.
  package let windows: [Range<Int>]
  /// The windows held out, as ranges of ``tokens``; none of them is among ``windows``.
  package let heldOut: [Range<Int>]

  /// Tokens to calibrate with. Fewer than a linear layer has inputs leave its Hessian singular.
  package var tokenCount: Int { windows.last?.upperBound ?? 0 }

  /// True where there are fewer windows than were asked for.
  package var isShort: Bool { sources.contains(where: \.isShort) }

  /// The first windows of each source; the held-out ones are those that follow.
  ///
  /// - Parameters:
  ///   - sources: at least one. Each gives its share of the windows (largest remainder), spread evenly over the whole.
  ///     One that is too short gives fewer, and no other gives more in its place, so that it shows.
  ///   - vocabulary: the size that tokens must be below.
  ///   - encode: text to tokens, without special tokens.
  ///   - write: has the model write so many windows, each of full length, where it is a source.
  /// - Throws: `CheckpointError` and `CalibrationError`, among them that a source has no window at all.
  package init(
    _ sources: [CalibrationSource], _ options: Options, vocabulary: Int, encode: (String) throws -> [Int32],
    write: (_ count: Int) throws -> [[Int32]] = { _ in [] }
  ) throws {
    try self.init(
      sources, options, vocabulary: vocabulary, readsAll: false, encode: encode, write: write,
      choose: { available, count in Array(0..<min(available, count)) })
  }

  /// A random choice among all windows of each source, all windows being equally likely; the windows chosen are in
  /// their order in the text. The same generator gives the same choice.
  package init(
    _ sources: [CalibrationSource], _ options: Options, vocabulary: Int,
    using generator: inout some RandomNumberGenerator, encode: (String) throws -> [Int32],
    write: (_ count: Int) throws -> [[Int32]] = { _ in [] }
  ) throws {
    try self.init(
      sources, options, vocabulary: vocabulary, readsAll: true, encode: encode, write: write,
      choose: { available, count in Self.sample(count, of: available, using: &generator) })
  }

  /// - Parameter choose: indices of so many windows (or all, where there are fewer) of those available, all different.
  private init(
    _ sources: [CalibrationSource], _ options: Options, vocabulary: Int, readsAll: Bool,
    encode: (String) throws -> [Int32], write: (_ count: Int) throws -> [[Int32]],
    choose: (_ available: Int, _ count: Int) -> [Int]
  ) throws {
    precondition(!sources.isEmpty)
    let weights = sources.map(\.weight)
    let sampleCounts = largestRemainder(options.samples, weights: weights)
    let heldOutCounts = largestRemainder(options.heldOut, weights: weights)
    let largest = weights.reduce(0, max)
    let sum = weights.reduce(0) { $0 + $1 / largest }

    var contributions: [Contribution] = []
    var chosen: [[ArraySlice<Int32>]] = []
    var kept: [[ArraySlice<Int32>]] = []
    for (index, source) in sources.enumerated() {
      let (samples, heldOut) = (sampleCounts[index], heldOutCounts[index])
      let limit = readsAll ? Int.max : samples + heldOut
      let stream = try TokenStream(source, options, windowLimit: limit, vocabulary: vocabulary, encode: encode) {
        try write(samples + heldOut)
      }
      if samples > 0, stream.windows.isEmpty { throw stream.noWindow(source, options) }
      var contribution = Contribution(
        name: source.name, bytes: stream.bytes, share: source.weight / largest / sum, requestedSamples: samples,
        requestedHeldOut: heldOut)
      contribution.documents = stream.documents
      contribution.dropped = stream.dropped
      let available = stream.windows.count
      contribution.samples = Self.samples(samples, heldOut: heldOut, of: available)
      contribution.heldOut = min(heldOut, available - contribution.samples)
      let picked = choose(available, contribution.samples + contribution.heldOut)
      chosen.append(picked.prefix(contribution.samples).sorted().map { stream.tokens[stream.windows[$0]] })
      kept.append(picked.dropFirst(contribution.samples).sorted().map { stream.tokens[stream.windows[$0]] })
      contributions.append(contribution)
    }

    var tokens: [Int32] = []
    func append(_ parts: [[ArraySlice<Int32>]]) -> [Range<Int>] {
      evenlyInterleaved(parts.map(\.count)).map { list, item in
        let start = tokens.count
        tokens += parts[list][item]
        return start..<tokens.count
      }
    }
    windows = append(chosen)
    heldOut = append(kept)
    self.tokens = tokens
    self.sources = contributions
    self.options = options
  }

  /// How many of a text's windows are calibrated with. Where there are too few, both parts shrink alike, so that a
  /// short text can be judged, too; a single window is calibrated with, of two or more each part has at least one.
  private static func samples(_ samples: Int, heldOut: Int, of available: Int) -> Int {
    guard samples > 0, available < samples + heldOut else { return samples }
    guard heldOut > 0, available > 1 else { return available }
    let share = largestRemainder(available, weights: [Double(samples), Double(heldOut)])[0]
    return min(max(1, share), available - 1)
  }

  /// The start of a random permutation (Durstenfeld 1964, algorithm 235 of the CACM).
  private static func sample(
    _ count: Int, of available: Int, using generator: inout some RandomNumberGenerator
  ) -> [Int] {
    var indices = Array(0..<available)
    let taken = min(count, available)
    for index in 0..<taken { indices.swapAt(index, Int.random(in: index..<available, using: &generator)) }
    return Array(indices.prefix(taken))
  }
}

extension CalibrationWindows {
  /// What evidence records of the text that it was made from, without the tokens.
  package var record: JSONValue {
    [
      "sequence_length": .integer(options.sequenceLength),
      "layout": .string(options.layout.rawValue),
      "windows": .integer(windows.count),
      "tokens": .integer(tokenCount),
      "held_out_windows": .integer(heldOut.count),
      "sources": .array(
        sources.map { source in
          [
            "name": .string(source.name),
            "bytes": .integer(source.bytes),
            "share": .real(source.share),
            "windows": .integer(source.samples),
            "held_out_windows": .integer(source.heldOut),
          ]
        }),
    ]
  }

  /// The bytes whose digest identifies what was calibrated with, whatever files it came from: for each window its
  /// number of tokens and its tokens, as 32-bit little-endian integers. Held-out windows are not among them.
  package var identity: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 * (tokenCount + windows.count))
    func append(_ value: UInt32) {
      for shift in stride(from: UInt32(0), to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    for window in windows {
      append(UInt32(truncatingIfNeeded: window.count))
      for token in tokens[window] { append(UInt32(bitPattern: token)) }
    }
    return bytes
  }
}
