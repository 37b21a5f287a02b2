import Kernels
import Synchronization

extension GPTQ {
  /// What all row tiles of one weight have in common.
  struct Problem: Sendable {
    let options: GPTQ
    let columns: Int
    let groupLength: Int
    let groups: Int
    /// The column at each position; positions are the order of quantization backwards.
    let columnAt: [Int32]
    /// The group of the column at each position.
    let groupAt: [Int32]
    let isDead: [Bool]
    /// By column; nil where all count the same.
    let importance: [Float]?

    init(_ options: GPTQ, diagonal: [Float], importance: [Float]?) {
      self.options = options
      self.importance = importance
      columns = diagonal.count
      isDead = diagonal.map { $0 == 0 }
      groupLength = options.scheme.groupLength(columns: columns)
      groups = (columns + groupLength - 1) / groupLength
      let steps: [Int] =
        switch options.order {
        case .natural: Array(0..<columns)
        case .activation:
          (0..<columns).sorted { diagonal[$0] != diagonal[$1] ? diagonal[$0] > diagonal[$1] : $0 < $1 }
        }
      columnAt = steps.reversed().map(Int32.init)
      let length = groupLength
      let grouped: [Int32] =
        switch options.groupRanges {
        case .original: steps.map { Int32($0 / length) }
        case .corrected: steps.indices.map { Int32($0 / length) }
        }
      groupAt = grouped.reversed()
    }

    /// The group of each column, where groups are not runs of columns.
    var groupIndex: [Int32]? {
      guard options.order == .activation, options.groupRanges == .corrected, groups > 1 else { return nil }
      var index = [Int32](repeating: 0, count: columns)
      for position in 0..<columns { index[Int(columnAt[position])] = groupAt[position] }
      return index
    }

    /// - Parameters:
    ///   - factor: of the damped H, its rows and columns by position.
    ///   - shifts: P of GPTAQ, likewise.
    /// - Returns: the quantized weight, and the loss in units of H as factored.
    func solve(
      _ weight: Matrix, factor: Matrix, shifts: Matrix?, workers: Int
    ) throws -> (weight: AffineWeight, loss: Double) {
      let tileSize = GPTQ.rowTile(rows: weight.rows)
      let count = (weight.rows + tileSize - 1) / tileSize
      let finished = Mutex([TileResult?](repeating: nil, count: count))
      try runParallel(count: count, workers: workers) {
        FeedbackTile(
          rowCapacity: min(tileSize, weight.rows), columns: columns, groups: groups, isAsymmetric: shifts != nil)
      } body: { index, tile in
        let rows = (index * tileSize)..<min((index + 1) * tileSize, weight.rows)
        var run = TileRun(problem: self, tile: tile, factor: factor, shifts: shifts, firstRow: rows.lowerBound)
        let result = try run.quantize(weight, rows: rows)
        finished.withLock { $0[index] = result }
      }
      let tiles = finished.withLock { $0.compactMap(\.self) }
      var codes: [UInt8] = []
      var ranges: [AffineRange] = []
      codes.reserveCapacity(weight.rows * columns)
      ranges.reserveCapacity(weight.rows * groups)
      for tile in tiles {
        codes.append(contentsOf: tile.codes)
        ranges.append(contentsOf: tile.ranges)
      }
      let quantized = AffineWeight(
        rows: weight.rows, columns: columns, groupLength: groupLength, codes: codes, ranges: ranges,
        groupIndex: groupIndex)
      return (quantized, tiles.reduce(0) { $0 + $1.loss })
    }
  }

  struct TileResult: Sendable {
    let codes: [UInt8]
    let ranges: [AffineRange]
    let loss: Double
  }

  /// One tile of rows on its way.
  struct TileRun {
    let problem: Problem
    let tile: FeedbackTile
    let factor: Matrix
    let shifts: Matrix?
    let firstRow: Int
    private var ranges: [AffineRange] = []
    private var members: [Float] = []
    private let finder: RangeFinder
    private let highestCode: Int32

    init(problem: Problem, tile: FeedbackTile, factor: Matrix, shifts: Matrix?, firstRow: Int) {
      (self.problem, self.tile, self.factor, self.shifts) = (problem, tile, factor, shifts)
      self.firstRow = firstRow
      finder = RangeFinder(problem.options.scheme)
      highestCode = problem.options.scheme.encoding.highestCode
    }

