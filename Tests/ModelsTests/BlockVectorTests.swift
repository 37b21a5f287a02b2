import Checkpoints
import Kernels
import Models
import SystemPackage
import TestSupport
import Testing

/// Norms and biases of a block by the names of their tensors.
@Suite struct BlockVectorTests {
  private func model(_ name: String) throws -> Model {
    let checkpoint = try Checkpoint(Fixtures.path("architectures/\(name)"))
    return try Model(checkpoint, configuration: checkpoint.configuration)
  }

  @Test(
    "A vector holds what its tensor does, and takes other values",
    arguments: ["llama", "gemma2", "qwen3", "gpt-neox", "opt-post-norm", "phi3", "mixtral-fused", "bert", "qwen2"])
  func holdsItsTensor(_ name: String) throws {
    let model = try model(name)
    let loader = WeightLoader(model.source, pool: MatrixPool(), workers: 1)
    for block in model.description.blocks {
      var weights = try BlockWeights(block, loader)
      #expect(!block.vectors.isEmpty)
      for vector in block.vectors {
        let stored = try loader.vector(vector.tensor)
        #expect(stored.count == vector.count)
        #expect(zip(weights[vector], stored).allSatisfy { abs($0 - $1) <= 1e-6 }, "\(vector.tensor)")
        let values = (0..<vector.count).map { Float($0) / 16 }
        weights[vector] = values
        #expect(weights[vector] == values)
      }
    }
  }

  /// The rows of GPT-NeoX's queries, keys and values are run in another order than they are stored in.
  @Test func theGradientOfABiasIsInTheOrderOfItsTensor() throws {
    let model = try model("gpt-neox")
    let block = try #require(model.description.blocks.first)
    let weights = try BlockWeights(block, WeightLoader(model.source, pool: MatrixPool(), workers: 1))
    let vector = try #require(block.vectors.first { $0.tensor.contains("query_key_value.bias") })
    var gradients = BlockGradients()
    gradients.add(vector, of: weights)
    let sums = try #require(gradients.biases[.attentionInput])
    let bias = try #require(weights.attentionInput.bias)
    copyColumns(MatrixColumns(Matrix(rows: 1, columns: bias.count, bias), from: 0), into: sums, at: 0, count: 1)
    #expect(gradients[vector] == weights[vector])
  }
}
