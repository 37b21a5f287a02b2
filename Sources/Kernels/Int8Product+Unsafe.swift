/// Rows of integers from −128 to 127 with a scale each: row r stands for `scales[r] · codes[r]`.
///
/// The integers are held as float32, the type in which the products below are exact (`IntegerWeights`).
package struct IntegerRows: Sendable {
  /// `[rows, columns]`, whole numbers.
  package let codes: Matrix
  /// `[rows, 1]`.
  package let scales: Matrix

  package init(codes: Matrix, scales: Matrix) {
    precondition(scales.columns == 1 && scales.rows == codes.rows)
    (self.codes, self.scales) = (codes, scales)
  }
}

/// Rounds the rows in use of `x` to integers, each by its own largest magnitude (vector-wise quantization, LLM.int8(),
/// arXiv 2208.07339, section 3.1, equation 7; the same rule as absmax weights):
///
///     scale = max |x| / 127, rounded to its type        code = round(x / scale) within −127 … 127, ties to even
///
/// - A row of zeros, or of magnitudes whose scale is below 1e-36, has scale 0 and codes 0.
/// - A row with a value that is not finite has codes that are not a number, and so has every product with it.
/// - Parameters:
///   - x: `[rows, columns]`.
///   - excluded: columns that are left out of the largest magnitude; their codes are 0.
///   - result: codes shaped like `x`, which they may share their storage with.
package func quantizeRows(
  _ x: Matrix, except excluded: [Int32] = [], scaleType: ElementType = .f32, into result: IntegerRows, workers: Int
) {
  let (codes, scales, columns) = (result.codes, result.scales, x.columns)
  precondition(codes.columns == columns && codes.rows == x.rows && scales.rows == x.rows)
  precondition(excluded.allSatisfy { $0 >= 0 && $0 < columns })
  let tile = 64
  runTiles(count: (x.rows + tile - 1) / tile, workers: workers) { index in
    for row in index * tile..<min((index + 1) * tile, x.rows) {
      let target = codes.base + row * columns
      if target != x.base + row * columns { target.update(from: x.base + row * columns, count: columns) }
      for column in excluded { target[Int(column)] = 0 }
      let largest = absoluteMaximum(Span(_unsafeElements: UnsafeBufferPointer(start: target, count: columns)))
      let scale = rounded(largest / 127, to: scaleType)
      // False for NaN, which so reaches the codes.
      let isZero = scale < 1e-36
      scales.base[row] = isZero ? 0 : scale
      let inverse = isZero ? 0 : 1 / scale
      var column = 0
      // Bounds: rows are below x.rows, which codes and scales have, too; sixteen columns are read and written while
      // column + 16 ≤ columns.
      while column &+ 16 <= columns {
        var code = (UnsafePointer(target).lanes(column, as: Floats.self) * inverse + roundingShift) - roundingShift
        code = code.replacing(with: 127, where: code .> 127)
        code = code.replacing(with: -127, where: code .< -127)
        target.store(code, at: column)
        column &+= 16
      }
      while column < columns {
        let code = (target[column] * inverse + roundingShift) - roundingShift
        target[column] = code > 127 ? 127 : code < -127 ? -127 : code
        column &+= 1
      }
    }
  }
}

/// Integer weights of a layer, and how many of their inputs a product may sum in float32 without rounding.
///
/// Every partial sum over a run of inputs, in whatever order, is an integer of at most 127 · Σ |w|. Where that is below
/// 2^24 for all rows, float32 holds it.
package struct IntegerWeights: Sendable {
  package let rows: IntegerRows
  /// The longest run of equal ones that is exact; 1024 always are: 1024 · 127 · 128 < 2^24.
  let exactRun: Int

  /// - Precondition: codes are whole numbers from −128 to 127, or not a number.
  package init(_ rows: IntegerRows, workers: Int) {
    self.rows = rows
    let inputs = rows.codes.columns
    var parts = 1
    while true {
      let run = ((inputs + parts - 1) / parts + 15) / 16 * 16
      if run <= 1024 || 127 * largestSum(rows.codes, run: run, workers: workers) < 16_777_216 {
        exactRun = max(run, 16)
        return
      }
      parts += 1
    }
  }

  private init(_ rows: IntegerRows, exactRun: Int) { (self.rows, self.exactRun) = (rows, exactRun) }

  /// The same rows in another order.
  package func replacing(_ rows: IntegerRows) -> IntegerWeights { IntegerWeights(rows, exactRun: exactRun) }
}

