import Checkpoints
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Looks at all weights, codes and scales of a packed folder beside its source, for the pictures of a report.
package struct TensorProfiling: Sendable {
  private let packed: PackedCheckpoint
  private let source: Checkpoint

  private static let weightBins = 64
  private static let scaleBins = 32
  private static let partLength = 1 << 18

  package init(packed path: FilePath, source: Checkpoint) throws {
    packed = try PackedCheckpoint(path)
    self.source = source
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  /// - Returns: the profiles of quantized tensors, by name.
  package func run(workers: Int, goOn: @escaping @Sendable () -> Bool) throws -> [String: TensorProfile] {
    let records = packed.manifest.records.filter { $0.encoding != nil }
    let found = Mutex([String: TensorProfile]())
    try runParallel(count: records.count, workers: workers, makeState: {}) { index, _ in
      guard goOn() else { throw CancellationError() }
      let record = records[index]
      guard let tensor = source[record.name] else { return }
      let profile = try profile(record, tensor)
      found.withLock { $0[record.name] = profile }
    }
    return found.withLock { $0 }
  }

  private func profile(_ record: PackedManifest.Record, _ tensor: CheckpointTensor) throws -> TensorProfile {
    let parts = stride(from: 0, to: record.elementCount, by: Self.partLength).map {
      $0..<min($0 + Self.partLength, record.elementCount)
    }
    var (bytes, values, workspace) = ([UInt8](), [Float](), PackedCheckpoint.Workspace())
    var (largest, sum, roots, squares, total) = (Float(0), 0.0, 0.0, 0.0, 0.0)
    for part in parts {
      _ = try readValues(tensor, part, bytes: &bytes, values: &values)
      for value in values where value.isFinite {
        let magnitude = abs(value)
        largest = max(largest, magnitude)
        total += Double(value)
        sum += Double(magnitude)
        roots += Double(magnitude).squareRoot()
        squares += Double(magnitude) * Double(magnitude)
      }
    }
    var bins = [Int](repeating: 0, count: Self.weightBins)
    var codes = [Int](repeating: 0, count: Int(record.encoding?.highestCode ?? 0) + 1)
    var scales: [Float] = []
    let grouping = record.encoding?.grouping(of: record.shape)
    for part in parts {
      _ = try readValues(tensor, part, bytes: &bytes, values: &values)
      for value in values where value.isFinite {
        let position = largest > 0 ? (Double(value) / Double(largest) + 1) / 2 * Double(Self.weightBins) : 0
        bins[min(Int(position), Self.weightBins - 1)] += 1
      }
      try packed.decode(record, part, into: &values, using: &workspace)
      for code in workspace.codes { codes[Int(code)] += 1 }
      let first = workspace.firstGroup
      for (offset, scale) in workspace.scales.enumerated() {
        // A group that began in an earlier part has been counted there.
        guard let grouping, grouping.elements(of: first + offset).lowerBound >= part.lowerBound else { continue }
        scales.append(scale)
      }
    }
    let count = Double(max(1, record.elementCount))
    let deviation = max(0, squares / count - total / count * (total / count)).squareRoot()
    return TensorProfile(
      weights: TensorInspection.Histogram(low: -largest, high: largest, counts: bins), codes: codes,
      scales: Self.logarithms(of: scales), peak: deviation > 0 ? Double(largest) / deviation : 0,
      sparsity: pqIndex(rootSum: roots, sum: sum, count: record.elementCount),
      scaleByteCount: record.members.filter { $0.role != .codes }.reduce(0) { $0 + $1.byteCount })
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
