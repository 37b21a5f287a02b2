import Calibration
import Checkpoints
import Foundation
import Kernels
import Models
import Quantization
import SystemPackage
import TestSupport
import Testing

/// The pass of the original model that gathers evidence.
@Suite struct EvidenceCollectionTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private static let windowCount = 5
  private static let length = 12

  private func windows() -> [[Int32]] {
    var generator = SplitMix64(seed: 5)
    return (0..<Self.windowCount).map { _ in
      (0..<Self.length).map { _ in Int32.random(in: 0..<36, using: &generator) }
    }
  }

  private func model(_ name: String) throws -> Model {
    let checkpoint = try Checkpoint(Fixtures.path("architectures/\(name)/model.safetensors"))
    return try Model(checkpoint, configuration: checkpoint.configuration)
  }

  private func collect(
    _ model: Model, _ options: EvidenceOptions = EvidenceOptions(sumsHessians: true), workers: Int = 2,
    memoryLimit: Int = 1 << 30
  ) throws -> Evidence {
    let windows = windows()
    return try BlockCalibration(
      model, windows: Array(windows.dropLast()), heldOut: Array(windows.suffix(1)),
      BlockCalibration.Options(
        workers: workers, memoryLimit: memoryLimit, spillFolder: folder.path, runsOriginal: true)
    ).collect(options) { _ in true }
  }

  static let architectures = [
    "llama", "gpt2", "phi3", "gemma3", "gpt-neox", "opt-post-norm", "mixtral", "mixtral-fused", "qwen3-moe", "bert",
  ]

  @Test("Every linear layer but routers has evidence, of every token that reaches it", arguments: architectures)
  func coversEveryLayer(_ name: String) throws {
    let model = try model(name)
    let inputs = try collect(model).inputs
    var expected = model.description.blocks.flatMap(\.linears).map { EvidencedLayer($0) }
    for block in model.description.blocks {
      guard case .mixture(let mixture) = block.feedForward else { continue }
      expected.removeAll { $0.weight == mixture.router.weight }
    }
    #expect(Set(inputs.flatMap(\.layers)) == Set(expected))
    let tokens = (Self.windowCount - 1) * Self.length
    for input in inputs {
      let hessian = try #require(input.hessian)
      #expect(hessian.tokens == input.tokens && hessian.dimension == input.dimension)
      for (sum, square) in zip(hessian.diagonal, input.statistics.columnSums.squareSums) {
        #expect(abs(Double(sum) - square) <= 1e-4 * square + 1e-12)
      }
    }
    for block in model.description.blocks {
      guard case .mixture(let mixture) = block.feedForward else { continue }
      let outputs = Set(mixture.experts.map { EvidencedLayer($0.output) })
      let seen = inputs.filter { $0.layers.contains { outputs.contains($0) } }
      #expect(seen.count == mixture.experts.count)
      #expect(seen.reduce(0) { $0 + $1.tokens } == tokens * mixture.chosen)
    }
    if !name.contains("mixtral"), !name.contains("moe") {
      #expect(inputs.allSatisfy { $0.tokens == tokens })
    }
  }

  @Test func statisticsAreThoseOfTheInputs() throws {
    let model = try model("llama")
    let options = EvidenceOptions(threshold: 1.5)
    let input = try #require(try collect(model, options).inputs.first)
    #expect(input.hessian == nil)
    #expect(input.layers.map(\.weight) == model.description.blocks[0].attention.input.linears.map(\.weight))
    let used = Array(windows().dropLast())
    let batch = TokenBatch(lengths: used.map(\.count))
    let forward = Forward(model, workers: 1)
    let x = Matrix(rows: batch.tokenCount, columns: model.description.hiddenSize)
    try forward.embed(used.flatMap { $0 }, batch, into: x)
    BlockForward(model.description.blocks[0], try forward.weights(ofBlock: 0), pool: forward.pool, workers: 1)
      .attentionInput(x, into: x)
    let values = x.values()
    for column in 0..<x.columns {
      let found = (0..<x.rows).map { Double(values[$0 * x.columns + column]) }
      let square = found.reduce(0) { $0 + $1 * $1 } / Double(x.rows)
      let mean = found.reduce(0) { $0 + abs($1) } / Double(x.rows)
      #expect(abs(Double(input.statistics.meanSquares[column]) - square) < 1e-5 * square + 1e-9)
      #expect(abs(Double(input.statistics.meanMagnitudes[column]) - mean) < 1e-5 * mean + 1e-9)
      #expect(Double(input.statistics.largestMagnitudes[column]) == found.map { abs($0) }.max())
      #expect(input.statistics.outlierTokens[column] == found.count { abs($0) >= 1.5 })
    }
    #expect(input.statistics.outlierTokens.contains { $0 > 0 })
  }

  @Test("Threads and spilling change nothing", arguments: ["llama", "mixtral"])
  func isDeterministic(_ name: String) throws {
    let model = try model(name)
    let first = try collect(model, workers: 1)
    for other in [try collect(model, workers: 2), try collect(model, memoryLimit: 0)] {
      #expect(first.inputs.map(\.statistics) == other.inputs.map(\.statistics))
      #expect(first.inputs.map { $0.hessian?.sum.values() } == other.inputs.map { $0.hessian?.sum.values() })
    }
  }

  @Test func columnStatisticsAreByTensorWhicheverWayItIsStored() throws {
    let turned = try model("gpt2")
    let statistics = try collect(turned).columnStatistics
    for linear in turned.description.blocks.flatMap(\.linears) {
      #expect(statistics[linear.weight]?.dimension == linear.inputs)
    }
    let fused = try model("mixtral-fused")
    let evidence = try collect(fused, EvidenceOptions())
    let stacked = try #require(evidence.inputs.first { $0.layers.contains { $0.expert == 1 } }?.layers.first?.weight)
    let tokens = evidence.inputs.filter { $0.layers[0].weight == stacked }.reduce(0) { $0 + $1.tokens }
    #expect(evidence.columnStatistics[stacked]?.tokens == tokens && tokens > 0)
  }

  @Test func aValueThatIsNotFiniteIsNamedWithItsLayers() throws {
    let source = try Checkpoint(Fixtures.path("architectures/llama/model.safetensors"))
    let original = try Model(source, configuration: source.configuration)
    let norm = try #require(original.description.blocks[1].feedForwardNorms.before?.weight)
    let tensors = try source.tensors.map { tensor in
      var values = try allValues(tensor)
      if tensor.name == norm { values[3] = .nan }
      return SampleTensor(tensor.name, tensor.entry.shape, values)
    }
    try SampleTensor.write(tensors, to: folder.appending("model.safetensors"))
    let damaged = try Model(Checkpoint(folder.appending("model.safetensors")), configuration: source.configuration)
    for options in [EvidenceOptions(), EvidenceOptions(sumsHessians: true)] {
      let error = #expect(throws: EvidenceError.self) { _ = try collect(damaged, options) }
      let text = error?.description ?? ""
      #expect(text.contains("layers.1.mlp.gate_proj.weight") && text.contains("input feature 3 is nan"), "\(text)")
    }
  }
}
