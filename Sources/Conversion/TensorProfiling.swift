import Checkpoints
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Looks at all weights, codes and scales of a packed folder, one in the layout of a runtime, or a GGUF file, beside its
/// source, for the pictures of a report.
package struct TensorProfiling: Sendable {
  private let pairs: SourcePairs

  private static let weightBins = 64
  private static let scaleBins = 32
  private static let partLength = 1 << 18

  package init(packed path: FilePath, source: Checkpoint) throws {
    pairs = try SourcePairs(path, source: source)
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  /// - Returns: the profiles of quantized tensors, by name.
  package func run(workers: Int, goOn: @escaping @Sendable () -> Bool) throws -> [String: TensorProfile] {
    let pairs = pairs.pairs.filter(\.tensor.isQuantized)
    let output = self.pairs.output
    let found = Mutex([String: TensorProfile]())
    try runParallel(count: pairs.count, workers: workers, makeState: { Buffers() }) { index, buffers in
      let (tensor, name) = (pairs[index].tensor, pairs[index].name)
      let weights = try weightFacts(of: pairs[index].original, &buffers, goOn: goOn)
      let coded: CodeFacts
      switch (output, tensor.content) {
      case (.quantized(.packed(let packed)), .quantized(let stored)):
        guard let record = stored.manifestRecord else { return }
        coded = try codeFacts(of: record, in: packed, &buffers, goOn: goOn)
      case (.quantized(let layout), .quantized(let stored)):
        guard let weight = try layout.codedWeight(stored) else { return }
        coded = CodeFacts(weight, storedByteCount: tensor.storedByteCount)
      case (.gguf(let file, _), .gguf(let stored)):
        guard let facts = try codeFacts(of: stored, in: file, &buffers, goOn: goOn) else { return }
        coded = facts
      default: return
      }
      let profile = TensorProfile(
        weights: weights.histogram, codes: coded.codes, scales: Self.logarithms(of: coded.scales), peak: weights.peak,
        sparsity: weights.sparsity, scaleByteCount: coded.scaleByteCount, outlierByteCount: coded.outlierByteCount)
      found.withLock { $0[name] = profile }
    }
    return found.withLock { $0 }
  }

  fileprivate struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
    var workspace = PackedCheckpoint.Workspace()
  }

  private static func parts(of count: Int) -> [Range<Int>] {
    stride(from: 0, to: count, by: partLength).map { $0..<min($0 + partLength, count) }
  }

  // MARK: Weights

  private struct WeightFacts {
    let histogram: TensorInspection.Histogram
    let peak: Double
    let sparsity: Double
  }

  /// Infinities and NaN are left out.
  private func weightFacts(
    of tensor: CheckpointTensor, _ buffers: inout Buffers, goOn: () -> Bool
  ) throws -> WeightFacts {
    let parts = Self.parts(of: tensor.entry.elementCount)
    var (largest, sum, roots, squares, total, number) = (Float(0), 0.0, 0.0, 0.0, 0.0, 0)
    for part in parts {
      guard goOn() else { throw CancellationError() }
      _ = try readValues(tensor, part, bytes: &buffers.bytes, values: &buffers.values)
      for value in buffers.values where value.isFinite {
        let magnitude = abs(value)
        largest = max(largest, magnitude)
        total += Double(value)
        sum += Double(magnitude)
        roots += Double(magnitude.squareRoot())
        squares += Double(magnitude) * Double(magnitude)
        number += 1
      }
    }
    var bins = [Int](repeating: 0, count: Self.weightBins)
    let scale = largest > 0 ? Double(Self.weightBins) / 2 / Double(largest) : 0
    for part in parts {
      guard goOn() else { throw CancellationError() }
      if parts.count > 1 { _ = try readValues(tensor, part, bytes: &buffers.bytes, values: &buffers.values) }
      for value in buffers.values where value.isFinite {
        bins[min(Int(Double(value) * scale + Double(Self.weightBins) / 2), Self.weightBins - 1)] += 1
      }
    }
    let count = Double(max(1, number))
    let deviation = max(0, squares / count - total / count * (total / count)).squareRoot()
    return WeightFacts(
      histogram: TensorInspection.Histogram(low: -largest, high: largest, counts: bins),
      peak: deviation > 0 ? Double(largest) / deviation : 0,
      sparsity: pqIndex(rootSum: roots, sum: sum, count: max(1, number)))
  }

  // MARK: Codes

  fileprivate struct CodeFacts {
    /// How often each occurs.
    var codes: [Int]
    /// One per group.
    var scales: [Float]
    let scaleByteCount: Int
    let outlierByteCount: Int
  }

  private func codeFacts(
    of record: PackedManifest.Record, in packed: PackedCheckpoint, _ buffers: inout Buffers, goOn: () -> Bool
  ) throws -> CodeFacts {
    func bytes(_ roles: Set<PackedFormat.Role>) -> Int {
      record.members.filter { roles.contains($0.role) }.reduce(0) { $0 + $1.byteCount }
    }
    let outliers = bytes([.outlierColumns, .outlierWeights])
    var facts = CodeFacts(
      codes: [Int](repeating: 0, count: Int(record.encoding?.highestCode ?? 0) + 1), scales: [],
      scaleByteCount: record.storedByteCount - bytes([.codes]) - outliers, outlierByteCount: outliers)
    let coded = record.coded
    let grouping = coded.encoding?.grouping(of: coded.shape)
    for part in Self.parts(of: record.elementCount) {
      guard goOn() else { throw CancellationError() }
      try packed.decode(coded, part, into: &buffers.values, using: &buffers.workspace)
      for code in buffers.workspace.codes { facts.codes[Int(code)] += 1 }
      let first = buffers.workspace.firstGroup
      for (offset, scale) in buffers.workspace.scales.enumerated() {
        // A group that began in an earlier part has been counted there.
        guard let grouping, grouping.elements(of: first + offset).lowerBound >= part.lowerBound else { continue }
        facts.scales.append(scale)
      }
    }
    return facts
  }

  /// Of the blocks of a GGUF file: what they have beyond their codes counts as scales.
  private func codeFacts(
    of tensor: GGUFTensor, in file: GGUFFile, _ buffers: inout Buffers, goOn: () -> Bool
  ) throws -> CodeFacts? {
    let type = tensor.type
    guard let levels = type.groups?.levels.count else { return nil }
    let codeBytes = tensor.elementCount * (levels.trailingZeroBitCount) / 8
    var facts = CodeFacts(
      codes: [Int](repeating: 0, count: levels), scales: [], scaleByteCount: tensor.bytes.count - codeBytes,
      outlierByteCount: 0)
    let length = Self.partLength / type.blockLength * type.blockBytes
    for start in stride(from: 0, to: tensor.bytes.count, by: length) {
      guard goOn() else { throw CancellationError() }
      let part = start..<min(start + length, tensor.bytes.count)
      try file.read(part, of: tensor, into: &buffers.bytes)
      let parts = type.parts(of: buffers.bytes.span.extracting(..<part.count))
      for code in parts.codes { facts.codes[Int(code)] += 1 }
      facts.scales += parts.scales
    }
    return facts
  }

  private static func logarithms(of scales: [Float]) -> TensorInspection.Histogram? {
    let values = scales.filter { $0 != 0 && $0.isFinite }.map { log2(abs($0)) }
    guard let low = values.min(), let high = values.max() else { return nil }
    var counts = [Int](repeating: 0, count: scaleBins)
    for value in values {
      let position = high > low ? Double(value - low) / Double(high - low) * Double(scaleBins) : 0
      counts[min(Int(position), scaleBins - 1)] += 1
    }
    return TensorInspection.Histogram(low: low, high: high, counts: counts)
  }
}

extension TensorProfiling.CodeFacts {
  /// Of a weight that is in memory whole. What its stored bytes have beyond its codes counts as scales.
  fileprivate init(_ weight: CodedWeight, storedByteCount: Int) {
    var codes = [Int](repeating: 0, count: 1 << weight.bits)
    for code in weight.codes { codes[Int(code)] += 1 }
    let codeBytes = (weight.codes.count * weight.bits + 7) / 8
    self.init(
      codes: codes, scales: weight.scales, scaleByteCount: max(0, storedByteCount - codeBytes), outlierByteCount: 0)
  }
}
