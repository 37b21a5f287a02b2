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
  package fileprivate(set) var codes: [UInt8] = []
  /// One scale per group, as a reader will see it: rounded to its stored type or doubly quantized.
  package fileprivate(set) var scales: [Float] = []
  /// One zero point per group where the encoding stores them, else empty.
  package fileprivate(set) var zeroPoints: [Float] = []
  /// With double quantization one code per scale, and one scale per block of 256 of them; else empty.
  package fileprivate(set) var scaleCodes: [UInt8] = []
  package fileprivate(set) var blockScales: [Float] = []

  package init() {}
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

  /// - Parameter importance: the mean square of the inputs of each column, E[x²], by which a scale search weighs squared
  ///   errors: then it minimizes Σ E[x²]·(w − ŵ)². As many as the last dimension is long.
  /// - Precondition: the shape has at least one element.
  package init(scheme: WeightScheme, shape: [Int], importance: [Float]? = nil) {
    precondition(importance == nil || importance?.count == shape.last ?? 1)
    self.scheme = scheme
    columnImportance = importance
    encoding = scheme.encoding
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
      for group in TileGroups(grouping, first: first, count: values.count) {
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

  /// Quantizes a tile.
  /// - Parameters:
  ///   - values: the tile's elements in order.
  ///   - first: the first of them in the flattened tensor: the start of a group.
  ///   - facts: what the passes of `scans` have found.
  package func quantize(
    _ values: Span<Float>, first: Int, facts: TensorFacts, into tile: inout QuantizedTile
  ) throws(QuantizationError) {
    tile.codes.resize(to: values.count)
    tile.zeroPoints.removeAll(keepingCapacity: true)
    tile.scales.removeAll(keepingCapacity: true)
    if let range = facts.range {
      var codes = tile.codes.mutableSpan
      encodeAffine(values, range, into: &codes)
      if first == 0 { append(range, to: &tile) }
      return
    }
    let groups = TileGroups(grouping, first: first, count: values.count)
    switch encoding.levels {
    case .codebook(let name):
      let codebook = name.codebook
      for group in groups {
        let members = values.extracting(group)
        let scale = try codebookScale(values, group, first: first, codebook: codebook)
        var codes = tile.codes.mutableSpan
        codebook.encode(members, scale: scale, into: &codes, at: group.lowerBound)
        tile.scales.append(scale)
      }
    case .affine:
      for group in groups {
        let members = values.extracting(group)
        let largest = try magnitude(values, group, first: first)
        let range = try affineRange(members, largest: largest, element: first + group.lowerBound)
        var codes = tile.codes.mutableSpan
        encodeAffine(members, range, largest: largest, into: &codes, at: group.lowerBound)
        append(range, to: &tile)
      }
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

  private func affineRange(
    _ members: Span<Float>, largest: Float, element: Int
  ) throws(QuantizationError) -> AffineRange {
    let result: AffineRange
    if scheme.method == .hqq {
      result = HalfQuadratic(bits: scheme.bits, scaleType: scheme.scaleType).range(of: members)
    } else {
      let weights = importance(of: element..<(element + members.count))
      result =
        if let weights {
          RangeFinder(scheme).range(of: members, largest: largest, importance: weights.span)
        } else {
          RangeFinder(scheme).range(of: members, largest: largest)
        }
    }
    try requireRepresentable(result.scale, element: element)
    return result
  }

  private func range(from smallest: Float, to largest: Float, share: Double) -> AffineRange {
    RangeFinder(scheme).range(from: smallest, to: largest, share: share)
  }

  /// What the squared error of each of these elements counts in a search; nil where all count the same.
  private func importance(of elements: Range<Int>) -> [Float]? {
    guard scheme.scaleSearch != .none, let columnImportance else { return nil }
    return elements.map { columnImportance[$0 % columnImportance.count] }
  }

  private func codebookScale(
    _ values: Span<Float>, _ group: Range<Int>, first: Int, codebook: Codebook
  ) throws(QuantizationError) -> Float {
    let largest = try magnitude(values, group, first: first)
    // With double quantization the codes come from the exact scale, as in bitsandbytes.
    let scale: Float =
      switch scheme.scaleSearch {
      case .none: rounded(largest, to: scheme.scaleType)
      case .mse:
        RangeSearch.bestScale(
          of: values.extracting(group),
          importance: importance(of: (first + group.lowerBound)..<(first + group.upperBound)),
          largest: largest, codebook: codebook, scaleType: scheme.scaleType)
      }
    try requireRepresentable(scale, element: first + group.lowerBound)
    return scale
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
