import Checkpoints
import Kernels
import Quantization

/// AWQ files of version "gemm", 4 bits, as AutoAWQ writes and reads them.
///
///     m.qweight  I32  [columns, rows/8]   eight outputs per word
///     m.qzeros   I32  [groups, rows/8]    the same, zero points as they are
///     m.scales   F16  [groups, rows]
///
/// Nibble i of word c, from the lowest, is output 8c + [0, 2, 4, 6, 1, 3, 5, 7][i]. W = scale · (code − zero point).
package struct AWQLayout: WeightLayout {
  package private(set) var rows: Int
  package let columns: Int
  package let groupLength: Int
  package let scaleType: ElementType

  package static let order = [0, 2, 4, 6, 1, 3, 5, 7]

  package init(rows: Int, columns: Int, groupLength: Int, scaleType: ElementType = .f16) {
    self.rows = rows
    self.columns = columns
    self.groupLength = groupLength
    self.scaleType = scaleType
  }

  private var groups: Int { columns / groupLength }
  package var label: String { "awq 4 bits, groups of \(groupLength)" }

  package func members(of module: String) -> [TensorSpecification] {
    [
      TensorSpecification(name: module + ".qweight", type: .i32, shape: [columns, rows / 8]),
      TensorSpecification(name: module + ".qzeros", type: .i32, shape: [groups, rows / 8]),
      TensorSpecification(name: module + ".scales", type: scaleType, shape: [groups, rows]),
    ]
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .together(order: Self.order) }

  package func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?) {
    tile.replaceZeroScales(of: self, bits: 4, groupIndex: groupIndex)
  }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    try RuntimeLayout.awq.check(parameters.scales, as: scaleType, module: module)
    let zeroPoints = (0..<groupCount).map { UInt8(parameters.zeroPoint(ofGroup: $0, bits: 4)) }
    return [
      packed(zeroPoints, columns: groups),
      elementBytes(transposed(parameters.scales, rows: rows, columns: groups), as: scaleType),
    ]
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    CodedWeight(
      rows: rows, columns: columns, bits: 4, decoding: .zeroPoint, sharing: .columns(groupLength),
      codes: unpacked(members[0], columns: columns, workers: workers),
      scales: transposed(elementValues(members[2], as: scaleType), rows: groups, columns: rows),
      zeroPoints: unpacked(members[1], columns: groups, workers: 1).map { Float($0) })
  }

  /// A matrix `[rows, columns]` of codes as words `[columns, rows/8]`.
  private func packed(_ codes: [UInt8], columns: Int) -> [UInt8] {
    var words = [UInt8](repeating: 0, count: rows / 2 * columns)
    var target = words.mutableSpan
    packRowsTogether(codes.span, rows: rows, columns: columns, order: Self.order, into: &target, workers: 1)
    return transposedWords(words, rows: rows / 8, columns: columns, workers: 1)
  }

  private func unpacked(_ bytes: [UInt8], columns: Int, workers: Int) -> [UInt8] {
    let words = transposedWords(bytes, rows: columns, columns: rows / 8, workers: workers)
    var codes = [UInt8](repeating: 0, count: rows * columns)
    var target = codes.mutableSpan
    unpackRowsTogether(words.span, rows: rows, columns: columns, order: Self.order, into: &target, workers: workers)
    return codes
  }

  /// The layout of a module as its tensors show it.
  package init(_ module: StoredModule, _ configuration: JSONValue?) throws(CheckpointError) {
    let words = try module.require(".qweight", rank: 2, [.i32])
    let scales = try module.require(".scales", rank: 2, ElementType.floats)
    let (groups, rows) = (scales.shape[0], scales.shape[1])
    guard words.shape[1] * 8 == rows else {
      throw module.fault(".qweight", "shape", "[inputs, \(rows)/8], eight 4-bit codes per word, not \(words.shape)")
    }
    let columns = words.shape[0]
    guard columns % groups == 0 else {
      throw module.fault(".scales", "shape", "one row per group of the \(columns) inputs, not \(groups) rows")
    }
    self.init(rows: rows, columns: columns, groupLength: columns / groups, scaleType: scales.type)
  }
}
