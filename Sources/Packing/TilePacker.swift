import Kernels
import Quantization

/// Turns quantized tiles into the bytes of the members of one tensor.
package struct TilePacker: Sendable {
  private let encoding: WeightEncoding
  private let grouping: Grouping
  private let outlierColumns: [Int32]

  /// Elements of one of the matrices that the tensor stacks.
  private let matrixLength: Int

  /// - Parameters:
  ///   - outlierColumns: as many as the encoding says.
  ///   - matrices: how many matrices the tensor stacks.
  package init(encoding: WeightEncoding, grouping: Grouping, outlierColumns: [Int32] = [], matrices: Int = 1) {
    precondition(outlierColumns.count == encoding.outliers?.count ?? 0)
    self.encoding = encoding
    self.grouping = grouping
    self.outlierColumns = outlierColumns
    matrixLength = grouping.count / max(1, matrices)
  }

  /// - Parameters:
  ///   - first: the tile's first element, as `Tiling` gives it.
  ///   - scaleMean: the offset of doubly quantized scales, written with the first tile.
  ///   - buffer: reused space.
  ///   - write: receives for each member its bytes, the first `count` of an array, and their offset in it.
  package func pack(
    _ tile: borrowing QuantizedTile, first: Int, scaleMean: Float?, buffer: inout [UInt8],
    write: (_ role: PackedFormat.Role, _ offset: Int, _ bytes: [UInt8], _ count: Int) throws -> Void
  ) throws {
    let group = grouping.group(of: first)
    if encoding.bits == 8 {
      try write(.codes, first, tile.codes, tile.codes.count)
    } else {
      let count = stream(tile.codes, into: &buffer)
      try write(.codes, first * encoding.bits / 8, buffer, count)
    }
    if encoding.hasGroupIndex, !tile.groupIndex.isEmpty {
      let bytes = Self.bytes(tile.groupIndex)
      try write(.groupIndex, first / matrixLength * bytes.count, bytes, bytes.count)
    }
    if let outliers = encoding.outliers {
      let count = encodeElements(tile.outliers, as: outliers.type, into: &buffer)
      // Tiles of a tensor with outlier columns are whole rows.
      let row = first / grouping.rowLength
      try write(.outlierWeights, row * outliers.count * outliers.type.bitWidth / 8, buffer, count)
      if first == 0 {
        let bytes = Self.bytes(outlierColumns)
        try write(.outlierColumns, 0, bytes, bytes.count)
      }
    }
    guard !tile.scales.isEmpty else { return }
    switch encoding.scales {
    case .plain(let type):
      let offset = group * type.bitWidth / 8
      let count = encodeElements(tile.scales, as: type, into: &buffer)
      try write(.scales, offset, buffer, count)
      switch encoding.levels {
      case .affine(.integer):
        let count = stream(tile.zeroPoints.map { UInt8($0) }, into: &buffer)
        try write(.zeroPoints, group * encoding.bits / 8, buffer, count)
      case .affine(.float):
        let count = encodeElements(tile.zeroPoints, as: type, into: &buffer)
        try write(.zeroPoints, offset, buffer, count)
      case .affine(.middle), .codebook: break
      }
    case .nested(let blockSize):
      try write(.scaleCodes, group, tile.scaleCodes, tile.scaleCodes.count)
      let count = encodeElements(tile.blockScales, as: .f32, into: &buffer)
      try write(.blockScales, group / blockSize * 4, buffer, count)
      if first == 0, let scaleMean {
        let count = encodeElements([scaleMean], as: .f32, into: &buffer)
        try write(.scaleOffset, 0, buffer, count)
      }
    }
  }

  /// Little-endian.
  private static func bytes(_ numbers: [Int32]) -> [UInt8] {
    numbers.flatMap { number in
      (0..<4).map { UInt8(truncatingIfNeeded: UInt32(bitPattern: number) >> UInt32(8 * $0)) }
    }
  }

  private func stream(_ codes: [UInt8], into buffer: inout [UInt8]) -> Int {
    let count = packedByteCount(codes: codes.count, bits: encoding.bits)
    if buffer.count < count { buffer = [UInt8](repeating: 0, count: count) }
    var bytes = buffer.mutableSpan
    packBits(codes.span, bits: encoding.bits, into: &bytes)
    return count
  }
}
