import Checkpoints
import Foundation
import Kernels
import Models
import SystemPackage
import TestSupport
import Testing

/// The backward pass of whole blocks of every architecture, against central differences of a twin in double precision.
@Suite struct BackwardTests {
  /// A block of a fixture with inputs that its model gives it.
  struct Sample {
    let block: BlockDescription
    let weights: BlockWeights
    let tables: RotaryTables?
    let hidden: Matrix
    let batch: TokenBatch
    let pool = MatrixPool()

    init(_ name: String, block index: Int) throws {
      let folder = Fixtures.path("architectures").appending(name)
      let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
      let golden = try Golden(folder.appending("golden.safetensors"))
      let model = try Model(checkpoint, configuration: checkpoint.configuration)
      let forward = Forward(model, workers: 2)
      // Sequences of two lengths.
      let lengths = [golden.length, max(1, golden.length - 3)]
      batch = TokenBatch(lengths: lengths)
      hidden = Matrix(rows: batch.tokenCount, columns: model.description.hiddenSize)
      try forward.embed(Array(golden.tokens.prefix(batch.tokenCount)), batch, into: hidden)
      let tables = ModelRotaryTables(model.description, length: batch.longest)
      for earlier in 0..<index {
        let block = model.description.blocks[earlier]
        let weights = try forward.weights(ofBlock: earlier)
        forward.run(block: earlier, weights, hidden, batch, tables: tables[block])
      }
      block = model.description.blocks[index]
      weights = try forward.weights(ofBlock: index)
      self.tables = tables[block]
    }

    /// The gradients of Σ outer · output.
    func gradients(_ outer: [Float], workers: Int) -> (input: Matrix, parameters: BlockGradients) {
      let forward = BlockForward(block, weights, pool: pool, workers: workers)
      let tape = forward.record(hidden, batch, tables: tables)
      let gradient = Matrix(rows: hidden.rows, columns: hidden.columns, outer)
      let parameters = BlockGradients(weights, norms: true)
      BlockBackward(block, weights, pool: pool, workers: workers).run(tape, gradient, into: parameters)
      tape.release()
      return (gradient, parameters)
    }
  }

  static func outer(_ count: Int) -> [Float] {
    var generator = SplitMix64(seed: 5)
    return (0..<count).map { _ in generator.normal() }
  }

  @Test("Gradients of a block agree with central differences", arguments: ArchitectureGoldens.cases)
  func agrees(_ name: String) throws {
    for index in 0..<2 {
      let sample = try Sample(name, block: index)
      let outer = Self.outer(sample.hidden.rows * sample.hidden.columns)
      let found = sample.gradients(outer, workers: 2)
      var twin = BlockTwin(sample.block, sample.weights, sample.batch, sample.tables)
      let input = sample.hidden.values().map(Double.init)
      twin.fixRoutes(input)
      let wide = outer.map(Double.init)
      func loss(_ twin: BlockTwin, _ input: [Double]) -> Double {
        zip(twin.run(input), wide).reduce(0) { $0 + $1.0 * $1.1 }
      }
      func check(_ gradient: [Float], _ what: String, _ moved: (_ direction: [Double]) -> Double) {
        let error = worstError(of: gradient.map(Double.init), moved)
        #expect(error < 1e-4, "\(name), block \(index), \(what): \(error)")
      }
      check(found.input.values(), "input") { direction in loss(twin, zip(input, direction).map(+)) }
      for (place, gradient) in found.parameters.weights {
        check(gradient.values(), "\(place)") { direction in
          var moved = twin
          moved.linears[place]?.weight = zip(twin.linears[place]?.weight ?? [], direction).map(+)
          return loss(moved, input)
        }
      }
      for (place, gradient) in found.parameters.biases {
        check(gradient.values(), "bias of \(place)") { direction in
          var moved = twin
          moved.linears[place]?.bias = zip(twin.linears[place]?.bias ?? [], direction).map(+)
          return loss(moved, input)
        }
      }
      for (place, gradient) in found.parameters.norms {
        check(gradient.values(ofRows: 0..<1), "norm \(place)") { direction in
          var moved = twin
          moved.norms[place]?.weight = zip(twin.norms[place]?.weight ?? [], direction).map(+)
          return loss(moved, input)
        }
        guard twin.norms[place]?.description.kind == .layer else { continue }
        check(gradient.values(ofRows: 1..<2), "bias of norm \(place)") { direction in
          var moved = twin
          moved.norms[place]?.bias = zip(twin.norms[place]?.bias ?? [], direction).map(+)
          return loss(moved, input)
        }
      }
    }
  }

  @Test("The recorded forward pass gives the bits of the plain one", arguments: ArchitectureGoldens.cases)
  func recordsTheSame(_ name: String) throws {
    let sample = try Sample(name, block: 1)
    let forward = BlockForward(sample.block, sample.weights, pool: sample.pool, workers: 2)
    let tape = forward.record(sample.hidden, sample.batch, tables: sample.tables)
    let recorded = tape.output.values()
    let before = sample.hidden.values()
    forward.run(sample.hidden, sample.batch, tables: sample.tables)
    #expect(sample.hidden.values() == recorded)
    #expect(before != recorded)
  }

  @Test("One thread gives the bits of two", arguments: ["llama", "gemma2", "mixtral", "gpt-neox", "bert"])
  func doesNotDependOnThreads(_ name: String) throws {
    let sample = try Sample(name, block: 0)
    let outer = Self.outer(sample.hidden.rows * sample.hidden.columns)
    let (one, two) = (sample.gradients(outer, workers: 1), sample.gradients(outer, workers: 2))
    #expect(one.input.values() == two.input.values())
    for (place, gradient) in one.parameters.weights {
      #expect(gradient.values() == two.parameters.weights[place]?.values())
    }
    for (place, gradient) in one.parameters.norms {
      #expect(gradient.values() == two.parameters.norms[place]?.values())
    }
  }
}

/// The largest error of a gradient's product with a few directions, the gradient's own among them, against central
/// differences, relative to the norms of both.
/// - Parameter moved: the loss with the direction added to the parameter.
func worstError(of gradient: [Double], _ moved: (_ direction: [Double]) -> Double) -> Double {
  let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
  var generator = SplitMix64(seed: 11)
  let random = (0..<4).map { _ in gradient.map { _ in Bool.random(using: &generator) ? 1.0 : -1.0 } }
  return ([gradient] + random).map { direction in
    let length = direction.reduce(0) { $0 + $1 * $1 }.squareRoot()
    guard length > 0 else { return 0 }
    let step = 1e-4 / length
    let slope = (moved(direction.map { $0 * step }) - moved(direction.map { -$0 * step })) / (2 * step)
    let expected = zip(gradient, direction).reduce(0) { $0 + $1.0 * $1.1 }
    return abs(slope - expected) / max(1e-12, norm * length)
  }.max() ?? 0
}