/// The largest Σ |code| over a run of a row's columns, runs beginning at multiples of `run`; not a number where a code
/// is not.
private func largestSum(_ codes: Matrix, run: Int, workers: Int) -> Float {
  let columns = codes.columns
  let found = Matrix(rows: codes.rows, columns: 1)
  let tile = 64
  runTiles(count: (codes.rows + tile - 1) / tile, workers: workers) { index in
    for row in index * tile..<min((index + 1) * tile, codes.rows) {
      // Bounds: rows below codes.rows; lanes end at or before `end`, which is at most the column count.
      let base = UnsafePointer(codes.base + row * columns)
      for first in stride(from: 0, to: columns, by: run) {
        let end = min(columns, first + run)
        var lanes = Floats.zero
        var column = first
        while column &+ 16 <= end {
          lanes += (base.lanes(column, as: Floats.self).words & 0x7fff_ffff).floats
          column &+= 16
        }
        var sum = lanes.total
        while column < end {
          sum += abs(base[column])
          column &+= 1
        }
        if !(sum <= found.base[row]) { found.base[row] = sum }
      }
    }
  }
  return found.readRows(0..<found.rows) { absoluteMaximum($0) }
}

/// y = (x·wᵀ) · (scale of x's row · scale of w's row) + bias + xₒ·wₒᵀ for the rows in use of `x`: the product of
/// LLM.int8() (arXiv 2208.07339, equation 8), with integers and outliers apart.
///
/// The sums of integers are exact, those of int32 accumulation: runs of inputs whose sums float32 holds exactly by products
/// of floats, and where there are several runs, their sums in double precision. No integer instruction that Swift compiles to
/// for every x86-64 comes near sgemm's rate (see `Docs/LLMInt8.md`). Tiles depend on the shapes alone, so the result is
/// the same for any number of workers.
/// - Parameters:
///   - x: `[tokens, inputs]`; codes from −127 to 127.
///   - weights: `[outputs, inputs]`.
///   - bias: `[outputs]`.
///   - outliers: the same tokens' features that are kept in full precision, `[tokens, k]`, and their weights,
///     `[outputs, k]`.
///   - y: `[tokens, ≥ column + outputs]`; its rows in use are set to those of `x`.
///   - column: where the outputs begin in it.
package func multiplyIntegers(
  _ x: IntegerRows, transposed weights: IntegerWeights, bias: [Float]? = nil, outliers: (x: Matrix, w: Matrix)? = nil,
  into y: Matrix, at column: Int = 0, workers: Int
) {
  let (w, run) = (weights.rows, weights.exactRun)
  let (tokens, outputs, inputs) = (x.codes.rows, w.codes.rows, x.codes.columns)
  precondition(w.codes.columns == inputs && column >= 0 && column + outputs <= y.columns)
  precondition(x.scales.rows == tokens && w.scales.rows == outputs && (bias == nil || bias?.count == outputs))
  if let outliers {
    precondition(outliers.x.rows == tokens && outliers.w.rows == outputs && outliers.x.columns == outliers.w.columns)
  }
  y.use(rows: tokens)
  let (tokenTile, outputTile) = (1024, 512)
  let across = (outputs + outputTile - 1) / outputTile
  runTiles(count: (tokens + tokenTile - 1) / tokenTile * across, workers: workers) { tile in
    let token = tile / across * tokenTile
    let output = tile % across * outputTile
    let area = Area(
      rows: min(tokenTile, tokens - token), columns: min(outputTile, outputs - output), stride: y.columns,
      base: y.base + token * y.columns + column + output)
    // Bounds: the tile is clipped to x, w and y, whose leading dimensions are their column counts; runs of inputs end
    // at `inputs`.
    let source = x.codes.base + token * inputs
    let weights = w.codes.base + output * inputs
    let sums = inputs > run ? Sums(area) : nil
    for first in stride(from: 0, to: max(inputs, 1), by: run) {
      product(
        StridedMatrix(source + first, inputs), StridedMatrix(weights + first, inputs).transposed, into: area.base,
        area.stride, rows: area.rows, columns: area.columns, inner: min(run, inputs - first))
      sums?.add(area)
    }
    sums?.store(to: area)
    scale(area, rows: x.scales.base + token, columns: w.scales.base + output)
    if let bias { bias.span.withUnsafeBufferPointer { add($0.baseAddress.map { $0 + output }, to: area) } }
    if let outliers, outliers.x.columns > 0 {
      let count = outliers.x.columns
      product(
        StridedMatrix(outliers.x.base + token * count, count),
        StridedMatrix(outliers.w.base + output * count, count).transposed, into: area.base, area.stride,
        rows: area.rows, columns: area.columns, inner: count, adding: true)
    }
  }
}

