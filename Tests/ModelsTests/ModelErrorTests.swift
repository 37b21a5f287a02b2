import Checkpoints
import Foundation
import Kernels
import Models
import OrderedCollections
import SystemPackage
import TestSupport
import Testing

/// What is wrong with a configuration or with tensors is said in one line that names it.
@Suite struct ModelErrorTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let model: String
    let key: String
    /// JSON; nil removes the key.
    let value: String?
    let message: String
    var testDescription: String { "\(model): \(key) = \(value ?? "absent")" }
  }

  static let cases: [Case] = [
    Case(model: "llama", key: "model_type", value: nil, message: "'model_type' is missing"),
    Case(model: "llama", key: "model_type", value: "5", message: "'model_type' is 5; expected a string"),
    Case(
      model: "llama", key: "model_type", value: "\"mamba\"", message: "model_type 'mamba' is not one that can be run"),
    Case(model: "llama", key: "hidden_size", value: nil, message: "'hidden_size' is missing"),
    Case(model: "llama", key: "hidden_size", value: "0", message: "expected a whole number from 1"),
    Case(model: "llama", key: "hidden_size", value: "-4", message: "expected a whole number from 1"),
    Case(model: "llama", key: "hidden_size", value: "1e300", message: "expected a whole number from 1"),
    Case(model: "llama", key: "hidden_size", value: "\"16\"", message: "'hidden_size' is \"16\""),
    Case(
      model: "llama", key: "hidden_size", value: "32",
      message: "has shape [36, 16]; the configuration asks for [36, 32]"),
    Case(
      model: "llama", key: "num_hidden_layers", value: "3",
      message: "'model.layers.2.input_layernorm.weight' [16] is missing"),
    Case(model: "llama", key: "num_hidden_layers", value: "1000000000", message: "'model.layers.2."),
    Case(model: "llama", key: "num_attention_heads", value: "3", message: "expected a divisor of 3 heads"),
    Case(model: "llama", key: "num_key_value_heads", value: "3", message: "expected a divisor of 4 heads"),
    Case(model: "llama", key: "num_attention_heads", value: "0", message: "'num_attention_heads' is 0"),
    Case(model: "llama", key: "head_dim", value: "5", message: "an even number of rotated dimensions"),
    Case(
      model: "llama", key: "hidden_act", value: "\"swoosh\"",
      message: "'hidden_act' is \"swoosh\"; expected one of gelu"),
    Case(
      model: "llama", key: "rms_norm_eps", value: "-1", message: "'rms_norm_eps' is -1; expected a number above zero"),
    Case(model: "llama", key: "rms_norm_eps", value: "\"x\"", message: "expected a number"),
    Case(model: "llama", key: "attention_bias", value: "1", message: "'attention_bias' is 1; expected true or false"),
    Case(
      model: "llama", key: "attention_bias", value: "true",
      message: "'model.layers.0.self_attn.q_proj.bias' [16] is missing"),
    Case(model: "llama", key: "tie_word_embeddings", value: "\"no\"", message: "expected true or false"),
    Case(model: "llama", key: "rope_parameters", value: "3", message: "expected an object"),
    Case(
      model: "llama", key: "rope_scaling", value: "{\"type\": \"spiral\", \"factor\": 2}",
      message: "'rope_scaling.type' is \"spiral\""),
    Case(
      model: "llama", key: "rope_scaling", value: "{\"type\": \"linear\"}", message: "'rope_scaling.factor' is missing"),
    Case(
      model: "llama", key: "rope_scaling", value: "{\"type\": \"linear\", \"factor\": 0}",
      message: "a number above zero"),
    Case(
      model: "llama", key: "rope_scaling",
      value: "{\"rope_type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}",
      message: "a list of 2 numbers"),
    Case(
      model: "llama", key: "rope_scaling",
      value: "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 1}",
      message: "more than low_freq_factor"),
    Case(model: "qwen2-sliding", key: "layer_types", value: "[\"full_attention\"]", message: "a list of"),
    Case(
      model: "qwen2-sliding", key: "layer_types", value: "[\"a\", \"b\", \"c\"]",
      message: "full_attention or sliding_attention"),
    Case(model: "mixtral", key: "num_experts_per_tok", value: "9", message: "'num_experts_per_tok' is 9"),
    Case(model: "mixtral", key: "num_local_experts", value: "9", message: "block_sparse_moe.gate.weight"),
    Case(model: "gemma2", key: "attn_logit_softcapping", value: "-3", message: "a number above zero, or null"),
    Case(model: "gpt2", key: "n_head", value: "5", message: "expected a divisor of the hidden size"),
    Case(
      model: "bert", key: "position_embedding_type", value: "\"relative_key\"", message: "the only kind that runs here"),
  ]

  @Test("Wrong configurations", arguments: cases)
  func configuration(_ test: Case) throws {
    let checkpoint = try Checkpoint(Fixtures.path("architectures/\(test.model)/model.safetensors"))
    var members = try #require(checkpoint.configuration?.object)
    members[test.key] = try test.value.map { try JSONParser.parse(Array($0.utf8)) }
    let error = #expect(throws: ModelError.self) {
      _ = try Model(checkpoint, configuration: .object(members))
    }
    #expect(error?.description.contains(test.message) ?? false, "\(error?.description ?? "")")
  }

  @Test func aMissingConfigurationIsSaid() throws {
    let checkpoint = try Checkpoint(Fixtures.path("architectures/llama/model.safetensors"))
    let error = #expect(throws: ModelError.self) { _ = try Model(checkpoint, configuration: nil) }
    #expect(error?.description.contains("there is no config.json") ?? false)
  }

  @Test func tokensAndWindowsAreChecked() throws {
    let gpt = try model("gpt2")
    let limit = try #require(gpt.description.positionLimit)
    let forward = Forward(gpt, workers: 1)
    let long = #expect(throws: ModelError.self) {
      _ = try forward.logits([Int32](repeating: 0, count: limit + 1), TokenBatch(lengths: [limit + 1]))
    }
    #expect(long?.description.contains("longer than the \(limit) positions") ?? false)
    for token: Int32 in [-1, 36, .max] {
      let wrong = #expect(throws: ModelError.self) { _ = try forward.logits([token], TokenBatch(lengths: [1])) }
      #expect(wrong?.description.contains("token \(token) is outside the vocabulary of 36") ?? false)
    }
    let encoder = #expect(throws: ModelError.self) { _ = try Forward(model("bert"), workers: 1).loadHead() }
    #expect(encoder?.description.contains("is an encoder") ?? false)
  }

  @Test func tensorsOutsideTheModelAreListed() throws {
    #expect(try model("bert").unusedTensors == ["pooler.dense.bias", "pooler.dense.weight"])
    #expect(try model("llama").unusedTensors.isEmpty)
  }

  private func model(_ name: String) throws -> Model {
    let checkpoint = try Checkpoint(Fixtures.path("architectures/\(name)/model.safetensors"))
    return try Model(checkpoint, configuration: checkpoint.configuration)
  }

  @Test(
    "Token by token with a cache gives what the whole sequence gives",
    arguments: ["llama", "gemma2", "gemma3", "gpt2", "gpt-neox", "opt-post-norm", "mixtral", "phi3", "qwen3"])
  func generation(_ name: String) throws {
    let model = try model(name)
    let tokens: [Int32] = (0..<18).map { Int32($0 * 7 % 36) }
    let whole = try Forward(model, workers: 2).logits(tokens, TokenBatch(lengths: [tokens.count]))
    for limit in [0, 1 << 30] {
      let generation = try Generation(model, capacity: 18, memoryLimit: limit, workers: 2)
      var last = try generation.append(Array(tokens.prefix(5)))
      for position in 5...18 {
        let expected = whole.values(ofRows: position - 1..<position)
        #expect(relativeDifference(last, expected) < 1e-5, "\(name), position \(position)")
        if position < 18 { last = try generation.append([tokens[position]]) }
      }
      #expect(throws: ModelError.self) { _ = try generation.append([1]) }
    }
  }

  @Test func samplingFollowsItsSettings() {
    var generator = SeededGenerator(seed: 3)
    let logits: [Float] = [0, 3, 3, 2, -5]
    #expect(Sampling().token(logits, using: &generator) == 1)
    let draws = { (sampling: Sampling) in Set((0..<400).map { _ in sampling.token(logits, using: &generator) }) }
    #expect(draws(Sampling(temperature: 1)).isSuperset(of: [0, 1, 2, 3]))
    #expect(draws(Sampling(temperature: 1, topK: 2)) == [1, 2])
    #expect(draws(Sampling(temperature: 1, topP: 0.5)) == [1, 2])
    #expect(draws(Sampling(temperature: 0.01)) == [1, 2])
  }
}
