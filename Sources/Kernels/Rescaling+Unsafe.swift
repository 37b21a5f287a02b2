/// x[i][j] *= factors[j] for the rows in use.
package func scaleColumns(_ x: Matrix, by factors: [Float], workers: Int) {
  precondition(factors.count == x.columns)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    factors.withUnsafeBufferPointer { factors in
      guard let factor = factors.baseAddress else { return }
      for row in rows {
        // Bounds: the row is in use and as long as there are factors.
        let start = x.base + row * x.columns
        combine(start, factor, start, x.columns) { $0 * $1 }
      }
    }
  }
}

/// x[first + i][j] *= factors[i].
package func scaleRows(_ x: Matrix, from first: Int, by factors: [Float]) {
  precondition(first >= 0 && first + factors.count <= x.rows)
  for (index, factor) in factors.enumerated() {
    // Bounds: by the precondition.
    let start = x.base + (first + index) * x.columns
    combine(start, start, start, x.columns) { value, _ in factor * value }
  }
}

/// x[i][j] *= factors[i]·factors[j]: what becomes of Σ xᵀ·x when the features are multiplied. Stays symmetric to the bit.
package func scaleSymmetrically(_ x: Matrix, by factors: [Float], workers: Int) {
  precondition(factors.count == x.columns && factors.count == x.rows)
  runRowTiles(x.rows, columns: x.columns, workers: workers) { rows in
    factors.withUnsafeBufferPointer { factors in
      guard let factor = factors.baseAddress else { return }
      for row in rows {
        let start = x.base + row * x.columns
        let own = factor[row]
        // Bounds: the row is in use and as long as there are factors.
        combine(start, factor, start, x.columns) { value, other in value * (own * other) }
      }
    }
  }
}

/// Rounds the rows in use to a stored type.
package func round(_ x: Matrix, to type: ElementType) {
  guard type == .f16 || type == .bf16 else { return }
  x.withRows(0..<x.rows) { values in
    for index in 0..<values.count { values[index] = rounded(values[index], to: type) }
  }
}

/// products[i] = a[i]·b[i].
package func multiply(_ a: Span<Float>, _ b: Span<Float>, into products: inout [Float]) {
  precondition(a.count == b.count && products.count == a.count)
  products.withUnsafeMutableBufferPointer { products in
    a.withUnsafeBufferPointer { a in
      b.withUnsafeBufferPointer { b in
        guard let one = a.baseAddress, let two = b.baseAddress, let target = products.baseAddress else { return }
        // Bounds: all three are as long.
        combine(one, two, target, products.count) { $0 * $1 }
      }
    }
  }
}
