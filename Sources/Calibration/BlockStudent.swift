import Kernels
import Models
import Quantization

/// A quantized linear layer of a block that is being learned.
package struct LearnedLayer {
  package enum Weight {
    case learned(LearnedWeight)
    /// Quantized by another method: no step is taken on it.
    case fixed(AffineWeight)
  }

  package let linear: LinearDescription
  package let weight: Weight
  fileprivate let place: LinearPlace
  /// Its rows among those of its projection, as the checkpoint has them.
  fileprivate let rows: Range<Int>
  /// The stored row of each row as it is run; nil where they are the same.
  fileprivate let order: [Int]?

  /// The layers of a block that have a weight, in the order of the data.
  package static func layers(
    of block: BlockDescription, _ weight: (LinearDescription) -> Weight?
  ) -> [LearnedLayer] {
    block.projections.flatMap { place, projection in
      var first = 0
      return projection.linears.compactMap { linear in
        let rows = first..<(first + linear.outputs)
        first = rows.upperBound
        return weight(linear).map {
          LearnedLayer(linear: linear, weight: $0, place: place, rows: rows, order: projection.rowOrder)
        }
      }
    }
  }

  /// As it is stored.
  package func quantized(workers: Int) -> AffineWeight {
    switch weight {
    case .learned(let weight): weight.quantized(workers: workers)
    case .fixed(let weight): weight
    }
  }

  fileprivate func decode(into matrix: Matrix, workers: Int) {
    switch weight {
    case .learned(let weight): weight.decode(into: matrix, workers: workers)
    case .fixed(let weight): weight.decode(into: matrix, workers: workers)
    }
  }

  fileprivate var learned: LearnedWeight? { if case .learned(let weight) = weight { weight } else { nil } }
}

/// A norm's weight or bias, or the bias of a linear layer, that is tuned along with the rounding.
package struct TunedVector {
  package let vector: BlockVector
  /// As which it is stored.
  package let type: ElementType
  /// What to start from; nil: the block's.
  package let values: [Float]?

  package init(_ vector: BlockVector, storedAs type: ElementType, from values: [Float]? = nil) {
    (self.vector, self.type, self.values) = (vector, type, values)
  }
}

/// A block whose quantized weights, and norms if wanted, are being learned: it decodes them, runs, and takes steps.
final class BlockStudent {
  let block: BlockDescription
  private(set) var weights: BlockWeights
  private let layers: [LearnedLayer]
  private let tuned: [Tuned]
  private let gradients: BlockGradients
  private let method: LearnedRounding
  private let pool: MatrixPool
  private let workers: Int

  private struct Tuned {
    let vector: BlockVector
    let type: ElementType
    /// The root mean square at the start: what the size of steps goes by.
    let unit: Float
    let parameters: AdamParameters
  }

  /// - Parameter weights: of which those of the layers are overwritten.
  init(
    _ block: BlockDescription, _ weights: BlockWeights, _ layers: [LearnedLayer], _ vectors: [TunedVector],
    _ method: LearnedRounding, pool: MatrixPool, workers: Int
  ) {
    (self.block, self.weights, self.layers, self.method) = (block, weights, layers, method)
    (self.pool, self.workers) = (pool, workers)
    var gradients = BlockGradients()
    for place in Set(layers.filter { $0.learned != nil }.map(\.place)) {
      gradients.weights[place] = Matrix(rows: weights[place].weight.rows, columns: weights[place].weight.columns)
    }
    tuned = vectors.map { vector in
      gradients.add(vector.vector, of: weights)
      let start = vector.values ?? weights[vector.vector]
      let square = start.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(max(1, start.count))
      return Tuned(
        vector: vector.vector, type: vector.type, unit: Float(square.squareRoot()),
        parameters: AdamParameters(Matrix(rows: 1, columns: start.count, start)))
    }
    self.gradients = gradients
  }

  /// What is learned. Whoever changes it decodes it.
  var parameters: [Matrix] { layers.flatMap { $0.learned?.parameters ?? [] } + tuned.map(\.parameters.values) }

  /// What the next steps depend on besides.
  var optimizer: [Matrix] { layers.flatMap { $0.learned?.optimizer ?? [] } + tuned.flatMap(\.parameters.moments) }

  /// Writes what was learned, as it would be stored, into the weights that the block runs with.
  func decode() {
    for layer in layers {
      let whole = weights[layer.place].weight
      guard let order = layer.order else {
        layer.decode(into: Matrix(sharing: whole, rows: layer.rows), workers: workers)
        continue
      }
      let stored = pool.take(rows: whole.rows, columns: whole.columns)
      layer.decode(into: Matrix(sharing: stored, rows: layer.rows), workers: workers)
      gatherRows(order, of: stored, into: whole)
      pool.give(stored)
    }
    for tuned in tuned {
      weights[tuned.vector] = zip(tuned.parameters.values.values(), weights[tuned.vector]).map { value, old in
        let stored = rounded(value, to: tuned.type)
        return stored.isFinite ? stored : old
      }
    }
  }

  /// Runs the block and keeps what the backward pass reads.
  func record(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?) -> BlockTape {
    BlockForward(block, weights, pool: pool, workers: workers).record(hidden, batch, tables: tables)
  }

  func run(_ hidden: Matrix, _ batch: TokenBatch, tables: RotaryTables?) {
    BlockForward(block, weights, pool: pool, workers: workers).run(hidden, batch, tables: tables)
  }

  /// Takes one step against the gradient of a loss by the block's output, which becomes that by its input.
  func step(_ tape: BlockTape, _ gradient: Matrix, index: Int, wantsInput: Bool) {
    gradients.clear()
    BlockBackward(block, weights, pool: pool, workers: workers)
      .run(tape, gradient, into: gradients, wantsInput: wantsInput)
    for layer in layers {
      guard let weight = layer.learned, let whole = gradients.weights[layer.place] else { continue }
      guard let order = layer.order else {
        weight.step(Matrix(sharing: whole, rows: layer.rows), method, index: index, workers: workers)
        continue
      }
      let stored = pool.take(rows: whole.rows, columns: whole.columns)
      scatterRows(whole, to: order, of: stored)
      weight.step(Matrix(sharing: stored, rows: layer.rows), method, index: index, workers: workers)
      pool.give(stored)
    }
    for tuned in tuned where tuned.unit > 0 {
      tuned.parameters.step(
        Matrix(rows: 1, columns: tuned.parameters.values.columns, gradients[tuned.vector]),
        rate: method.normRate * tuned.unit * method.share(ofStep: index), step: index + 1)
    }
  }
}
