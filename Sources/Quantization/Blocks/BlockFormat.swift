import Kernels

/// How the blocks of one GGUF type are made from values and turned back: one file per family.
///
/// Values come sixteen groups at a time (`GroupLanes`): a group shares a scale, and one or more groups are a block.
protocol BlockFormat: Sendable {
  var groupLength: Int { get }
  /// 1, 8 or 16.
  var groupsPerBlock: Int { get }
  var weighting: BlockWeighting { get }
  /// Encodes the loaded and weighed groups, `blocks` blocks from the first lane on.
  func encode(_ lanes: GroupLanes, blocks: Int, codes: inout [UInt8], into target: inout BlockBytes)
  /// Decodes one block.
  func decode(_ block: Span<UInt8>, into values: inout MutableSpan<Float>, at start: Int)
  /// What codes stand for, in their order: x = scale · level + offset.
  var levels: [Float] { get }
  /// The scale of a group of one block, and its offset where the format has any.
  func parameters(_ block: Span<UInt8>, _ group: Int) -> (scale: Float, offset: Float?)
  /// The code of one value of a block.
  func code(_ block: Span<UInt8>, _ place: Int) -> UInt8
}

/// How the errors of values are weighed while a block's scales are searched. llama.cpp's choices, so that errors can be
/// compared with its own; with importances v of the columns (E[x²] of a layer's inputs):
struct BlockWeighting: Sendable {
  enum Plain: Sendable {
    /// Nothing to search: the format's own rule decides.
    case none
    /// |x|.
    case magnitude
    /// |x| + √(mean of x² in the group).
    case magnitudeAndMean
    /// x².
    case square
  }

  enum Important: Sendable {
    case ignored
    /// v.
    case plain
    /// v · √(x² + factor · mean of x² in the block).
    case block(factor: Float)
    /// v · √(x² + mean of x² in the row).
    case row
  }

  let plain: Plain
  let important: Important
}

/// The bytes that blocks are written to.
struct BlockBytes {
  private(set) var bytes: [UInt8]
  private(set) var position = 0
  /// Whether a scale was beyond the range of binary16.
  private(set) var hasOverflow = false
  /// Whether the values are weighed by importance.
  var isImportant = false

  init(reusing bytes: consuming [UInt8]) { self.bytes = bytes }

  mutating func start(_ count: Int) {
    bytes.resize(to: count)
    position = 0
    hasOverflow = false
  }

  mutating func append(_ byte: UInt8) {
    bytes[position] = byte
    position += 1
  }

  /// Codes as they are.
  mutating func append(_ codes: [UInt8], from start: Int, count: Int) {
    bytes.replaceSubrange(position..<position + count, with: codes[start..<start + count])
    position += count
  }

  /// Bytes of a code's low four bits, and of those of the code at a distance above them.
  mutating func append(nibbles codes: [UInt8], from start: Int, distance: Int, count: Int) {
    let place = position
    position += count
    var target = bytes.mutableSpan
    packNibbles(codes.span, low: start, high: start + distance, count: count, into: &target, at: place)
  }

  mutating func append(half value: Float) {
    let bits = Half.half(from: value)
    if bits & 0x7fff >= 0x7c00 { hasOverflow = true }
    append(UInt8(truncatingIfNeeded: bits))
    append(UInt8(truncatingIfNeeded: bits >> 8))
  }

  mutating func take() -> [UInt8] {
    var result: [UInt8] = []
    swap(&result, &bytes)
    return result
  }
}

extension Span where Element == UInt8 {
  /// The binary16 number at a byte.
  func half(_ index: Int) -> Float { Half.float(fromHalf: UInt16(self[index]) | UInt16(self[index + 1]) << 8) }
}

