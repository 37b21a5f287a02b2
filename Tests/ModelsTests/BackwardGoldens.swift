import Checkpoints
import Kernels
import Models
import TestSupport
import Testing

/// The backward pass of a block against torch's autograd: `Fixtures/generate/backward_goldens.py`.
@Suite struct BackwardGoldens {
  @Test("Gradients agree with torch", arguments: ["llama", "qwen3", "gemma2", "gpt-neox", "opt", "bert"])
  func agrees(_ name: String) throws {
    let goldens = try Checkpoint(Fixtures.path("goldens/backward.safetensors"))
    func golden(_ tensor: String) throws -> [Float] { try allValues(#require(goldens["\(name)/\(tensor)"])) }
    let folder = Fixtures.path("architectures").appending(name)
    let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
    let tokens = try Golden(folder.appending("golden.safetensors"))
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    let batch = TokenBatch(lengths: [Int](repeating: tokens.length, count: tokens.rows))
    let forward = Forward(model, workers: 2)
    let hidden = Matrix(rows: batch.tokenCount, columns: model.description.hiddenSize)
    try forward.embed(tokens.tokens, batch, into: hidden)
    let block = model.description.blocks[0]
    let weights = try forward.weights(ofBlock: 0)
    let tape = BlockForward(block, weights, pool: forward.pool, workers: 2)
      .record(hidden, batch, tables: ModelRotaryTables(model.description, length: tokens.length)[block])
    let gradient = Matrix(rows: hidden.rows, columns: hidden.columns, try golden("outer"))
    let parameters = BlockGradients(weights, norms: true)
    BlockBackward(block, weights, pool: forward.pool, workers: 2).run(tape, gradient, into: parameters)
    var compared = 1
    #expect(relativeDifference(gradient.values(), try golden("input")) < 2e-5)
    func compare(_ found: [Float], _ tensor: String?) throws {
      guard let tensor else { return }
      let expected = try golden("gradient/\(tensor)")
      let difference = relativeDifference(found, expected)
      #expect(difference < 2e-5, "\(tensor): \(difference)")
      compared += 1
    }
    for (place, projection) in block.projections {
      let whole = try #require(parameters.weights[place])
      let stored = Matrix(rows: whole.rows, columns: whole.columns)
      scatterRows(whole, to: projection.rowOrder ?? Array(0..<whole.rows), of: stored)
      var first = 0
      for linear in projection.linears {
        let rows = first..<(first + linear.outputs)
        try compare(stored.values(ofRows: rows), linear.weight)
        if let bias = parameters.biases[place], projection.rowOrder == nil {
          let values = Array(bias.values()[rows])
          // A bias of keys adds the same to all scores of a query, where no rotation follows.
          let isKey = linear.bias?.contains("k_proj") ?? false || linear.bias?.contains("key") ?? false
          if !isKey || block.attention.rotary != nil {
            try compare(values, linear.bias)
          }
        }
        first = rows.upperBound
      }
    }
    for (place, norm) in parameters.norms {
      let description = try #require(weights[place]?.description)
      try compare(norm.values(ofRows: 0..<1), description.weight)
      try compare(norm.values(ofRows: 1..<2), description.bias)
    }
    #expect(compared >= 9)
  }
}
