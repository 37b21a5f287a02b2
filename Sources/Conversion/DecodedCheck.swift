import Checkpoints
import Kernels
import Packing
import Synchronization
import SystemPackage

/// Decodes every tensor of a packed folder and checks what hashes cannot: that what is stored is what the quantizer
/// made, even where the hash of a damaged member was made anew.
///
/// Codes add up to the sum that was taken before they were packed; scales and zero points are finite, and no value
/// decodes to something that is not. It does not know the source: `report --against` measures errors.
package struct DecodedCheck: Sendable {
  package struct Finding: Hashable, Sendable {
    package let tensor: String
    package let problem: String
  }

  private let packed: PackedCheckpoint
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    guard PackedCheckpoint.isPacked(path) else { throw ConversionError.notPacked(path.string) }
    packed = try PackedCheckpoint(path)
    self.workers = workers
  }

  /// Elements that are decoded at a time.
  private static let partLength = 1 << 16

  private struct Buffers {
    var workspace = PackedCheckpoint.Workspace()
    var values: [Float] = []
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  /// - Returns: what is wrong, by name of tensor.
  package func run(goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> [Finding] {
    // Kept tensors are the source's, which may hold anything.
    let records = packed.manifest.records.filter { $0.fate.isQuantized || $0.isFolded }
    let progress = ProgressCounter(total: records.reduce(0) { $0 + $1.storedByteCount }, report: goOn)
    let findings = Mutex<[Finding]>([])
    try runParallel(count: records.count, workers: workers, makeState: { Buffers() }) { index, buffers in
      let record = records[index]
      if let problem = try problem(of: record, &buffers) {
        findings.withLock { $0.append(Finding(tensor: record.name, problem: problem)) }
      }
      try progress.add(record.storedByteCount)
    }
    return findings.withLock { $0.sorted { $0.tensor < $1.tensor } }
  }

  private func problem(of record: PackedManifest.Record, _ buffers: inout Buffers) throws -> String? {
    var sum = 0
    let shape = record.codedShape
    for start in stride(from: 0, to: record.elementCount, by: Self.partLength) {
      let part = start..<min(start + Self.partLength, record.elementCount)
      try packed.decode(record.coded, part, into: &buffers.values, using: &buffers.workspace)
      if let place = firstNonFinite(buffers.values.span.extracting(..<part.count)) {
        let index = position(of: start + place, in: shape)
        return
          "its value at \(record.isTransposed ? exchangingLastTwo(index) : index) is \(buffers.values[place]), which no quantized weight is"
      }
      if record.fate.isQuantized { sum += codeSum(buffers.workspace.codes.span) }
    }
    guard let expected = record.codeSum, sum != expected else { return nil }
    return "its codes add up to \(sum), those that were written to \(expected)"
  }
}
