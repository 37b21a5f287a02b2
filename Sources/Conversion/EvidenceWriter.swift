import Calibration
import Checkpoints
import Crypto
import Foundation
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// Writes a file of evidence, input by input, so that one Hessian is in memory at a time. The file appears complete or
/// not at all.
package final class EvidenceWriter {
  private let path: FilePath
  private let work: FilePath
  private let header: EvidenceHeader
  private let layout: SafetensorsLayout
  private let descriptor: FileDescriptor
  private let positions: [LinearInput: Int]
  private var hashes: [String: String] = [:]
  private var tokens: [Int]
  private var buffer: [UInt8] = []

  /// Creates the file under a temporary name, gives it what `body` writes, and puts it into its place.
  /// - Throws: `ConversionError` where there is such a file already, or none can be made.
  package static func write(
    _ path: FilePath, _ header: EvidenceHeader, overwrite: Bool, _ body: (EvidenceWriter) throws -> Void
  ) throws {
    let writer = try EvidenceWriter(path, header, overwrite: overwrite)
    do {
      try body(writer)
      try writer.finish()
    } catch {
      try? FileManager.default.removeItem(atPath: writer.work.string)
      throw error
    }
  }

  private init(_ path: FilePath, _ header: EvidenceHeader, overwrite: Bool) throws(ConversionError) {
    guard let name = path.lastComponent?.string else { throw .cannotCreate(path.string, "it is no file's name") }
    var isDirectory: ObjCBool = false
    if FileManager.default.fileExists(atPath: path.string, isDirectory: &isDirectory) {
      if isDirectory.boolValue { throw .cannotCreate(path.string, "it is a folder; name a file") }
      guard overwrite else { throw .outputExists(path.string) }
    }
    self.path = path
    self.header = header
    layout = SafetensorsLayout(header.specifications, metadata: header.metadata(hashes: [:]))
    positions = Dictionary(header.inputs.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    tokens = [Int](repeating: 0, count: header.inputs.count)
    let work = path.removingLastComponent().appending(".\(name).partial-\(UUID().uuidString.prefix(8))")
    self.work = work
    do {
      descriptor = try FileDescriptor.open(
        work, .readWrite, options: [.create, .exclusiveCreate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch {
      throw .cannotCreate(path.string, "\(error)")
    }
    do {
      try descriptor.allocate(layout.fileSize)
    } catch {
      try? FileManager.default.removeItem(atPath: work.string)
      throw .writeFailed(path.string, error.description)
    }
  }

  deinit { try? descriptor.close() }

  /// Writes what is known of one input of the header, once.
  package func write(_ input: InputEvidence) throws(ConversionError) {
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
    guard header.hasHessians else { return }
    guard let hessian = input.hessian else { preconditionFailure("the header promises Hessians") }
    try write(hessian.sum, to: name(.gram))
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
      throw .writeFailed(path.string, error.description)
    }
  }

  private func finish() throws(ConversionError) {
    try write(words: tokens.map { UInt64($0) }, to: EvidenceHeader.tokens)
    let head = SafetensorsLayout(header.specifications, metadata: header.metadata(hashes: hashes)).head
    precondition(hashes.count == layout.offsets.count && head.count == layout.head.count)
    try put(head, count: head.count, at: 0)
    guard rename(work.string, path.string) == 0 else {
      throw .writeFailed(path.string, Errno(rawValue: errno).description)
    }
  }
}

// MARK: Merging

extension EvidenceFile {
  /// Adds files up, as if their texts had been one.
  /// - Parameter paths: two or more.
  /// - Throws: where they are of different models or were gathered in different ways, or share a text.
  package static func merge(
    _ paths: [FilePath], into output: FilePath, overwrite: Bool, workers: Int, onProgress: (Double) -> Bool
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
    try EvidenceWriter.write(output, header, overwrite: overwrite) { writer in
      for index in header.inputs.indices {
        var sum = try first.evidence(ofInput: index, withHessian: first.hasHessians, workers: workers)
        for other in files.dropFirst() {
          let part = try other.evidence(ofInput: index, withHessian: first.hasHessians, workers: workers)
          do {
            try sum.merge(part, workers: workers)
          } catch let error as HessianError {
            throw EvidenceError(other.place, part.layers, error)
          }
        }
        try writer.write(sum)
        guard onProgress(Double(index + 1) / Double(header.inputs.count)) else { throw CancellationError() }
      }
    }
  }
}
