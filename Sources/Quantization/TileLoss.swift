import Kernels

// What a tile lost of its weights, for the record of errors in the manifest.

extension Grouping {
  /// The elements by which a tensor's loss is recorded.
  package var sample: ElementSample { ElementSample(of: count, groupLength: groupLength) }
}

extension TileQuantizer {
  /// Sums over the sampled elements of a tile that was just quantized, while both are in a core's cache.
  /// - Parameters:
  ///   - bytes: the tile's weights as they are stored.
  ///   - facts: those that it was quantized by.
  ///   - values: space for weights and their reconstruction, where the loops cannot take them as they are.
  package func loss(
    of tile: borrowing QuantizedTile, _ bytes: RawSpan, as type: ElementType, first: Int, facts: TensorFacts,
    using values: inout (source: [Float], decoded: [Float])
  ) -> LossSums {
    let sample = grouping.sample
    let count = tile.codes.count
    if outliers == nil {
      let groups = facts.range == nil ? grouping.runs(first: first, count: count) : GroupRuns(single: count)
      // A range that the whole tensor shares is with its first tile alone.
      let scales = facts.range.map { [$0.scale] } ?? tile.scales
      let zeroPoints = facts.range.map { storesZeroPoints ? [$0.zeroPoint] : [] } ?? tile.zeroPoints
      let levels: CodeLevels =
        if case .codebook(let book) = encoding.levels { .levels(book.codebook.levels) } else {
          .affine(middle: encoding.middle)
        }
      func sums(_ bytes: RawSpan, _ type: ElementType) -> LossSums {
        LossSums(
          bytes, as: type, codes: tile.codes.span, groups: groups, scales: scales.span,
          zeroPoints: zeroPoints.span, levels: levels, first: first, sample: sample)
      }
      if type.isReadDirectly { return sums(bytes, type) }
      decode(bytes, type, count, into: &values.source)
      return sums(values.source.span.bytes, .f32)
    }
    decode(bytes, type, count, into: &values.source)
    tile.decode(
      encoding, grouping, first: first, groupIndex: nil, outlierColumns: outliers?.columns ?? [], into: &values.decoded)
    return LossSums(values.source.span, values.decoded.span, first: first, sample: sample)
  }

  private var storesZeroPoints: Bool { encoding.levels == .affine(.integer) || encoding.levels == .affine(.float) }

  private func decode(_ bytes: RawSpan, _ type: ElementType, _ count: Int, into values: inout [Float]) {
    values.resize(to: count)
    var target = values.mutableSpan
    decodeElements(bytes, as: type, into: &target)
  }
}

extension QuantizedTile {
  /// The values that a reader gets of a tile, in float32.
  /// - Parameters:
  ///   - grouping: of the tensor, which does not share one scale.
  ///   - first: the tile's first element in the flattened tensor.
  ///   - groupIndex: the group of each column, where groups are not runs of columns.
  ///   - outlierColumns: those whose weights the tile holds beside its codes.
  package func decode(
    _ encoding: WeightEncoding, _ grouping: Grouping, first: Int, groupIndex: [Int32]?, outlierColumns: [Int32],
    into values: inout [Float]
  ) {
    values.resize(to: codes.count)
    var target = values.mutableSpan
    func range(_ group: Int) -> AffineRange {
      AffineRange(
        scale: scales[group], zeroPoint: zeroPoints.isEmpty ? encoding.middle : zeroPoints[group],
        highestCode: encoding.highestCode)
    }
    if let groupIndex {
      let (width, perRow) = (grouping.rowLength, grouping.groupsPerRow)
      for element in 0..<codes.count {
        target[element] = range(element / width * perRow + Int(groupIndex[element % width])).value(of: codes[element])
      }
      return
    }
    for (index, group) in grouping.runs(first: first, count: codes.count).enumerated() {
      switch encoding.levels {
      case .affine: decodeAffine(codes.span.extracting(group), range(index), into: &target, at: group.lowerBound)
      case .codebook(let name):
        name.codebook.decode(
          codes.span.extracting(group), scale: scales[index], into: &target, at: group.lowerBound)
      }
    }
    // Tiles of a tensor with outlier columns are whole rows.
    guard !outlierColumns.isEmpty else { return }
    for row in 0..<(codes.count / grouping.rowLength) {
      for (place, column) in outlierColumns.enumerated() {
        target[row * grouping.rowLength + Int(column)] = outliers[row * outlierColumns.count + place]
      }
    }
  }
}
