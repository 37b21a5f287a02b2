import Kernels

/// Experts that newer writers stack in two tensors of a block, gate and up in one, seen one by one under the names that
/// they have elsewhere, and that most runtimes ask for. Rows by `model_type`.
///
/// Of matrices that are stored the other way round, and side by side, an entry's bytes say only how many they are.
private struct FusedExperts {
  let modelTypes: Set<String>
  /// What precedes the names of the stacking tensors, and what the number of an expert.
  let base: (fused: String, single: String)
  let gate: String
  let up: String
  let down: String
  /// Names of the block's router, where they differ.
  var router: (fused: String, single: String)?
  /// Whether a matrix is stored `[inputs, outputs]`, gate and up side by side in its rows.
  var isInputsFirst = false

  static let rows = [
    FusedExperts(
      modelTypes: ["mixtral"], base: ("mlp.experts.", "block_sparse_moe.experts."), gate: "w1", up: "w3", down: "w2",
      router: ("mlp.gate.weight", "block_sparse_moe.gate.weight")),
    FusedExperts(
      modelTypes: ["qwen2_moe", "qwen3_moe"], base: ("mlp.experts.", "mlp.experts."), gate: "gate_proj", up: "up_proj",
      down: "down_proj"),
    FusedExperts(
      modelTypes: ["llama4", "llama4_text"], base: ("feed_forward.experts.", "feed_forward.experts."),
      gate: "gate_proj", up: "up_proj", down: "down_proj", isInputsFirst: true),
  ]

  /// The matrices of a tensor, or the router by its other name; nil for other tensors.
  func singles(_ tensor: CheckpointTensor) -> [CheckpointTensor]? {
    let entry = tensor.entry
    if let router, entry.name.hasSuffix("." + router.fused) {
      let name = entry.name.dropLast(router.fused.utf8.count) + router.single
      return [
        tensor.seen(as: TensorEntry(name: String(name), type: entry.type, shape: entry.shape, bytes: entry.bytes))
      ]
    }
    for (ending, matrices) in [("gate_up_proj", [gate, up]), ("down_proj", [down])] {
      let outputs = isInputsFirst ? 2 : 1
      guard entry.name.hasSuffix("." + base.fused + ending), entry.shape.count == 3, !entry.bytes.isEmpty,
        entry.shape[outputs] % matrices.count == 0, entry.type.bitWidth % 8 == 0
      else { continue }
      let stem = entry.name.dropLast(base.fused.utf8.count + ending.utf8.count) + base.single
      let shape = [entry.shape[outputs] / matrices.count, entry.shape[3 - outputs]]
      let size = shape[0] * shape[1] * entry.type.bitWidth / 8
      return (0..<entry.shape[0] * matrices.count).map { index in
        let (expert, part) = index.quotientAndRemainder(dividingBy: matrices.count)
        let start = entry.bytes.lowerBound + index * size
        let single = TensorEntry(
          name: "\(stem)\(expert).\(matrices[part]).weight", type: entry.type, shape: shape, bytes: start..<start + size
        )
        guard isInputsFirst else { return tensor.seen(as: single) }
        let first = start - part * size
        let matrix = TensorEntry(
          name: entry.name, type: entry.type, shape: Array(entry.shape.dropFirst()),
          bytes: first..<first + size * matrices.count)
        return CheckpointTensor(
          entry: single, file: tensor.file, fileIndex: tensor.fileIndex, isTransposed: true,
          columnRun: ColumnRun(matrix: matrix, first: part * shape[0]))
      }
    }
    return nil
  }
}

extension CheckpointTensor {
  fileprivate func seen(as entry: TensorEntry) -> CheckpointTensor {
    CheckpointTensor(entry: entry, file: file, fileIndex: fileIndex)
  }
}

extension Checkpoint {
  /// The same with experts one by one where tensors stack them, in a way known here; itself where none does.
  package var unfusingExperts: Checkpoint {
    guard let type = configuration?["model_type"]?.string,
      let row = FusedExperts.rows.first(where: { $0.modelTypes.contains(type) }),
      tensors.contains(where: { $0.entry.shape.count == 3 && row.singles($0) != nil })
    else { return self }
    let found = tensors.flatMap { row.singles($0) ?? [$0] }
    return Set(found.map(\.name)).count == found.count ? viewing(found) : self
  }
}
