import Checkpoints
import Kernels

/// Weights of a linear layer or a projection, as float32: y = x·weightᵀ + bias.
package struct LoadedLinear: Sendable {
  /// `[outputs, inputs]`; of layers in `integers` their codes.
  package let weight: Matrix
  package internal(set) var bias: [Float]?
  /// How the product is made where some of the layers are integers; nil: all are float32.
  let integers: IntegerProjection?
}

package struct LoadedNorm: Sendable {
  package let description: NormDescription
  package var weight: [Float]
  package var bias: [Float]
}

/// Reads tensors of a model as float32 matrices, in parallel tiles.
package struct WeightLoader: Sendable {
  package let source: any WeightSource
  package let pool: MatrixPool
  package let workers: Int
  package let arithmetic: LinearArithmetic

  package init(
    _ source: any WeightSource, pool: MatrixPool, workers: Int, arithmetic: LinearArithmetic = .float32
  ) {
    self.source = source
    self.arithmetic = arithmetic
    self.pool = pool
    self.workers = workers
  }

  package func linear(_ description: LinearDescription) throws -> LoadedLinear {
    try projection(ProjectionDescription([description]))
  }

  package func projection(_ description: ProjectionDescription) throws -> LoadedLinear {
    let matrix = pool.take(rows: description.outputs, columns: description.inputs)
    var first = 0
    var parts: [IntegerProjection.Part] = []
    for linear in description.linears {
      let rows = first..<(first + linear.outputs)
      let target = Matrix(sharing: matrix, rows: rows)
      let layer = description.linears.count == 1 || description.rowOrder == nil ? try integers(target, linear) : nil
      if layer == nil { try fill(target, from: linear) }
      parts.append(IntegerProjection.Part(rows: rows, layer: layer))
      first += linear.outputs
    }
    let integers = parts.contains { $0.layer != nil } ? IntegerProjection(parts: parts, pool: pool) : nil
    var bias: [Float]?
    if description.linears.contains(where: { $0.bias != nil }) {
      var values: [Float] = []
      for linear in description.linears {
        values += try linear.bias.map(vector) ?? [Float](repeating: 0, count: linear.outputs)
      }
      bias = values
    }
    guard let order = description.rowOrder else {
      return LoadedLinear(weight: matrix, bias: bias, integers: integers)
    }
    let sorted = pool.take(rows: matrix.rows, columns: matrix.columns)
    gatherRows(order, of: matrix, into: sorted)
    pool.give(matrix)
    return LoadedLinear(
      weight: sorted, bias: bias.map { bias in order.map { bias[$0] } },
      integers: integers?.reordered(order, codes: sorted))
  }

  /// A tensor of one dimension.
  package func vector(_ name: String) throws -> [Float] {
    try values(name, count: source.shape(of: name)?.first ?? 0)
  }

  /// The first elements of a tensor.
  package func values(_ name: String, count: Int) throws -> [Float] {
    var values: [Float] = []
    var reader = source.makeReader()
    try reader.read(name, 0..<count, into: &values)
    return values
  }

  package func norm(_ description: NormDescription?) throws -> LoadedNorm? {
    guard let description else { return nil }
    var weight = try description.weight.map(vector) ?? [Float](repeating: 1, count: description.width)
    if case .rootMeanSquare(let offset) = description.kind, offset != 0 { weight = weight.map { $0 + offset } }
    let bias = try description.bias.map(vector) ?? [Float](repeating: 0, count: description.width)
    return LoadedNorm(description: description, weight: weight, bias: bias)
  }

  /// Rows of a table, in the order asked for.
  package func rows(_ indices: [Int], of table: String, width: Int, into target: Matrix) throws {
    precondition(target.columns == width && target.rows == indices.count)
    // A read begins at a multiple of eight elements: a little before the row, where the width is not one.
    let tile = 64
    let source = source
    try runParallel(count: (indices.count + tile - 1) / tile, workers: workers) {
      (reader: source.makeReader(), values: [Float]())
    } body: { item, state in
      for position in item * tile..<min(indices.count, (item + 1) * tile) {
        let first = indices[position] * width
        let lead = first % 8
        try state.reader.read(table, first - lead..<first + width, into: &state.values)
        let values = state.values
        target.withRows(position..<(position + 1)) { row in
          for column in 0..<width { row[column] = values[lead + column] }
        }
      }
    }
  }

  /// Fills a matrix `[outputs, inputs]` with the integers of a layer; nil, and nothing is filled, where the layer is to
  /// be run in float32.
  private func integers(_ target: Matrix, _ linear: LinearDescription) throws -> IntegerLayer? {
    guard case .integers(let split) = arithmetic, let reader = source.makeIntegerReader(of: linear.weight),
      reader.isTransposed == (linear.storage == .inputsFirst)
    else { return nil }
    let rows = IntegerRows(codes: target, scales: Matrix(rows: linear.outputs, columns: 1))
    guard split || reader.outlierColumns.isEmpty else {
      try fill(target, from: linear)
      quantizeRows(target, scaleType: reader.scaleType, into: rows, workers: workers)
      return IntegerLayer(weights: IntegerWeights(rows, workers: workers), outlierColumns: [], outlierWeights: nil)
    }
    var firstRow = 0
    if case .expert(let index, _) = linear.storage { firstRow = index * linear.outputs }
    let columns = reader.outlierColumns
    let outliers = columns.isEmpty ? nil : Matrix(rows: linear.outputs, columns: columns.count)
    let tile = max(1, 65_536 / max(1, linear.inputs))
    let source = source
    try runParallel(count: (linear.outputs + tile - 1) / tile, workers: workers) {
      (reader: source.makeIntegerReader(of: linear.weight), codes: [Float](), scales: [Float](), outliers: [Float]())
    } body: { [firstRow] item, state in
      let part = item * tile..<min(linear.outputs, (item + 1) * tile)
      try state.reader?.read(
        firstRow + part.lowerBound..<firstRow + part.upperBound, into: &state.codes, scales: &state.scales,
        outliers: &state.outliers)
      copyRows(state.codes.span, from: 0, into: target, rows: part)
      copyRows(state.scales.span, from: 0, into: rows.scales, rows: part)
      if let outliers { copyRows(state.outliers.span, from: 0, into: outliers, rows: part) }
    }
    return IntegerLayer(
      weights: IntegerWeights(rows, workers: workers), outlierColumns: columns, outlierWeights: outliers)
  }

  /// Fills a matrix `[outputs, inputs]`.
  private func fill(_ target: Matrix, from linear: LinearDescription) throws {
    let isTransposed = linear.storage == .inputsFirst
    let storedRows = isTransposed ? linear.inputs : linear.outputs
    let storedColumns = isTransposed ? linear.outputs : linear.inputs
    let firstElement: Int
    if case .expert(let index, _) = linear.storage {
      firstElement = index * linear.outputs * linear.inputs
    } else {
      firstElement = 0
    }
    // Tiles of at least eight rows begin at a multiple of eight elements, if the tensor does. Of a transposed weight they
    // are taller: where codes run the other way, a tile is a stretch of each of their rows.
    let tile = max(1, (isTransposed ? 1 << 18 : 1 << 16) / max(1, storedColumns) / 8) * 8
    let source = source
    try runParallel(count: (storedRows + tile - 1) / tile, workers: workers) {
      (reader: source.makeReader(), values: [Float]())
    } body: { item, state in
      let rows = item * tile..<min(storedRows, (item + 1) * tile)
      let first = firstElement + rows.lowerBound * storedColumns
      let lead = first % 8
      try state.reader.read(
        linear.weight, first - lead..<first + rows.count * storedColumns, into: &state.values)
      if isTransposed {
        scatterColumns(state.values.span, from: lead, into: target, columns: rows)
      } else {
        copyRows(state.values.span, from: lead, into: target, rows: rows)
      }
    }
  }
}
