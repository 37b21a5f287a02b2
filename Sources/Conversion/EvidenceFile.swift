import Calibration
import Checkpoints
import Crypto
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// A file of evidence, as `EvidenceWriter` writes it: read one input at a time, every tensor checked against its SHA-256
/// and its values against what sums can be.
package struct EvidenceFile: StoredEvidence {
  package let header: EvidenceHeader
  private let file: SafetensorsFile
  private let hashes: [String: String]
  private let entries: [String: TensorEntry]
  /// Of each input.
  package let tokens: [Int]

  package init(_ path: FilePath) throws { try self.init(try SafetensorsFile(path)) }

  package init(_ file: SafetensorsFile) throws {
    self.file = file
    (header, hashes) = try EvidenceHeader.read(file)
    entries = Dictionary(file.header.tensors.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    var reader = Reader(file: file, hashes: hashes, entries: entries)
    // More tokens than a double counts exactly cannot have been summed.
    tokens = try reader.counts(EvidenceHeader.tokens, limit: 1 << 53)
  }

  static func isEvidence(_ file: SafetensorsFile) -> Bool {
    file.header.metadata["format"] == EvidenceHeader.formatName
  }

  package var place: String { file.path.string }
  package var inputs: [LinearInput] { header.inputs }
  package var hasHessians: Bool { header.hasHessians }

  package var record: JSONValue {
    [
      "file": .string(place), "model_sha256": .string(header.model), "texts": .array(header.texts),
      "hessians": .bool(hasHessians),
    ]
  }

  package func evidence(ofInput index: Int, withHessian: Bool, workers: Int) throws -> InputEvidence {
    var reader = Reader(file: file, hashes: hashes, entries: entries)
    func name(_ part: EvidenceHeader.Part) -> String { EvidenceHeader.name(part, ofInput: index) }
    let input = inputs[index]
    var sums = ColumnStatistics(columns: input.dimension)
    sums.magnitudeSums = try reader.sums(name(.magnitudeSums))
    sums.squareSums = try reader.sums(name(.squareSums))
    sums.largestMagnitudes = try reader.magnitudes(name(.largestMagnitudes))
    sums.exceedances = try reader.counts(name(.outlierTokens), limit: tokens[index])
    var hessian: Hessian?
    if withHessian {
      guard hasHessians else { throw EvidenceFileError(place, .noHessians) }
      let gram = try reader.matrix(name(.gram), dimension: input.dimension)
      do {
        hessian = try Hessian(sum: gram, tokens: tokens[index])
      } catch {
        throw EvidenceError(place, input.layers, error)
      }
    }
    return InputEvidence(
      input.layers, FeatureStatistics(tokens: tokens[index], threshold: header.threshold, sums: sums), hessian)
  }

  /// Reads tensors in parts, and hashes them on the way.
  private struct Reader {
    let file: SafetensorsFile
    let hashes: [String: String]
    let entries: [String: TensorEntry]
    private var buffer: [UInt8] = []

    init(file: SafetensorsFile, hashes: [String: String], entries: [String: TensorEntry]) {
      (self.file, self.hashes, self.entries) = (file, hashes, entries)
    }

    private func fault(_ reason: EvidenceFileError.Reason) -> EvidenceFileError {
      EvidenceFileError(file.path.string, reason)
    }

    /// - Parameter body: is given the bytes of each part, in order, and the offset of its first.
    private mutating func read(
      _ name: String, partLength: Int, _ body: (ArraySlice<UInt8>, _ offset: Int) -> Void
    ) throws {
      guard let entry = entries[name] else { throw fault(.missingTensor(name)) }
      var hasher = SHA256()
      for start in stride(from: 0, to: entry.bytes.count, by: partLength) {
        let part = start..<min(start + partLength, entry.bytes.count)
        try file.read(part, of: entry, into: &buffer)
        hasher.update(data: buffer[..<part.count])
        body(buffer[..<part.count], start)
      }
      guard hexadecimal(hasher.finalize()) == hashes[name] else { throw fault(.changed(name)) }
    }

    private mutating func words(_ name: String) throws -> [UInt64] {
      var words: [UInt64] = []
      try read(name, partLength: 1 << 16) { bytes, _ in
        for start in stride(from: bytes.startIndex, to: bytes.endIndex, by: 8) {
          words.append(bytes[start..<(start + 8)].reversed().reduce(0) { $0 << 8 | UInt64($1) })
        }
      }
      return words
    }

    mutating func counts(_ name: String, limit: Int) throws -> [Int] {
      try words(name).enumerated().map { index, word in
        let value = Int64(bitPattern: word)
        guard value >= 0, value <= Int64(limit) else {
          throw fault(.value(name, index: index, found: "\(value)", expected: "from 0 to \(limit)"))
        }
        return Int(value)
      }
    }

    mutating func sums(_ name: String) throws -> [Double] {
      try words(name).enumerated().map { index, word in
        let value = Double(bitPattern: word)
        guard value.isFinite, value >= 0 else {
          throw fault(.value(name, index: index, found: "\(value)", expected: "finite and from 0"))
        }
        return value
      }
    }

    mutating func magnitudes(_ name: String) throws -> [Float] {
      var values: [Float] = []
      try read(name, partLength: 1 << 16) { bytes, _ in
        var part = [Float](repeating: 0, count: bytes.count / 4)
        var span = part.mutableSpan
        decodeElements(bytes.span.bytes, as: .f32, into: &span)
        values += part
      }
      for (index, value) in values.enumerated() where !value.isFinite || value < 0 {
        throw fault(.value(name, index: index, found: "\(value)", expected: "finite and from 0"))
      }
      return values
    }

    mutating func matrix(_ name: String, dimension: Int) throws -> Matrix {
      let matrix = Matrix(rows: dimension, columns: dimension)
      let rowLength = dimension * 4
      let rows = max(1, (1 << 18) / rowLength)
      try read(name, partLength: rows * rowLength) { bytes, offset in
        let first = offset / rowLength
        matrix.withRows(first..<(first + bytes.count / rowLength)) { target in
          decodeElements(bytes.span.bytes, as: .f32, into: &target)
        }
      }
      return matrix
    }
  }
}
