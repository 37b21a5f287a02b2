import Kernels
import Synchronization

/// Ranges of least error in the layer's output: the search of `RangeSearch` with the errors of a group weighed by the
/// group's block of H = Σ xᵀ·x, not by its diagonal alone, and with both ends of the range moving on their own.
///
/// A candidate's error is e·H·eᵀ, e = ŵ − w over the columns of the group. Candidates of a tile of rows are rows of one
/// matrix, so that their errors cost one product with H. In turn are tried: shares of the full range at both ends
/// together; the lower end alone; the upper end alone; both once more in half steps; then scales fitted to the codes by
/// least squares, s = w·H·q / q·H·q (q = code − zero point), as long as the error falls. Symmetric codes have one end, and
/// with `ScaleSearch.signedMSE` scales of both signs. The unclipped range is a candidate, so that the error is never above
/// that of rounding to nearest.
///
/// This is AWQ's search for clipping (arXiv 2306.00978, §3.2 and its code) with an exact error in place of sampled
/// tokens, and with both ends where AWQ moves them together.
struct OutputRangeSearch {
  let finder: RangeFinder
  let hessian: Matrix
  let tile: OutputErrorTile

  /// How far a candidate's end is drawn in more than the one before, as a share of the full range.
  static let step = 0.04
  static let jointSteps = 18
  static let refinements = 3

  /// Rows whose candidates share a product.
  static let tileRows = 16

  init(_ scheme: WeightScheme, hessian: Matrix, groupLength: Int) {
    finder = RangeFinder(scheme)
    self.hessian = hessian
    tile = OutputErrorTile(rows: Self.tileRows * 2 * Self.jointSteps, columns: groupLength)
  }

  /// Where a row stands: how far its ends are drawn in, in steps, whether the scale is negative, and its error.
  private struct State {
    var low = 0.0
    var high = 0.0
    var isNegative = false
    var range: AffineRange
    var error: Double
  }

  /// The best range of each row for the same group of columns.
  /// - Parameters:
  ///   - values: the group's weights, row after row, finite.
  ///   - column: the first column of the group.
  func ranges(of values: Span<Float>, width: Int, column: Int) -> [AffineRange] {
    let rows = values.count / width
    let isTwoSided = finder.method == .zeroPoint
    let bounds = (0..<rows).map { row -> (Float, Float) in
      let members = values.extracting(row * width..<(row + 1) * width)
      if isTwoSided { return extrema(members) }
      let largest = absoluteMaximum(members)
      return (-largest, largest)
    }
    func range(_ row: Int, _ low: Double, _ high: Double, _ isNegative: Bool) -> AffineRange {
      let shares = (1 - Self.step * low, 1 - Self.step * high)
      guard isTwoSided else {
        var range = finder.range(from: bounds[row].0, to: bounds[row].1, share: shares.0)
        if isNegative { range.scale = -range.scale }
        return range
      }
      return ZeroPoint.range(
        bits: finder.bits, from: Double(bounds[row].0) * shares.0, to: Double(bounds[row].1) * shares.1,
        scaleType: finder.scaleType)
    }
    var states = (0..<rows).map { State(range: range($0, 0, 0, false), error: .infinity) }

    /// Tries the same moves for every row.
    func attempt(_ moves: [(low: Double, high: Double, flips: Bool)]) {
      var candidates: [(row: Int, state: State)] = []
      tile.begin(width: width)
      for row in 0..<rows where states[row].range.scale != 0 {
        for move in moves {
          let (low, high) = (states[row].low + move.low, states[row].high + move.high)
          guard low >= 0, high >= 0, low * Self.step < 0.95, high * Self.step < 0.95 else { continue }
          let isNegative = states[row].isNegative != move.flips
          let found = range(row, low, high, isNegative)
          guard found.scale != 0, found.scale.isFinite else { continue }
          tile.setErrors(row: tile.addRow(), at: 0, of: values.extracting(row * width..<(row + 1) * width), found)
          candidates.append((row, State(low: low, high: high, isNegative: isNegative, range: found, error: 0)))
        }
      }
      tile.multiply(by: hessian, from: column)
      for (index, candidate) in candidates.enumerated() {
        let error = tile.square(row: index)
        guard error < states[candidate.row].error else { continue }
        states[candidate.row] = candidate.state
        states[candidate.row].error = error
      }
    }

    let joint = (0..<Self.jointSteps).map { Double($0) }
    attempt(joint.map { ($0, $0, false) } + (finder.search == .signedMSE ? joint.map { ($0, $0, true) } : []))
    if isTwoSided {
      let shifts = [-4.0, -3, -2, -1, 1, 2, 3, 4]
      attempt(shifts.map { ($0, 0, false) })
      attempt(shifts.map { (0, $0, false) })
      let halves: [(Double, Double)] = [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5), (0.5, -0.5), (-0.5, 0.5)]
      attempt(halves.map { ($0.0, $0.1, false) })
    } else {
      attempt([(-0.5, -0.5, false), (0.5, 0.5, false)])
    }
    for _ in 0..<Self.refinements where refit(&states, values, width: width, column: column) == 0 { break }
    return states.map(\.range)
  }

  /// Fits each scale to its codes.
  /// - Returns: how many rows it made better.
  private func refit(_ states: inout [State], _ values: Span<Float>, width: Int, column: Int) -> Int {
    tile.begin(width: width)
    for (row, state) in states.enumerated() {
      tile.setSteps(
        row: tile.addRow(), of: values.extracting(row * width..<(row + 1) * width), state.range)
    }
    tile.multiply(by: hessian, from: column)
    var fitted: [AffineRange?] = []
    for (row, state) in states.enumerated() {
      let squares = tile.square(row: row)
      let product = tile.product(row: row, with: values.extracting(row * width..<(row + 1) * width))
      var range = state.range
      range.scale = rounded(Float(product / squares), to: finder.scaleType)
      let isUsable = squares > 0 && range.scale.isFinite && range.scale != 0 && (1 / range.scale).isFinite
      fitted.append(isUsable && range.scale != state.range.scale ? range : nil)
    }
    tile.begin(width: width)
    for (row, range) in fitted.enumerated() {
      guard let range else { continue }
      tile.setErrors(row: tile.addRow(), at: 0, of: values.extracting(row * width..<(row + 1) * width), range)
    }
    tile.multiply(by: hessian, from: column)
    var better = 0
    var index = 0
    for (row, range) in fitted.enumerated() {
      guard let range else { continue }
      let error = tile.square(row: index)
      index += 1
      guard error < states[row].error else { continue }
      (states[row].range, states[row].error) = (range, error)
      better += 1
    }
    return better
  }
}

