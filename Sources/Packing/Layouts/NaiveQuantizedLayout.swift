import Checkpoints
import Kernels
import Quantization

/// "int-quantized", "naive-quantized" and "float-quantized" of compressed-tensors, and "mxfp8-quantized": a code per
/// byte.
///
///     m.weight             I8 or F8_E4M3  [rows, columns]
///     m.weight_scale       F*             [rows, 1], [1], [rows, groups], or blocks [⌈rows/h⌉, ⌈columns/w⌉];
///                          U8 (E8M0)      [rows, groups] of mxfp8
///     m.weight_zero_point  I8             shaped like the scale, only if asymmetric
///
/// W = scale · (code − zero point), or scale · value of the code.
package struct NaiveQuantizedLayout: WeightLayout {
  package private(set) var rows: Int
  package let columns: Int
  /// I8 or F8_E4M3.
  package let codeType: ElementType
  package let scaleType: ElementType
  private var scaleShape: [Int]
  package let groupLength: Int
  /// Rows that share a row of scales.
  private let rowsPerScale: Int
  private let hasZeroPoints: Bool

  /// A writer's: a scale per row.
  package init(rows: Int, columns: Int, codeType: ElementType, scaleType: ElementType) {
    self.rows = rows
    self.columns = columns
    self.codeType = codeType
    self.scaleType = scaleType
    scaleShape = [rows, 1]
    groupLength = columns
    rowsPerScale = 1
    hasZeroPoints = false
  }

  private var groups: Int { (columns + groupLength - 1) / groupLength }
  private var layout: RuntimeLayout { codeType == .i8 ? .intQuantized : .floatQuantized }
  private var storedScaleType: ElementType { scaleType == .f8E8M0 ? .u8 : scaleType }

  package var label: String {
    let sharing = rowsPerScale > 1 ? "blocks of \(rowsPerScale) rows, " : ""
    return "\(layout.rawValue) \(codeType.rawValue), \(sharing)groups of \(groupLength)"
  }

  package func members(of module: String) -> [TensorSpecification] {
    [
      TensorSpecification(name: module + ".weight", type: codeType, shape: [rows, columns]),
      TensorSpecification(name: module + ".weight_scale", type: storedScaleType, shape: scaleShape),
    ]
      + (hasZeroPoints
        ? [TensorSpecification(name: module + ".weight_zero_point", type: .i8, shape: scaleShape)] : [])
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    guard rows == self.rows || rows % rowsPerScale == 0 else { return nil }
    var part = self
    part.rows = rows
    if scaleShape.reduce(1, *) > 1 { part.scaleShape[0] = (rows + rowsPerScale - 1) / rowsPerScale }
    return part
  }

  package var placement: CodePlacement { .bytes(areSigned: codeType == .i8) }

  package func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?) {
    if codeType == .i8 { tile.replaceZeroScales(of: self, bits: 8, groupIndex: groupIndex) }
  }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    try layout.check(parameters.scales, as: scaleType, module: module)
    return [elementBytes(parameters.scales, as: scaleType)]
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let scales = spread(elementValues(members[1], as: scaleType))
    let zeroPoints = hasZeroPoints ? spread(elementValues(members[2], as: .i8)).map { $0 + 128 } : []
    let isInteger = codeType == .i8
    return CodedWeight(
      rows: rows, columns: columns, bits: 8,
      decoding: isInteger ? .zeroPoint : .levels(SmallFloat(codeType)?.values ?? []),
      sharing: .columns(groupLength), codes: isInteger ? signsFlipped(members[0]) : members[0], scales: scales,
      zeroPoints: zeroPoints)
  }

  /// One value per row and group.
  private func spread(_ values: [Float]) -> [Float] {
    if values.count == 1 { return [Float](repeating: values[0], count: rows * groups) }
    guard rowsPerScale > 1 else { return values }
    return (0..<rows).flatMap { row in
      let start = row / rowsPerScale * groups
      return values[start..<(start + groups)]
    }
  }

  /// The layout of a module as its tensors show it.
  /// - Parameter block: `block_structure` of the configuration.
  package init(_ module: StoredModule, block: [Int]?) throws(CheckpointError) {
    let weight = try module.require(".weight", rank: 2, [.i8, .f8E4M3])
    guard let scales = module[".weight_scale"] else {
      throw module.fault(".weight_scale", "the tensor", "present beside .weight")
    }
    (rows, columns) = (weight.shape[0], weight.shape[1])
    codeType = weight.type
    scaleShape = scales.shape
    hasZeroPoints = module[".weight_zero_point"] != nil
    scaleType = scales.type == .u8 ? .f8E8M0 : scales.type
    guard ElementType.floats.contains(scaleType) || scaleType == .f8E8M0 else {
      throw module.fault(".weight_scale", "dtype", "F32, F16, BF16 or U8, not \(scales.type.rawValue)")
    }
    if scales.elementCount == 1 {
      (groupLength, rowsPerScale) = (columns, 1)
      return
    }
    let expected = "[\(rows), 1], [1], [\(rows), groups] or blocks as config.json says, not \(scales.shape)"
    guard scales.shape.count == 2, scales.elementCount > 0 else {
      throw module.fault(".weight_scale", "shape", expected)
    }
    let isBlocked = scales.shape[0] != rows
    var stated: [Int] = []
    if let block, block.count == 2, block.allSatisfy({ (1...(1 << 20)).contains($0) }) { stated = block }
    let height = isBlocked ? (stated.first ?? (rows + scales.shape[0] - 1) / scales.shape[0]) : 1
    guard (rows - 1) / height + 1 == scales.shape[0],
      let length = Packing.groupLength(
        columns: columns, groups: scales.shape[1], stated: isBlocked && stated.count == 2 ? stated[1] : nil)
    else { throw module.fault(".weight_scale", "shape", expected) }
    groupLength = length
    rowsPerScale = height
  }
}

/// Unsigned codes as signed ones, and back.
func signsFlipped(_ codes: [UInt8]) -> [UInt8] {
  var result = codes
  var target = result.mutableSpan
  invertHighestBits(&target)
  return result
}