extension BlockType {
  /// The format of a type of blocks; nil for plain numbers and for types that are not read.
  var format: (any BlockFormat)? {
    switch self {
    case .q80: SignedByteBlocks()
    case .q40: CentredBlocks(bits: 4)
    case .q50: CentredBlocks(bits: 5)
    case .q41: OffsetBlocks(bits: 4)
    case .q51: OffsetBlocks(bits: 5)
    case .iq4NL: CurvedBlocks()
    case .mxfp4: MicroscalingBlocks()
    case .q2K: AffineSuperBlocks.twoBits
    case .q4K: AffineSuperBlocks.fourBits
    case .q5K: AffineSuperBlocks.fiveBits
    case .q3K: SignedSuperBlocks.threeBits
    case .q6K: SignedSuperBlocks.sixBits
    case .iq4XS: SignedSuperBlocks.curved
    default: nil
    }
  }

  /// The type of plain numbers that safetensors files have, too.
  package var elementType: ElementType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    default: nil
    }
  }
}

/// Decodes whole blocks.
/// - Precondition: `type.isReadable`, `values` is a whole number of blocks and `bytes` holds them.
package func decodeBlocks(_ bytes: Span<UInt8>, as type: BlockType, into values: inout MutableSpan<Float>) {
  precondition(type.isReadable && values.count % type.blockLength == 0)
  precondition(bytes.count >= type.byteCount(of: values.count))
  if let element = type.elementType { return decodeElements(bytes.bytes, as: element, into: &values) }
  guard let format = type.format else { return }
  for block in 0..<(values.count / type.blockLength) {
    let start = block * type.blockBytes
    format.decode(bytes.extracting(start..<(start + type.blockBytes)), into: &values, at: block * type.blockLength)
  }
}

/// Blocks taken apart, as `inspect` shows them.
package struct BlockParts: Hashable, Sendable {
  /// One for each value: the index of its level.
  package fileprivate(set) var codes: [UInt8] = []
  /// One for each group.
  package fileprivate(set) var scales: [Float] = []
  /// As many, or none: x = scale · level + offset.
  package fileprivate(set) var offsets: [Float] = []
}

extension BlockType {
  /// Values that share a scale, and the levels that codes stand for in units of it; nil for plain numbers and for types
  /// that are not read.
  package var groups: (length: Int, levels: [Float])? { format.map { ($0.groupLength, $0.levels) } }

  /// - Precondition: the type has `groups`, and the bytes are whole blocks.
  package func parts(of bytes: Span<UInt8>) -> BlockParts {
    var parts = BlockParts()
    guard let format else { return parts }
    precondition(bytes.count % blockBytes == 0)
    for start in stride(from: 0, to: bytes.count, by: blockBytes) {
      let block = bytes.extracting(start..<(start + blockBytes))
      for group in 0..<(blockLength / format.groupLength) {
        let (scale, offset) = format.parameters(block, group)
        parts.scales.append(scale)
        if let offset { parts.offsets.append(offset) }
      }
      for place in 0..<blockLength { parts.codes.append(format.code(block, place)) }
    }
    return parts
  }
}

