import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Quantization

/// The manifest of a packed folder: what became of every tensor of the source, and the hash of every stored byte.
package struct PackedManifest: Sendable {
  /// What became of one source tensor.
  package struct Record: Hashable, Sendable {
    package let name: String
    /// Of the source tensor.
    package let shape: [Int]
    /// Whether the source stores the weight `[…, inputs, outputs]`, and the codes run over its transpose.
    package let isTransposed: Bool
    package let type: ElementType
    /// Output file, by name.
    package let file: String
    package let fate: Fate
    /// In the order of `PackedFormat.members`; one member, `data`, for a kept tensor.
    package var members: [StoredMember]
    /// The sum of the codes of a quantized tensor as they were before they were packed; nil in older manifests.
    package let codeSum: Int?
    /// What it lost, by the elements of `ElementSample`; nil in older manifests. Of weights with scales folded in, which are
    /// not the source's, Σ ŵ² alone is known, and the other sums are 0.
    package let loss: LossSums?

    package init(
      name: String, shape: [Int], isTransposed: Bool = false, type: ElementType, file: String, fate: Fate,
      members: [StoredMember], codeSum: Int? = nil, loss: LossSums? = nil
    ) {
      self.name = name
      self.shape = shape
      self.isTransposed = isTransposed
      self.type = type
      self.file = file
      self.fate = fate
      self.members = members
      self.codeSum = codeSum
      self.loss = loss
    }

    /// The weight as its codes run: of a transposed one, the transpose of what the source has.
    package var coded: Record {
      guard isTransposed else { return self }
      return Record(
        name: name, shape: codedShape, type: type, file: file, fate: fate, members: members, codeSum: codeSum,
        loss: loss)
    }

    package var codedShape: [Int] { isTransposed ? exchangingLastTwo(shape) : shape }

    package var elementCount: Int { shape.reduce(1, *) }
    package var sourceByteCount: Int { elementCount * type.bitWidth / 8 }
    package var storedByteCount: Int { members.reduce(0) { $0 + $1.byteCount } }
    package var bitsPerWeight: Double {
      elementCount > 0 ? Double(storedByteCount) * 8 / Double(elementCount) : 0
    }
    /// Whether scales are folded into it, or it was tuned, so that its values are not those of the source.
    package var isFolded: Bool {
      switch fate {
      case .kept: false
      case .folded: true
      case .quantized(_, let scheme): scheme["folded"]?.bool ?? false
      }
    }
    package var encoding: WeightEncoding? {
      if case .quantized(let encoding, _) = fate { encoding } else { nil }
    }
  }

  /// The bucket of a tensor.
  package enum Fate: Hashable, Sendable {
    /// `scheme`: how it was made, for people and reports; decoding needs the encoding alone.
    case quantized(WeightEncoding, scheme: OrderedDictionary<String, JSONValue>)
    case kept(reason: String)
    /// Stored under its own name and in its type, with other values: scales are folded in, or it was tuned.
    case folded(reason: String)

    package var isQuantized: Bool { if case .quantized = self { true } else { false } }
  }

  package struct StoredMember: Hashable, Sendable {
    package let role: PackedFormat.Role
    package let tensor: String
    package let byteCount: Int
    /// Lower-case hexadecimal, of the member's bytes.
    package var sha256: String

    package init(role: PackedFormat.Role, tensor: String, byteCount: Int, sha256: String) {
      self.role = role
      self.tensor = tensor
      self.byteCount = byteCount
      self.sha256 = sha256
    }
  }

  /// A file of the folder that holds tensors.
  package struct File: Hashable, Sendable {
    package let name: String
    package let byteCount: Int

    package init(name: String, byteCount: Int) {
      self.name = name
      self.byteCount = byteCount
    }
  }

  /// The sums of a record's `loss`.
  fileprivate static var lossSums: [(String, WritableKeyPath<LossSums, Double>)] {
    [("source_squares", \.source), (decodedSum, \.decoded), ("squared_error", \.error)]
  }
  fileprivate static let decodedSum = "decoded_squares"

  package static let fileName = "quantization_manifest.json"
  /// Bytes of a manifest, which takes about a thousand for each tensor: far above any model's.
  package static let sizeLimit = 1 << 30

  /// The least version of the format that has what the records say.
  package var version: Int { records.contains(where: \.isTransposed) ? 2 : 1 }

  package let toolVersion: String
  /// The family of processors whose loops of OpenBLAS summed what the codes were chosen by; nil where none did.
  package let arithmetic: String?
  /// The options of the conversion, as given and completed by defaults.
  package let recipe: JSONValue
  package let sourceFiles: [File]
  package let files: [File]
  package let codebooks: [StoredMember]
  package let copiedFiles: [String]
  package var records: [Record]

  package init(
    toolVersion: String, arithmetic: String? = nil, recipe: JSONValue, sourceFiles: [File], files: [File],
    codebooks: [StoredMember], copiedFiles: [String], records: [Record]
  ) {
    self.toolVersion = toolVersion
    self.arithmetic = arithmetic
    self.recipe = recipe
    self.sourceFiles = sourceFiles
    self.files = files
    self.codebooks = codebooks
    self.copiedFiles = copiedFiles
    self.records = records
  }
}

