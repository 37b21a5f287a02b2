import Kernels
import Models
import Quantization
import Synchronization

/// The error of a layer's output on tokens that it was not calibrated on, beside that of rounding to nearest.
package struct HeldOutErrors: Hashable, Codable, Sendable {
  /// ‖T − X·Ŵᵀ‖ / ‖T‖ over all held-out tokens: T is what the layer should give. That is X̃·Wᵀ with the inputs X̃ of the
  /// original model, where it runs along, or what sets the residual stream right (see `HeldOutInputs.aim`); else X·Wᵀ.
  package let error: Double
  /// The same of plain rounding to nearest with the same codes and groups.
  package let plainError: Double
  /// ‖X·Gᵀ − X·Ŵᵀ‖ / ‖T‖: what rounding alone adds, G being the weight that was rounded. The rest of `error` is what
  /// earlier layers changed in the inputs and, with an aim, in the residual stream, as far as G does not make up for it.
  package let roundingError: Double
  /// Half the width of a 95 % confidence interval of error / plainError, from the spread of the windows; nil for one
  /// window.
  package let ratioMargin: Double?

  package var ratio: Double { plainError > 0 ? error / plainError : 1 }

  /// What finding them takes, beside the weights.
  package static func byteCount(tokens: Int, outputs: Int, workers: Int) -> Int {
    TokenSquares.byteCount(tokens: tokens, outputs: outputs, workers: workers)
  }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`, before quantization.
  ///   - goal: the weight that the codes are to be near to, where that is not `weight` itself; nil: it is.
  ///   - plain: the weight as rounding to nearest leaves it.
  ///   - inputs: the layer's inputs; every window of a few hundred tokens counts as one observation.
  package init(
    _ weight: Matrix, goal: Matrix? = nil, _ quantized: AffineWeight, plain: Matrix, _ heldOut: HeldOutInputs,
    workers: Int
  ) {
    let decoded = Matrix(rows: weight.rows, columns: weight.columns)
    quantized.decode(into: decoded, workers: workers)
    let squares = TokenSquares(weight, goal: goal, decoded, plain: plain, heldOut, workers: workers)
    var (total, rounding, own, other) = (0.0, 0.0, [Double](), [Double]())
    for window in zip(heldOut.bounds, heldOut.bounds.dropFirst()) where window.0 < window.1 {
      let sums = squares.sums(of: window.0..<window.1)
      total += sums.wanted
      rounding += sums.rounding
      own.append(sums.own)
      other.append(sums.plain)
    }
    let (ownTotal, otherTotal) = (own.reduce(0, +), other.reduce(0, +))
    error = total > 0 ? (ownTotal / total).squareRoot() : 0
    plainError = total > 0 ? (otherTotal / total).squareRoot() : 0
    roundingError =
      heldOut.aim == nil && heldOut.originals == nil ? error : total > 0 ? (rounding / total).squareRoot() : 0
    let count = Double(own.count)
    guard own.count > 1, otherTotal > 0 else {
      ratioMargin = nil
      return
    }
    // Ratio estimator over windows for the ratio of squares; its root has half the relative error.
    let ratio = ownTotal / otherTotal
    let spread = zip(own, other).reduce(0) { $0 + ($1.0 - ratio * $1.1) * ($1.0 - ratio * $1.1) }
    let deviation = (spread * count / (count - 1)).squareRoot() / otherTotal
    ratioMargin = ratio > 0 ? 1.96 * deviation / (2 * ratio.squareRoot()) : 0
  }
}

/// Sums of squares over a layer's outputs, of every token held out.
private struct TokenSquares {
  struct Sums {
    /// Of what the layer should give.
    var wanted = 0.0
    /// Of what the quantized weight, and the plainly rounded one, miss that by.
    var own = 0.0
    var plain = 0.0
    /// Of what the weight that was rounded and the quantized one differ by; zero where that is `own`.
    var rounding = 0.0

    static func += (sums: inout Sums, more: Sums) {
      sums.wanted += more.wanted
      sums.own += more.own
      sums.plain += more.plain
      sums.rounding += more.rounding
    }
  }

  // Outputs can be many times wider than inputs: both are cut, so that what a thread needs stays small.
  private static let tokenTile = 512
  private static let outputTile = 128

  static func byteCount(tokens: Int, outputs: Int, workers: Int) -> Int {
    let sums = tokens * ((outputs + outputTile - 1) / outputTile) * MemoryLayout<Sums>.stride
    return sums + workers * 2 * tokenTile * outputTile * MemoryLayout<Float>.stride
  }

  /// Of each tile of tokens and outputs, those of the tokens.
  private let tiles: [[Sums]]
  private let outputTiles: Int

  init(
    _ weight: Matrix, goal: Matrix?, _ decoded: Matrix, plain: Matrix, _ heldOut: HeldOutInputs, workers: Int
  ) {
    let tokens = heldOut.inputs.rows
    let outputTiles = (weight.rows + Self.outputTile - 1) / Self.outputTile
    let found = Mutex([[Sums]](repeating: [], count: (tokens + Self.tokenTile - 1) / Self.tokenTile * outputTiles))
    let pool = MatrixPool()
    runTiles(count: found.withLock { $0.count }, workers: workers) { tile in
      let (firstToken, firstOutput) = (tile / outputTiles * Self.tokenTile, tile % outputTiles * Self.outputTile)
      let rows = firstToken..<min(tokens, firstToken + Self.tokenTile)
      let outputs = firstOutput..<min(weight.rows, firstOutput + Self.outputTile)
      let (wanted, result) = (
        pool.take(rows: rows.count, columns: outputs.count), pool.take(rows: rows.count, columns: outputs.count)
      )
      let inputs = Matrix(sharing: heldOut.inputs, rows: rows)
      func multiply(_ inputs: Matrix, _ weight: Matrix, into target: Matrix) {
        Kernels.multiply(inputs, transposed: Matrix(sharing: weight, rows: outputs), into: target, workers: 1)
      }
      var sums = [Sums](repeating: Sums(), count: rows.count)
      func set(_ part: WritableKeyPath<Sums, Double>, _ values: Matrix) {
        for row in sums.indices { sums[row][keyPath: part] = sumOfSquares(values, row: row) }
      }
      if heldOut.aim != nil || heldOut.originals != nil {
        multiply(inputs, goal ?? weight, into: wanted)
        multiply(inputs, decoded, into: result)
        subtract(wanted, from: result, workers: 1)
        set(\.rounding, result)
      }
      if let aim = heldOut.aim {
        copyColumns(
          MatrixColumns(Matrix(sharing: aim, rows: rows), from: firstOutput), into: wanted, at: 0, count: rows.count)
      } else {
        multiply(heldOut.originals.map { Matrix(sharing: $0, rows: rows) } ?? inputs, weight, into: wanted)
      }
      set(\.wanted, wanted)
      for (part, weight) in [(\Sums.own, decoded), (\.plain, plain)] {
        multiply(inputs, weight, into: result)
        subtract(wanted, from: result, workers: 1)
        set(part, result)
      }
      pool.give(wanted, result)
      found.withLock { [sums] in $0[tile] = sums }
    }
    tiles = found.withLock { $0 }
    self.outputTiles = outputTiles
  }

  func sums(of tokens: Range<Int>) -> Sums {
    var total = Sums()
    for token in tokens {
      let first = token / Self.tokenTile * outputTiles
      for tile in first..<first + outputTiles { total += tiles[tile][token % Self.tokenTile] }
    }
    return total
  }
}
