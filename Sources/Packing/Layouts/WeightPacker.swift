import Kernels
import Quantization
import Synchronization

/// What turns the codes of a weight back, in the order of its groups.
package struct WeightParameters: Sendable {
  /// Whether `zeroPoints` are offsets to be added instead (`CodedWeight.Decoding.offset`).
  package var areOffsets = false
  package var scales: [Float] = []
  /// As many, or none, which stands for the middle code.
  package var zeroPoints: [Float] = []
  /// The group of each column, where groups are not runs of columns.
  package var groupIndex: [Int32]?
  /// With doubly quantized scales, what is stored of them.
  package var nested: CodedWeight.NestedScales?
  /// See `CodedWeight`.
  package var divisor: Float = 1
  package var factor: Float = 1

  package init() {}

  func zeroPoint(ofGroup group: Int, bits: Int) -> Float {
    zeroPoints.isEmpty ? Float(1 << (bits - 1)) : zeroPoints[group]
  }
}

/// Packs one weight tile by tile, from any number of threads and in any order.
///
/// Codes are written as they come, or go to a matrix of words where they stand across the rows. Parameters, which take
/// little, are gathered; the thread that brings the last tile packs and writes them, and the matrix.
package final class WeightPacker: Sendable {
  /// Receives bytes of a member, by its place in `WeightLayout.members`: the first `count` of an array, and their offset.
  package typealias Writer = (_ member: Int, _ offset: Int, _ bytes: [UInt8], _ count: Int) throws -> Void

  private struct Contents {
    var parameters = WeightParameters()
    var words: WordMatrix?
    var remaining: Int
  }

  private let layout: any WeightLayout
  private let module: String
  private let pool: WordMatrixPool
  private let contents: Mutex<Contents>

  /// Bytes of a matrix that are written at a time.
  private static let partLength = 1 << 18

  /// - Parameter known: what tiles do not tell: kinds of parameters, of a weight that was read from a file.
  package init(
    _ layout: any WeightLayout, module: String, pool: WordMatrixPool, known: WeightParameters = WeightParameters()
  ) {
    self.layout = layout
    self.module = module
    self.pool = pool
    contents = Mutex(Contents(parameters: known, remaining: layout.rows * layout.columns))
  }

  /// Packs a tile and writes what can be written now.
  /// - Parameters:
  ///   - tile: used up. Whole rows, in `CodePlacement.rowUnit`s but for the last; of flat codes whole groups that begin
  ///     on a whole byte. A group index comes with the first tile, which then comes before the others.
  ///   - first: the tile's first element.
  ///   - scaleMean: of doubly quantized scales.
  ///   - divisor: what all scales are divided by.
  ///   - buffer: reused space.
  /// - Throws: `LayoutError`, and what `write` throws.
  package func add(
    _ tile: inout QuantizedTile, first: Int, scaleMean: Float? = nil, divisor: Float = 1, buffer: inout [UInt8],
    write: Writer
  ) throws {
    let (count, columns) = (tile.codes.count, layout.columns)
    let (words, groupIndex) = contents.withLock { contents in
      begin(&contents, with: tile)
      return (contents.words, contents.parameters.groupIndex)
    }
    layout.prepare(&tile, groupIndex: groupIndex)
    if let words {
      layout.placement.pack(tile.codes.span, columns: columns, row: first / columns, into: words, using: &buffer)
    } else {
      let length = layout.placement.pack(&tile.codes, columns: columns, into: &buffer)
      try write(0, layout.placement.offset(of: first, columns: columns), buffer, length)
    }
    let finished = contents.withLock { contents -> WeightParameters? in
      let group = layout.group(of: first)
      contents.parameters.scales.replaceSubrange(group..<group + tile.scales.count, with: tile.scales)
      if !tile.zeroPoints.isEmpty {
        contents.parameters.zeroPoints.replaceSubrange(group..<group + tile.zeroPoints.count, with: tile.zeroPoints)
      }
      if !tile.scaleCodes.isEmpty {
        let block = group / DoubleQuantization.blockSize
        contents.parameters.nested?.codes.replaceSubrange(group..<group + tile.scaleCodes.count, with: tile.scaleCodes)
        contents.parameters.nested?.blockScales.replaceSubrange(
          block..<block + tile.blockScales.count, with: tile.blockScales)
        contents.parameters.nested?.offset = scaleMean ?? 0
      }
      contents.parameters.divisor = divisor
      contents.remaining -= count
      guard contents.remaining == 0 else { return nil }
      let parameters = contents.parameters
      contents = Contents(remaining: 0)
      return parameters
    }
    guard let finished else { return }
    if let words {
      for start in stride(from: 0, to: words.byteCount, by: Self.partLength) {
        let part = start..<min(start + Self.partLength, words.byteCount)
        words.copyBytes(part, into: &buffer)
        try write(0, start, buffer, part.count)
      }
      pool.put(words)
    }
    for (member, bytes) in try layout.pack(finished, module: module).enumerated() {
      try write(member + 1, 0, bytes, bytes.count)
    }
  }

  /// Takes memory when the first tile comes.
  private func begin(_ contents: inout Contents, with tile: borrowing QuantizedTile) {
    if !tile.groupIndex.isEmpty { contents.parameters.groupIndex = tile.groupIndex }
    guard contents.parameters.scales.isEmpty else { return }
    let groups = layout.groupCount
    contents.parameters.scales = [Float](repeating: 0, count: groups)
    if !tile.zeroPoints.isEmpty { contents.parameters.zeroPoints = [Float](repeating: 0, count: groups) }
    if !tile.scaleCodes.isEmpty {
      contents.parameters.nested = CodedWeight.NestedScales(
        codes: [UInt8](repeating: 0, count: groups),
        blockScales: [Float](
          repeating: 0, count: (groups + DoubleQuantization.blockSize - 1) / DoubleQuantization.blockSize),
        offset: 0)
    }
    if let shape = layout.placement.words(rows: layout.rows, columns: layout.columns) {
      contents.words = pool.take(rows: shape.rows, columns: shape.columns)
    }
  }
}

