import Checkpoints
import Kernels
import Packing
import Quantization
import SystemPackage

/// A folder whose quantized weights can be decoded: packed by this program, or laid down for a runtime, by whatever
/// program.
enum QuantizedCheckpoint: Sendable {
  case packed(PackedCheckpoint)
  case layout(LayoutCheckpoint)

  /// - Throws: `notPacked` where the folder holds nothing that is quantized in a way known here.
  init(_ path: FilePath) throws {
    if PackedCheckpoint.isPacked(path) {
      self = .packed(try PackedCheckpoint(path))
    } else if let layout = try LayoutCheckpoint(try Checkpoint(path)) {
      self = .layout(layout)
    } else {
      throw ConversionError.notPacked(path.string)
    }
  }

  var checkpoint: Checkpoint {
    switch self {
    case .packed(let packed): packed.checkpoint
    case .layout(let layout): layout.checkpoint
    }
  }

  /// A tensor of full precision, as it was or as it will be again.
  struct Tensor: Sendable {
    let name: String
    let shape: [Int]
    let type: ElementType
    /// The file that holds it.
    let file: String
    /// How it is quantized, in words; nil if it is kept.
    let label: String?
    let reasonToKeep: String
    /// Whether scales are folded into it, or it was tuned, so that its values are not those of the source.
    let isFolded: Bool
    let storedByteCount: Int
    fileprivate let content: Content

    fileprivate enum Content: Sendable {
      case packed(PackedManifest.Record)
      case layout(LayoutCheckpoint.Record)
    }

    /// Whether its codes run over its transpose.
    var isTransposed: Bool {
      switch content {
      case .packed(let record): record.isTransposed
      case .layout(let record): record.isTransposed
      }
    }

    /// What the manifest of a packed folder says of it; nil where there is none.
    var manifestRecord: PackedManifest.Record? { if case .packed(let record) = content { record } else { nil } }

    var isQuantized: Bool { label != nil }
    var elementCount: Int { shape.reduce(1, *) }
    /// Bytes that it takes in full precision.
    var byteCount: Int { elementCount * type.bitWidth / 8 }

    /// Elements that are well decoded at a time.
    var tileLength: Int {
      // A tile of a transposed weight is a stretch of each row that codes run along: long ones are few.
      if isTransposed { return 1 << 18 }
      guard case .packed(let record) = content, let encoding = record.encoding else { return Tiling.usualLength }
      return Tiling(encoding.grouping(of: record.shape), encoding)?.tileLength ?? Tiling.usualLength
    }
  }

  var tensors: [Tensor] {
    switch self {
    case .packed(let packed):
      return packed.manifest.records.map { record in
        var reason = ""
        if case .kept(let why) = record.fate { reason = why }
        if case .folded(let why) = record.fate { reason = why }
        return Tensor(
          name: record.name, shape: record.shape, type: record.type, file: record.file, label: record.encoding?.label,
          reasonToKeep: reason, isFolded: record.isFolded, storedByteCount: record.storedByteCount,
          content: .packed(record))
      }
    case .layout(let layout):
      let changed = CalibrationSummary.changedTensors(in: layout.checkpoint.folder)
      return layout.records.map { record in
        let change = changed[record.name]
        return Tensor(
          name: record.name, shape: record.shape, type: record.type,
          file: layout.checkpoint.files[record.fileIndex].path.lastComponent?.string ?? "", label: record.label,
          reasonToKeep: change.map { "not quantized, \($0)" } ?? "not quantized", isFolded: change != nil,
          storedByteCount: record.storedByteCount, content: .layout(record))
      }
    }
  }

  /// Bytes of tensors that stand for no tensor of the source: codebooks, scales of activations.
  var auxiliaryByteCount: Int {
    switch self {
    case .packed(let packed): packed.manifest.codebooks.reduce(0) { $0 + $1.byteCount }
    case .layout(let layout): layout.auxiliary.reduce(0) { $0 + $1.entry.bytes.count }
    }
  }

  /// The names of the files with the weights.
  var fileNames: [String] { checkpoint.files.map { $0.path.lastComponent?.string ?? "" } }

  /// Buffers for decoding.
  struct Workspace {
    var packed = PackedCheckpoint.Workspace()
    var bytes: [UInt8] = []
    /// Whether only few runs of each tensor are decoded, so that no weight should be read whole.
    var isSampling = false
  }

  /// Reads a run of elements, from a multiple of eight on, as float32.
  func decode(
    _ tensor: Tensor, _ elements: Range<Int>, into values: inout [Float], using workspace: inout Workspace
  ) throws {
    switch (self, tensor.content) {
    case (.packed(let packed), .packed(let record)):
      try packed.decode(record, elements, into: &values, using: &workspace.packed)
    case (.layout(let layout), .layout(let record)):
      try layout.decode(record, elements, into: &values, bytes: &workspace.bytes, isAlone: workspace.isSampling)
    default: preconditionFailure("a tensor of another checkpoint")
    }
  }

  /// The same in the order of the weight's codes, which are then in the workspace where the format has them.
  func decodeCoded(
    _ tensor: Tensor, _ elements: Range<Int>, into values: inout [Float], using workspace: inout Workspace
  ) throws {
    guard tensor.isTransposed else { return try decode(tensor, elements, into: &values, using: &workspace) }
    switch (self, tensor.content) {
    case (.packed(let packed), .packed(let record)):
      try packed.decode(record.coded, elements, into: &values, using: &workspace.packed)
    case (.layout(let layout), .layout(let record)):
      try layout.weight(record)?.decode(elements, into: &values)
    default: preconditionFailure("a tensor of another checkpoint")
    }
  }

  /// The stored tensors that one is made of, in the order of its format.
  func members(of tensor: Tensor) -> [CheckpointTensor] {
    switch tensor.content {
    case .packed(let record): record.members.compactMap { checkpoint[$0.tensor] }
    case .layout(let record): record.members
    }
  }

  /// A weight of a runtime's layout with its codes; nil for others.
  func codedWeight(_ tensor: Tensor) throws(CheckpointError) -> CodedWeight? {
    guard case .layout(let layout) = self, case .layout(let record) = tensor.content else { return nil }
    return try layout.weight(record)
  }

  /// The tensor itself, where it is kept.
  func stored(_ tensor: Tensor) -> CheckpointTensor? { tensor.isQuantized ? nil : checkpoint[tensor.name] }
}
