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

  /// The rows of a weight that hold a run of elements, and the number of the first of them; nil where they cannot be read
  /// without others, and where they are all.
  private func rows(
    with elements: Range<Int>, of layout: any WeightLayout, _ module: StoredModule, _ members: [CheckpointTensor]
  ) throws(CheckpointError) -> (weight: CodedWeight, first: Int)? {
    // Blocks of scales may ask for more rows than words do.
    for unit in [32, 64, 128, 256] {
      let length = unit * layout.columns
      let start = elements.lowerBound / length * unit
      let end = min(layout.rows, (elements.upperBound + length - 1) / length * unit)
      guard end - start < layout.rows else { return nil }
      guard let before = layout.with(rows: start)?.members(of: module.name),
        let through = layout.with(rows: end)?.members(of: module.name), let part = layout.with(rows: end - start)
      else { continue }
      var bytes: [[UInt8]] = []
      for (index, specification) in part.members(of: module.name).enumerated() {
        let shape = specification.shape
        // What does not grow with the rows is read whole.
        let axis = shape.indices.first { shape[$0] != members[index].entry.shape[$0] }
        let span = axis.map { before[index].shape[$0]..<through[index].shape[$0] } ?? 0..<(shape.first ?? 1)
        guard axis.map({ span.count == shape[$0] }) ?? true else { return nil }
        bytes.append(try Self.read(span, along: axis ?? 0, of: members[index]))
      }
      return (try part.unpack(bytes, of: module, workers: 1), start)
    }
    return nil
  }

  /// The bytes of a tensor whose index along an axis lies in a range.
  private static func read(
    _ range: Range<Int>, along axis: Int, of tensor: CheckpointTensor
  ) throws(CheckpointError) -> [UInt8] {
    let entry = tensor.entry
    let width = entry.shape.dropFirst(axis + 1).reduce(1, *) * entry.type.bitWidth / 8
    let line = (entry.shape.isEmpty ? 1 : entry.shape[axis]) * width
    let lines = entry.shape.prefix(axis).reduce(1, *)
    let (first, last) = (range.lowerBound * width, range.upperBound * width)
    // Short lines are read together: a call costs more than their bytes.
    let together = max(1, (lines == 1 || line > 4096 ? line : 1 << 16) / max(1, line))
    var (bytes, buffer): ([UInt8], [UInt8]) = ([], [])
    bytes.reserveCapacity(lines * (last - first))
    for start in stride(from: 0, to: lines, by: together) {
      let end = min(start + together, lines)
      try tensor.file.read(start * line + first..<(end - 1) * line + last, of: entry, into: &buffer)
      for index in 0..<(end - start) { bytes += buffer[index * line..<index * line + last - first] }
    }
    return bytes
  }

  /// Reads a run of elements as float32.
  /// - Parameters:
  ///   - elements: of the flattened weight; of other tensors from a multiple of eight on.
  ///   - bytes: reused space.
  ///   - isAlone: whether the rest of the weight will not be asked for: then no more of it is read than must be.
  package func decode(
    _ record: Record, _ elements: Range<Int>, into values: inout [Float], bytes: inout [UInt8], isAlone: Bool = false
  ) throws(CheckpointError) {
    if isAlone, !record.isTransposed, !elements.isEmpty,
      case .weight(let layout, let module, let members) = record.content,
      let (weight, first) = try rows(with: elements, of: layout, module, members)
    {
      let offset = first * layout.columns
      return weight.decode(elements.lowerBound - offset..<elements.upperBound - offset, into: &values)
    }
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