    mutating func quantize(_ weight: Matrix, rows: Range<Int>) throws(QuantizationError) -> TileResult {
      try weight.readRows(rows) { values throws(QuantizationError) in
        if !absoluteMaximum(values).isFinite, let index = firstNonFinite(values) {
          throw .notFinite(element: rows.lowerBound * problem.columns + index, value: "\(values[index])")
        }
      }
      tile.load(weight, rows: rows, order: problem.columnAt)
      for position in 0..<problem.columns where problem.isDead[Int(problem.columnAt[position])] {
        tile.clear(position: position)
      }
      ranges = [AffineRange](
        repeating: AffineRange(scale: 0, zeroPoint: 0, highestCode: highestCode), count: rows.count * problem.groups)
      if problem.options.groupRanges == .original { try findRanges(of: weight, rows: rows) }
      try quantize(steps: 0..<problem.columns)
      return TileResult(codes: tile.codes(order: problem.columnAt), ranges: ranges, loss: tile.loss)
    }

    /// Steps count in the order of quantization. Halves a run of them until it is a block; then the first half's error is
    /// passed on to the second in one product.
    private mutating func quantize(steps: Range<Int>) throws(QuantizationError) {
      let length = problem.groupLength
      let hasRanges = problem.options.groupRanges == .original
      let isOneGroup = hasRanges || steps.lowerBound / length == (steps.upperBound - 1) / length
      if !hasRanges, isOneGroup, steps.lowerBound % length == 0,
        steps.upperBound == min(steps.lowerBound + length, problem.columns)
      {
        try findCorrectedRanges(steps: steps)
      }
      let unit = isOneGroup ? problem.options.columnBlock : length
      let units = (steps.count + unit - 1) / unit
      guard units > 1 else {
        tile.quantize(
          positions(steps), factor: factor, asymmetry: shifts, groups: problem.groupAt, highestCode: highestCode)
        return
      }
      let middle = steps.lowerBound + (units + 1) / 2 * unit
      let (first, second) = (steps.lowerBound..<middle, middle..<steps.upperBound)
      try quantize(steps: first)
      tile.propagate(from: positions(first), to: positions(second), factor: factor, asymmetry: shifts)
      try quantize(steps: second)
    }

    private func positions(_ steps: Range<Int>) -> Range<Int> {
      (problem.columns - steps.upperBound)..<(problem.columns - steps.lowerBound)
    }

    // MARK: Ranges

    private mutating func findRanges(of weight: Matrix, rows: Range<Int>) throws(QuantizationError) {
      let (columns, length) = (problem.columns, problem.groupLength)
      var row = [Float](repeating: 0, count: columns)
      for index in 0..<rows.count {
        weight.readRows((rows.lowerBound + index)..<(rows.lowerBound + index + 1)) { values in
          for column in 0..<columns { row[column] = problem.isDead[column] ? 0 : values[column] }
        }
        for group in 0..<problem.groups {
          let span = (group * length)..<min((group + 1) * length, columns)
          if let importance = problem.importance {
            try setRange(row.span.extracting(span), importance.span.extracting(span), row: index, group: group)
          } else {
            try setRange(row.span.extracting(span), nil, row: index, group: group)
          }
        }
      }
    }

    private mutating func findCorrectedRanges(steps: Range<Int>) throws(QuantizationError) {
      let places = positions(steps)
      tile.corrected(places, factor: factor, into: &members)
      let values = members
      let importance = problem.importance.map { weights in places.map { weights[Int(problem.columnAt[$0])] } }
      for index in 0..<tile.rows {
        let row = values.span.extracting((index * places.count)..<((index + 1) * places.count))
        try setRange(row, importance?.span, row: index, group: steps.lowerBound / problem.groupLength)
      }
    }

    private mutating func setRange(
      _ values: Span<Float>, _ importance: Span<Float>?, row: Int, group: Int
    ) throws(QuantizationError) {
      let largest = absoluteMaximum(values)
      // Corrected weights that are not finite make the loss so, and the weight falls back.
      guard largest.isFinite else {
        tile.setRange(AffineRange(scale: .nan, zeroPoint: 0, highestCode: highestCode), row: row, group: group)
        return
      }
      let range = try finder.storableRange(
        of: values, largest: largest, importance: importance,
        element: (firstRow + row) * problem.columns + group * problem.groupLength)
      ranges[row * problem.groups + group] = range
      tile.setRange(range, row: row, group: group)
    }
  }
}

extension RangeFinder {
  /// The range of a group, whose scale must fit its type. One whose reciprocal is beyond float32 becomes zero.
  func storableRange(
    of values: Span<Float>, largest: Float, importance: Span<Float>?, element: Int
  ) throws(QuantizationError) -> AffineRange {
    var range = range(of: values, largest: largest, importance: importance)
    guard range.scale.isFinite else {
      throw .scaleOverflow(element: element, scale: range.scale, type: scaleType)
    }
    if !(1 / range.scale).isFinite { range.scale = 0 }
    return range
  }
}

extension WeightScheme {
  /// Columns of one group.
  func groupLength(columns: Int) -> Int {
    switch granularity {
    case .group(let size): min(size, columns)
    case .row, .tensor: columns
    }
  }
}