// MARK: - JSON

extension PackedManifest {
  package var json: JSONValue {
    let files = { (files: [File]) -> JSONValue in
      .array(files.map { ["name": .string($0.name), "bytes": .integer($0.byteCount)] })
    }
    var tensors: OrderedDictionary<String, JSONValue> = [:]
    for record in records { tensors[record.name] = record.json }
    var producer: OrderedDictionary<String, JSONValue> = ["name": "convert-model", "version": .string(toolVersion)]
    if let arithmetic { producer["openblas_family"] = .string(arithmetic) }
    return [
      "format": .string(PackedFormat.name),
      "version": .integer(version),
      "producer": .object(producer),
      "recipe": recipe,
      "source_files": files(sourceFiles),
      "files": files(self.files),
      "copied_files": .array(copiedFiles.map { .string($0) }),
      "codebooks": .array(codebooks.map(\.json)),
      "tensors": .object(tensors),
    ]
  }

  /// - Throws: an error naming the first field that is missing or wrong.
  package init(_ json: JSONValue, file: String) throws(CheckpointError) {
    let reader = ManifestReader(file: file)
    guard json["format"]?.string == PackedFormat.name else { throw reader.fault("format", "'\(PackedFormat.name)'") }
    guard let version = json["version"]?.integer, (1...PackedFormat.version).contains(version) else {
      throw reader.fault("version", "from 1 to \(PackedFormat.version), the versions this program reads")
    }
    toolVersion = json["producer"]?["version"]?.string ?? "unknown"
    arithmetic = json["producer"]?["openblas_family"]?.string
    recipe = json["recipe"] ?? .null
    sourceFiles = try reader.files(json["source_files"], "source_files")
    files = try reader.files(json["files"], "files")
    copiedFiles = (json["copied_files"]?.array ?? []).compactMap(\.string)
    guard let books = json["codebooks"]?.array else { throw reader.fault("codebooks", "a list") }
    var codebooks: [StoredMember] = []
    for book in books { codebooks.append(try reader.member(book, tensor: nil)) }
    self.codebooks = codebooks
    guard let tensors = json["tensors"]?.object else { throw reader.fault("tensors", "an object") }
    var records: [Record] = []
    for (name, value) in tensors {
      let record = try reader.record(name, value)
      if record.isTransposed, version < 2 {
        throw reader.fault("transposed", "absent in version \(version)", tensor: name)
      }
      records.append(record)
    }
    self.records = records
  }
}

