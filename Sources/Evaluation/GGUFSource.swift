import Checkpoints
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import SystemPackage

/// A GGUF file as a source of weights, under the names and in the arrangement that Hugging Face's checkpoint has.
package struct GGUFSource: WeightSource {
  package let file: GGUFFile
  package let architecture: GGUFArchitecture
  /// config.json as the metadata tell it.
  package let configuration: JSONValue
  private let entries: [String: Entry]
  package let tensorNames: [String]

  fileprivate struct Entry: Sendable {
    let tensor: GGUFTensor
    let place: GGUFArchitecture.Place
    /// As the checkpoint has it.
    let shape: [Int]
    /// Rows of a head, where heads are stored with their pairs side by side; else nil.
    let headRows: Int?
    let offset: Float
  }

  package init(_ file: GGUFFile) throws {
    self.file = file
    (architecture, configuration) = try GGUFModel.configuration(of: file)
    let heads = configuration["num_attention_heads"]?.integer ?? configuration["n_head"]?.integer ?? 0
    let keyHeads = configuration["num_key_value_heads"]?.integer ?? heads
    var entries: [String: Entry] = [:]
    var names: [String] = []
    let expertCount = file.header.metadata["\(architecture.name).expert_count"]?.integer ?? 0
    for tensor in file.header.tensors where !tensor.name.hasPrefix("rope_") {
      if let (place, source) = architecture.expertSource(of: tensor.name) {
        for (expert, matrix) in try Self.matrices(of: tensor, count: expertCount, in: file).enumerated() {
          let name = source(expert)
          entries[name] = Entry(tensor: matrix, place: place, shape: matrix.shape, headRows: nil, offset: 0)
          names.append(name)
        }
        continue
      }
      guard let (name, place) = architecture.source(of: tensor.name) else {
        throw GGUFError(file: file.path.string, tensor: tensor.name, .noPlace(architecture: architecture.name))
      }
      guard tensor.type.isReadable else {
        throw CheckpointError(file: file.path.string, tensor: tensor.name, .gguf(.unreadableType(tensor.type)))
      }
      let rows = tensor.shape.first ?? 0
      let count = place.part == "attn_q" ? heads : place.part == "attn_k" ? keyHeads : 0
      var headRows: Int?
      if architecture.permutesHeads, place.part == "attn_q" || place.part == "attn_k" {
        guard count > 0, rows % (2 * count) == 0 else {
          throw GGUFError(
            file: file.path.string, tensor: tensor.name, .shape(tensor.shape, expected: "an even number of rows a head")
          )
        }
        headRows = rows / count
      }
      if place.isTransposed, tensor.shape.count != 2 {
        throw GGUFError(file: file.path.string, tensor: tensor.name, .shape(tensor.shape, expected: "a matrix"))
      }
      entries[name] = Entry(
        tensor: tensor, place: place, shape: place.isTransposed ? tensor.shape.reversed() : tensor.shape,
        headRows: headRows, offset: place.part.hasSuffix("norm") ? architecture.normOffset : 0)
      names.append(name)
    }
    self.entries = entries
    tensorNames = names
  }

  /// The matrices of a tensor that stacks experts, each with its bytes.
  private static func matrices(of tensor: GGUFTensor, count: Int, in file: GGUFFile) throws -> [GGUFTensor] {
    guard tensor.shape.count == 3, tensor.shape[0] == count, count > 0, tensor.columns % tensor.type.blockLength == 0
    else {
      throw GGUFError(
        file: file.path.string, tensor: tensor.name, .shape(tensor.shape, expected: "matrices of \(count) experts"))
    }
    guard tensor.type.isReadable else {
      throw CheckpointError(file: file.path.string, tensor: tensor.name, .gguf(.unreadableType(tensor.type)))
    }
    let size = tensor.bytes.count / count
    return (0..<count).map {
      tensor.slice(shape: [tensor.shape[1], tensor.shape[2]], bytes: $0 * size..<($0 + 1) * size)
    }
  }

  package var place: String { file.path.string }
  package func shape(of tensor: String) -> [Int]? { entries[tensor]?.shape }
  package func makeReader() -> any WeightReader { Reader(file: file, entries: entries) }

  /// The tensor of the file, under the name that a checkpoint has for it.
  package func storedTensor(_ tensor: String) -> GGUFTensor? { entries[tensor]?.tensor }

  /// The type in which a tensor is stored.
  package func storedType(of tensor: String) -> BlockType? { entries[tensor]?.tensor.type }

  private struct Reader: WeightReader {
    let file: GGUFFile
    let entries: [String: Entry]
    var bytes: [UInt8] = []
    var blocks: [Float] = []

    mutating func read(_ tensor: String, _ elements: Range<Int>, into values: inout [Float]) throws {
      guard let entry = entries[tensor] else {
        throw CheckpointError(file: file.path.string, tensor: tensor, .notFound)
      }
      precondition(elements.lowerBound >= 0 && elements.upperBound <= entry.tensor.elementCount)
      values.resize(to: elements.count)
      guard !elements.isEmpty else { return }
      if entry.place.isTransposed {
        try readColumns(entry, elements, into: &values)
      } else if let headRows = entry.headRows {
        let columns = entry.tensor.shape.count > 1 ? entry.tensor.columns : 1
        for row in (elements.lowerBound / columns)...((elements.upperBound - 1) / columns) {
          // Row a·D/2 + b of a head is stored as row 2·b + a.
          let (head, inner) = (row / headRows, row % headRows)
          let stored = head * headRows + inner % (headRows / 2) * 2 + inner / (headRows / 2)
          let part = max(elements.lowerBound, row * columns)..<min(elements.upperBound, (row + 1) * columns)
          let shift = (stored - row) * columns
          try decode(entry, (part.lowerBound + shift)..<(part.upperBound + shift))
          for index in blocks.indices { values[part.lowerBound - elements.lowerBound + index] = blocks[index] }
        }
      } else {
        try decode(entry, elements)
        for index in values.indices { values[index] = blocks[index] - entry.offset }
      }
    }

    /// Decodes a run of stored elements into `blocks`.
    private mutating func decode(_ entry: Entry, _ elements: Range<Int>) throws {
      let type = entry.tensor.type
      let first = elements.lowerBound / type.blockLength
      let last = (elements.upperBound - 1) / type.blockLength + 1
      try file.read(first * type.blockBytes..<last * type.blockBytes, of: entry.tensor, into: &bytes)
      blocks.resize(to: (last - first) * type.blockLength)
      // A copy shares the storage; `self` may not be borrowed twice.
      let source = bytes
      var span = blocks.mutableSpan
      decodeBlocks(source.span, as: type, into: &span)
      let start = elements.lowerBound - first * type.blockLength
      if start > 0 { blocks.removeFirst(start) }
      blocks.removeLast(blocks.count - elements.count)
    }

    /// Elements of a matrix that is stored the other way round.
    private mutating func readColumns(_ entry: Entry, _ elements: Range<Int>, into values: inout [Float]) throws {
      let (outputs, inputs) = (entry.tensor.shape[0], entry.tensor.shape[1])
      let first = elements.lowerBound / outputs
      let last = (elements.upperBound - 1) / outputs + 1
      for output in 0..<outputs {
        try decode(entry, output * inputs + first..<output * inputs + last)
        for input in first..<last {
          let place = input * outputs + output - elements.lowerBound
          if values.indices.contains(place) { values[place] = blocks[input - first] }
        }
      }
    }
  }
}
