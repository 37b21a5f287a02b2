import Checkpoints
import Evaluation
import Kernels
import Models
import Packing
import Quantization
import SystemPackage

/// A folder or file of any kind that is read, as tensors that can be decoded: dense, packed, in the layout of a runtime,
/// or a GGUF file.
enum DecodableCheckpoint: Sendable {
  case dense(Checkpoint)
  case quantized(QuantizedCheckpoint)
  /// With the names and arrangement of Hugging Face's checkpoint; without a source under its own names, as stored.
  case gguf(GGUFFile, GGUFSource?)

  struct Tensor: Sendable {
    let name: String
    /// As the checkpoint of full precision has it.
    let shape: [Int]
    /// The dtype, block type or scheme.
    let format: String
    let storedByteCount: Int
    /// Whether it is quantized, as opposed to stored as plain numbers.
    let isQuantized: Bool
    /// Whether scales are folded into its values.
    let isFolded: Bool
    /// Whether its values can be decoded.
    let isReadable: Bool
    let content: Content

    enum Content: Sendable {
      case dense(CheckpointTensor)
      case quantized(QuantizedCheckpoint.Tensor)
      case gguf(GGUFTensor)
    }

    var elementCount: Int { shape.reduce(1, *) }

    /// The name that it has in its own file.
    var storedName: String { if case .gguf(let tensor) = content { tensor.name } else { name } }

    /// How it is quantized, in words; nil if it is kept.
    var label: String? {
      switch content {
      case .dense: nil
      case .quantized(let tensor): tensor.label
      case .gguf(let tensor): isQuantized ? tensor.type.name : nil
      }
    }

    var reasonToKeep: String {
      switch content {
      case .dense: "not quantized"
      case .quantized(let tensor): tensor.reasonToKeep
      case .gguf(let tensor): "stored as \(tensor.type.name)"
      }
    }

    /// Elements that are well decoded at a time.
    var tileLength: Int {
      switch content {
      case .dense: Tiling.usualLength
      case .quantized(let tensor): tensor.tileLength
      // Whole blocks, where rows keep their places.
      case .gguf: 1 << 17
      }
    }

    /// Whether its codes run over its transpose.
    var isTransposed: Bool { if case .quantized(let tensor) = content { tensor.isTransposed } else { false } }

    /// The type of its values in full precision; nil in a GGUF file.
    var type: ElementType? {
      switch content {
      case .dense(let tensor): tensor.entry.type
      case .quantized(let tensor): tensor.type
      case .gguf(let tensor): tensor.type.elementType
      }
    }

    /// What it would take in that type.
    var sourceByteCount: Int { elementCount * (type?.bitWidth ?? 0) / 8 }
  }

  /// - Parameter ggufNames: whether a GGUF file is taken under its own names, which needs no architecture known here.
  init(_ path: FilePath, ggufNames: Bool = false) throws {
    if GGUFFile.isGGUF(path) {
      let file = try GGUFFile(path)
      self = .gguf(file, ggufNames ? nil : try GGUFSource(file))
    } else if PackedCheckpoint.isPacked(path) {
      self = .quantized(try QuantizedCheckpoint(path))
    } else {
      let checkpoint = try Checkpoint(path)
      self = try LayoutCheckpoint(checkpoint).map { .quantized(.layout($0)) } ?? .dense(checkpoint)
    }
  }

  /// What it is, in a few words.
  var kind: String {
    switch self {
    case .dense: "safetensors"
    case .quantized(.packed(let packed)): "packed by convert-model \(packed.manifest.toolVersion.printable)"
    case .quantized(.layout(let layout)): "\(layout.family.name) layout"
    case .gguf: "GGUF"
    }
  }

  /// The folder of its files; nil for a GGUF file.
  var folder: FilePath? {
    switch self {
    case .dense(let checkpoint): checkpoint.folder
    case .quantized(let quantized): quantized.checkpoint.folder
    case .gguf: nil
    }
  }

  /// The files with the weights.
  var files: [FilePath] {
    switch self {
    case .dense(let checkpoint): checkpoint.files.map(\.path)
    case .quantized(let quantized): quantized.checkpoint.files.map(\.path)
    case .gguf(let file, _): [file.path]
    }
  }

  /// The row of GGUF's table of names that its architecture has; nil where that is not known.
  var architecture: GGUFArchitecture? {
    switch self {
    case .dense(let checkpoint): Self.architecture(checkpoint)
    case .quantized(let quantized): Self.architecture(quantized.checkpoint)
    case .gguf(_, let source): source?.architecture
    }
  }

  /// Bytes of all its files with weights, and of tensors in them that stand for none of the model's: codebooks, scales of
  /// activations, constants that runtimes compute.
  var sizes: (files: Int, tensors: Int, auxiliary: Int) {
    switch self {
    case .gguf(let file, let source):
      let all = file.header.tensors.reduce(0) { $0 + $1.bytes.count }
      let named = source.map { source in Set(source.tensorNames.compactMap { source.storedTensor($0)?.name }) }
      let strange = file.header.tensors.filter { named?.contains($0.name) == false }
      return (file.fileSize, all, strange.reduce(0) { $0 + $1.bytes.count })
    case .dense(let checkpoint): return Self.sizes(checkpoint, auxiliary: 0)
    case .quantized(let quantized): return Self.sizes(quantized.checkpoint, auxiliary: quantized.auxiliaryByteCount)
    }
  }

