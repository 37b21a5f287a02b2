import Kernels

/// What must be known of a whole tensor before its first code can be written.
package struct TensorFacts: Hashable, Sendable {
  /// The one range of a tensor that shares one scale.
  package fileprivate(set) var range: AffineRange?
  /// The mean of the largest magnitudes of all blocks, for double quantization.
  package fileprivate(set) var scaleMean: Float?
  fileprivate var smallest: Float = 0
  fileprivate var largest: Float = 0

  package init() {}
}

/// A pass over a tensor that comes before its codes, and what each tile adds to it.
package enum TensorScan: Hashable, Sendable {
  /// Smallest and largest value, for a scale per tensor.
  case extrema
  /// Squared errors of the candidate ranges, for a scale per tensor found by search.
  case search
  /// The sum of the largest magnitudes of all blocks, for double quantization.
  case scaleSum

  package enum Finding: Hashable, Sendable {
    case extrema(Float, Float)
    case search([AffineFit])
    case scaleSum(Double, count: Int)
  }
}

/// The quantized values of one tile. Buffers are reused; only the counts of the last tile are meaningful.
package struct QuantizedTile: Sendable {
  /// One code per element.
  package var codes: [UInt8] = []
  /// One scale per group, as a reader will see it: rounded to its stored type or doubly quantized.
  package var scales: [Float] = []
  /// One zero point per group where the encoding stores them, else empty.
  package var zeroPoints: [Float] = []
  /// With double quantization one code per scale, and one scale per block of 256 of them; else empty.
  package fileprivate(set) var scaleCodes: [UInt8] = []
  package fileprivate(set) var blockScales: [Float] = []
  /// The weights of the outlier columns, row by row; else empty.
  package fileprivate(set) var outliers: [Float] = []
  /// The group of each column, with the first tile of a weight whose groups are not runs of columns; else empty.
  package private(set) var groupIndex: [Int32] = []
  /// Of each group, while the tile is quantized.
  fileprivate var magnitudes: [Float] = []
  fileprivate var ranges: [AffineRange] = []
  /// The decoded values, where the loops cannot take them as they are stored.
  fileprivate var values: [Float] = []

  package init() {}

  /// What was quantized elsewhere.
  package init(
    codes: [UInt8], scales: [Float], zeroPoints: [Float], groupIndex: [Int32] = [], scaleCodes: [UInt8] = [],
    blockScales: [Float] = []
  ) {
    self.groupIndex = groupIndex
    self.scaleCodes = scaleCodes
    self.blockScales = blockScales
    self.codes = codes
    self.scales = scales
    self.zeroPoints = zeroPoints
  }
}