extension AffineWeight {
  /// Rounds every weight to the nearest code of a range that keeps the error of the layer's output small.
  ///
  /// Groups whose inputs were all zero, and schemes without a search, take the range of plain rounding.
  /// - Parameters:
  ///   - weight: `[outputs, inputs]`.
  ///   - scheme: absmax or zero points.
  ///   - hessian: of the layer's inputs.
  /// - Throws: where a weight is not finite or a scale beyond its type.
  package init(roundingForOutputs weight: Matrix, _ scheme: WeightScheme, hessian: Hessian, workers: Int) throws {
    let columns = weight.columns
    precondition(hessian.dimension == columns)
    let diagonal = hessian.diagonal
    guard scheme.scaleSearch != .none, diagonal.contains(where: { $0 > 0 }) else {
      try self.init(roundingToNearest: weight, scheme, importance: nil, workers: workers)
      return
    }
    let length = scheme.groupLength(columns: columns)
    let groups = (columns + length - 1) / length
    let finder = RangeFinder(scheme)
    let height = OutputRangeSearch.tileRows
    let count = (weight.rows + height - 1) / height
    let finished = Mutex([(codes: [UInt8], ranges: [AffineRange])?](repeating: nil, count: count))
    let sum = hessian.sum
    try runParallel(count: count, workers: workers) {
      OutputRangeSearch(scheme, hessian: sum, groupLength: length)
    } body: { item, search in
      let rows = (item * height)..<min((item + 1) * height, weight.rows)
      var ranges = [AffineRange](
        repeating: AffineRange(scale: 0, zeroPoint: 0, highestCode: 0), count: rows.count * groups)
      var magnitudes = [Float](repeating: 0, count: ranges.count)
      var members: [Float] = []
      var codes = [UInt8](repeating: 0, count: rows.count * columns)
      try weight.readRows(rows) { values throws(QuantizationError) in
        for group in 0..<groups {
          let span = (group * length)..<min((group + 1) * length, columns)
          members.resize(to: rows.count * span.count)
          for row in 0..<rows.count {
            let start = row * columns + span.lowerBound
            let part = values.extracting(start..<(start + span.count))
            let element = (rows.lowerBound + row) * columns + span.lowerBound
            if let index = firstNonFinite(part) {
              throw .notFinite(element: element + index, value: "\(part[index])")
            }
            let largest = absoluteMaximum(part)
            magnitudes[row * groups + group] = largest
            // The unclipped range, to find scales that their type cannot hold.
            ranges[row * groups + group] = try finder.storableUnclippedRange(
              of: part, largest: largest, element: element)
            for index in 0..<span.count { members[row * span.count + index] = part[index] }
          }
          guard diagonal[span].contains(where: { $0 > 0 }) else { continue }
          let found = search.ranges(of: members.span, width: span.count, column: span.lowerBound)
          for row in 0..<rows.count where (1 / found[row].scale).isFinite {
            ranges[row * groups + group] = found[row]
          }
        }
        var target = codes.mutableSpan
        encodeAffine(
          values.bytes, as: .f32,
          groups: GroupRuns(rowLength: columns, groupLength: length, column: 0, count: rows.count * columns),
          ranges: ranges.span, magnitudes: magnitudes.span, into: &target)
      }
      let result = (codes: codes, ranges: ranges)
      finished.withLock { $0[item] = result }
    }
    let tiles = finished.withLock { $0.compactMap(\.self) }
    self.init(
      rows: weight.rows, columns: columns, groupLength: length, codes: tiles.flatMap(\.codes),
      ranges: tiles.flatMap(\.ranges), groupIndex: nil)
  }
}

extension RangeFinder {
  /// The range from smallest to largest value, whose scale must fit its type.
  fileprivate func storableUnclippedRange(
    of values: Span<Float>, largest: Float, element: Int
  ) throws(QuantizationError) -> AffineRange {
    let bounds = method == .absmax ? (-largest, largest) : extrema(values)
    var range = range(from: bounds.0, to: bounds.1, share: 1)
    guard range.scale.isFinite else {
      throw .scaleOverflow(element: element, scale: range.scale, type: scaleType)
    }
    if !(1 / range.scale).isFinite { range.scale = 0 }
    return range
  }
}
