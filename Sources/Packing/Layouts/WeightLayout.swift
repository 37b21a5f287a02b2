import Checkpoints
import Kernels
import Quantization
import SystemPackage

/// How one quantized weight `[rows, columns]` lies in the tensors of a runtime's layout.
///
/// A value holds everything that decides names, types and shapes, so that these are known before any work. Weights are
/// packed tile by tile (`WeightPacker`): a layout says where codes lie, and packs the parameters. Unpacking holds one
/// weight in memory.
package protocol WeightLayout: Sendable {
  /// Output features.
  var rows: Int { get }
  /// Input features.
  var columns: Int { get }
  /// Inputs that share a scale, or elements of a block.
  var groupLength: Int { get }
  /// Bits, groups and kind in a few words, for listings.
  var label: String { get }

  /// The tensors of a module's weight, that of the codes first, then in the order of `pack`; all of them in that of
  /// `unpack`.
  func members(of module: String) -> [TensorSpecification]

  /// The layout of the first rows alone, a multiple of 32 or all, or of as many that begin at a multiple of 32: whatever
  /// grows with the rows lies in the order of the rows. Nil where these rows cannot be read without others.
  func with(rows: Int) -> (any WeightLayout)?

  /// How the codes lie.
  var placement: CodePlacement { get }

  /// Changes what the layout, or its runtimes, cannot hold as it is; the values stay the same where they can.
  /// - Parameters:
  ///   - tile: whole rows, with the layout's bits and groups.
  ///   - groupIndex: the group of each column, where groups are not runs of columns.
  func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?)

  /// The bytes of the members after the first.
  /// - Parameter parameters: of prepared tiles, with the layout's groups.
  func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]]

  /// The weight back from the bytes of each member, whose sizes are those of `members`; their values may be anything.
  func unpack(_ members: [[UInt8]], of module: StoredModule, workers: Int) throws(CheckpointError) -> CodedWeight
}

extension WeightLayout {
  package func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?) {}
}

/// The tensors of one quantized module of a checkpoint, by what follows the module's name.
package struct StoredModule: Sendable {
  package let name: String
  package let tensors: [String: CheckpointTensor]
  /// The folder, for messages about tensors that are missing.
  package let folder: String

  package init(name: String, tensors: [String: CheckpointTensor], folder: String) {
    self.name = name
    self.tensors = tensors
    self.folder = folder
  }

  package subscript(suffix: String) -> TensorEntry? { tensors[suffix]?.entry }

  /// The entry of a member that must be there, with a number of dimensions and one of some types.
  package func require(
    _ suffix: String, rank: Int, _ types: Set<ElementType>
  ) throws(CheckpointError) -> TensorEntry {
    guard let entry = self[suffix] else {
      let names = types.map(\.rawValue).sorted().joined(separator: " or ")
      throw CheckpointError(
        file: folder, tensor: name + suffix, .field("the tensor", expected: "present, as \(names)"))
    }
    guard entry.shape.count == rank, types.contains(entry.type), !entry.shape.contains(0) else {
      let names = types.map(\.rawValue).sorted().joined(separator: " or ")
      throw fault(
        suffix, "dtype and shape",
        "\(names) with \(rank) dimensions, none of them 0, not \(entry.type.rawValue) \(entry.shape)")
    }
    return entry
  }

  /// All bytes of a member.
  package func bytes(_ suffix: String) throws(CheckpointError) -> [UInt8] {
    guard let tensor = tensors[suffix] else {
      throw CheckpointError(file: folder, tensor: name + suffix, .notFound)
    }
    var bytes: [UInt8] = []
    try tensor.file.read(0..<tensor.entry.bytes.count, of: tensor.entry, into: &bytes)
    return bytes
  }

  package func fault(_ suffix: String, _ field: String, _ expected: String) -> CheckpointError {
    let tensor = tensors[suffix]
    return CheckpointError(
      file: tensor?.file.path.string ?? folder, tensor: name + suffix, .field(field, expected: expected))
  }
}

// MARK: - Parts that several layouts share

