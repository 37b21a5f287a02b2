import Checkpoints
import Kernels
import Synchronization

/// Finds the tensors that hold infinities or NaN among those a recipe would quantize, so that they can be kept.
package struct NonFiniteScan: Sendable {
  private let tensors: [CheckpointTensor]

  package init(_ source: Checkpoint, recipe: Recipe) throws {
    tensors = try source.orientedTensors.filter { tensor in
      if case .quantize = try recipe.decision(for: tensor.entry) { true } else { false }
    }.map(\.stored)
  }

  private struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
  }

  private static let partLength = 1 << 18

  /// - Returns: the names of such tensors.
  /// - Parameter goOn: called from any thread; false stops the work.
  package func run(workers: Int, goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> Set<String> {
    let found = Mutex<Set<String>>([])
    let progress = ProgressCounter(
      total: tensors.reduce(0) { $0 + $1.entry.bytes.count }, stage: "scanning", report: goOn)
    let schedule = Schedule(
      tileCounts: tensors.map { [($0.entry.elementCount + Self.partLength - 1) / Self.partLength] },
      files: tensors.map(\.fileIndex))
    try schedule.run(workers: workers, makeState: { Buffers() }) { item, buffers in
      let tensor = tensors[item.tensor]
      let start = item.tile * Self.partLength
      let elements = start..<min(start + Self.partLength, tensor.entry.elementCount)
      let read = try readValues(tensor, elements, bytes: &buffers.bytes, values: &buffers.values)
      if !absoluteMaximum(buffers.values.span).isFinite { found.withLock { _ = $0.insert(tensor.name) } }
      try progress.add(read)
    }
    return found.withLock { $0 }
  }
}