/// A tile of the result.
private struct Area {
  let rows: Int
  let columns: Int
  let stride: Int
  let base: UnsafeMutablePointer<Float>
}

/// Sums of a tile over the runs of its inputs.
private final class Sums {
  private let base: UnsafeMutablePointer<Double>

  init(_ area: Area) {
    base = .allocate(capacity: max(1, area.rows * area.columns))
    base.initialize(repeating: 0, count: area.rows * area.columns)
  }

  deinit { base.deallocate() }

  // Bounds of all below: rows and columns of the area, for which the sums have room.

  func add(_ area: Area) {
    for row in 0..<area.rows {
      let (source, target) = (area.base + row * area.stride, base + row * area.columns)
      for column in 0..<area.columns { target[column] += Double(source[column]) }
    }
  }

  func store(to area: Area) {
    for row in 0..<area.rows {
      let (source, target) = (base + row * area.columns, area.base + row * area.stride)
      for column in 0..<area.columns { target[column] = Float(source[column]) }
    }
  }
}

private func scale(_ area: Area, rows: UnsafePointer<Float>, columns: UnsafePointer<Float>) {
  // Bounds: as many scales as the area has rows and columns.
  for row in 0..<area.rows {
    let (target, factor) = (area.base + row * area.stride, rows[row])
    for column in 0..<area.columns { target[column] *= factor * columns[column] }
  }
}

private func add(_ bias: UnsafePointer<Float>?, to area: Area) {
  guard let bias else { return }
  // Bounds: the bias has as many elements as the area has columns.
  for row in 0..<area.rows {
    let target = area.base + row * area.stride
    for column in 0..<area.columns { target[column] += bias[column] }
  }
}

/// Copies columns of the rows in use of `x` to a matrix of their own, `[rows, columns.count]`, whose rows in use are set.
/// - Precondition: columns of `x`, and room for its rows.
package func gatherColumns(_ columns: [Int32], of x: Matrix, into result: Matrix, workers: Int) {
  precondition(result.columns == columns.count && columns.allSatisfy { $0 >= 0 && $0 < x.columns })
  result.use(rows: x.rows)
  let tile = 256
  runTiles(count: (x.rows + tile - 1) / tile, workers: workers) { index in
    // Bounds: rows below x.rows; columns checked above.
    for row in index * tile..<min((index + 1) * tile, x.rows) {
      let (source, target) = (x.base + row * x.columns, result.base + row * columns.count)
      for position in 0..<columns.count { target[position] = source[Int(columns[position])] }
    }
  }
}