/// The transpose of a small matrix, such as that of the scales.
func transposed<Element>(_ values: [Element], rows: Int, columns: Int) -> [Element] {
  guard rows > 1, columns > 1 else { return values }
  var result: [Element] = []
  result.reserveCapacity(values.count)
  for column in 0..<columns {
    for row in 0..<rows { result.append(values[row * columns + column]) }
  }
  return result
}

/// Bytes of the 32-bit words that a stream of codes fills.
func wordByteCount(codes: Int, bits: Int) -> Int { (codes * bits + 31) / 32 * 4 }

/// Every row of codes as a stream of 32-bit words, `[rows, words]`.
func packedRows(_ codes: [UInt8], rows: Int, columns: Int, bits: Int, workers: Int) -> [UInt8] {
  let stride = wordByteCount(codes: columns, bits: bits)
  var bytes = [UInt8](repeating: 0, count: rows * stride)
  var target = bytes.mutableSpan
  packRows(codes.span, rows: rows, columns: columns, bits: bits, stride: stride, into: &target, workers: workers)
  return bytes
}

func unpackedRows(_ bytes: [UInt8], rows: Int, columns: Int, bits: Int, workers: Int) -> [UInt8] {
  var codes = [UInt8](repeating: 0, count: rows * columns)
  var target = codes.mutableSpan
  unpackRows(
    bytes.span, rows: rows, columns: columns, bits: bits, stride: wordByteCount(codes: columns, bits: bits),
    into: &target, workers: workers)
  return codes
}

/// The transpose of a matrix of 32-bit words.
func transposedWords(_ bytes: [UInt8], rows: Int, columns: Int, workers: Int) -> [UInt8] {
  var result = [UInt8](repeating: 0, count: rows * columns * 4)
  var target = result.mutableSpan
  transposeWords(bytes.span, rows: rows, columns: columns, into: &target, workers: workers)
  return result
}

/// Values as stored elements.
func elementBytes(_ values: [Float], as type: ElementType) -> [UInt8] {
  var bytes: [UInt8] = []
  let count = encodeElements(values, as: type, into: &bytes)
  bytes.resize(to: count)
  return bytes
}

/// Stored elements as values.
func elementValues(_ bytes: [UInt8], as type: ElementType) -> [Float] {
  var values = [Float](repeating: 0, count: bytes.count * 8 / type.bitWidth)
  var target = values.mutableSpan
  decodeElements(bytes.span.bytes, as: type, into: &target)
  return values
}

func littleEndianBytes(_ values: [Int32]) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.reserveCapacity(values.count * 4)
  for value in values {
    for byte in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> Int32(byte * 8))) }
  }
  return bytes
}

func integers(_ bytes: [UInt8]) -> [Int32] {
  var values: [Int32] = []
  values.reserveCapacity(bytes.count / 4)
  for start in stride(from: 0, to: bytes.count - 3, by: 4) {
    var word: UInt32 = 0
    for byte in 0..<4 { word |= UInt32(bytes[start + byte]) << UInt32(byte * 8) }
    values.append(Int32(bitPattern: word))
  }
  return values
}

extension ElementType {
  static let floats: Set<ElementType> = [.f32, .f16, .bf16]
}

extension RuntimeLayout {
  /// Refuses scales that the layout's runtimes cannot take, once they are known.
  func check(_ scales: [Float], as type: ElementType, module: String) throws(LayoutError) {
    let largest = absoluteMaximum(scales.span)
    let isInRange = rounded(largest, to: type).isFinite
    if isInRange, rules.allowsNegativeScales || extrema(scales.span).smallest >= 0 { return }
    if !rules.allowsNegativeScales, scales.contains(where: { $0 < 0 }) {
      throw .negativeScale(self, module: module)
    }
    if let scale = scales.first(where: { !rounded($0, to: type).isFinite }) {
      throw .scaleOverflow(self, module: module, scale: scale)
    }
  }
}

/// The length of groups, given their number: as a configuration says it if that fits, else as the shape does.
func groupLength(columns: Int, groups: Int, stated: Int?) -> Int? {
  if let stated {
    let length = stated <= 0 ? columns : min(stated, columns)
    if (columns + length - 1) / length == groups { return length }
  }
  guard groups > 0, columns % groups == 0 else { return nil }
  return columns / groups
}
