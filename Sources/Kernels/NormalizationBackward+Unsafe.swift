/// Where the vector-Jacobian product of a norm reads and writes.
package struct NormSlice: Hashable, Sendable {
  /// Where the first slice begins in a row; `count` slices as wide as the weight follow.
  package let firstColumn: Int
  package let count: Int

  package init(firstColumn: Int = 0, count: Int = 1) {
    self.firstColumn = firstColumn
    self.count = count
  }
}

/// The vector-Jacobian product of RMSNorm. With r = 1 / √(mean(x²) + ε) and g = weight · gradient,
///
///     dx = r·g − x·r³·mean(x·g)        dweight = Σ over tokens of gradient·x·r
///
/// - Parameters:
///   - x: what the forward pass read, `[tokens, …]`.
///   - slice: which columns: a whole row, or the heads of queries or keys.
///   - gradient: of the result, in the same columns of `[tokens, …]`.
///   - dx: in the same columns; may be `gradient`.
///   - adding: whether dx grows by the product, as a residual stream's gradient does.
///   - parameters: `[1 or more, width]`; its first row grows by the gradient of the weight.
package func normalizeRootMeanSquareBackward(
  _ x: Matrix, _ slice: NormSlice = NormSlice(), weight: [Float], epsilon: Float, gradient: Matrix, into dx: Matrix,
  adding: Bool = false, parameters: Matrix? = nil, workers: Int
) {
  backward(x, slice, weight, gradient, dx, adding, parameters, workers) { x, weight, outer, dx, sums, count in
    let mean = sum(x, count) { $0 * $0 } / Float(count)
    let factor = 1 / (mean + epsilon).squareRoot()
    var along = Floats.zero
    for index in stride(from: 0, to: count, by: 16) {
      let product = x.lanes(index, of: count) * outer.lanes(index, of: count)
      along += product * weight.lanes(index, of: count)
      if let sums { sums.store(sums.lanes(index, of: count) + product * factor, at: index, of: count) }
    }
    let shift = along.total / Float(count) * factor * factor * factor
    for index in stride(from: 0, to: count, by: 16) {
      let own = weight.lanes(index, of: count) * outer.lanes(index, of: count) * factor
      let value = own - x.lanes(index, of: count) * shift
      dx.store(adding ? dx.lanes(index, of: count) + value : value, at: index, of: count)
    }
  }
}

/// The vector-Jacobian product of layer normalization. With x̂ = (x − mean) · r and g = weight · gradient,
///
///     dx = r·(g − mean(g) − x̂·mean(g·x̂))        dweight = Σ gradient·x̂        dbias = Σ gradient
///
/// - Parameter parameters: `[2, width]`: grow by the gradients of weight and bias.
package func normalizeLayerBackward(
  _ x: Matrix, weight: [Float], epsilon: Float, gradient: Matrix, into dx: Matrix, adding: Bool = false,
  parameters: Matrix? = nil, workers: Int
) {
  precondition(parameters.map { $0.rows >= 2 } ?? true)
  backward(x, NormSlice(), weight, gradient, dx, adding, parameters, workers) { x, weight, outer, dx, sums, count in
    let mean = sum(x, count) { $0 } / Float(count)
    let variance = sum(x, count) { ($0 - mean) * ($0 - mean) } / Float(count)
    let factor = 1 / (variance + epsilon).squareRoot()
    var (along, total) = (Floats.zero, Floats.zero)
    for index in stride(from: 0, to: count, by: 16) {
      let slope = outer.lanes(index, of: count)
      let normal = (x.lanes(index, of: count, filling: mean) - mean) * factor
      let own = slope * weight.lanes(index, of: count)
      total += own
      along += own * normal
      if let sums {
        sums.store(sums.lanes(index, of: count) + slope * normal, at: index, of: count)
        let biases = sums + count
        biases.store(biases.lanes(index, of: count) + slope, at: index, of: count)
      }
    }
    let (level, share) = (total.total / Float(count), along.total / Float(count))
    for index in stride(from: 0, to: count, by: 16) {
      let normal = (x.lanes(index, of: count) - mean) * factor
      let own = outer.lanes(index, of: count) * weight.lanes(index, of: count)
      let value = factor * (own - level - normal * share)
      dx.store(adding ? dx.lanes(index, of: count) + value : value, at: index, of: count)
    }
  }
}

/// Runs the product of one slice of a row over all rows, by tiles of 64. Each tile sums the parameters' gradients of its
/// rows; the tiles' sums are added in their order.
@inline(__always)
private func backward(
  _ x: Matrix, _ slice: NormSlice, _ weight: [Float], _ gradient: Matrix, _ dx: Matrix, _ adding: Bool,
  _ parameters: Matrix?, _ workers: Int,
  _ body:
    @Sendable (
      _ x: UnsafePointer<Float>, _ weight: UnsafePointer<Float>, _ gradient: UnsafePointer<Float>,
      _ dx: UnsafeMutablePointer<Float>, _ sums: UnsafeMutablePointer<Float>?, _ count: Int
    ) -> Void
) {
  let width = weight.count
  let end = slice.firstColumn + slice.count * width
  precondition(slice.firstColumn >= 0 && end <= x.columns && end <= gradient.columns && end <= dx.columns)
  precondition(gradient.rows == x.rows && dx.rowCapacity >= x.rows)
  precondition(parameters.map { $0.columns == width && $0.rows >= 1 } ?? true)
  dx.use(rows: x.rows)
  let height = 64
  let tiles = (x.rows + height - 1) / height
  let sumRows = min(2, parameters?.rows ?? 0)
  let sums = Matrix(rows: tiles * sumRows, columns: width)
  runTiles(count: tiles, workers: workers) { tile in
    weight.withUnsafeBufferPointer { weight in
      guard let weight = weight.baseAddress else { return }
      let own = sumRows > 0 ? sums.base + tile * sumRows * width : nil
      for row in tile * height..<min(x.rows, (tile + 1) * height) {
        for part in 0..<slice.count {
          // Bounds: by the preconditions every slice lies within the rows, which are in use; a tile's sums are its own.
          let column = slice.firstColumn + part * width
          body(
            x.base + row * x.columns + column, weight, gradient.base + row * gradient.columns + column,
            dx.base + row * dx.columns + column, own, width)
        }
      }
    }
  }
  guard let parameters else { return }
  for tile in 0..<tiles {
    for index in 0..<sumRows * width { parameters.base[index] += sums.base[tile * sumRows * width + index] }
  }
}