/// Matrices of words that are used again and again. As many are made as weights are in work at the same time.
package final class WordMatrixPool: Sendable {
  private let free = Mutex<[WordMatrix]>([])
  private let capacity: Int

  /// - Parameter layouts: of all weights that are to be packed; the largest decides the matrices' size.
  package init(for layouts: [any WeightLayout]) { capacity = layouts.map(\.wordCount).max() ?? 0 }

  func take(rows: Int, columns: Int) -> WordMatrix {
    let words = free.withLock { $0.popLast() } ?? WordMatrix(capacity: capacity)
    words.use(rows: rows, columns: columns)
    return words
  }

  func put(_ words: WordMatrix) { free.withLock { $0.append(words) } }
}

extension WeightLayout {
  /// Words of the matrix that is gathered while the weight is packed; 0 where there is none.
  package var wordCount: Int { placement.words(rows: rows, columns: columns).map { $0.rows * $0.columns } ?? 0 }

  private var groupsPerRow: Int { (columns + groupLength - 1) / groupLength }

  package var groupCount: Int {
    placement.isFlat ? (rows * columns + groupLength - 1) / groupLength : rows * groupsPerRow
  }

  /// The group that begins with an element.
  func group(of element: Int) -> Int {
    placement.isFlat ? element / groupLength : element / columns * groupsPerRow
  }
}

// MARK: Groups that a layout does not hold as they are

extension QuantizedTile {
  /// Changes the codes of a group, given by its number within the tile, which is whole rows.
  private mutating func changeCodes(
    ofGroup group: Int, _ layout: some WeightLayout, _ groupIndex: [Int32]?, _ change: (UInt8) -> UInt8
  ) {
    let (columns, length) = (layout.columns, layout.groupLength)
    let (row, own) = group.quotientAndRemainder(dividingBy: (columns + length - 1) / length)
    let span = groupIndex == nil ? own * length..<min((own + 1) * length, columns) : 0..<columns
    for column in span where groupIndex.map({ Int($0[column]) == own }) ?? true {
      codes[row * columns + column] = change(codes[row * columns + column])
    }
  }

  /// Scales of zero, which some runtimes divide by, become one, all codes of their groups standing for zero.
  mutating func replaceZeroScales(of layout: some WeightLayout, bits: Int, groupIndex: [Int32]?) {
    guard scales.contains(0) else { return }
    let middle = Float(1 << (bits - 1))
    for group in scales.indices where scales[group] == 0 {
      scales[group] = 1
      let code = UInt8(min(max(zeroPoints.isEmpty ? middle : zeroPoints[group], 0), middle * 2 - 1))
      changeCodes(ofGroup: group, layout, groupIndex) { _ in code }
    }
  }

  /// Zero points of 0 become 1, with codes one higher; the highest stays.
  mutating func raiseZeroPoints(of layout: some WeightLayout, bits: Int, groupIndex: [Int32]?) {
    guard zeroPoints.contains(0) else { return }
    let highest = UInt8((1 << bits) - 1)
    for group in zeroPoints.indices where zeroPoints[group] == 0 {
      zeroPoints[group] = 1
      changeCodes(ofGroup: group, layout, groupIndex) { min($0, highest - 1) + 1 }
    }
  }
}
