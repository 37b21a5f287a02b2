import Kernels

/// How the codes of one tensor turn back into weights: all that a reader must know, whatever method made them.
package struct WeightEncoding: Hashable, Sendable {
  package enum Levels: Hashable, Sendable {
    /// weight = scale · (code − zero point)
    case affine(ZeroPoint)
    /// weight = scale · level[code]
    case codebook(NamedCodebook)
  }

  package enum ZeroPoint: String, CaseIterable, Hashable, Sendable {
    /// Always `1 << (bits − 1)`: codes are signed integers in offset binary. Nothing is stored.
    case middle
    /// A code of its own per group, stored in `bits` bits.
    case integer
    /// A real number per group, stored in the type of the scales.
    case float
  }

  /// What shares a scale; lengths are of the row-major flattened tensor, a row being as long as its last dimension.
  package enum Sharing: Hashable, Sendable {
    case tensor
    case row
    case group(Int)
    case block(Int)
  }

  package enum Scales: Hashable, Sendable {
    case plain(ElementType)
    /// 8-bit codes of `NamedCodebook.dynamic8`, one F32 scale per `blockSize` of them, one F32 offset per tensor.
    case nested(blockSize: Int)
  }

  /// Columns whose weights are stored as they are, beside the codes (LLM.int8(), arXiv 2208.07339, section 3). Which
  /// columns they are is stored with the tensor.
  package struct Outliers: Hashable, Sendable {
    /// At least one, and no more than the last dimension has.
    package let count: Int
    /// F16 or BF16.
    package let type: ElementType

    package init(count: Int, type: ElementType) {
      self.count = count
      self.type = type
    }
  }

  package let bits: Int
  package let levels: Levels
  package let sharing: Sharing
  package let scales: Scales
  package let outliers: Outliers?
  /// Whether the groups of a row are not runs of columns, but what an index stored with the tensor says: the group of
  /// each column (`g_idx` of GPTQ files). Only with `Sharing.group`.
  package let hasGroupIndex: Bool

  package init(
    bits: Int, levels: Levels, sharing: Sharing, scales: Scales, outliers: Outliers? = nil, hasGroupIndex: Bool = false
  ) {
    self.bits = bits
    self.levels = levels
    self.sharing = sharing
    self.scales = scales
    self.outliers = outliers
    self.hasGroupIndex = hasGroupIndex
  }

  /// The same codes with outlier columns beside them.
  package func with(_ outliers: Outliers?) -> WeightEncoding {
    WeightEncoding(
      bits: bits, levels: levels, sharing: sharing, scales: scales, outliers: outliers, hasGroupIndex: hasGroupIndex)
  }

  /// Whether a row is a scale times integers from −128 to 127, so that products can be made of the integers.
  package var isIntegerRows: Bool { bits == 8 && levels == .affine(.middle) && sharing == .row }

  package var highestCode: Int32 { (1 << Int32(bits)) - 1 }

  /// The zero point of codes without a stored one.
  package var middle: Float { Float(1 << (bits - 1)) }

  package func grouping(of shape: [Int]) -> Grouping { Grouping(shape: shape, sharing: sharing) }
}

/// How the elements of a flattened tensor fall into groups: rows of equal length, each cut into groups of equal length,
/// the last group of a row shorter if the length does not divide it.
package struct Grouping: Hashable, Sendable {
  package let count: Int
  package let rowLength: Int
  package let groupLength: Int

  /// - Precondition: the tensor has elements.
  init(shape: [Int], sharing: WeightEncoding.Sharing) {
    count = shape.reduce(1, *)
    precondition(count > 0)
    let last = shape.last ?? 1
    switch sharing {
    case .tensor: (rowLength, groupLength) = (count, count)
    case .row: (rowLength, groupLength) = (last, last)
    case .group(let size): (rowLength, groupLength) = (last, min(size, last))
    case .block(let size): (rowLength, groupLength) = (count, min(size, count))
    }
  }

  package var groupsPerRow: Int { (rowLength + groupLength - 1) / groupLength }
  package var rows: Int { count / rowLength }
  package var groupCount: Int { rows * groupsPerRow }

  /// The group that holds an element.
  package func group(of element: Int) -> Int { element / rowLength * groupsPerRow + element % rowLength / groupLength }

  /// The elements of a group.
  package func elements(of group: Int) -> Range<Int> {
    let row = group / groupsPerRow
    let start = row * rowLength + group % groupsPerRow * groupLength
    return start..<min(start + groupLength, (row + 1) * rowLength)
  }

  /// The groups of a tile that begins with a whole group.
  func runs(first: Int, count: Int) -> GroupRuns {
    GroupRuns(rowLength: rowLength, groupLength: groupLength, column: first % rowLength, count: count)
  }
}

/// The codebooks of the packed format.
package enum NamedCodebook: String, CaseIterable, Hashable, Sendable {
  case nf4
  case fp4
  case dynamic8

  package var codebook: Codebook {
    switch self {
    case .nf4: Self.nf4Codebook
    case .fp4: Self.fp4Codebook
    case .dynamic8: Self.dynamicCodebook
    }
  }

  private static let nf4Codebook = Codebook(levels: NormalFloat.levels)
  private static let fp4Codebook = Codebook(levels: FourBitFloat.levels)
  private static let dynamicCodebook = Codebook(levels: DoubleQuantization.levels)
}
