import Checkpoints
import Kernels
import Quantization

/// "pack-quantized" of compressed-tensors: integer weights of 1 to 8 bits, without quantized activations.
///
///     m.weight_packed      I32  [rows, ⌈columns·bits/32⌉]  code + 2^(bits−1), each row an LSB-first stream
///     m.weight_scale       F*   [rows, groups]             [rows, 1] where a row shares one
///     m.weight_zero_point  I32  [⌈rows·bits/32⌉, groups]   the same, packed along the outputs; only if asymmetric
///     m.weight_shape       I64  [2]                        rows, columns
///
/// W = scale · (code − zero point) with codes −2^(bits−1) … 2^(bits−1) − 1: our unsigned codes are the stored ones.
/// Read as well: zero points as plain I8 `[rows, groups]`, group numbers of inputs (`weight_g_idx`), and the words of
/// releases up to 0.17, which hold ⌊32/bits⌋ codes each.
package struct PackQuantizedLayout: WeightLayout {
  package enum ZeroPoints: Hashable, Sendable {
    case none
    case packed
    /// As compressed-tensors 0.9 wrote them.
    case bytes
  }

  package private(set) var rows: Int
  package let columns: Int
  package let bits: Int
  package let groupLength: Int
  package let zeroPoints: ZeroPoints
  package let scaleType: ElementType
  private let shapeType: ElementType
  private let hasGroupIndex: Bool
  /// Codes do not cross words.
  private let isSparse: Bool

  package init(
    rows: Int, columns: Int, bits: Int, groupLength: Int, isSymmetric: Bool, scaleType: ElementType
  ) {
    self.init(
      rows: rows, columns: columns, bits: bits, groupLength: groupLength, zeroPoints: isSymmetric ? .none : .packed,
      scaleType: scaleType, shapeType: .i64, hasGroupIndex: false, isSparse: false)
  }

  private init(
    rows: Int, columns: Int, bits: Int, groupLength: Int, zeroPoints: ZeroPoints, scaleType: ElementType,
    shapeType: ElementType, hasGroupIndex: Bool, isSparse: Bool
  ) {
    self.rows = rows
    self.columns = columns
    self.bits = bits
    self.groupLength = groupLength
    self.zeroPoints = zeroPoints
    self.scaleType = scaleType
    self.shapeType = shapeType
    self.hasGroupIndex = hasGroupIndex
    self.isSparse = isSparse
  }

  private var groups: Int { (columns + groupLength - 1) / groupLength }
  private var wordsPerRow: Int {
    isSparse ? (columns + 32 / bits - 1) / (32 / bits) : wordByteCount(codes: columns, bits: bits) / 4
  }

  package var label: String {
    "pack-quantized \(bits) bits, groups of \(groupLength)" + (zeroPoints == .none ? "" : ", zero points")
  }

  package func members(of module: String) -> [TensorSpecification] {
    var members = [
      TensorSpecification(name: module + ".weight_packed", type: .i32, shape: [rows, wordsPerRow]),
      TensorSpecification(name: module + ".weight_scale", type: scaleType, shape: [rows, groups]),
      TensorSpecification(name: module + ".weight_shape", type: shapeType, shape: [2]),
    ]
    switch zeroPoints {
    case .none: break
    case .packed:
      let words = wordByteCount(codes: rows, bits: bits) / 4
      members.append(
        TensorSpecification(name: module + ".weight_zero_point", type: .i32, shape: [words, groups]))
    case .bytes:
      members.append(TensorSpecification(name: module + ".weight_zero_point", type: .i8, shape: [rows, groups]))
    }
    if hasGroupIndex {
      members.append(TensorSpecification(name: module + ".weight_g_idx", type: .i32, shape: [columns]))
    }
    return members
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .rows(bits: bits) }

  package func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?) {
    tile.replaceZeroScales(of: self, bits: bits, groupIndex: groupIndex)
  }

  /// - Precondition: the layout is a writer's, as the initializer with the symmetry makes it.
  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    precondition(!isSparse && !hasGroupIndex)
    try RuntimeLayout.packQuantized.check(parameters.scales, as: scaleType, module: module)
    var members = [
      elementBytes(parameters.scales, as: scaleType),
      [rows, columns].flatMap { size in (0..<8).map { UInt8(truncatingIfNeeded: size >> ($0 * 8)) } },
    ]
    if zeroPoints == .packed {
      let zeros = (0..<groupCount).map { UInt8(parameters.zeroPoint(ofGroup: $0, bits: bits)) }
      let streams = packedRows(
        transposed(zeros, rows: rows, columns: groups), rows: groups, columns: rows, bits: bits, workers: 1)
      let words = wordByteCount(codes: rows, bits: bits) / 4
      members.append(transposedWords(streams, rows: groups, columns: words, workers: 1))
    }
    return members
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let codes: [UInt8]
    if isSparse {
      let perWord = 32 / bits
      var unpacked = [UInt8](repeating: 0, count: rows * columns)
      let words = integers(members[0])
      let mask = UInt32(1 << bits) - 1
      for row in 0..<rows {
        for column in 0..<columns {
          let word = UInt32(bitPattern: words[row * wordsPerRow + column / perWord])
          unpacked[row * columns + column] = UInt8(truncatingIfNeeded: word >> UInt32(column % perWord * bits) & mask)
        }
      }
      codes = unpacked
    } else {
      codes = unpackedRows(members[0], rows: rows, columns: columns, bits: bits, workers: workers)
    }
    let middle = Float(1 << (bits - 1))
    var zeros: [Float] = []
    switch zeroPoints {
    case .none: break
    case .packed:
      let words = wordByteCount(codes: rows, bits: bits) / 4
      let streams = transposedWords(members[3], rows: words, columns: groups, workers: 1)
      let stored = unpackedRows(streams, rows: groups, columns: rows, bits: bits, workers: 1)
      zeros = transposed(stored, rows: groups, columns: rows).map { Float($0) }
    case .bytes: zeros = elementValues(members[3], as: .i8).map { $0 + middle }
    }
    var index: [Int32]?
    if hasGroupIndex, let bytes = members.last {
      let found = integers(bytes)
      // −1 throughout stands for groups that were never set.
      if !found.allSatisfy({ $0 == -1 }) {
        guard found.allSatisfy({ (0..<Int32(groups)).contains($0) }) else {
          throw module.fault(".weight_g_idx", "weight_g_idx", "numbers of groups, 0 to \(groups - 1)")
        }
        index = found
      }
    }
    return CodedWeight(
      rows: rows, columns: columns, bits: bits, decoding: .zeroPoint, sharing: .columns(groupLength), codes: codes,
      scales: elementValues(members[1], as: scaleType), zeroPoints: zeros, groupIndex: index)
  }

  /// The layout of a module as its tensors show it.
  /// - Parameter widths: the widths that the configuration names.
  package init(_ module: StoredModule, widths: [Int]) throws(CheckpointError) {
    let packed = try module.require(".weight_packed", rank: 2, [.i32])
    let scales = try module.require(".weight_scale", rank: 2, ElementType.floats)
    let shape = try module.require(".weight_shape", rank: 1, [.i64, .i32])
    guard shape.elementCount == 2 else { throw module.fault(".weight_shape", "shape", "[2]") }
    let bytes = try module.bytes(".weight_shape")
    let width = shape.type.bitWidth / 8
    var sizes: [UInt64] = [0, 0]
    for (position, byte) in bytes.enumerated() where position < 2 * width {
      sizes[position / width] |= UInt64(byte) << UInt64(position % width * 8)
    }
    let rows = packed.shape[0]
    guard sizes[0] == UInt64(rows), scales.shape[0] == rows, (1...(1 << 32)).contains(sizes[1]) else {
      throw module.fault(
        ".weight_shape", "weight_shape", "the shape of the weight, whose packed rows are \(rows), not \(sizes)")
    }
    let columns = Int(sizes[1])
    let candidates = widths.isEmpty ? Array(1...8) : widths
    let dense = candidates.first { (columns * $0 + 31) / 32 == packed.shape[1] }
    let sparse = candidates.first { (columns + 32 / $0 - 1) / (32 / $0) == packed.shape[1] }
    guard let bits = dense ?? sparse else {
      throw module.fault(
        ".weight_packed", "shape",
        "[\(rows), \(columns)·bits/32] for a width that config.json names, not"
          + " \(packed.shape)")
    }
    let index = module[".weight_g_idx"] != nil
    guard let length = Packing.groupLength(columns: columns, groups: scales.shape[1], stated: nil) else {
      throw module.fault(
        ".weight_scale", "shape", "[\(rows), groups] with groups that divide \(columns), not \(scales.shape)")
    }
    let zeros = module[".weight_zero_point"]
    self.init(
      rows: rows, columns: columns, bits: bits, groupLength: length,
      zeroPoints: zeros == nil ? .none : zeros?.type == .i8 ? .bytes : .packed, scaleType: scales.type,
      shapeType: shape.type, hasGroupIndex: index, isSparse: dense == nil)
  }
}