extension PackedManifest.Record {
  fileprivate var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [
      "dtype": .string(type.rawValue),
      "shape": .array(shape.map { .integer($0) }),
      "file": .string(file),
    ]
    switch fate {
    case .quantized(let encoding, let scheme):
      fields["bucket"] = "quantized"
      if isTransposed { fields["transposed"] = true }
      fields["encoding"] = encoding.json
      fields["scheme"] = .object(scheme)
    case .kept(let reason):
      fields["bucket"] = "kept"
      fields["reason"] = .string(reason)
    case .folded(let reason):
      fields["bucket"] = "folded"
      fields["reason"] = .string(reason)
    }
    fields["source_bytes"] = .integer(sourceByteCount)
    fields["stored_bytes"] = .integer(storedByteCount)
    if let codeSum { fields["code_sum"] = .string(Self.padded(codeSum)) }
    if let loss {
      var sums: OrderedDictionary<String, JSONValue> = [:]
      for (name, sum) in PackedManifest.lossSums where !isFolded || name == PackedManifest.decodedSum {
        sums[name] = .string(Self.padded(loss[keyPath: sum]))
      }
      fields["loss"] = .object(sums)
    }
    fields["members"] = .array(members.map(\.json))
    return .object(fields)
  }
}

extension PackedManifest.Record {
  /// As many digits for every sum, so that the manifest's length is known before any is.
  private static func padded(_ sum: Int) -> String {
    let digits = String(sum)
    return String(repeating: "0", count: max(0, 20 - digits.utf8.count)) + digits
  }

  /// As many digits for every sum, from which the same number is read again.
  private static func padded(_ sum: Double) -> String { String(format: "%.16e", sum) }
}

extension PackedManifest.StoredMember {
  fileprivate var json: JSONValue {
    [
      "role": .string(role.rawValue), "tensor": .string(tensor), "bytes": .integer(byteCount),
      "sha256": .string(sha256),
    ]
  }
}

extension WeightEncoding {
  package var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["bits": .integer(bits)]
    switch levels {
    case .affine(let zeroPoint):
      fields["levels"] = "affine"
      fields["zero_point"] = .string(zeroPoint.rawValue)
    case .codebook(let name):
      fields["levels"] = "codebook"
      fields["codebook"] = .string(name.rawValue)
    }
    switch sharing {
    case .tensor: fields["sharing"] = "tensor"
    case .row: fields["sharing"] = "row"
    case .group(let size):
      fields["sharing"] = "group"
      fields["group_size"] = .integer(size)
    case .block(let size):
      fields["sharing"] = "block"
      fields["group_size"] = .integer(size)
    }
    switch scales {
    case .plain(let type): fields["scales"] = .string(type.rawValue)
    case .nested(let blockSize):
      fields["scales"] = "nested"
      fields["scale_block_size"] = .integer(blockSize)
    }
    if hasGroupIndex { fields["group_index"] = true }
    if let outliers {
      fields["outlier_columns"] = .integer(outliers.count)
      fields["outlier_type"] = .string(outliers.type.rawValue)
    }
    return .object(fields)
  }
}

/// Reads the parts of a manifest; what it accepts is safe to compute with.
private struct ManifestReader {
  let file: String

  /// Sizes that some file can have, and whose sums do not overflow.
  private static let sizes = 0..<(1 << 48)

  func fault(_ field: String, _ expected: String, tensor: String? = nil) -> CheckpointError {
    CheckpointError(file: file, tensor: tensor, .field(field, expected: expected))
  }

  func files(_ value: JSONValue?, _ field: String) throws(CheckpointError) -> [PackedManifest.File] {
    guard let items = value?.array else { throw fault(field, "a list") }
    var files: [PackedManifest.File] = []
    for item in items {
      guard let name = item["name"]?.string, let bytes = item["bytes"]?.integer, Self.sizes.contains(bytes) else {
        throw fault(field, "a list of objects with 'name' and 'bytes'")
      }
      files.append(PackedManifest.File(name: name, byteCount: bytes))
    }
    return files
  }

