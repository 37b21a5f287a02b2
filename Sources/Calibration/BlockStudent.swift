import Kernels
import Models
import Quantization

/// A linear layer whose rounding is learned.
package struct LearnedLayer {
  package let linear: LinearDescription
  package let weight: LearnedWeight
  fileprivate let place: LinearPlace
  /// Its rows among those of its projection, as the checkpoint has them.
  fileprivate let rows: Range<Int>
  /// The stored row of each row as it is run; nil where they are the same.
  fileprivate let order: [Int]?

  /// The layers of a block that have a learned weight, in the order of the data.
  package static func layers(
    of block: BlockDescription, _ weight: (LinearDescription) -> LearnedWeight?
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
}

/// A block whose quantized weights, and norms if wanted, are being learned: it decodes them, runs, and takes steps.
final class BlockStudent {
  let block: BlockDescription
  private(set) var weights: BlockWeights
  let layers: [LearnedLayer]
  private let gradients: BlockGradients
  private let norms: [NormPlace: AdamParameters]
  private let originalNorms: [NormPlace: LoadedNorm]
  private let method: LearnedRounding
  private let pool: MatrixPool
  private let workers: Int

  /// - Parameter weights: of which those of the layers are overwritten.
  init(
    _ block: BlockDescription, _ weights: BlockWeights, _ layers: [LearnedLayer], _ method: LearnedRounding,
    pool: MatrixPool, workers: Int
  ) {
    (self.block, self.weights, self.layers, self.method) = (block, weights, layers, method)
    (self.pool, self.workers) = (pool, workers)
    var gradients = BlockGradients()
    for place in Set(layers.map(\.place)) {
      gradients.weights[place] = Matrix(rows: weights[place].weight.rows, columns: weights[place].weight.columns)
    }
    var norms: [NormPlace: AdamParameters] = [:]
    if method.normRate > 0 {
      for place in weights.normPlaces {
        guard let norm = weights[place] else { continue }
        gradients.norms[place] = Matrix(rows: 2, columns: norm.weight.count)
        norms[place] = AdamParameters(Matrix(rows: 2, columns: norm.weight.count, norm.weight + norm.bias))
      }
    }
    self.gradients = gradients
    self.norms = norms
    originalNorms = norms.keys.reduce(into: [:]) { $0[$1] = weights[$1] }
  }

  /// Writes what was learned into the weights that the block runs with.
  func decode() {
    for layer in layers {
      let whole = weights[layer.place].weight
      guard let order = layer.order else {
        layer.weight.decode(into: Matrix(sharing: whole, rows: layer.rows), workers: workers)
        continue
      }
      let stored = pool.take(rows: whole.rows, columns: whole.columns)
      layer.weight.decode(into: Matrix(sharing: stored, rows: layer.rows), workers: workers)
      gatherRows(order, of: stored, into: whole)
      pool.give(stored)
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
      guard let whole = gradients.weights[layer.place] else { continue }
      guard let order = layer.order else {
        layer.weight.step(Matrix(sharing: whole, rows: layer.rows), method, index: index, workers: workers)
        continue
      }
      let stored = pool.take(rows: whole.rows, columns: whole.columns)
      scatterRows(whole, to: order, of: stored)
      layer.weight.step(Matrix(sharing: stored, rows: layer.rows), method, index: index, workers: workers)
      pool.give(stored)
    }
    for (place, norm) in norms {
      guard let gradient = gradients.norms[place] else { continue }
      norm.step(gradient, rate: method.normRate * method.share(ofStep: index), step: index + 1)
      setNorm(place, norm.values)
    }
  }

  private func setNorm(_ place: NormPlace, _ values: Matrix) {
    weights[place]?.weight = values.values(ofRows: 0..<1)
    if weights[place]?.description.kind == .layer { weights[place]?.bias = values.values(ofRows: 1..<2) }
  }

  struct Snapshot {
    fileprivate let weights: [LearnedSnapshot]
    fileprivate let norms: [NormPlace: LoadedNorm]
  }

  var snapshot: Snapshot {
    Snapshot(
      weights: layers.map(\.weight.snapshot), norms: norms.keys.reduce(into: [:]) { $0[$1] = weights[$1] })
  }

  /// Puts back what was learned at some time, and decodes it.
  func restore(_ snapshot: Snapshot) {
    for (layer, weight) in zip(layers, snapshot.weights) { layer.weight.restore(weight) }
    for (place, norm) in snapshot.norms { weights[place] = norm }
    decode()
  }

  /// The norms that were learned, by place.
  var learnedNorms: [NormPlace: LoadedNorm] { norms.keys.reduce(into: [:]) { $0[$1] = weights[$1] } }
}
