import Checkpoints
import Kernels
import Quantization

/// GPTQ files as AutoGPTQ ("gptq", v1) and GPTQModel ("gptq_v2") write and read them.
///
///     m.qweight  I32  [⌈columns·bits/32⌉, rows]     codes along the inputs: the words of an output stand in its column
///     m.qzeros   I32  [groups, ⌈rows·bits/32⌉]      zero points along the outputs; v1 stores them less one
///     m.scales   F16  [groups, rows]
///     m.g_idx    I32  [columns]                     the group of each input
///
/// Streams are LSB first, so 4-bit words read `k+7 … k+1 k` from the highest nibble down. W = scale · (code − zero point).
/// A zero point of 0 cannot be stored in v1 (its word would borrow from its neighbour): it becomes 1, the codes of its
/// group go up by one, and the highest code, which has no room above it, stands for one step less.
package struct GPTQLayout: WeightLayout {
  package enum Version: Hashable, Sendable {
    /// Stores zero points less one.
    case v1
    /// Stores them as they are.
    case v2
  }

  package private(set) var rows: Int
  package let columns: Int
  package let bits: Int
  package let groupLength: Int
  package let version: Version
  /// Readers of old files find none; writers always write it.
  package let hasGroupIndex: Bool
  package let scaleType: ElementType

  package static let widths: Set<Int> = [2, 3, 4, 8]

  package init(
    rows: Int, columns: Int, bits: Int, groupLength: Int, version: Version, hasGroupIndex: Bool = true,
    scaleType: ElementType = .f16
  ) {
    self.rows = rows
    self.columns = columns
    self.bits = bits
    self.groupLength = groupLength
    self.version = version
    self.hasGroupIndex = hasGroupIndex
    self.scaleType = scaleType
  }

  private var groups: Int { (columns + groupLength - 1) / groupLength }
  private var layout: RuntimeLayout { version == .v1 ? .gptq : .gptqV2 }

  package var label: String { "\(layout.rawValue) \(bits) bits, groups of \(groupLength)" }

  package func members(of module: String) -> [TensorSpecification] {
    let wordRows = wordByteCount(codes: columns, bits: bits) / 4
    let zeroWords = wordByteCount(codes: rows, bits: bits) / 4
    var members = [
      TensorSpecification(name: module + ".qweight", type: .i32, shape: [wordRows, rows]),
      TensorSpecification(name: module + ".qzeros", type: .i32, shape: [groups, zeroWords]),
      TensorSpecification(name: module + ".scales", type: scaleType, shape: [groups, rows]),
    ]
    if hasGroupIndex { members.append(TensorSpecification(name: module + ".g_idx", type: .i32, shape: [columns])) }
    return members
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .columns(bits: bits) }

  package func prepare(_ tile: inout QuantizedTile, groupIndex: [Int32]?) {
    tile.replaceZeroScales(of: self, bits: bits, groupIndex: groupIndex)
    if version == .v1 { tile.raiseZeroPoints(of: self, bits: bits, groupIndex: groupIndex) }
  }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    try layout.check(parameters.scales, as: scaleType, module: module)
    let subtrahend: Float = version == .v1 ? 1 : 0
    let zeroPoints = (0..<groupCount).map { UInt8(parameters.zeroPoint(ofGroup: $0, bits: bits) - subtrahend) }
    let index = parameters.groupIndex ?? (0..<columns).map { Int32($0 / groupLength) }
    return [
      packedRows(
        transposed(zeroPoints, rows: rows, columns: groups), rows: groups, columns: rows, bits: bits, workers: 1),
      elementBytes(transposed(parameters.scales, rows: rows, columns: groups), as: scaleType),
    ] + (hasGroupIndex ? [littleEndianBytes(index)] : [])
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let wordRows = wordByteCount(codes: columns, bits: bits) / 4
    let words = transposedWords(members[0], rows: wordRows, columns: rows, workers: workers)
    let stored = unpackedRows(members[1], rows: groups, columns: rows, bits: bits, workers: 1)
    // v1 adds one within the width of a code: the stored 2^bits − 1 is what some writers made of 0.
    let added = version == .v1 ? 1 : 0
    let zeroPoints = transposed(stored, rows: groups, columns: rows).map { Float((Int($0) + added) % (1 << bits)) }
    var index: [Int32]?
    if hasGroupIndex {
      let found = integers(members[3])
      guard found.allSatisfy({ (0..<Int32(groups)).contains($0) }) else {
        throw module.fault(".g_idx", "g_idx", "numbers of groups, 0 to \(groups - 1)")
      }
      let isTrivial = found.enumerated().allSatisfy { Int($1) == $0 / groupLength }
      index = isTrivial ? nil : found
    }
    return CodedWeight(
      rows: rows, columns: columns, bits: bits, decoding: .zeroPoint, sharing: .columns(groupLength),
      codes: unpackedRows(words, rows: rows, columns: columns, bits: bits, workers: workers),
      scales: transposed(elementValues(members[2], as: scaleType), rows: groups, columns: rows),
      zeroPoints: zeroPoints, groupIndex: index)
  }

  /// The layout of a module as its tensors show it.
  /// - Parameter configuration: `quantization_config`.
  package init(_ module: StoredModule, _ configuration: JSONValue?, version: Version) throws(CheckpointError) {
    let words = try module.require(".qweight", rank: 2, [.i32])
    let zeros = try module.require(".qzeros", rank: 2, [.i32])
    let scales = try module.require(".scales", rank: 2, ElementType.floats)
    let index = module[".g_idx"] == nil ? nil : try module.require(".g_idx", rank: 1, [.i32])
    let (groups, rows) = (scales.shape[0], scales.shape[1])
    let stated = configuration?["bits"]?.integer
    let fitting = Self.widths.sorted().filter { (rows * $0 + 31) / 32 == zeros.shape[1] }
    let widths = fitting.contains(stated ?? 0) ? [stated ?? 0] : fitting
    let candidates = widths.filter { bits in
      index.map { ($0.elementCount * bits + 31) / 32 == words.shape[0] } ?? (words.shape[0] * 32 % bits == 0)
    }
    guard let bits = candidates.first else {
      throw module.fault(
        ".qzeros", "shape", "[\(groups), \(rows)·bits/32] for 2, 3, 4 or 8 bits, not \(zeros.shape)")
    }
    let columns = index?.elementCount ?? words.shape[0] * 32 / bits
    guard
      let length = Packing.groupLength(
        columns: columns, groups: groups, stated: configuration?["group_size"]?.integer)
    else {
      throw module.fault(".scales", "shape", "one row per group of the \(columns) inputs, not \(groups) rows")
    }
    self.init(
      rows: rows, columns: columns, bits: bits, groupLength: length, version: version, hasGroupIndex: index != nil,
      scaleType: scales.type)
  }
}