  private static func sizes(_ checkpoint: Checkpoint, auxiliary: Int) -> (files: Int, tensors: Int, auxiliary: Int) {
    (
      checkpoint.files.reduce(0) { $0 + $1.header.fileSize },
      checkpoint.files.reduce(0) { $0 + $1.header.tensors.reduce(0) { $0 + $1.bytes.count } }, auxiliary
    )
  }

  private static func architecture(_ checkpoint: Checkpoint) -> GGUFArchitecture? {
    checkpoint.configuration?["model_type"]?.string.flatMap { GGUFArchitecture.of(modelType: $0) }
  }

  /// In file order.
  var tensors: [Tensor] {
    switch self {
    case .dense(let checkpoint):
      return checkpoint.tensors.map { tensor in
        Tensor(
          name: tensor.name, shape: tensor.entry.shape, format: tensor.entry.type.rawValue,
          storedByteCount: tensor.entry.bytes.count, isQuantized: false, isFolded: false,
          isReadable: tensor.entry.type != .c64, content: .dense(tensor))
      }
    case .quantized(let quantized):
      return quantized.tensors.map { tensor in
        Tensor(
          name: tensor.name, shape: tensor.shape, format: tensor.label ?? tensor.type.rawValue,
          storedByteCount: tensor.storedByteCount, isQuantized: tensor.isQuantized, isFolded: tensor.isFolded,
          isReadable: tensor.type != .c64, content: .quantized(tensor))
      }
    case .gguf(let file, let source):
      let named = source.map { source in
        source.tensorNames.compactMap { name in source.storedTensor(name).map { (name, $0) } }
      }
      return (named ?? file.header.tensors.map { ($0.name, $0) }).map { name, tensor in
        Tensor(
          name: name, shape: source?.shape(of: name) ?? tensor.shape, format: tensor.type.name,
          storedByteCount: tensor.bytes.count, isQuantized: !tensor.type.isPlain, isFolded: false,
          isReadable: tensor.type.isReadable, content: .gguf(tensor))
      }
    }
  }

  /// The stored parts of a tensor that is quantized or not, in the order of its format.
  func parts(of tensor: Tensor) -> [StoredPart] {
    switch tensor.content {
    case .dense(let tensor): return [.safetensors(tensor)]
    case .gguf(let tensor):
      guard case .gguf(let file, _) = self else { return [] }
      return [.gguf(file, tensor)]
    case .quantized(let tensor):
      guard case .quantized(let quantized) = self else { return [] }
      return quantized.members(of: tensor).map { .safetensors($0) }
    }
  }

  /// A stretch of bytes in a file.
  enum StoredPart: Sendable {
    case safetensors(CheckpointTensor)
    case gguf(GGUFFile, GGUFTensor)

    var byteCount: Int {
      switch self {
      case .safetensors(let tensor): tensor.entry.bytes.count
      case .gguf(_, let tensor): tensor.bytes.count
      }
    }

    func read(_ range: Range<Int>, into bytes: inout [UInt8]) throws(CheckpointError) {
      switch self {
      case .safetensors(let tensor): try tensor.readBytes(range, into: &bytes)
      case .gguf(let file, let tensor): try file.read(range, of: tensor, into: &bytes)
      }
    }
  }

  // MARK: Values

  /// - Parameter isSampling: whether only few runs of each tensor are decoded, so that no weight should be read whole.
  func makeReader(isSampling: Bool = false) -> Reader {
    var source: (any WeightReader)?
    if case .gguf(_, let known?) = self { source = known.makeReader() }
    return Reader(checkpoint: self, source: source, isSampling: isSampling)
  }

  /// How the codes of a tensor are grouped, in the order in which they are stored; nil where it has none, and for GGUF
  /// blocks under names that are not the file's, whose rows may have other places.
  /// - Throws: if a weight in the layout of a runtime cannot be read, which its form is known from.
  func codeForm(of tensor: Tensor) throws(CheckpointError) -> CodeForm? {
    if case .gguf(let stored) = tensor.content, case .gguf(_, nil) = self {
      return CodeForm(stored.type, columns: stored.columns)
    }
    guard case .quantized(let quantized) = self, case .quantized(let stored) = tensor.content else { return nil }
    // Spelled out: the optimizer of Swift 6.3.1 stops at closures here.
    if let record = stored.manifestRecord {
      guard let encoding = record.encoding else { return nil }
      return CodeForm(encoding, shape: record.codedShape)
    }
    guard let weight = try quantized.codedWeight(stored) else { return nil }
    return CodeForm(weight)
  }

