import Calibration
import Checkpoints
import Crypto
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// Writes a file of evidence, input by input, so that one Hessian is in memory at a time. The file is none before it is
/// finished: see `OutputFile` for how it gets its place.
final class EvidenceWriter {
  /// For messages.
  private let place: FilePath
  private let header: EvidenceHeader
  private let layout: SafetensorsLayout
  private let descriptor: FileDescriptor
  private let positions: [LinearInput: Int]
  private var hashes: OrderedDictionary<String, String> = [:]
  private var tokens: [Int]
  private var buffer: [UInt8] = []

  /// Creates the file, or opens one that an interrupted run has left.
  /// - Parameter place: of the output that it is, or is for.
  init(_ header: EvidenceHeader, at path: FilePath, of place: FilePath) throws(ConversionError) {
    self.place = place
    self.header = header
    layout = SafetensorsLayout(header.specifications, metadata: header.metadata(hashes: [:]))
    positions = Dictionary(header.inputs.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    tokens = [Int](repeating: 0, count: header.inputs.count)
    do {
      descriptor = try FileDescriptor.open(
        path, .readWrite, options: [.create, .closeOnExec], permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch {
      throw .cannotCreate(place.string, "\(error)")
    }
    do {
      try descriptor.allocate(layout.fileSize)
    } catch {
      throw .writeFailed(place.string, error.description)
    }
  }

  deinit { try? descriptor.close() }

  /// The tensors of an input, and where they are in the file.
  func members(ofInput index: Int) -> [(name: String, range: Range<Int>)] {
    guard header.inputs.indices.contains(index) else { return [] }
    return header.specifications(ofInput: index).map { member in
      let start = layout.offsets[member.name] ?? 0
      return (member.name, start..<start + member.byteCount)
    }
  }

  /// Takes an input over that an interrupted run has written.
  func take(input index: Int, tokens count: Int, hashes found: OrderedDictionary<String, String>) {
    tokens[index] = count
    hashes.merge(found) { $1 }
  }

  /// Writes what is known of one input of the header, once.
  /// - Returns: its position, and the hashes of its tensors.
  @discardableResult
  func write(
    _ input: InputEvidence
  ) throws(ConversionError) -> (index: Int, hashes: OrderedDictionary<String, String>) {
    guard let index = positions[LinearInput(layers: input.layers, dimension: input.dimension)] else {
      preconditionFailure("no such input in the header")
    }
    func name(_ part: EvidenceHeader.Part) -> String { EvidenceHeader.name(part, ofInput: index) }
    let sums = input.statistics.columnSums
    tokens[index] = input.tokens
    try write(words: sums.magnitudeSums.map(\.bitPattern), to: name(.magnitudeSums))
    try write(words: sums.squareSums.map(\.bitPattern), to: name(.squareSums))
    try write(words: sums.exceedances.map { UInt64($0) }, to: name(.outlierTokens))
    let count = encodeElements(sums.largestMagnitudes, as: .f32, into: &buffer)
    try write(buffer[..<count], to: name(.largestMagnitudes))
    if header.hasHessians {
      guard let hessian = input.hessian else { preconditionFailure("the header promises Hessians") }
      try write(hessian.sum, to: name(.gram))
    }
    let written = members(ofInput: index).map { ($0.name, hashes[$0.name] ?? "") }
    return (index, OrderedDictionary(uniqueKeysWithValues: written))
  }

  private func write(words: [UInt64], to tensor: String) throws(ConversionError) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(8 * words.count)
    for word in words {
      for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
    }
    try write(bytes[...], to: tensor)
  }

  private func write(_ bytes: ArraySlice<UInt8>, to tensor: String) throws(ConversionError) {
    var hasher = SHA256()
    hasher.update(data: bytes)
    hashes[tensor] = hexadecimal(hasher.finalize())
    try put(Array(bytes), count: bytes.count, at: layout.offsets[tensor] ?? 0)
  }

  private func write(_ matrix: Matrix, to tensor: String) throws(ConversionError) {
    var hasher = SHA256()
    let rowLength = matrix.columns * 4
    let rows = max(1, (1 << 18) / rowLength)
    var bytes = [UInt8](repeating: 0, count: rows * rowLength)
    for first in stride(from: 0, to: matrix.rows, by: rows) {
      let part = first..<min(first + rows, matrix.rows)
      matrix.readRows(part) { values in
        var span = bytes.mutableSpan
        var target = span.mutableBytes
        encodeElements(values, as: .f32, into: &target)
      }
      let count = part.count * rowLength
      hasher.update(data: bytes[..<count])
      try put(bytes, count: count, at: (layout.offsets[tensor] ?? 0) + first * rowLength)
    }
    hashes[tensor] = hexadecimal(hasher.finalize())
  }

  private func put(_ bytes: [UInt8], count: Int, at offset: Int) throws(ConversionError) {
    do {
      try descriptor.writeFully(bytes, count: count, at: offset)
    } catch {
      throw .writeFailed(place.string, error.description)
    }
  }

  /// Completes the file with its header.
  func finish() throws(ConversionError) {
    try write(words: tokens.map { UInt64($0) }, to: EvidenceHeader.tokens)
    let head = SafetensorsLayout(header.specifications, metadata: header.metadata(hashes: hashes)).head
    precondition(hashes.count == layout.offsets.count && head.count == layout.head.count)
    try put(head, count: head.count, at: 0)
  }
}

// MARK: Merging

extension EvidenceFile {
  /// Adds files up, as if their texts had been one.
  /// - Parameter paths: two or more.
  /// - Throws: where they are of different models or were gathered in different ways, or share a text.
  package static func merge(
    _ paths: [FilePath], into output: OutputFile, workers: Int, onProgress: (Double) -> Bool
  ) throws {
    let files = try paths.map { try EvidenceFile($0) }
    guard let first = files.first else { return }
    var texts = first.header.texts
    for other in files.dropFirst() {
      func refusal(_ why: String) -> EvidenceFileError {
        EvidenceFileError(other.place, .cannotMerge(with: first.place, why: why))
      }
      let (one, two) = (first.header, other.header)
      guard one.model == two.model else { throw refusal("they are of different models") }
      guard one.threshold == two.threshold else {
        throw refusal("outliers count from \(two.threshold) in the one, from \(one.threshold) in the other")
      }
      guard one.inputs == two.inputs else { throw refusal("they are of different layers") }
      guard one.hasHessians == two.hasHessians else { throw refusal("only one of them has Hessians") }
      for text in two.texts {
        if let hash = text["sha256"]?.string, texts.contains(where: { $0["sha256"]?.string == hash }) {
          throw refusal("both were gathered on the same windows, which would count twice")
        }
        texts.append(text)
      }
    }
    let header = EvidenceHeader(
      model: first.header.model, modelType: first.header.modelType, threshold: first.header.threshold, texts: texts,
      inputs: first.inputs, hasHessians: first.hasHessians)
    do {
      try output.beginIfNeeded()
      let writer = try EvidenceWriter(header, at: output.written, of: output.path)
      for index in header.inputs.indices {
        try writer.write(try sum(ofInput: index, in: files, workers: workers))
        guard onProgress(Double(index + 1) / Double(header.inputs.count)) else { throw CancellationError() }
      }
      try writer.finish()
      try output.commit()
    } catch {
      throw output.leave(error)
    }
  }

  /// - Parameter files: at least one.
  private static func sum(ofInput index: Int, in files: [EvidenceFile], workers: Int) throws -> InputEvidence {
    var sum = try files[0].evidence(ofInput: index, withHessian: files[0].hasHessians, workers: workers)
    for other in files.dropFirst() {
      let part = try other.evidence(ofInput: index, withHessian: other.hasHessians, workers: workers)
      do throws(HessianError) {
        try sum.merge(part, workers: workers)
      } catch {
        throw EvidenceError(other.place, part.layers, error)
      }
    }
    return sum
  }
}