  func member(_ value: JSONValue, tensor: String?) throws(CheckpointError) -> PackedManifest.StoredMember {
    guard let role = value["role"]?.string.flatMap(PackedFormat.Role.init(rawValue:)) else {
      let known = PackedFormat.Role.allCases.map(\.rawValue).joined(separator: ", ")
      throw fault("role", "one of \(known)", tensor: tensor)
    }
    guard let name = value["tensor"]?.string, let bytes = value["bytes"]?.integer, Self.sizes.contains(bytes),
      let hash = value["sha256"]?.string
    else { throw fault("members", "objects with 'role', 'tensor', 'bytes' and 'sha256'", tensor: tensor) }
    return PackedManifest.StoredMember(role: role, tensor: name, byteCount: bytes, sha256: hash)
  }

  func record(_ name: String, _ value: JSONValue) throws(CheckpointError) -> PackedManifest.Record {
    guard let type = value["dtype"]?.string.flatMap(ElementType.init(rawValue:)) else {
      throw fault("dtype", "a safetensors dtype", tensor: name)
    }
    guard let sizes = value["shape"]?.array, let shape = Self.shape(sizes, type: type) else {
      throw fault("shape", "a list of sizes that some file can hold", tensor: name)
    }
    guard let output = value["file"]?.string else { throw fault("file", "a file name", tensor: name) }
    guard let items = value["members"]?.array, items.count <= PackedFormat.Role.allCases.count else {
      throw fault("members", "a list with each role once", tensor: name)
    }
    var members: [PackedManifest.StoredMember] = []
    for item in items { members.append(try member(item, tensor: name)) }
    let isTransposed = value["transposed"]?.bool ?? false
    let fate: PackedManifest.Fate
    switch value["bucket"]?.string {
    case _ where isTransposed && (shape.count < 2 || value["bucket"]?.string != "quantized"):
      throw fault("transposed", "absent but for quantized tensors of two dimensions or more", tensor: name)
    case "kept": fate = .kept(reason: value["reason"]?.string ?? "")
    case "folded":
      guard type.isFullPrecision else {
        throw fault("bucket", "'kept' for a tensor of this dtype", tensor: name)
      }
      fate = .folded(reason: value["reason"]?.string ?? "")
    case "quantized":
      guard type.isFullPrecision, shape.allSatisfy({ $0 > 0 }) else {
        throw fault("bucket", "'kept' for a tensor of this dtype or without elements", tensor: name)
      }
      fate = .quantized(
        try encoding(value["encoding"], width: (isTransposed ? shape.dropLast() : shape[...]).last ?? 1, tensor: name),
        scheme: value["scheme"]?.object ?? [:])
    default: throw fault("bucket", "'quantized', 'kept' or 'folded'", tensor: name)
    }
    var codeSum: Int?
    if let value = value["code_sum"] {
      guard let sum = value.string.flatMap({ Int($0) }), sum >= 0 else {
        throw fault("code_sum", "a string of decimal digits", tensor: name)
      }
      codeSum = sum
    }
    let record = PackedManifest.Record(
      name: name, shape: shape, isTransposed: isTransposed, type: type, file: output, fate: fate, members: members,
      codeSum: codeSum, loss: try loss(value["loss"], tensor: name))
    guard value["source_bytes"]?.integer == record.sourceByteCount else {
      throw fault("source_bytes", "\(record.sourceByteCount), as dtype and shape say", tensor: name)
    }
    guard value["stored_bytes"]?.integer == record.storedByteCount else {
      throw fault("stored_bytes", "\(record.storedByteCount), the sum of its members", tensor: name)
    }
    return record
  }

  private func loss(_ value: JSONValue?, tensor: String) throws(CheckpointError) -> LossSums? {
    guard let value else { return nil }
    var loss = LossSums()
    for (name, sum) in PackedManifest.lossSums {
      // Folded weights have the sum of their own squares alone.
      if value[name] == nil, name != PackedManifest.decodedSum { continue }
      guard let number = value[name]?.string.flatMap(Double.init), number.isFinite, number >= 0 else {
        throw fault("loss", "an object with '\(name)', a string with a number", tensor: tensor)
      }
      loss[keyPath: sum] = number
    }
    return loss
  }