/// Encodes rows of values as blocks. Holds buffers; one value serves one thread.
package struct BlockEncoder {
  package let type: BlockType
  private let format: (any BlockFormat)?
  private var lanes: GroupLanes
  private var codes: [UInt8] = []
  private var target = BlockBytes(reusing: [])

  /// - Precondition: `type.isReadable`.
  package init(_ type: BlockType) {
    precondition(type.isReadable)
    self.type = type
    format = type.format
    lanes = GroupLanes(length: format?.groupLength ?? 1)
  }

  /// Encodes whole rows.
  /// - Parameters:
  ///   - values: finite, a whole number of rows.
  ///   - columns: the length of a row, a whole number of blocks.
  ///   - importance: for each column how much an error counts, E[x²] of the layer's input; zeros and more. nil: all alike.
  ///   - bytes: becomes the blocks.
  /// - Returns: false where a scale is beyond the range of binary16: then the bytes are of no use.
  package mutating func encode(
    _ values: Span<Float>, columns: Int, importance: [Float]?, into bytes: inout [UInt8]
  ) -> Bool {
    precondition(columns % type.blockLength == 0 && columns > 0 && values.count % columns == 0)
    precondition(importance.map { $0.count == columns } ?? true)
    let count = type.byteCount(of: values.count)
    guard let format else {
      bytes.resize(to: count)
      var span = bytes.mutableSpan
      var raw = span.mutableBytes
      if let element = type.elementType { encodeElements(values, as: element, into: &raw) }
      return true
    }
    // No block of multiples of a binary16 scale reaches this far, and squares of such values leave float32.
    if type != .mxfp4, absoluteMaximum(values) > 1e9 { return false }
    var own: [UInt8] = []
    swap(&own, &bytes)
    target = BlockBytes(reusing: own)
    target.start(count)
    let isImportant =
      if case .ignored = format.weighting.important { false } else { importance != nil }
    target.isImportant = isImportant
    let rowMeans = isImportant ? Self.meanSquares(values, columns) : []
    let length = format.groupLength
    let groups = values.count / length
    for first in stride(from: 0, to: groups, by: GroupLanes.count) {
      let taken = min(GroupLanes.count, groups - first)
      lanes.load(values, from: first * length, groups: taken)
      if isImportant, let importance {
        weigh(format, importance, columns: columns, first: first, rowMeans: rowMeans)
      } else {
        weigh(format)
      }
      format.encode(lanes, blocks: taken / format.groupsPerBlock, codes: &codes, into: &target)
    }
    let isInRange = !target.hasOverflow
    bytes = target.take()
    return isInRange
  }

  private static func meanSquares(_ values: Span<Float>, _ columns: Int) -> [Float] {
    (0..<(values.count / columns)).map { row in
      var sum = 0.0
      for index in (row * columns)..<((row + 1) * columns) { sum += Double(values[index]) * Double(values[index]) }
      return Float(sum / Double(columns))
    }
  }

  private mutating func weigh(_ format: some BlockFormat) {
    switch format.weighting.plain {
    case .none: break
    case .magnitude: lanes.weigh(.magnitude(plus: Floats()))
    case .magnitudeAndMean:
      lanes.weigh(.magnitude(plus: (lanes.plainSquareSum / Float(format.groupLength)).squareRoot()))
    case .square: lanes.weigh(.square)
    }
  }

  private mutating func weigh(
    _ format: some BlockFormat, _ importance: [Float], columns: Int, first: Int, rowMeans: [Float]
  ) {
    let position = first * format.groupLength
    var plus = Floats()
    switch format.weighting.important {
    case .ignored: return
    case .plain: return lanes.weigh(.plainImportance(importance, columns: columns, position: position))
    case .block(let factor):
      plus =
        blockTotal(lanes.plainSquareSum, groups: format.groupsPerBlock)
        * (factor / Float(format.groupLength * format.groupsPerBlock))
    case .row:
      for lane in 0..<GroupLanes.count {
        plus[lane] = rowMeans[min((position + lane * format.groupLength) / columns, rowMeans.count - 1)]
      }
    }
    lanes.weigh(.importance(importance, columns: columns, position: position, plus: plus))
  }
}

/// The sum over the lanes of each block, in every lane of the block.
func blockTotal(_ values: Floats, groups: Int) -> Floats {
  var result = Floats()
  for first in stride(from: 0, to: GroupLanes.count, by: groups) {
    var total: Float = 0
    for lane in first..<(first + groups) { total += values[lane] }
    for lane in first..<(first + groups) { result[lane] = total }
  }
  return result
}

/// The value of largest magnitude among the lanes of each block, in every lane of the block.
func blockExtreme(_ values: Floats, groups: Int) -> Floats {
  var result = Floats()
  for first in stride(from: 0, to: GroupLanes.count, by: groups) {
    var extreme: Float = 0
    for lane in first..<(first + groups) where abs(values[lane]) > abs(extreme) { extreme = values[lane] }
    for lane in first..<(first + groups) { result[lane] = extreme }
  }
  return result
}

/// Lanes rounded to binary16.
func halves(_ values: Floats) -> Floats { GroupLanes.halves(values) }

/// The nearest whole numbers within bounds, ties to even.
func wholes(_ values: Floats, _ lowest: Float, _ highest: Float) -> Floats {
  var result = values.rounded(.toNearestOrEven)
  result.replace(with: Floats(repeating: lowest), where: result .< lowest)
  result.replace(with: Floats(repeating: highest), where: result .> highest)
  return result
}
