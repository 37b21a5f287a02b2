import Checkpoints
import Kernels
import Models
import SystemPackage
import TestSupport
import Testing

@Suite struct ScaleGroupTests {
  /// The last hidden states, with every group that has an absorber scaled by random factors.
  private func hiddenStates(_ model: Model, _ golden: Golden, scaledBy draw: (() -> Float)?) throws -> Matrix {
    let forward = Forward(model, workers: 2)
    let batch = TokenBatch(lengths: [Int](repeating: golden.length, count: golden.rows))
    let hidden = Matrix(rows: batch.tokenCount, columns: model.description.hiddenSize)
    try forward.embed(golden.tokens, batch, into: hidden)
    let tables = ModelRotaryTables(model.description, length: batch.longest)
    for (index, block) in model.description.blocks.enumerated() {
      var weights = try forward.weights(ofBlock: index)
      if let draw {
        for group in block.scaleGroups where group.absorber != nil {
          let free = (0..<group.inputs).map { _ in draw() }
          let scales = (0..<group.inputs).map { free[group.sets?[$0] ?? $0] }
          let factors = weights.divide(group, by: scales) { _ in .f32 }
          weights.multiplyReaders(at: group.place, by: factors, workers: 2)
        }
      }
      forward.run(block: index, weights, hidden, batch, tables: tables[block])
    }
    return hidden
  }

  private func load(_ name: String) throws -> (Model, Golden) {
    let folder = Fixtures.path("architectures/\(name)")
    let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
    return (
      try Model(checkpoint, configuration: checkpoint.configuration),
      try Golden(folder.appending("golden.safetensors"))
    )
  }

  @Test("A folded model computes what it did", arguments: ArchitectureGoldens.cases)
  func foldingPreservesTheFunction(_ name: String) throws {
    let (model, golden) = try load(name)
    var generator = SplitMix64(seed: 3)
    let plain = try hiddenStates(model, golden, scaledBy: nil).values()
    let folded = try hiddenStates(model, golden) { Float.random(in: 0.25...4, using: &generator) }.values()
    #expect(relativeDifference(folded, plain) < 1e-5)
    #expect(folded != plain || model.description.blocks.allSatisfy { $0.scaleGroups.allSatisfy { $0.absorber == nil } })
  }

  @Test(
    "Powers of four change no bit",
    arguments: ["llama", "llama-bias", "phi3", "gpt-neox", "opt", "mixtral", "mixtral-fused", "modernbert", "qwen3"])
  func powersFoldExactly(_ name: String) throws {
    let (model, golden) = try load(name)
    var generator = SplitMix64(seed: 4)
    let plain = try hiddenStates(model, golden, scaledBy: nil).values()
    let folded = try hiddenStates(model, golden) { [0.25, 1, 4].randomElement(using: &generator) ?? 1 }.values()
    #expect(folded == plain)
  }

  @Test("Inputs without an absorber say why")
  func obstacles() throws {
    func obstacles(_ name: String, block: Int = 0) throws -> [ScaleGroup.Obstacle?] {
      try load(name).0.description.blocks[block].scaleGroups.map(\.obstacle)
    }
    #expect(try obstacles("llama") == [nil, nil, nil, nil])
    #expect(try obstacles("gemma2") == [nil, nil, nil, nil])
    #expect(try obstacles("bert") == [.noNorm, nil, .noNorm, .activation])
    #expect(try obstacles("gpt-neox") == [nil, nil, nil, .activation])
    #expect(try obstacles("opt") == [nil, nil, nil, nil])
    #expect(try obstacles("opt-post-norm") == [.noNorm, nil, .noNorm, nil])
    #expect(try obstacles("modernbert") == [.noNorm, nil, nil, nil])
    #expect(try obstacles("modernbert", block: 1) == [nil, nil, nil, nil])
  }

  @Test func groupsNameEveryTensorThatChanges() throws {
    let mixture = try load("mixtral").0.description.blocks[0].scaleGroups
    let router = try #require(mixture.first { $0.place == .feedForwardInput })
    #expect(router.readers.contains { $0.weight.hasSuffix("gate.weight") })
    #expect(router.absorber?.tensors == ["model.layers.0.post_attention_layernorm.weight"])
    let fused = try load("phi3").0.description.blocks[0].scaleGroups
    #expect(fused[1].absorber?.tensors == ["model.layers.0.self_attn.qkv_proj.weight"])
    #expect(fused[3].absorber?.tensors == ["model.layers.0.mlp.gate_up_proj.weight"])
    let separate = try load("llama-bias").0.description.blocks[0].scaleGroups
    #expect(
      separate[1].absorber?.tensors == [
        "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.v_proj.bias",
      ])
    #expect(
      separate[3].absorber?.tensors == ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.bias"])
  }

  @Test("A norm's weights round as stored, and the columns make up for it", arguments: ["llama", "gemma2"])
  func normsRoundExactly(_ name: String) throws {
    let (model, _) = try load(name)
    var weights = try Forward(model, workers: 1).weights(ofBlock: 0)
    let before = try #require(weights.attentionNorms.before).weight
    let group = model.description.blocks[0].scaleGroups[0]
    var generator = SplitMix64(seed: 5)
    let scales = before.map { _ in Float.random(in: 0.25...4, using: &generator) }
    let factors = weights.divide(group, by: scales) { _ in .bf16 }
    let norm = try #require(weights.attentionNorms.before)
    for feature in before.indices {
      #expect(abs(norm.weight[feature] * factors[feature] - before[feature]) <= abs(before[feature]) * 1e-6)
      #expect(abs(factors[feature] / scales[feature] - 1) < 0.02)
    }
    let stored = norm.storedWeight
    #expect(zip(stored, stored.map { rounded($0, to: .bf16) }).allSatisfy { abs($0 - $1) <= 1e-6 })
  }
}
