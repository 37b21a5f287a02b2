import Checkpoints
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Compares a packed folder with its source: decodes the bytes on disk and sums what differs.
package struct Measurement: Sendable {
  package enum Sampling: Sendable {
    /// Every weight.
    case all
    /// All of a small model; of a large one evenly spread tiles of each tensor, the first among them.
    case quick
  }

  private let packed: PackedCheckpoint
  private let source: Checkpoint

  package init(packed path: FilePath, source: Checkpoint) throws {
    guard PackedCheckpoint.isPacked(path) else { throw ConversionError.notPacked(path.string) }
    packed = try PackedCheckpoint(path)
    self.source = source
    outputErrors = CalibrationSummary.outputErrors(in: path)
    try requireSameTensors()
  }

  /// Every tensor of either side has its counterpart, with equal shape and type.
  private func requireSameTensors() throws {
    let recorded = Set(packed.manifest.records.map(\.name))
    for tensor in source.tensors where !recorded.contains(tensor.name) {
      throw ConversionError.differentTensor(tensor.name, packed: "nothing", source: Self.describe(tensor.entry))
    }
    for record in packed.manifest.records {
      let packed = "\(record.type.rawValue) \(record.shape)"
      guard let tensor = source[record.name] else {
        throw ConversionError.differentTensor(record.name, packed: packed, source: "no such tensor")
      }
      guard tensor.entry.shape == record.shape, tensor.entry.type == record.type else {
        throw ConversionError.differentTensor(record.name, packed: packed, source: Self.describe(tensor.entry))
      }
    }
  }

  private static func describe(_ entry: TensorEntry) -> String { "\(entry.type.rawValue) \(entry.shape)" }

  private struct Job: Sendable {
    let record: PackedManifest.Record
    let source: CheckpointTensor
    /// Element ranges (byte ranges, for kept tensors) that are compared.
    let parts: [Range<Int>]
  }

  /// What calibration measured of a tensor's layer: the error of its output.
  private let outputErrors: [String: TensorReport.OutputError]

  private enum Finding: Sendable {
    case sums(PairSums)
    case identical(Bool)
  }

  private struct Buffers {
    var bytes: [UInt8] = []
    var other: [UInt8] = []
    var values: [Float] = []
    var decoded: [Float] = []
    var workspace = PackedCheckpoint.Workspace()
  }

  /// Models up to this many weights are measured whole.
  private static let wholeSize = 1 << 24
  /// Weights that a sample of larger ones holds, about.
  private static let sampleSize = 1 << 22
  private static let compareLength = 1 << 20

  /// - Parameter goOn: called from any thread; false stops the work.
  package func run(
    sampling: Sampling, workers: Int, goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> ModelReport {
    let weights = packed.manifest.records.reduce(0) { $0 + $1.elementCount }
    let isWhole = if case .all = sampling { true } else { weights <= Self.wholeSize }
    let step = isWhole ? 1 : (weights + Self.sampleSize - 1) / Self.sampleSize
    let jobs = packed.manifest.records.compactMap { record in
      // Values with scales folded in are not to be compared with the source's.
      source[record.name].map {
        Job(record: record, source: $0, parts: record.isFolded ? [] : Self.parts(of: record, step: step))
      }
    }
    let schedule = Schedule(tileCounts: jobs.map { [$0.parts.count] }, files: jobs.map(\.source.fileIndex))
    let total = zip(jobs, jobs).reduce(0) { $0 + $1.0.record.sourceByteCount / step }
    let progress = ProgressCounter(total: total, report: goOn)
    let findings = jobs.map { Mutex([Finding?](repeating: nil, count: $0.parts.count)).boxed }
    try schedule.run(workers: workers, makeState: { Buffers() }) { item, buffers in
      let job = jobs[item.tensor]
      let finding = try compare(job, job.parts[item.tile], &buffers)
      findings[item.tensor].value.withLock { $0[item.tile] = finding }
      try progress.add(job.parts[item.tile].count * (job.record.encoding == nil ? 1 : job.record.type.bitWidth / 8))
    }
    let reports = zip(jobs, findings).map { job, findings in
      report(job, findings.value.withLock { $0.compactMap { $0 } })
    }
    return try modelReport(
      reports.sorted { $0.name.naturallyPrecedes($1.name) }, coverage: isWhole ? .all : .oneTileIn(step))
  }

  private static func parts(of record: PackedManifest.Record, step: Int) -> [Range<Int>] {
    guard let encoding = record.encoding else {
      return stride(from: 0, to: record.sourceByteCount, by: step * compareLength).map {
        $0..<min($0 + compareLength, record.sourceByteCount)
      }
    }
    // Whatever the tiles were when it was packed, a run of a multiple of eight elements can be decoded.
    let length = Tiling(encoding.grouping(of: record.shape), encoding)?.tileLength ?? Tiling.usualLength
    return stride(from: 0, to: record.elementCount, by: step * length).map {
      $0..<min($0 + length, record.elementCount)
    }
  }

  private func compare(_ job: Job, _ part: Range<Int>, _ buffers: inout Buffers) throws -> Finding {
    guard job.record.encoding != nil else {
      guard let stored = packed.checkpoint[job.record.name] else { return .identical(false) }
      try job.source.file.read(part, of: job.source.entry, into: &buffers.bytes)
      try stored.file.read(part, of: stored.entry, into: &buffers.other)
      return .identical(buffers.bytes[..<part.count] == buffers.other[..<part.count])
    }
    _ = try readValues(job.source, part, bytes: &buffers.bytes, values: &buffers.values)
    try packed.decode(job.record, part, into: &buffers.decoded, using: &buffers.workspace)
    return .sums(pairSums(buffers.values.span, buffers.decoded.span))
  }

  private func report(_ job: Job, _ findings: [Finding]) -> TensorReport {
    let outcome: TensorReport.Outcome
    switch job.record.fate {
    case .kept(let reason):
      let isIdentical = findings.allSatisfy { if case .identical(let same) = $0 { same } else { false } }
      outcome = .kept(reason: reason, isIdentical: isIdentical)
    case .folded(let reason): outcome = .folded(scheme: nil, reason: reason, outputErrors[job.record.name])
    case .quantized(let encoding, _) where job.record.isFolded:
      outcome = .folded(
        scheme: encoding.label, reason: "quantized with scales folded in", outputErrors[job.record.name])
    case .quantized(let encoding, _):
      var sums = PairSums()
      var largestElement = 0
      for (part, finding) in zip(job.parts, findings) {
        guard case .sums(let partSums) = finding else { continue }
        let before = sums.largestDifference
        sums.append(partSums)
        // Where tiles were left out, positions in the sums are not positions in the tensor.
        if sums.largestDifference != before { largestElement = part.lowerBound + partSums.largestIndex }
      }
      outcome = .quantized(scheme: encoding.label, Distortion(sums, largestErrorElement: largestElement))
    }
    return TensorReport(
      name: job.record.name, shape: job.record.shape, sourceType: job.record.type, outcome: outcome,
      sourceByteCount: job.record.sourceByteCount, storedByteCount: job.record.storedByteCount)
  }

  /// Totals, once the bytes of tensors, codebooks and headers have been seen to add up to each file's.
  private func modelReport(_ tensors: [TensorReport], coverage: ModelReport.Coverage) throws -> ModelReport {
    for file in packed.checkpoint.files {
      let sum = file.header.tensors.reduce(file.header.dataStart) { $0 + $1.bytes.count }
      guard sum == file.header.fileSize else {
        throw ConversionError.sizesDoNotAdd(file.path.string, expected: sum, found: file.header.fileSize)
      }
    }
    let files = packed.checkpoint.files
    let stored = files.reduce(0) { $0 + $1.header.fileSize }
    let headers = files.reduce(0) { $0 + $1.header.dataStart }
    let codebooks = packed.manifest.codebooks.reduce(0) { $0 + $1.byteCount }
    let accounted = tensors.reduce(headers + codebooks) { $0 + $1.storedByteCount }
    guard accounted == stored else {
      throw ConversionError.sizesDoNotAdd(packed.checkpoint.folder.string, expected: accounted, found: stored)
    }
    return ModelReport(
      tensors: tensors, coverage: coverage,
      sourceFileBytes: source.files.reduce(0) { $0 + $1.header.fileSize }, storedFileBytes: stored,
      headerBytes: headers, codebookBytes: codebooks)
  }
}

/// A mutex that can be an element of an array.
final class Boxed<Value: ~Copyable & Sendable>: Sendable {
  let value: Value
  init(_ value: consuming Value) { self.value = value }
}

extension Mutex where Value: Sendable {
  var boxed: Boxed<Mutex<Value>> { consuming get { Boxed(self) } }
}
