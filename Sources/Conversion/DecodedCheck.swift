import Checkpoints
import Kernels
import Packing
import Quantization
import Synchronization
import SystemPackage

/// Decodes every tensor of a packed folder and checks what hashes cannot: that what is stored is what the quantizer
/// made, even where the hash of a damaged member was made anew.
///
/// Codes add up to the sum that was taken before they were packed, the squares of weights to theirs; scales and zero points
/// are finite, and no value decodes to something that is not. With the source beside it, the error is measured again and
/// compared with the one that was recorded, and what was kept is the source's, byte for byte.
package struct DecodedCheck: Sendable {
  package struct Finding: Hashable, Sendable {
    package let tensor: String
    package let problem: String
  }

  private let packed: PackedCheckpoint
  private let source: Checkpoint?
  private let workers: Int

  /// - Throws: if a quantized tensor has no counterpart of its shape and type in the source.
  package init(_ path: FilePath, against source: Checkpoint? = nil, workers: Int) throws {
    guard PackedCheckpoint.isPacked(path) else { throw ConversionError.notPacked(path.string) }
    packed = try PackedCheckpoint(path)
    self.source = source
    self.workers = workers
    guard let source else { return }
    for record in packed.manifest.records {
      let found = source[record.name]?.entry
      guard found?.shape == record.shape, found?.type == record.type else {
        throw ConversionError.differentTensor(
          record.name, packed: "\(record.type.rawValue) \(record.shape)",
          source: found.map { "\($0.type.rawValue) \($0.shape)" } ?? "no such tensor")
      }
    }
  }

  /// Quantized tensors of which the manifest records nothing, as those that older versions wrote.
  package var unrecorded: [String] {
    packed.manifest.records.filter { $0.fate.isQuantized && ($0.loss == nil || $0.codeSum == nil) }.map(\.name)
  }

  /// Elements that are decoded at a time.
  private static let partLength = 1 << 16

  /// Sums of the same numbers in another order of tiles differ by less than this share.
  private static let tolerance = 1e-11

  private struct Buffers {
    var workspace = PackedCheckpoint.Workspace()
    var values: [Float] = []
    var bytes: [UInt8] = []
    var source: [Float] = []
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  /// - Returns: what is wrong, by name of tensor.
  package func run(goOn: @escaping @Sendable (ByteProgress) -> Bool) throws -> [Finding] {
    // Kept tensors are the source's, which may hold anything.
    let records = packed.manifest.records.filter { $0.fate.isQuantized || $0.isFolded || source != nil }
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
    let shape = record.codedShape
    let original = source?[record.name].map { record.isTransposed ? $0.transposed : $0 }
    guard record.fate.isQuantized || record.isFolded else {
      guard let original, let member = record.members.first else { return nil }
      return try sha256(of: original, using: &buffers.bytes) == member.sha256
        ? nil : "it was kept as it was, but its bytes are not the source's"
    }
    let sample = record.encoding?.grouping(of: shape).sample
    var (codes, loss) = (0, LossSums())
    for start in stride(from: 0, to: record.elementCount, by: Self.partLength) {
      let part = start..<min(start + Self.partLength, record.elementCount)
      try packed.decode(record.coded, part, into: &buffers.values, using: &buffers.workspace)
      if let place = firstNonFinite(buffers.values.span.extracting(..<part.count)) {
        let index = position(of: start + place, in: shape)
        return
          "its value at \(record.isTransposed ? exchangingLastTwo(index) : index) is \(buffers.values[place]), which no quantized weight is"
      }
      guard let sample else { continue }
      codes += codeSum(buffers.workspace.codes.span)
      if let original, !record.isFolded {
        _ = try readValues(original, part, bytes: &buffers.bytes, values: &buffers.source)
      } else {
        buffers.source = buffers.values
      }
      loss += LossSums(buffers.source.span, buffers.values.span, first: start, sample: sample)
    }
    if let expected = record.codeSum, codes != expected {
      return "its codes add up to \(codes), those that were written to \(expected)"
    }
    guard let expected = record.loss else { return nil }
    if Self.differ(loss.decoded, expected.decoded) {
      return "the squares of its weights add up to \(loss.decoded), those of what was written to \(expected.decoded)"
    }
    guard original != nil, !record.isFolded else { return nil }
    if Self.differ(loss.source, expected.source) {
      return "the squares of the source's weights add up to \(loss.source), those that it was made from to"
        + " \(expected.source): this is another source"
    }
    if Self.differ(loss.error, expected.error) {
      return "its squared error is \(loss.error), measured on what was written it was \(expected.error)"
    }
    return nil
  }

  private static func differ(_ first: Double, _ second: Double) -> Bool {
    abs(first - second) > tolerance * max(first, second)
  }
}