  /// Decodes runs of elements; each thread takes one.
  struct Reader {
    fileprivate let checkpoint: DecodableCheckpoint
    fileprivate var source: (any WeightReader)?
    private(set) var workspace = QuantizedCheckpoint.Workspace()
    private var bytes: [UInt8] = []

    fileprivate init(checkpoint: DecodableCheckpoint, source: (any WeightReader)?, isSampling: Bool) {
      self.checkpoint = checkpoint
      self.source = source
      workspace.isSampling = isSampling
    }

    /// - Parameter elements: of the flattened tensor, which `isReadable`, from a multiple of eight on.
    mutating func read(_ tensor: Tensor, _ elements: Range<Int>, into values: inout [Float]) throws {
      switch (checkpoint, tensor.content) {
      case (.dense, .dense(let stored)):
        _ = try readValues(stored, elements, bytes: &bytes, values: &values)
      case (.quantized(let quantized), .quantized(let stored)):
        try quantized.decode(stored, elements, into: &values, using: &workspace)
      case (.gguf(let file, nil), .gguf(let stored)):
        try Self.read(stored, of: file, elements, into: &values, bytes: &bytes)
      case (.gguf, .gguf): try source?.read(tensor.name, elements, into: &values)
      default: preconditionFailure("a tensor of another checkpoint")
      }
    }

    /// The same, with the codes of the elements; of a weight whose codes run over its transpose, elements of that.
    mutating func readCodes(
      _ tensor: Tensor, _ elements: Range<Int>, into values: inout [Float]
    ) throws -> CodeParts? {
      if case .gguf(let stored) = tensor.content, case .gguf(let file, nil) = checkpoint, !elements.isEmpty {
        try read(tensor, elements, into: &values)
        return try Self.codes(stored, of: file, elements, bytes: &bytes)
      }
      guard case .quantized(let quantized) = checkpoint, case .quantized(let stored) = tensor.content,
        stored.isQuantized, !elements.isEmpty
      else {
        try read(tensor, elements, into: &values)
        return nil
      }
      try quantized.decodeCoded(stored, elements, into: &values, using: &workspace)
      if stored.manifestRecord != nil {
        let packed = workspace.packed
        return CodeParts(
          codes: packed.codes, scales: packed.scales, zeroPoints: packed.zeroPoints, firstGroup: packed.firstGroup)
      }
      guard let weight = try quantized.codedWeight(stored) else { return nil }
      let form = CodeForm(weight)
      let groups = form.group(of: elements.lowerBound)..<form.group(of: elements.upperBound - 1) + 1
      return CodeParts(
        codes: Array(weight.codes[elements]), scales: weight.scales[groups].map { $0 / weight.divisor * weight.factor },
        zeroPoints: weight.zeroPoints.isEmpty ? [] : Array(weight.zeroPoints[groups]), firstGroup: groups.lowerBound)
    }

    /// Takes a run of blocks apart. Offsets become zero points: scale · level + offset = scale · (level − zero point).
    private static func codes(
      _ tensor: GGUFTensor, of file: GGUFFile, _ elements: Range<Int>, bytes: inout [UInt8]
    ) throws(CheckpointError) -> CodeParts? {
      let type = tensor.type
      guard let length = type.groups?.length else { return nil }
      let blocks = elements.lowerBound / type.blockLength..<((elements.upperBound - 1) / type.blockLength + 1)
      let count = blocks.count * type.blockBytes
      try file.read(blocks.lowerBound * type.blockBytes..<blocks.upperBound * type.blockBytes, of: tensor, into: &bytes)
      let parts = type.parts(of: bytes.span.extracting(..<count))
      let first = blocks.lowerBound * type.blockLength
      let groups = (elements.lowerBound - first) / length..<((elements.upperBound - 1 - first) / length + 1)
      return CodeParts(
        codes: Array(parts.codes[elements.lowerBound - first..<elements.upperBound - first]),
        scales: Array(parts.scales[groups]),
        zeroPoints: parts.offsets.isEmpty ? [] : groups.map { -parts.offsets[$0] / parts.scales[$0] },
        firstGroup: first / length + groups.lowerBound)
    }

    /// Decodes a run of blocks as they are stored.
    private static func read(
      _ tensor: GGUFTensor, of file: GGUFFile, _ elements: Range<Int>, into values: inout [Float],
      bytes: inout [UInt8]
    ) throws(CheckpointError) {
      values.resize(to: 0)
      guard !elements.isEmpty else { return }
      let type = tensor.type
      let blocks = elements.lowerBound / type.blockLength..<((elements.upperBound - 1) / type.blockLength + 1)
      try file.read(blocks.lowerBound * type.blockBytes..<blocks.upperBound * type.blockBytes, of: tensor, into: &bytes)
      values.resize(to: blocks.count * type.blockLength)
      var target = values.mutableSpan
      decodeBlocks(bytes.span, as: type, into: &target)
      values.removeFirst(elements.lowerBound - blocks.lowerBound * type.blockLength)
      values.removeLast(values.count - elements.count)
    }
  }
}
