import Checkpoints
import Kernels
import Packing
import Quantization
import Synchronization
import Testing

extension WeightLayout {
  /// The bytes of all members of a weight in memory, packed in the smallest tiles, the last of them first.
  func pack(_ weight: CodedWeight, module: String, workers: Int) throws -> [[UInt8]] {
    var known = WeightParameters()
    known.areOffsets = weight.decoding == .offset
    known.factor = weight.factor
    let packer = WeightPacker(self, module: module, pool: WordMatrixPool(for: [self]), known: known)
    let members = Mutex(self.members(of: module).map { [UInt8](repeating: 0xEE, count: $0.byteCount) })
    let block = DoubleQuantization.blockSize
    let length = placement.isFlat ? groupLength * block : columns * placement.rowUnit
    let tiles = (weight.codes.count + length - 1) / length
    @Sendable func add(_ index: Int) throws {
      let elements = index * length..<min((index + 1) * length, weight.codes.count)
      let perRow = (columns + groupLength - 1) / groupLength
      let groups =
        placement.isFlat
        ? index * block..<min((index + 1) * block, weight.scales.count)
        : elements.lowerBound / columns * perRow..<elements.upperBound / columns * perRow
      var tile = QuantizedTile(
        codes: Array(weight.codes[elements]), scales: Array(weight.scales[groups]),
        zeroPoints: weight.zeroPoints.isEmpty ? [] : Array(weight.zeroPoints[groups]),
        groupIndex: index == 0 ? weight.groupIndex ?? [] : [],
        scaleCodes: weight.nested.map { Array($0.codes[groups]) } ?? [],
        blockScales: weight.nested.map { [$0.blockScales[index]] } ?? [])
      var buffer: [UInt8] = [1, 2, 3]
      try packer.add(
        &tile, first: elements.lowerBound, scaleMean: weight.nested?.offset, divisor: weight.divisor, buffer: &buffer
      ) { member, offset, bytes, count in
        members.withLock { $0[member].replaceSubrange(offset..<offset + count, with: bytes[..<count]) }
      }
    }
    // What a group index says comes with the first tile.
    if weight.groupIndex != nil { try add(0) }
    let first = weight.groupIndex == nil ? 0 : 1
    try runParallel(count: tiles - first, workers: workers, makeState: {}) { index, _ in try add(tiles - 1 - index) }
    return members.withLock { $0 }
  }
}
