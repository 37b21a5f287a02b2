import Checkpoints
import Kernels
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage

/// Compares a packed folder, or one in the layout of a runtime, with its source: decodes the bytes on disk and sums what
/// differs.
package struct Measurement: Sendable {
  package enum Sampling: Sendable {
    /// Every weight.
    case all
    /// All of a small model; of a large one evenly spread tiles of each tensor, the first among them.
    case quick
  }

  private let packed: QuantizedCheckpoint
  private let tensors: [QuantizedCheckpoint.Tensor]
  private let source: Checkpoint

  package init(packed path: FilePath, source: Checkpoint) throws {
    packed = try QuantizedCheckpoint(path)
    tensors = packed.tensors
    self.source = source
    outputErrors = CalibrationSummary.outputErrors(in: path)
    try requireSameTensors()
  }

  /// Every tensor of either side has its counterpart, with equal shape and type.
  private func requireSameTensors() throws {
    let recorded = Set(tensors.map(\.name))
    for tensor in source.tensors where !recorded.contains(tensor.name) {
      throw ConversionError.differentTensor(tensor.name, packed: "nothing", source: Self.describe(tensor.entry))
    }
    for tensor in tensors {
      let found = "\(tensor.type.rawValue) \(tensor.shape)"
      guard let original = source[tensor.name] else {
        throw ConversionError.differentTensor(tensor.name, packed: found, source: "no such tensor")
      }
      // Other programs may store what they keep in another type, and do not tell that of what they quantize.
      let isSameType = if case .layout = packed { true } else { original.entry.type == tensor.type }
      guard original.entry.shape == tensor.shape, isSameType else {
        throw ConversionError.differentTensor(tensor.name, packed: found, source: Self.describe(original.entry))
      }
    }
  }

  private static func describe(_ entry: TensorEntry) -> String { "\(entry.type.rawValue) \(entry.shape)" }

  private struct Job: Sendable {
    let tensor: QuantizedCheckpoint.Tensor
    let source: CheckpointTensor
    /// Element ranges (byte ranges, for kept tensors of the same type) that are compared.
    let parts: [Range<Int>]

    /// Whether bytes are compared, not values.
    var comparesBytes: Bool { !tensor.isQuantized && tensor.type == source.entry.type }
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
    var workspace = QuantizedCheckpoint.Workspace()
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
    let weights = tensors.reduce(0) { $0 + $1.elementCount }
    let isWhole = if case .all = sampling { true } else { weights <= Self.wholeSize }
    let step = isWhole ? 1 : (weights + Self.sampleSize - 1) / Self.sampleSize
    let jobs = tensors.compactMap { tensor in
      // Values with scales folded in are not to be compared with the source's.
      source[tensor.name].map {
        Job(tensor: tensor, source: $0, parts: tensor.isFolded ? [] : Self.parts(of: tensor, $0, step: step))
      }
    }
    let schedule = Schedule(tileCounts: jobs.map { [$0.parts.count] }, files: jobs.map(\.source.fileIndex))
    let total = zip(jobs, jobs).reduce(0) { $0 + $1.0.tensor.byteCount / step }
    let kinds = jobs.reduce(into: [:]) { $0[$1.kind, default: 0] += $1.tensor.byteCount / step }
    let progress = ProgressCounter(total: total, stage: "comparing", kinds: kinds, report: goOn)
    let findings = jobs.map { Mutex([Finding?](repeating: nil, count: $0.parts.count)).boxed }
    try schedule.run(
      workers: workers, makeState: { Buffers(workspace: QuantizedCheckpoint.Workspace(isSampling: step > 1)) }
    ) { item, buffers in
      let job = jobs[item.tensor]
      let finding = try compare(job, job.parts[item.tile], &buffers)
      findings[item.tensor].value.withLock { $0[item.tile] = finding }
      try progress.add(
        job.parts[item.tile].count * (job.comparesBytes ? 1 : job.tensor.type.bitWidth / 8), job.kind)
    }
    let reports = zip(jobs, findings).map { job, findings in
      report(job, findings.value.withLock { $0.compactMap { $0 } })
    }
    return try modelReport(
      reports.sorted { $0.name.naturallyPrecedes($1.name) }, coverage: isWhole ? .all : .oneTileIn(step))
  }

  private static func parts(
    of tensor: QuantizedCheckpoint.Tensor, _ source: CheckpointTensor, step: Int
  ) -> [Range<Int>] {
    guard tensor.isQuantized || tensor.type != source.entry.type else {
      return stride(from: 0, to: tensor.byteCount, by: step * compareLength).map {
        $0..<min($0 + compareLength, tensor.byteCount)
      }
    }
    // Whatever the tiles were when it was packed, a run of a multiple of eight elements can be decoded.
    let length = tensor.tileLength
    return stride(from: 0, to: tensor.elementCount, by: step * length).map {
      $0..<min($0 + length, tensor.elementCount)
    }
  }

  private func compare(_ job: Job, _ part: Range<Int>, _ buffers: inout Buffers) throws -> Finding {
    if job.comparesBytes {
      guard let stored = packed.stored(job.tensor) else { return .identical(false) }
      try job.source.file.read(part, of: job.source.entry, into: &buffers.bytes)
      try stored.file.read(part, of: stored.entry, into: &buffers.other)
      return .identical(buffers.bytes[..<part.count] == buffers.other[..<part.count])
    }
    _ = try readValues(job.source, part, bytes: &buffers.bytes, values: &buffers.values)
    try packed.decode(job.tensor, part, into: &buffers.decoded, using: &buffers.workspace)
    guard job.tensor.isQuantized else {
      // Kept in another type: what rounding to it gives.
      let expected = buffers.values.map { rounded($0, to: job.tensor.type) }
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
      name: job.tensor.name, shape: job.tensor.shape, sourceType: job.source.entry.type, outcome: outcome,
      sourceByteCount: job.source.entry.bytes.count, storedByteCount: job.tensor.storedByteCount)
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
    let codebooks = packed.auxiliaryByteCount
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
