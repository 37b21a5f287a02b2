import Checkpoints
import OrderedCollections
import Quantization

/// The tensors of a report with all that is known of each, and where in the model each stands.
package struct Ledger: Sendable {
  package struct Entry: Sendable {
    package let report: TensorReport
    package let profile: TensorProfile?
    /// One, or the experts of a stacked tensor; empty where it was not calibrated.
    package let layers: [CalibrationReport.Layer]
    /// How the features of its inputs differ, likewise.
    package let features: [CalibrationReport.InputFeatures]
    /// The number of its block; nil outside of blocks.
    package let depth: Int?
    /// What it is within its block, numbers of experts left open: `mlp.experts.*.down_proj`.
    package let kind: String

    /// Relative error of the layer's output on held-out tokens; over experts the root of the mean square.
    package var outputError: Double? { Self.rootMeanSquare(layers.compactMap(\.outputError)) }
    /// The same of rounding to nearest.
    package var plainError: Double? { Self.rootMeanSquare(layers.compactMap(\.plainError)) }
    /// What of `outputError` rounding alone adds.
    package var roundingError: Double? { Self.rootMeanSquare(layers.compactMap(\.roundingError)) }
    package var ratio: Double? {
      guard let outputError, let plainError, plainError > 0 else { return nil }
      return outputError / plainError
    }
    /// How far the strongest input feature stands out: over the median one; over experts the largest.
    package var inputPeak: Double? { features.compactMap(\.peak).max() }

    package var scaleByteCount: Int { profile?.scaleByteCount ?? 0 }
    package var outlierByteCount: Int { profile?.outlierByteCount ?? 0 }
    package var codeByteCount: Int { report.storedByteCount - scaleByteCount - outlierByteCount }

    private static func rootMeanSquare(_ values: [Double]) -> Double? {
      values.isEmpty ? nil : (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
    }
  }

  package let entries: [Entry]
  /// Blocks, by number.
  package let depths: [Int]
  /// Kinds of quantized tensors in blocks, in the order of their first.
  package let kinds: [String]
  /// Whether errors of outputs are known; errors of weights stand for them otherwise.
  package let isCalibrated: Bool
  private let places: [Place: [Int]]

  private struct Place: Hashable {
    let depth: Int
    let kind: String
  }

  package init(_ report: ModelReport) {
    let layers = Dictionary(grouping: report.calibration?.layers ?? [], by: \.tensor)
    let features = Dictionary(grouping: report.calibration?.inputFeatures ?? [], by: \.tensor)
    let entries = report.tensors.map { tensor in
      let place = Self.place(of: tensor.name)
      return Entry(
        report: tensor, profile: report.profiles[tensor.name], layers: layers[tensor.name] ?? [],
        features: features[tensor.name] ?? [], depth: place.depth, kind: place.kind)
    }
    var (depths, kinds) = (Set<Int>(), OrderedSet<String>())
    var places: [Place: [Int]] = [:]
    for (index, entry) in entries.enumerated() where entry.report.isQuantized {
      guard let depth = entry.depth else { continue }
      depths.insert(depth)
      kinds.append(entry.kind)
      places[Place(depth: depth, kind: entry.kind), default: []].append(index)
    }
    self.entries = entries
    self.depths = depths.sorted()
    self.kinds = Array(kinds)
    self.places = places
    isCalibrated = entries.contains { $0.outputError != nil }
  }

  /// Reads block number and kind off a name: the first whole number is the block's.
  package static func place(of name: String) -> (depth: Int?, kind: String) {
    var parts = name.split(separator: ".").map(String.init)
    if parts.count > 1, parts.last == "weight" { parts.removeLast() }
    guard let index = parts.firstIndex(where: { Int($0) != nil }) else { return (nil, parts.joined(separator: ".")) }
    let rest = parts[(index + 1)...].map { Int($0) == nil ? $0 : "*" }
    return (Int(parts[index]), rest.joined(separator: "."))
  }

  /// The positions of the quantized tensors of a kind in a block: one, or several experts'.
  package func positions(depth: Int, kind: String) -> [Int] { places[Place(depth: depth, kind: kind)] ?? [] }

  /// The error by which tensors are compared: of outputs where any is known, else of weights.
  package func error(_ entry: Entry) -> Double? {
    isCalibrated ? entry.outputError : entry.report.distortion?.relativeError
  }

  /// What of that error more bits can take off.
  package func roundingError(_ entry: Entry) -> Double? {
    isCalibrated ? entry.roundingError ?? entry.outputError : entry.report.distortion?.relativeError
  }

  /// The quantized tensors, those that lost most first.
  package var byLoss: [Entry] {
    entries.filter { error($0) != nil }.sorted {
      (error($1) ?? 0, $0.report.name) < (error($0) ?? 0, $1.report.name)
    }
  }

  /// What a kind of quantized tensor in blocks weighs, and what it loses.
  package struct KindSummary: Hashable, Sendable {
    package let kind: String
    package let tensors: Int
    package let weights: Int
    package let storedBytes: Int
    package let codeBytes: Int
    package let scaleBytes: Int
    /// Root of the mean square of its tensors' errors; nil where none is known.
    package let error: Double?
    /// The same of what rounding adds.
    package let roundingError: Double?
    /// Its share of the sum of squared rounding errors over all kinds.
    package let share: Double
    /// Whether codes have less than the eight bits that are the most.
    package let hasRoom: Bool
    /// Bytes that one more bit a code would take; nil where codes have eight.
    package var bitBytes: Int? { hasRoom ? (weights + 7) / 8 : nil }
    /// The share of all squared rounding error that one more bit would take off: it halves the error, and so leaves a
    /// quarter of its square.
    package var bitGain: Double? { hasRoom ? 0.75 * share : nil }
  }

  package var kindSummaries: [KindSummary] {
    let groups = kinds.map { kind in
      (kind, entries.filter { $0.kind == kind && $0.depth != nil && $0.report.isQuantized })
    }
    func squares(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 } }
    func root(_ values: [Double]) -> Double? {
      values.isEmpty ? nil : (squares(values) / Double(values.count)).squareRoot()
    }
    let losses = groups.map { squares($0.1.compactMap(roundingError)) }
    let total = losses.reduce(0, +)
    return zip(groups, losses).map { group, loss in
      let tensors = group.1
      return KindSummary(
        kind: group.0, tensors: tensors.count, weights: tensors.reduce(0) { $0 + $1.report.elementCount },
        storedBytes: tensors.reduce(0) { $0 + $1.report.storedByteCount },
        codeBytes: tensors.reduce(0) { $0 + $1.codeByteCount },
        scaleBytes: tensors.reduce(0) { $0 + $1.scaleByteCount }, error: root(tensors.compactMap(error)),
        roundingError: root(tensors.compactMap(roundingError)), share: total > 0 && loss.isFinite ? loss / total : 0,
        hasRoom: tensors.contains { ($0.profile?.codes.count ?? 0) < 256 })
    }
  }

  /// What all tensors of a kind, or of a reason to be kept, weigh before and after.
  package struct SizeSummary: Hashable, Sendable {
    /// A kind, or why the tensors were kept.
    package let name: String
    package let isQuantized: Bool
    package fileprivate(set) var tensors = 0
    package fileprivate(set) var sourceBytes = 0
    package fileprivate(set) var codeBytes = 0
    package fileprivate(set) var scaleBytes = 0
    package fileprivate(set) var outlierBytes = 0
    /// The names of the first few.
    package fileprivate(set) var examples: [String] = []
    package var storedBytes: Int { codeBytes + scaleBytes + outlierBytes }
  }

  /// The largest before quantization first.
  package var sizeSummaries: [SizeSummary] {
    var found: OrderedDictionary<String, SizeSummary> = [:]
    for entry in entries {
      let name: String
      switch entry.report.outcome {
      case .quantized, .folded(_?, _, _): name = entry.kind
      case .kept(let reason, _), .folded(nil, let reason, _): name = "kept: " + reason
      }
      var summary = found[name] ?? SizeSummary(name: name, isQuantized: entry.report.isQuantized)
      summary.tensors += 1
      summary.sourceBytes += entry.report.sourceByteCount
      summary.codeBytes += entry.codeByteCount
      summary.scaleBytes += entry.scaleByteCount
      summary.outlierBytes += entry.outlierByteCount
      if summary.examples.count < 3 { summary.examples.append(entry.report.name) }
      found[name] = summary
    }
    return found.values.sorted { ($1.sourceBytes, $0.name) < ($0.sourceBytes, $1.name) }
  }

  /// What a block weighs.
  package struct BlockSummary: Hashable, Sendable {
    package let depth: Int
    package fileprivate(set) var weights = 0
    package fileprivate(set) var storedBytes = 0
    /// Of everything in it, norms too.
    package var bitsPerWeight: Double { Double(storedBytes) * 8 / Double(max(1, weights)) }
  }

  /// By number; those with quantized tensors.
  package var blockSummaries: [BlockSummary] {
    var blocks = OrderedDictionary(uniqueKeysWithValues: depths.map { ($0, BlockSummary(depth: $0)) })
    for entry in entries {
      guard let depth = entry.depth, blocks[depth] != nil else { continue }
      blocks[depth]?.weights += entry.report.elementCount
      blocks[depth]?.storedBytes += entry.report.storedByteCount
    }
    return Array(blocks.values)
  }
}
