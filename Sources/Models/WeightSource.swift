import Checkpoints
import Kernels
import SystemPackage

/// Where the weights of a model come from: a checkpoint of full precision, or a packed one that is decoded on the way.
package protocol WeightSource: Sendable {
  /// The file or folder, for messages.
  var place: String { get }
  var tensorNames: [String] { get }
  func shape(of tensor: String) -> [Int]?
  /// A reader with buffers of its own; each thread takes one.
  func makeReader() -> any WeightReader
  /// A reader of the integers that a tensor's rows are stored as; nil where they are stored otherwise.
  func makeIntegerReader(of tensor: String) -> (any IntegerReader)?
}

extension WeightSource {
  package func makeIntegerReader(of tensor: String) -> (any IntegerReader)? { nil }
}

/// Reads a weight whose rows, along its inputs, are a scale times 8-bit integers, but for some columns that are
/// stored as they are.
package protocol IntegerReader {
  /// Whether the rows are the columns of the tensor, which is `[inputs, outputs]`.
  var isTransposed: Bool { get }
  /// In rising order.
  var outlierColumns: [Int32] { get }
  var scaleType: ElementType { get }

  /// Reads rows: integers as float32, 0 in outlier columns; a scale for each row; the outlier columns' weights row by
  /// row.
  mutating func read(
    _ rows: Range<Int>, into integers: inout [Float], scales: inout [Float], outliers: inout [Float]) throws
}

package protocol WeightReader {
  /// Reads a run of a tensor's elements as float32, from a multiple of eight on.
  mutating func read(_ tensor: String, _ elements: Range<Int>, into values: inout [Float]) throws
}

extension Checkpoint: WeightSource {
  package var place: String { folder.string }
  package var tensorNames: [String] { tensors.map(\.name) }
  package func shape(of tensor: String) -> [Int]? { self[tensor]?.entry.shape }
  package func makeReader() -> any WeightReader { CheckpointReader(checkpoint: self) }
}

private struct CheckpointReader: WeightReader {
  let checkpoint: Checkpoint
  var bytes: [UInt8] = []

  mutating func read(_ tensor: String, _ elements: Range<Int>, into values: inout [Float]) throws {
    guard let found = checkpoint[tensor] else {
      throw CheckpointError(file: checkpoint.folder.string, tensor: tensor, .notFound)
    }
    let entry = found.entry
    guard entry.type != .c64 else {
      throw CheckpointError(file: found.file.path.string, tensor: tensor, .unreadableType(entry.type))
    }
    let width = entry.type.bitWidth
    precondition(elements.lowerBound % 8 == 0 && elements.upperBound <= entry.elementCount)
    try found.file.read(
      elements.lowerBound * width / 8..<(elements.upperBound * width + 7) / 8, of: entry, into: &bytes)
    values.resize(to: elements.count)
    var target = values.mutableSpan
    decodeElements(bytes.span.bytes, as: entry.type, into: &target)
  }
}
