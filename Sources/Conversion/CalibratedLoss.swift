import Checkpoints
import Kernels
import Quantization

/// What calibrated tiles lost. They come in the order of each weight's rows.
struct CalibratedLoss {
  private var bytes: [UInt8] = []
  private var values: [Float] = []
  private var decoded: [Float] = []
  /// Of the weight that tiles are of, where it has one; it comes with the first.
  private var groupIndex: [Int32]?

  /// Weights with scales folded in are not to be compared with the source's.
  mutating func sums(
    of tile: QuantizedTile, _ tensor: Plan.Tensor, _ encoding: WeightEncoding, first: Int
  ) throws(CheckpointError) -> LossSums {
    let entry = tensor.source.entry
    if !encoding.hasGroupIndex { groupIndex = nil } else if !tile.groupIndex.isEmpty { groupIndex = tile.groupIndex }
    let grouping = encoding.grouping(of: entry.shape)
    tile.decode(encoding, grouping, first: first, groupIndex: groupIndex, outlierColumns: [], into: &decoded)
    let sample = grouping.sample
    guard !tensor.isFolded else {
      return LossSums(decoded: LossSums(decoded.span, decoded.span, first: first, sample: sample).decoded)
    }
    _ = try readValues(tensor.source, first..<first + decoded.count, bytes: &bytes, values: &values)
    return LossSums(values.span, decoded.span, first: first, sample: sample)
  }
}
