import Checkpoints
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Compares a packed folder, one in the layout of a runtime, or a GGUF file with its source: decodes the bytes on disk and
/// sums what differs.
package struct Measurement: Sendable {
  package enum Sampling: Sendable {
    /// Every weight.
    case all
    /// All of a small model; of a large one evenly spread tiles of each tensor, the first among them.
    case quick
  }

  private let pairs: SourcePairs
  private var packed: DecodableCheckpoint { pairs.output }
  private var source: Checkpoint { pairs.source }

  package init(packed path: FilePath, source: Checkpoint) throws {
    pairs = try SourcePairs(path, source: source)
    outputErrors = CalibrationSummary.outputErrors(in: path)
  }

  private struct Job: Sendable {
    let tensor: DecodableCheckpoint.Tensor
    let source: CheckpointTensor
    let offset: Float
    /// Element ranges (byte ranges, for kept tensors of the same type) that are compared.
    let parts: [Range<Int>]

    /// Whether bytes are compared, not values.
    var comparesBytes: Bool { Self.comparesBytes(tensor, source) }
    static func comparesBytes(_ tensor: DecodableCheckpoint.Tensor, _ source: CheckpointTensor) -> Bool {
      // Rows of a GGUF file may have other places.
      if case .gguf = tensor.content { return false }
      return !tensor.isQuantized && tensor.type == source.entry.type
    }
    /// Bytes of the source that it is compared with.
    var byteCount: Int { source.entry.bytes.count }
    /// What takes about as long for each byte.
    var kind: String { comparesBytes ? "copy" : "decode" }
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
    var reader: DecodableCheckpoint.Reader
  }

  /// Models up to this many weights are measured whole.
  private static let wholeSize = 1 << 24
  /// Weights that a sample of larger ones holds, about.
  private static let sampleSize = 1 << 22
  private static let compareLength = 1 << 20

  /// About how much of a checkpoint a quick measurement reads.
  package static func quickBytes(of source: Checkpoint) -> Int {
    let weights = source.tensors.reduce(0) { $0 + $1.entry.elementCount }
    let bytes = source.tensors.reduce(0) { $0 + $1.entry.bytes.count }
    return weights <= wholeSize ? bytes : bytes / ((weights + sampleSize - 1) / sampleSize)
  }

  /// - Parameter goOn: called from any thread; false stops the work.
  package func run(
    sampling: Sampling, workers: Int, goOn: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> ModelReport {
    let weights = pairs.pairs.reduce(0) { $0 + $1.tensor.elementCount }
    let isWhole = if case .all = sampling { true } else { weights <= Self.wholeSize }
    let step = isWhole ? 1 : (weights + Self.sampleSize - 1) / Self.sampleSize
    let jobs = pairs.pairs.map { pair in
      // Values with scales folded in are not to be compared with the source's.
      Job(
        tensor: pair.tensor, source: pair.original, offset: pair.offset,
        parts: pair.tensor.isFolded ? [] : Self.parts(of: pair.tensor, pair.original, step: step))
    }
    let schedule = Schedule(tileCounts: jobs.map { [$0.parts.count] }, files: jobs.map(\.source.fileIndex))
    let total = jobs.reduce(0) { $0 + $1.byteCount / step }
    let kinds = jobs.reduce(into: [:]) { $0[$1.kind, default: 0] += $1.byteCount / step }
    let progress = ProgressCounter(total: total, stage: "comparing", kinds: kinds, report: goOn)
    let findings = jobs.map { Mutex([Finding?](repeating: nil, count: $0.parts.count)).boxed }
    try schedule.run(
      workers: workers, makeState: { Buffers(reader: packed.makeReader(isSampling: step > 1)) }
    ) { item, buffers in
      let job = jobs[item.tensor]
      let finding = try compare(job, job.parts[item.tile], &buffers)
      findings[item.tensor].value.withLock { $0[item.tile] = finding }
      try progress.add(
        job.parts[item.tile].count * (job.comparesBytes ? 1 : job.source.entry.type.bitWidth / 8), job.kind)
    }
    let reports = zip(jobs, findings).map { job, findings in
      report(job, findings.value.withLock { $0.compactMap { $0 } })
    }
    return try modelReport(
      reports.sorted { $0.name.naturallyPrecedes($1.name) }, coverage: isWhole ? .all : .oneTileIn(step))
  }

  private static func parts(
    of tensor: DecodableCheckpoint.Tensor, _ source: CheckpointTensor, step: Int
  ) -> [Range<Int>] {
    let bytes = source.entry.bytes.count
    if Job.comparesBytes(tensor, source) {
      return stride(from: 0, to: bytes, by: step * compareLength).map { $0..<min($0 + compareLength, bytes) }
    }
    // Whatever the tiles were when it was packed, a run of a multiple of eight elements can be decoded.
    let length = tensor.tileLength
    return stride(from: 0, to: tensor.elementCount, by: step * length).map {
      $0..<min($0 + length, tensor.elementCount)
    }
  }

  private func compare(_ job: Job, _ part: Range<Int>, _ buffers: inout Buffers) throws -> Finding {
    if job.comparesBytes {
      guard case .quantized(let quantized) = packed, case .quantized(let tensor) = job.tensor.content,
        let stored = quantized.stored(tensor)
      else { return .identical(false) }
      try job.source.readBytes(part, into: &buffers.bytes)
      try stored.file.read(part, of: stored.entry, into: &buffers.other)
      return .identical(buffers.bytes[..<part.count] == buffers.other[..<part.count])
    }
    _ = try readValues(job.source, part, bytes: &buffers.bytes, values: &buffers.values)
    try buffers.reader.read(job.tensor, part, into: &buffers.decoded)
    guard job.tensor.isQuantized else {
      // Kept in another type: what rounding to it gives.
      guard let type = job.tensor.type else { return .identical(false) }
      let offset = job.offset
      let expected = buffers.values.map { rounded($0 + offset, to: type) - offset }
      return .identical(expected == buffers.decoded)
    }
    return .sums(pairSums(buffers.values.span, buffers.decoded.span))
  }

  private func report(_ job: Job, _ findings: [Finding]) -> TensorReport {
    let outcome: TensorReport.Outcome
    if job.tensor.isFolded {
      outcome = .folded(
        scheme: job.tensor.label,
        reason: job.tensor.isQuantized ? "quantized with scales folded in" : job.tensor.reasonToKeep,
        outputErrors[job.tensor.name])
    } else if let label = job.tensor.label {
      var sums = PairSums()
      var largestElement = 0
      for (part, finding) in zip(job.parts, findings) {
        guard case .sums(let partSums) = finding else { continue }
        let before = sums.largestDifference
        sums.append(partSums)
        // Where tiles were left out, positions in the sums are not positions in the tensor.
        if sums.largestDifference != before { largestElement = part.lowerBound + partSums.largestIndex }
      }
      outcome = .quantized(scheme: label, Distortion(sums, largestErrorElement: largestElement))
    } else {
      let isIdentical = findings.allSatisfy { if case .identical(let same) = $0 { same } else { false } }
      outcome = .kept(reason: job.tensor.reasonToKeep, isIdentical: isIdentical)
    }
    return TensorReport(
      name: job.source.name, shape: job.tensor.shape, sourceType: job.source.entry.type, outcome: outcome,
      sourceByteCount: job.source.entry.bytes.count, storedByteCount: job.tensor.storedByteCount)
  }

  /// Totals, once the bytes of tensors, codebooks and headers have been seen to add up to each file's.
  private func modelReport(_ tensors: [TensorReport], coverage: ModelReport.Coverage) throws -> ModelReport {
    if case .quantized(let quantized) = packed {
      for file in quantized.checkpoint.files {
        let sum = file.header.tensors.reduce(file.header.dataStart) { $0 + $1.bytes.count }
        guard sum == file.header.fileSize else {
          throw ConversionError.sizesDoNotAdd(file.path.string, expected: sum, found: file.header.fileSize)
        }
      }
    }
    let sizes = packed.sizes
    let accounted = tensors.reduce(sizes.auxiliary) { $0 + $1.storedByteCount }
    guard accounted == sizes.tensors else {
      throw ConversionError.sizesDoNotAdd(
        packed.files.first?.string ?? "", expected: accounted, found: sizes.tensors)
    }
    return ModelReport(
      tensors: tensors, coverage: coverage,
      sourceFileBytes: source.files.reduce(0) { $0 + $1.header.fileSize }, storedFileBytes: sizes.files,
      headerBytes: sizes.files - sizes.tensors, codebookBytes: sizes.auxiliary)
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