  /// Sizes whose product, in bits, stays far from overflow.
  private static func shape(_ sizes: [JSONValue], type: ElementType) -> [Int]? {
    var bits = type.bitWidth
    var shape: [Int] = []
    for size in sizes {
      guard let size = size.integer, size >= 0 else { return nil }
      let (product, overflow) = bits.multipliedReportingOverflow(by: max(size, 1))
      guard !overflow, product < 1 << 60 else { return nil }
      bits = product
      shape.append(size)
    }
    return shape
  }

  /// - Parameter width: the tensor's last dimension.
  private func encoding(
    _ value: JSONValue?, width: Int, tensor: String
  ) throws(CheckpointError) -> WeightEncoding {
    guard let bits = value?["bits"]?.integer, (2...8).contains(bits) else {
      throw fault("bits", "from 2 to 8", tensor: tensor)
    }
    let levels: WeightEncoding.Levels
    switch value?["levels"]?.string {
    case "affine":
      guard let zeroPoint = value?["zero_point"]?.string.flatMap(WeightEncoding.ZeroPoint.init(rawValue:)) else {
        throw fault("zero_point", "'middle', 'integer' or 'float'", tensor: tensor)
      }
      levels = .affine(zeroPoint)
    case "codebook":
      guard let name = value?["codebook"]?.string.flatMap(NamedCodebook.init(rawValue:)), name != .dynamic8, bits == 4
      else { throw fault("codebook", "'nf4' or 'fp4', with 4 bits", tensor: tensor) }
      levels = .codebook(name)
    default: throw fault("levels", "'affine' or 'codebook'", tensor: tensor)
    }
    let groupSize = value?["group_size"]?.integer ?? 0
    let sharing: WeightEncoding.Sharing
    switch value?["sharing"]?.string {
    case "tensor": sharing = .tensor
    case "row": sharing = .row
    case "group" where groupSize > 0: sharing = .group(groupSize)
    case "block" where groupSize > 0: sharing = .block(groupSize)
    default: throw fault("sharing", "'tensor', 'row', 'group' or 'block', with a group_size", tensor: tensor)
    }
    let scales: WeightEncoding.Scales
    switch value?["scales"]?.string {
    case "F32": scales = .plain(.f32)
    case "F16": scales = .plain(.f16)
    case "BF16": scales = .plain(.bf16)
    case "nested":
      guard let size = value?["scale_block_size"]?.integer, size > 0, size <= 1 << 20,
        size % 8 == 0
      else {
        throw fault("scale_block_size", "a positive multiple of 8", tensor: tensor)
      }
      scales = .nested(blockSize: size)
    default: throw fault("scales", "'F32', 'F16', 'BF16' or 'nested'", tensor: tensor)
    }
    if case .nested = scales, case .affine = levels {
      throw fault("scales", "'F32', 'F16' or 'BF16' with affine levels", tensor: tensor)
    }
    let outliers = try outliers(value, width: width, tensor: tensor)
    let hasGroupIndex = value?["group_index"]?.bool ?? false
    if hasGroupIndex {
      guard case .group = sharing, case .affine = levels, outliers == nil else {
        throw fault("group_index", "absent but for affine levels in groups, without outlier columns", tensor: tensor)
      }
    }
    return WeightEncoding(
      bits: bits, levels: levels, sharing: sharing, scales: scales, outliers: outliers, hasGroupIndex: hasGroupIndex)
  }

  private func outliers(
    _ value: JSONValue?, width: Int, tensor: String
  ) throws(CheckpointError) -> WeightEncoding.Outliers? {
    guard let count = value?["outlier_columns"] else { return nil }
    guard let count = count.integer, (1...width).contains(count) else {
      throw fault("outlier_columns", "a number of columns, from 1 to the \(width) of the tensor", tensor: tensor)
    }
    guard let type = value?["outlier_type"]?.string.flatMap(ElementType.init(rawValue:)), type == .f16 || type == .bf16
    else { throw fault("outlier_type", "'F16' or 'BF16'", tensor: tensor) }
    return WeightEncoding.Outliers(count: count, type: type)
  }
}
