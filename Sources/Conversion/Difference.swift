import Checkpoints
import Evaluation
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Compares two models on disk, of any kinds, tensor by tensor; with a source, both of them with it.
///
/// Tensors that are stored alike are compared byte for byte first, or by the hashes of two manifests; only those that
/// differ are decoded, a run of elements at a time. A weight in the layout of a runtime is held whole while it is.
package struct Difference: Sendable {
  private let sides: [DecodableCheckpoint]
  private let paths: [FilePath]
  private let pairs: [Pair]
  private let hasSource: Bool

  private typealias Tensor = DecodableCheckpoint.Tensor

  /// The same tensor on both sides and in the source.
  private struct Pair: Sendable {
    let tensors: [Tensor?]

    var first: Tensor? { tensors[0] }
    var second: Tensor? { tensors[1] }
    var source: Tensor? { tensors.count > 2 ? tensors[2] : nil }

    var hasEqualShapes: Bool { first != nil && first?.shape == second?.shape }

    var isReadable: Bool { first?.isReadable ?? false && second?.isReadable ?? false }

    /// Whether the source has the tensor, and neither side holds it with scales folded in.
    var canBeComparedWithSource: Bool {
      guard let first, let second, let source else { return false }
      return source.isReadable && source.shape == first.shape && !first.isFolded && !second.isFolded && !source.isFolded
    }
  }

  /// - Parameter source: what both are made from, if that is to be compared with.
  /// - Throws: if one of them cannot be read, or is a GGUF file of an architecture without names here, beside something
  ///   that is not.
  package init(_ first: FilePath, _ second: FilePath, source: FilePath?) throws {
    paths = [first, second] + (source.map { [$0] } ?? [])
    hasSource = source != nil
    // Names need no translation where all are GGUF's.
    let ggufNames = paths.allSatisfy { GGUFFile.isGGUF($0) }
    sides = Self.unfusing(try paths.map { try DecodableCheckpoint($0, ggufNames: ggufNames) })
    pairs = Self.paired(sides)
  }

  // MARK: Matching

  /// Layouts have experts one by one that a dense checkpoint may stack: where names differ, all are seen one by one.
  private static func unfusing(_ sides: [DecodableCheckpoint]) -> [DecodableCheckpoint] {
    guard Set(sides.map { Set($0.tensors.map(\.name)) }).count > 1 else { return sides }
    return sides.map { side in
      if case .dense(let checkpoint) = side { .dense(checkpoint.unfusingExperts) } else { side }
    }
  }

  private static func paired(_ sides: [DecodableCheckpoint]) -> [Pair] {
    let tensors = sides.map(\.tensors)
    let keys = keys(sides, tensors.map { $0.map(\.name) })
    let found = zip(keys, tensors).map { keys, tensors in
      Dictionary(zip(keys, tensors)) { first, _ in first }
    }
    var order: [String] = keys[0]
    order += keys[1].filter { found[0][$0] == nil }
    return order.map { key in Pair(tensors: found.map { $0[key] }) }
  }

  /// What tensors are matched by: their names, or those that GGUF has for them where one side is of that kind, or where
  /// the names have nothing in common, as those with and without a prefix.
  private static func keys(_ sides: [DecodableCheckpoint], _ names: [[String]]) -> [[String]] {
    let hasFile = sides.contains { if case .gguf(_, .some) = $0 { true } else { false } }
    guard hasFile || Set(names[0]).isDisjoint(with: names[1]) else { return names }
    let known = sides.compactMap { if case .gguf(_, let source?) = $0 { source.architecture } else { nil } }.first
    return zip(sides, names).map { side, names in
      guard let architecture = known ?? side.architecture else { return names }
      let prefix = architecture.prefix(of: names)
      return names.map { architecture.identity(of: $0, prefix: prefix) ?? $0 }
    }
  }

  // MARK: Running

  /// Elements that are decoded at a time, of each model.
  private static let tileLength = 1 << 17
  private static let compareLength = 1 << 20

  private struct Tile: Sendable {
    let pair: Int
    let elements: Range<Int>
  }

  private struct Finding: Sendable {
    let distance: Sums
    let first: Sums?
    let second: Sums?
  }

  /// Sums over a run, and pairs left out of them.
  private struct Sums: Sendable {
    var sums = PairSums()
    var nonFinite = 0

    mutating func append(_ other: Sums) {
      sums.append(other.sums)
      nonFinite += other.nonFinite
    }

    var distance: DifferenceReport.Distance { DifferenceReport.Distance(Distortion(sums), nonFinite: nonFinite) }
  }

  /// - Parameter goOn: called from any thread, one call at a time; false stops the work.
  package func run(
    workers: Int, goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> DifferenceReport {
    let comparable = pairs.indices.filter { pairs[$0].hasEqualShapes }
    let alike = comparable.filter { pairs[$0].first?.format == pairs[$0].second?.format }
    let bytes = ProgressCounter(
      total: alike.reduce(0) { $0 + (pairs[$1].first?.storedByteCount ?? 0) }, stage: "comparing bytes", report: goOn)
    let same = Mutex([Bool](repeating: false, count: pairs.count))
    let sameFiles = Self.isSameFiles(sides[0], sides[1])
    try runParallel(count: alike.count, workers: workers, makeState: { ([UInt8](), [UInt8]()) }) { item, buffers in
      let index = alike[item]
      guard let first = pairs[index].first, let second = pairs[index].second else { return }
      let isSame = try sameFiles || isStoredAlike(first, second, &buffers)
      try bytes.add(first.storedByteCount)
      same.withLock { $0[index] = isSame }
    }
    let identical = same.withLock { $0 }
    let tiles = comparable.filter { !identical[$0] && pairs[$0].isReadable }.flatMap { index in
      let count = pairs[index].first?.elementCount ?? 0
      return stride(from: 0, to: count, by: Self.tileLength).map {
        Tile(pair: index, elements: $0..<min($0 + Self.tileLength, count))
      }
    }
    // As float32, in which they are compared.
    let progress = ProgressCounter(
      total: tiles.reduce(0) { $0 + 4 * $1.elements.count }, stage: "comparing values", report: goOn)
    let found = Mutex([Finding?](repeating: nil, count: tiles.count))
    try runParallel(
      count: tiles.count, workers: workers,
      makeState: { (readers: sides.map { $0.makeReader() }, values: sides.map { _ in [Float]() }) }
    ) { item, state in
      let tile = tiles[item]
      let finding = try compare(pairs[tile.pair], tile.elements, &state.readers, &state.values)
      found.withLock { $0[item] = finding }
      try progress.add(4 * tile.elements.count)
    }
    var findings: [Int: [Finding]] = [:]
    for (tile, finding) in zip(tiles, found.withLock { $0 }) {
      if let finding { findings[tile.pair, default: []].append(finding) }
    }
    return report(identical, findings)
  }

  private static func isSameFiles(_ first: DecodableCheckpoint, _ second: DecodableCheckpoint) -> Bool {
    guard !first.files.isEmpty, first.files.count == second.files.count else { return false }
    return zip(first.files, second.files).allSatisfy { first, second in
      guard let a = try? Stat(first), let b = try? Stat(second) else { return false }
      return a.deviceID == b.deviceID && a.inode == b.inode
    }
  }

  /// Whether two tensors have the same form and the same bytes.
  private func isStoredAlike(
    _ first: Tensor, _ second: Tensor, _ buffers: inout ([UInt8], [UInt8])
  ) throws -> Bool {
    guard first.format == second.format else { return false }
    if let a = first.record, let b = second.record {
      // Offsets and encodings as well as bytes; `verify` tells whether the bytes are those of the manifest.
      return a.encoding == b.encoding && a.type == b.type && a.members.map(\.role) == b.members.map(\.role)
        && a.members.map(\.sha256) == b.members.map(\.sha256)
    }
    // A quantized tensor of our format is not laid out as one of a runtime's, whatever its label.
    guard (first.record?.encoding == nil) == (second.record?.encoding == nil) else { return false }
    let (own, other) = (sides[0].parts(of: first), sides[1].parts(of: second))
    guard own.count == other.count, zip(own, other).allSatisfy({ $0.byteCount == $1.byteCount }) else { return false }
    for (a, b) in zip(own, other) {
      for start in stride(from: 0, to: a.byteCount, by: Self.compareLength) {
        let range = start..<min(start + Self.compareLength, a.byteCount)
        try a.read(range, into: &buffers.0)
        try b.read(range, into: &buffers.1)
        guard buffers.0[..<range.count] == buffers.1[..<range.count] else { return false }
      }
    }
    return true
  }

  private func compare(
    _ pair: Pair, _ elements: Range<Int>, _ readers: inout [DecodableCheckpoint.Reader], _ values: inout [[Float]]
  ) throws -> Finding {
    let usesSource = pair.canBeComparedWithSource
    for (index, tensor) in pair.tensors.enumerated() where index < 2 || usesSource {
      guard let tensor else { continue }
      try readers[index].read(tensor, elements, into: &values[index])
    }
    return Finding(
      distance: Self.sums(values[0], values[1]), first: usesSource ? Self.sums(values[2], values[0]) : nil,
      second: usesSource ? Self.sums(values[2], values[1]) : nil)
  }

  /// Pairs with a value that is not finite are left out, and counted where they differ.
  private static func sums(_ first: [Float], _ second: [Float]) -> Sums {
    if firstNonFinite(first.span) == nil, firstNonFinite(second.span) == nil {
      return Sums(sums: pairSums(first.span, second.span))
    }
    var (own, other, count) = (first, second, 0)
    for index in own.indices where !own[index].isFinite || !other[index].isFinite {
      if own[index] != other[index], !(own[index].isNaN && other[index].isNaN) { count += 1 }
      (own[index], other[index]) = (0, 0)
    }
    return Sums(sums: pairSums(own.span, other.span), nonFinite: count)
  }

  // MARK: Concluding

  private func report(_ identical: [Bool], _ findings: [Int: [Finding]]) -> DifferenceReport {
    var withoutSource = 0
    let tensors = pairs.indices.map { index -> DifferenceReport.Tensor in
      let pair = pairs[index]
      let found = findings[index] ?? []
      let outcome: DifferenceReport.Outcome
      var toSource: DifferenceReport.ToSource?
      if pair.second == nil {
        outcome = .onlyInFirst
      } else if pair.first == nil {
        outcome = .onlyInSecond
      } else if !pair.hasEqualShapes {
        outcome = .reshaped
      } else if identical[index] {
        outcome = .same
      } else if !pair.isReadable {
        outcome = .unreadable
      } else {
        let distance = Self.total(found.map(\.distance))
        let isSame = distance.isZero
        outcome = !isSame ? .changed(distance) : pair.first?.format == pair.second?.format ? .same : .restored
        if hasSource, !isSame, pair.canBeComparedWithSource {
          toSource = DifferenceReport.ToSource(
            first: Self.total(found.compactMap(\.first)), second: Self.total(found.compactMap(\.second)))
        } else if hasSource, !isSame {
          withoutSource += 1
        }
      }
      return DifferenceReport.Tensor(
        name: (pair.first ?? pair.second)?.name ?? "", first: pair.first.map(Self.form),
        second: pair.second.map(Self.form), outcome: outcome, toSource: toSource)
    }
    return DifferenceReport(
      first: side(0), second: side(1), source: hasSource ? paths[2].string : nil, tensors: tensors,
      otherFiles: otherFiles(), withoutSource: withoutSource)
  }

  private static func total(_ sums: [Sums]) -> DifferenceReport.Distance {
    var total = Sums()
    for part in sums { total.append(part) }
    return total.distance
  }

  private static func form(_ tensor: Tensor) -> DifferenceReport.Form {
    DifferenceReport.Form(shape: tensor.shape, format: tensor.format, byteCount: tensor.storedByteCount)
  }

  private func side(_ index: Int) -> DifferenceReport.Side {
    let tensors = pairs.compactMap { $0.tensors[index] }
    return DifferenceReport.Side(
      path: paths[index].string, kind: sides[index].kind, tensorCount: tensors.count,
      weightCount: tensors.reduce(0) { $0 + $1.elementCount },
      byteCount: tensors.reduce(0) { $0 + $1.storedByteCount })
  }

  /// Files beside the weights, such as the configuration and the tokenizer.
  private func otherFiles() -> [String] {
    guard let first = sides[0].folder, let second = sides[1].folder, first != second else { return [] }
    let names = [first, second].enumerated().map { index, folder in
      let weights = Set(sides[index].files.compactMap { $0.lastComponent?.string })
      let all = (try? FileManager.default.contentsOfDirectory(atPath: folder.string)) ?? []
      return Set(
        all.filter { name in
          !weights.contains(name) && !name.hasPrefix(".") && !name.hasSuffix(".index.json")
            && name != PackedManifest.fileName && (try? Stat(folder.appending(name)).type) == .regular
        })
    }
    return names[0].union(names[1]).sorted().compactMap { name in
      guard names[0].contains(name) else { return "\(name.printable) only in B" }
      guard names[1].contains(name) else { return "\(name.printable) only in A" }
      let contents = [first, second].map { try? readWhole($0.appending(name)) }
      return contents[0] != nil && contents[0] == contents[1] ? nil : "\(name.printable) differs"
    }
  }
}

extension DecodableCheckpoint.Tensor {
  /// What a manifest of ours says of it.
  fileprivate var record: PackedManifest.Record? {
    if case .quantized(let tensor) = content { tensor.manifestRecord } else { nil }
  }
}
