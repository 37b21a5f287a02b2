import Checkpoints
import Evaluation
import Kernels
import Packing
import SystemPackage

/// A quantized model of any layout, GGUF among them, and what it was made from, tensor by tensor.
struct SourcePairs: Sendable {
  struct Pair: Sendable {
    let tensor: DecodableCheckpoint.Tensor
    let original: CheckpointTensor
    /// Added to values before they are stored: GGUF files hold the norms of some models plus one.
    let offset: Float

    var name: String { original.name }
  }

  let output: DecodableCheckpoint
  let source: Checkpoint
  let pairs: [Pair]

  /// - Throws: for an output that is not quantized, and where a tensor of either side has no counterpart of its shape on the
  ///   other; GGUF files may lack constants that runtimes compute, and the head of a model whose embedding serves as one.
  init(_ path: FilePath, source: Checkpoint) throws {
    output = try DecodableCheckpoint(path)
    if case .dense = output { throw ConversionError.notPacked(path.string) }
    let tensors = output.tensors
    if case .gguf(_, let names?) = output {
      self.source = source
      pairs = try Self.pairs(tensors, names.architecture, source)
      return
    }
    // Layouts have experts one by one that the source may stack.
    let source = tensors.contains { source[$0.name] == nil } ? source.unfusingExperts : source
    self.source = source
    let recorded = Set(tensors.map(\.name))
    for tensor in source.tensors where !recorded.contains(tensor.name) {
      throw ConversionError.differentTensor(tensor.name, packed: "nothing", source: Self.describe(tensor.entry))
    }
    // Other programs may store what they keep in another type, and do not tell that of what they quantize.
    let isSameType = if case .quantized(.packed) = output { true } else { false }
    pairs = try tensors.map { tensor in
      let original = source[tensor.name]
      let hasType = !isSameType || original?.entry.type == tensor.type
      return try Self.pair(tensor, hasType ? original : nil, among: source, offset: 0)
    }
  }

  private static func pairs(
    _ tensors: [DecodableCheckpoint.Tensor], _ architecture: GGUFArchitecture, _ source: Checkpoint
  ) throws -> [Pair] {
    let keys = Keys(architecture, source.tensors.map(\.name))
    let own = Keys(architecture, tensors.map(\.name))
    var originals: [String: CheckpointTensor] = [:]
    for tensor in source.tensors where !GGUFArchitecture.isBuffer(tensor.name) {
      originals[keys.key(of: tensor.name)] = tensor
    }
    var left = originals
    let pairs = try tensors.map { tensor in
      let key = own.key(of: tensor.name)
      left[key] = nil
      // A head that is a copy of the embedding.
      let original = originals[key] ?? (key == Keys.head ? originals[Keys.embedding] : nil)
      let isNorm = tensor.storedName.hasSuffix("norm.weight")
      return try pair(tensor, original, among: source, offset: isNorm ? architecture.normOffset : 0)
    }
    left[Keys.head] = nil
    if let missing = left.values.min(by: { $0.name < $1.name }) {
      throw ConversionError.differentTensor(missing.name, packed: "nothing", source: describe(missing.entry))
    }
    return pairs
  }

  /// What tensors are matched by: their names without the prefix that checkpoints of a model differ in.
  private struct Keys {
    static let head = "output.weight"
    static let embedding = "token_embd.weight"

    private let architecture: GGUFArchitecture
    private let prefix: String

    init(_ architecture: GGUFArchitecture, _ names: [String]) {
      self.architecture = architecture
      prefix = architecture.prefix(of: names)
    }

    func key(of name: String) -> String {
      let place = architecture.place(of: name, prefix: prefix)?.name
      if place == Self.head || place == Self.embedding { return place ?? name }
      return name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : name
    }
  }

  private static func pair(
    _ tensor: DecodableCheckpoint.Tensor, _ original: CheckpointTensor?, among source: Checkpoint, offset: Float
  ) throws(ConversionError) -> Pair {
    guard let original, original.entry.shape == tensor.shape else {
      let other = original ?? source[tensor.name]
      throw .differentTensor(
        tensor.name, packed: "\(tensor.type?.rawValue ?? tensor.format) \(tensor.shape)",
        source: other.map { describe($0.entry) } ?? "no such tensor")
    }
    return Pair(tensor: tensor, original: original, offset: offset)
  }

  private static func describe(_ entry: TensorEntry) -> String { "\(entry.type.rawValue) \(entry.shape)" }
}
