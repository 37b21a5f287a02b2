import Checkpoints
import Kernels
import OrderedCollections
import Quantization
import Synchronization
import SystemPackage

/// A folder that some other program quantized, or this one for a runtime: its tensors seen as the weights that they stand
/// for.
///
/// Opening recognizes the layout by the configuration, and by the names of tensors where there is none; it checks names,
/// types and shapes of all members against each other before any data is read, except for the few bytes that tell shapes.
package struct LayoutCheckpoint: Sendable {
  /// A weight or any other tensor, under the name that a checkpoint of full precision has for it.
  package struct Record: Sendable {
    package let name: String
    package let shape: [Int]
    /// Whether the checkpoint has a weight `[inputs, outputs]`, and its codes run over the transpose.
    package var isTransposed = false
    /// The type that the model computes in; of a tensor that is not quantized, its own.
    package let type: ElementType
    /// Position of the file that holds it.
    package let fileIndex: Int
    package let storedByteCount: Int
    fileprivate let content: Content

    /// Bits, groups and kind of a quantized weight; nil for other tensors.
    package var label: String? { if case .weight(let layout, _, _) = content { layout.label } else { nil } }

    /// Inputs that share a scale; nil for tensors that are not quantized.
    package var groupLength: Int? { if case .weight(let layout, _, _) = content { layout.groupLength } else { nil } }

    package var elementCount: Int { shape.reduce(1, *) }

    /// The stored tensors that it is made of.
    package var members: [CheckpointTensor] {
      switch content {
      case .weight(_, _, let members): members
      case .tensor(let tensor): [tensor]
      }
    }

    /// The tensor itself, where it is not quantized.
    package var tensor: CheckpointTensor? { if case .tensor(let tensor) = content { tensor } else { nil } }
  }

  fileprivate enum Content: Sendable {
    case weight(any WeightLayout, StoredModule, members: [CheckpointTensor])
    case tensor(CheckpointTensor)
  }

  package let checkpoint: Checkpoint
  package let family: LayoutFamily
  /// In file order.
  package let records: [Record]
  /// Tensors that only a running model uses, such as scales of activations.
  package let auxiliary: [CheckpointTensor]
  private let positions: [String: Int]
  private let cache = WeightCache()

  /// Nil for a checkpoint that is not quantized in a layout known here.
  /// - Throws: for one that is, but cannot be read.
  package init?(_ checkpoint: Checkpoint) throws(CheckpointError) {
    guard let family = try LayoutFamily(of: checkpoint) else { return nil }
    let modules = family.modules(of: checkpoint)
    guard !modules.isEmpty else { return nil }
    let type = Self.modelType(checkpoint.configuration)
    var claimed: Set<String> = []
    var records: [Record] = []
    var auxiliary: [CheckpointTensor] = []
    for module in modules {
      let layout = try family.layout(of: module, checkpoint)
      var members: [CheckpointTensor] = []
      for specification in layout.members(of: module.name) {
        members.append(try Self.find(specification, in: checkpoint))
        claimed.insert(specification.name)
      }
      for tensor in module.tensors.values.sorted(by: { $0.name < $1.name }) where !claimed.contains(tensor.name) {
        auxiliary.append(tensor)
        claimed.insert(tensor.name)
      }
      let ownType = (layout as? BitsandbytesLayout)?.type
      let isTransposed = TransposedWeights.contains(
        module.name + ".weight", modelType: checkpoint.configuration?["model_type"]?.string)
      records.append(
        Record(
          name: module.name + ".weight",
          shape: isTransposed ? [layout.columns, layout.rows] : [layout.rows, layout.columns],
          isTransposed: isTransposed, type: ownType ?? type, fileIndex: members[0].fileIndex,
          storedByteCount: members.reduce(0) { $0 + $1.entry.bytes.count },
          content: .weight(layout, module, members: members)))
    }
    for tensor in checkpoint.tensors where !claimed.contains(tensor.name) {
      if family.isAuxiliary(tensor.name) {
        auxiliary.append(tensor)
        continue
      }
      records.append(
        Record(
          name: tensor.name, shape: tensor.entry.shape, type: tensor.entry.type, fileIndex: tensor.fileIndex,
          storedByteCount: tensor.entry.bytes.count, content: .tensor(tensor)))
    }
    var positions: [String: Int] = [:]
    for (index, record) in records.enumerated() {
      if let other = positions.updateValue(index, forKey: record.name) {
        throw CheckpointError(
          file: checkpoint.folder.string, tensor: records[other].name,
          .field("the tensor", expected: "stored once, not both quantized and as it is"))
      }
    }
    self.checkpoint = checkpoint
    self.family = family
    self.records = records
    self.auxiliary = auxiliary
    self.positions = positions
  }

  package subscript(name: String) -> Record? { positions[name].map { records[$0] } }

  /// The type that `config.json` names; BF16 where it names none.
  private static func modelType(_ configuration: JSONValue?) -> ElementType {
    switch (configuration?["dtype"] ?? configuration?["torch_dtype"])?.string {
    case "float16": .f16
    case "float32": .f32
    default: .bf16
    }
  }

  private static func find(
    _ specification: TensorSpecification, in checkpoint: Checkpoint
  ) throws(CheckpointError) -> CheckpointTensor {
    let expected = "\(specification.type.rawValue) \(specification.shape)"
    guard let tensor = checkpoint[specification.name] else {
      throw CheckpointError(
        file: checkpoint.folder.string, tensor: specification.name,
        .field("the tensor", expected: "present, as \(expected), which the tensors beside it ask for"))
    }
    guard tensor.entry.type == specification.type, tensor.entry.shape == specification.shape else {
      throw CheckpointError(
        file: tensor.file.path.string, tensor: specification.name,
        .field("dtype and shape", expected: "\(expected), not \(tensor.entry.type.rawValue) \(tensor.entry.shape)"))
    }
    return tensor
  }

  // MARK: Decoding

  /// A weight with its codes, read whole; nil for a tensor that is not quantized. The last few stay in memory.
  package func weight(_ record: Record, workers: Int = 1) throws(CheckpointError) -> CodedWeight? {
    guard case .weight(let layout, let module, let members) = record.content else { return nil }
    return try cache.value(record.name) { () throws(CheckpointError) in
      var bytes: [[UInt8]] = []
      for member in members {
        var buffer: [UInt8] = []
        try member.file.read(0..<member.entry.bytes.count, of: member.entry, into: &buffer)
        bytes.append(buffer)
      }
      return try layout.unpack(bytes, of: module, workers: workers)
    }
  }

  /// Reads a run of elements as float32.
  /// - Parameters:
  ///   - elements: of the flattened weight; of other tensors from a multiple of eight on.
  ///   - bytes: reused space.
  package func decode(
    _ record: Record, _ elements: Range<Int>, into values: inout [Float], bytes: inout [UInt8]
  ) throws(CheckpointError) {
    if let weight = try weight(record) {
      if record.isTransposed { return weight.decodeColumns(elements, into: &values) }
      weight.decode(elements, into: &values)
      return
    }
    guard let tensor = record.tensor else { return }
    let type = tensor.entry.type
    guard type != .c64 else {
      throw CheckpointError(file: tensor.file.path.string, tensor: record.name, .unreadableType(type))
    }
    let width = type.bitWidth
    precondition(elements.lowerBound % 8 == 0 && elements.upperBound <= tensor.entry.elementCount)
    try tensor.file.read(
      elements.lowerBound * width / 8..<(elements.upperBound * width + 7) / 8, of: tensor.entry, into: &bytes)
    values.resize(to: elements.count)
    var target = values.mutableSpan
    decodeElements(bytes.span.bytes, as: type, into: &target)
  }
}

/// The weights read last, so that threads that decode parts of one do not each read it whole.
private final class WeightCache: Sendable {
  private let entries = Mutex<[(name: String, weight: CodedWeight)]>([])
  private static let capacity = 4

  func value(
    _ name: String, read: () throws(CheckpointError) -> CodedWeight
  ) throws(CheckpointError) -> CodedWeight {
    // The lock is held while reading: others most likely want the same weight.
    let result: Result<CodedWeight, CheckpointError> = entries.withLock { entries in
      if let found = entries.first(where: { $0.name == name }) { return .success(found.weight) }
      do throws(CheckpointError) {
        let weight = try read()
        if entries.count >= Self.capacity { entries.removeFirst() }
        entries.append((name, weight))
        return .success(weight)
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }
}
