import Kernels

/// Weights of linear layers that a checkpoint stores `[inputs, outputs]`, the other way round than torch's Linear: rows
/// by the `model_type` of config.json and the ends of names. Of experts, each matrix that a tensor stacks is.
package enum TransposedWeights {
  private static let rows: [(modelTypes: Set<String>, endings: [String])] = [
    // transformers' Conv1D.
    (
      ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"],
      [".c_attn.weight", ".q_attn.weight", ".c_proj.weight", ".c_fc.weight"]
    ),
    // Experts that are run as batches of x·W.
    (["gpt_oss", "llama4", "llama4_text"], [".experts.gate_up_proj", ".experts.down_proj"]),
  ]

  package static func contains(_ tensor: String, modelType: String?) -> Bool {
    guard let modelType, let row = rows.first(where: { $0.modelTypes.contains(modelType) }) else { return false }
    return row.endings.contains { tensor.hasSuffix($0) }
  }
}

/// Some columns of a stored matrix `[inputs, width]`, which are the outputs of a layer.
struct ColumnRun: Sendable {
  /// The whole matrix, under the name of the tensor that holds it.
  let matrix: TensorEntry
  let first: Int
}

/// A shape, or an index, with its last two dimensions, of at least two, the other way round.
package func exchangingLastTwo(_ shape: [Int]) -> [Int] {
  precondition(shape.count >= 2)
  return shape.dropLast(2) + shape.suffix(2).reversed()
}

extension Checkpoint {
  /// Whether a tensor is a weight that is stored `[…, inputs, outputs]`.
  package func isTransposed(_ tensor: TensorEntry) -> Bool {
    tensor.shape.count >= 2
      && TransposedWeights.contains(tensor.name, modelType: configuration?["model_type"]?.string)
  }

  /// The tensors, weights of linear layers as `[…, outputs, inputs]` whichever way they are stored.
  package var orientedTensors: [CheckpointTensor] {
    tensors.map { isTransposed($0.entry) ? $0.transposed : $0 }
  }
}

extension CheckpointTensor {
  /// The same with its last two dimensions exchanged: what `read` gives of it is in that order.
  package var transposed: CheckpointTensor {
    precondition(columnRun == nil)
    let turned = TensorEntry(
      name: entry.name, type: entry.type, shape: exchangingLastTwo(entry.shape), bytes: entry.bytes)
    return CheckpointTensor(entry: turned, file: file, fileIndex: fileIndex, isTransposed: !isTransposed)
  }

  /// The tensor as it is stored; a part of a stored one stays as it is seen, for it is a weight of its own.
  package var stored: CheckpointTensor { isTransposed && columnRun == nil ? transposed : self }

  /// Reads a range of its bytes, in the order of its elements here, to the front of a reused buffer: whole elements, where
  /// the tensor is a part of a stored one.
  package func readBytes(_ range: Range<Int>, into bytes: inout [UInt8]) throws(CheckpointError) {
    guard columnRun != nil else { return try file.read(range, of: entry, into: &bytes) }
    let size = entry.type.bitWidth / 8
    _ = try read(range.lowerBound / size..<range.upperBound / size, into: &bytes)
  }

  /// Reads a run of its elements, as many bits each as its type has, to the front of a reused buffer. The run of a
  /// tensor of narrow elements begins on a whole byte.
  ///
  /// Of a transposed one, a stretch of each stored row is read: for runs of many rows of it, stretches are long.
  /// - Returns: the bytes read.
  package func read(_ elements: Range<Int>, into bytes: inout [UInt8]) throws(CheckpointError) -> Int {
    let bits = entry.type.bitWidth
    guard isTransposed, bits % 8 == 0 else {
      let range = elements.lowerBound * bits / 8..<(elements.upperBound * bits + 7) / 8
      try file.read(range, of: entry, into: &bytes)
      return range.count
    }
    let byteWidth = bits / 8
    let count = elements.count * byteWidth
    if bytes.count < count { bytes = [UInt8](repeating: 0, count: count) }
    let (rows, columns) = (entry.shape[entry.shape.count - 2], entry.shape[entry.shape.count - 1])
    guard rows > 0, columns > 0, !elements.isEmpty else { return count }
    var (stretch, stretches): ([UInt8], [UInt8]) = ([], [])
    let size = rows * columns
    let (source, width, offset) = columnRun.map { ($0.matrix, $0.matrix.shape[1], $0.first) } ?? (entry, rows, 0)
    for matrix in elements.lowerBound / size...(elements.upperBound - 1) / size {
      let part = elements.clamped(to: matrix * size..<(matrix + 1) * size)
      let (first, end) = (part.lowerBound - matrix * size, part.upperBound - matrix * size)
      /// The rows r with first ≤ r·columns + column < end.
      func span(_ column: Int) -> Range<Int> {
        let low = first > column ? (first - column + columns - 1) / columns : 0
        let high = end > column ? (end - column + columns - 1) / columns : 0
        return low..<max(low, high)
      }
      var column = 0
      while column < columns {
        // Neighbours with the same rows are turned together, so that cache lines are written whole.
        let rowSpan = span(column)
        guard !rowSpan.isEmpty else {
          column += 1
          continue
        }
        var next = column
        stretches.removeAll(keepingCapacity: true)
        repeat {
          let start = matrix * size + next * width + offset + rowSpan.lowerBound
          try file.read(start * byteWidth..<(start + rowSpan.count) * byteWidth, of: source, into: &stretch)
          stretches.append(contentsOf: stretch[..<(rowSpan.count * byteWidth)])
          next += 1
        } while next < columns && next - column < Self.turnedTogether && span(next) == rowSpan
        var target = bytes.mutableSpan
        transposeStretches(
          stretches.span, lines: next - column, count: rowSpan.count, width: byteWidth, into: &target,
          at: matrix * size + rowSpan.lowerBound * columns + column - elements.lowerBound, stride: columns)
        column = next
      }
    }
    return count
  }

  /// Columns that are turned at a time.
  private static let turnedTogether = 32
}