/// Applies a scheme to a tensor tile by tile, so that memory is bounded whatever the tensor's size.
///
/// A tile is a run of whole groups (any run, where the tensor shares one scale). Its result depends on its values and on
/// the `TensorFacts` alone.
package struct TileQuantizer: Sendable {
  package let scheme: WeightScheme
  package let encoding: WeightEncoding
  package let grouping: Grouping
  private let columnImportance: [Float]?
  /// What is stored beside the codes.
  package let outliers: OutlierColumns?

  /// - Parameters:
  ///   - importance: the mean square of the inputs of each column, E[x²], by which a scale search weighs squared
  ///     errors: then it minimizes Σ E[x²]·(w − ŵ)². As many as the last dimension is long.
  ///   - outliers: columns to store beside the codes; they take no part in the scales.
  /// - Precondition: the shape has at least one element; outliers are columns of it, and then scales are per row.
  package init(scheme: WeightScheme, shape: [Int], importance: [Float]? = nil, outliers: OutlierColumns? = nil) {
    precondition(importance == nil || importance?.count == shape.last ?? 1)
    self.scheme = scheme
    columnImportance = importance
    let split = outliers.flatMap { $0.columns.isEmpty ? nil : $0 }
    precondition(split == nil || split?.fits(columns: shape.last ?? 1) == true && scheme.granularity == .row)
    self.outliers = split
    encoding = scheme.encoding.with(split.map { WeightEncoding.Outliers(count: $0.columns.count, type: $0.type) })
    grouping = encoding.grouping(of: shape)
  }

  // MARK: Passes over the whole tensor

  /// The passes that must be made, in this order, before `quantize`.
  package var scans: [TensorScan] {
    if scheme.doubleQuantization { return [.scaleSum] }
    guard encoding.sharing == .tensor else { return [] }
    return scheme.scaleSearch == .mse ? [.extrema, .search] : [.extrema]
  }

  /// What one tile adds to a pass.
  /// - Parameter first: the tile's first element in the flattened tensor, for error messages.
  package func scan(
    _ scan: TensorScan, _ values: Span<Float>, first: Int, facts: TensorFacts
  ) throws(QuantizationError) -> TensorScan.Finding {
    switch scan {
    case .extrema:
      try requireFinite(values, first: first)
      let (smallest, largest) = extrema(values)
      return .extrema(smallest, largest)
    case .search:
      let weights = importance(of: first..<(first + values.count))
      return .search(
        RangeSearch.shares.map { share in
          let range = range(from: facts.smallest, to: facts.largest, share: share)
          var fit = AffineFit()
          if let weights {
            fit.add(values, importance: weights.span, range)
          } else {
            fit.add(values, range)
          }
          return fit
        })
    case .scaleSum:
      var (sum, count) = (0.0, 0)
      for group in grouping.runs(first: first, count: values.count) {
        sum += Double(try magnitude(values, group, first: first))
        count += 1
      }
      return .scaleSum(sum, count: count)
    }
  }

  /// The facts that follow from a pass, its findings given in the order of the tiles.
  package func facts(
    from findings: [TensorScan.Finding], after facts: TensorFacts
  ) throws(QuantizationError) -> TensorFacts {
    var facts = facts
    var fits: [AffineFit] = []
    var (sum, count) = (0.0, 0)
    for (index, finding) in findings.enumerated() {
      switch finding {
      case .extrema(let smallest, let largest):
        facts.smallest = index == 0 ? smallest : min(facts.smallest, smallest)
        facts.largest = index == 0 ? largest : max(facts.largest, largest)
      case .search(let tile):
        if fits.isEmpty {
          fits = tile
        } else {
          for candidate in fits.indices { fits[candidate].append(tile[candidate]) }
        }
      case .scaleSum(let tileSum, let tileCount):
        sum += tileSum
        count += tileCount
      }
    }
    switch findings.first {
    case .extrema: facts.range = range(from: facts.smallest, to: facts.largest, share: 1)
    case .search:
      var best = 0
      for candidate in fits.indices where fits[candidate].squaredError < fits[best].squaredError {
        let scale = range(from: facts.smallest, to: facts.largest, share: RangeSearch.shares[candidate]).scale
        if scale > 0 { best = candidate }
      }
      facts.range = range(from: facts.smallest, to: facts.largest, share: RangeSearch.shares[best])
    case .scaleSum: facts.scaleMean = Float(sum / Double(count))
    case nil: break
    }
    if let range = facts.range { try requireRepresentable(range.scale, element: 0) }
    return facts
  }

  // MARK: Codes

  /// Quantizes a tile of stored weights, straight from their bytes where type and scheme allow.
  /// - Parameters:
  ///   - bytes: the tile's elements in order, of a type other than C64.
  ///   - first: the first of them in the flattened tensor: the start of a group.
  ///   - facts: what the passes of `scans` have found.
  package func quantize(
    _ bytes: RawSpan, as type: ElementType, first: Int, facts: TensorFacts, into tile: inout QuantizedTile
  ) throws(QuantizationError) {
    let count = bytes.byteCount * 8 / type.bitWidth
    if outliers == nil, type.isReadDirectly, scheme.usesMagnitudesAlone || facts.range != nil {
      let groups = groups(first: first, count: count, facts)
      findMagnitudes(bytes, as: type, groups, facts, &tile)
      // Where a value is not finite, the way below finds which.
      if facts.range != nil || tile.magnitudes.allSatisfy({ $0.isFinite }) {
        tile.outliers.removeAll(keepingCapacity: true)
        try findRanges(groups, first: first, facts, &tile) { (_, largest) throws(QuantizationError) in
          encoding.levels == .affine(.middle)
            ? range(from: -largest, to: largest, share: 1) : range(scale: rounded(largest, to: scheme.scaleType))
        }
        return finish(bytes, as: type, groups, facts, &tile)
      }
    }
    var values: [Float] = []
    swap(&values, &tile.values)
    defer { swap(&values, &tile.values) }
    values.resize(to: count)
    var target = values.mutableSpan
    decodeElements(bytes, as: type, into: &target)
    tile.outliers.removeAll(keepingCapacity: true)
    if let outliers {
      try outliers.split(&values, rowLength: grouping.rowLength, first: first, into: &tile.outliers)
    }
    try quantize(regular: values.span, first: first, facts: facts, into: &tile)
  }

  /// Quantizes a tile of decoded values; otherwise as above.
  package func quantize(
    _ values: Span<Float>, first: Int, facts: TensorFacts, into tile: inout QuantizedTile
  ) throws(QuantizationError) {
    if outliers != nil { return try quantize(values.bytes, as: .f32, first: first, facts: facts, into: &tile) }
    tile.outliers.removeAll(keepingCapacity: true)
    try quantize(regular: values, first: first, facts: facts, into: &tile)
  }

  /// Quantizes values whose outliers, if any, have been taken out.
  private func quantize(
    regular values: Span<Float>, first: Int, facts: TensorFacts, into tile: inout QuantizedTile
  ) throws(QuantizationError) {
    let groups = groups(first: first, count: values.count, facts)
    findMagnitudes(values.bytes, as: .f32, groups, facts, &tile)
    try findRanges(groups, first: first, facts, &tile) { (group, largest) throws(QuantizationError) in
      let members = values.extracting(group)
      if !largest.isFinite { try requireFinite(members, first: first + group.lowerBound) }
      return range(of: members, largest: largest, first: first + group.lowerBound)
    }
    finish(values.bytes, as: .f32, groups, facts, &tile)
  }

  /// The groups of a tile; a tensor that shares one range has no others than its tiles.
  private func groups(first: Int, count: Int, _ facts: TensorFacts) -> GroupRuns {
    facts.range == nil ? grouping.runs(first: first, count: count) : GroupRuns(single: count)
  }

  private func findMagnitudes(
    _ bytes: RawSpan, as type: ElementType, _ groups: GroupRuns, _ facts: TensorFacts, _ tile: inout QuantizedTile
  ) {
    if facts.range == nil {
      largestMagnitudes(bytes, as: type, of: groups, into: &tile.magnitudes)
    } else {
      tile.magnitudes = [.infinity]
    }
  }

  /// Finds the range of every group.
  @inline(__always)
  private func findRanges(
    _ groups: GroupRuns, first: Int, _ facts: TensorFacts, _ tile: inout QuantizedTile,
    range: (_ group: Range<Int>, _ largest: Float) throws(QuantizationError) -> AffineRange
  ) throws(QuantizationError) {
    tile.scales.removeAll(keepingCapacity: true)
    tile.zeroPoints.removeAll(keepingCapacity: true)
    tile.ranges.removeAll(keepingCapacity: true)
    if let range = facts.range {
      tile.ranges.append(range)
      if first == 0 { append(range, to: &tile) }
      return
    }
    for (index, group) in groups.enumerated() {
      let range = try range(group, tile.magnitudes[index])
      try requireRepresentable(range.scale, element: first + group.lowerBound)
      tile.ranges.append(range)
      append(range, to: &tile)
    }
  }

  /// Writes the codes, and quantizes the scales where the scheme says so.
  private func finish(
    _ bytes: RawSpan, as type: ElementType, _ groups: GroupRuns, _ facts: TensorFacts, _ tile: inout QuantizedTile
  ) {
    // Taken out and put back: the loops borrow the ranges while they change the codes.
    var array: [UInt8] = []
    swap(&array, &tile.codes)
    defer { swap(&array, &tile.codes) }
    array.resize(to: groups.count)
    var codes = array.mutableSpan
    switch encoding.levels {
    case .affine:
      encodeAffine(
        bytes, as: type, groups: groups, ranges: tile.ranges.span, magnitudes: tile.magnitudes.span, into: &codes)
    case .codebook(let name):
      name.codebook.encode(
        bytes, as: type, groups: groups, scales: tile.scales.span, magnitudes: tile.magnitudes.span, into: &codes)
    }
    if let mean = facts.scaleMean {
      DoubleQuantization.quantize(
        &tile.scales, offset: mean, codes: &tile.scaleCodes, blockScales: &tile.blockScales)
    }
  }

  private func append(_ range: AffineRange, to tile: inout QuantizedTile) {
    tile.scales.append(range.scale)
    switch encoding.levels {
    case .affine(.integer), .affine(.float): tile.zeroPoints.append(range.zeroPoint)
    default: break
    }
  }

  // MARK: Ranges and scales

  /// The range of a group. With double quantization the codes come from the exact scale, as in bitsandbytes.
  /// - Parameter first: the group's first element in the flattened tensor.
  private func range(of members: Span<Float>, largest: Float, first: Int) -> AffineRange {
    if scheme.method == .hqq { return HalfQuadratic(bits: scheme.bits, scaleType: scheme.scaleType).range(of: members) }
    let weights = importance(of: first..<(first + members.count))
    switch (encoding.levels, scheme.scaleSearch) {
    case (.codebook(let name), .mse), (.codebook(let name), .signedMSE):
      return range(
        scale: RangeSearch.bestScale(
          of: members, importance: weights, largest: largest, codebook: name.codebook, scaleType: scheme.scaleType))
    case (.codebook, .none): return range(scale: rounded(largest, to: scheme.scaleType))
    case (.affine, _):
      let finder = RangeFinder(scheme.rounding)
      guard let weights else { return finder.range(of: members, largest: largest) }
      return finder.range(of: members, largest: largest, importance: weights.span)
    }
  }

  /// What a codebook needs of a range.
  private func range(scale: Float) -> AffineRange {
    AffineRange(scale: scale, zeroPoint: 0, highestCode: encoding.highestCode)
  }

  private func range(from smallest: Float, to largest: Float, share: Double) -> AffineRange {
    RangeFinder(scheme.rounding).range(from: smallest, to: largest, share: share)
  }

  /// What the squared error of each of these elements counts in a search; nil where all count the same.
  private func importance(of elements: Range<Int>) -> [Float]? {
    guard scheme.scaleSearch != .none, let columnImportance else { return nil }
    return elements.map { columnImportance[$0 % columnImportance.count] }
  }

  /// The largest magnitude of a group, all of whose values must be finite.
  private func magnitude(
    _ values: Span<Float>, _ group: Range<Int>, first: Int
  ) throws(QuantizationError) -> Float {
    let members = values.extracting(group)
    let largest = absoluteMaximum(members)
    if !largest.isFinite { try requireFinite(members, first: first + group.lowerBound) }
    return largest
  }

  private func requireFinite(_ values: Span<Float>, first: Int) throws(QuantizationError) {
    if let index = firstNonFinite(values) {
      throw .notFinite(element: first + index, value: "\(values[index])")
    }
  }

  private func requireRepresentable(_ scale: Float, element: Int) throws(QuantizationError) {
    if !scale.isFinite { throw .scaleOverflow(element: element, scale: scale, type: scheme.scaleType) }
  }
}
