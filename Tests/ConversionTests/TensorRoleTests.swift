import Checkpoints
import Conversion
import Kernels
import TestSupport
import Testing

@Suite struct TensorRoleTests {
  static let rows: [(String, [Int], ElementType, TensorRole)] = [
    ("model.layers.0.self_attn.q_proj.weight", [8, 8], .bf16, .linear),
    ("model.layers.0.mlp.gate_proj.weight", [8, 8], .bf16, .linear),
    ("transformer.h.0.attn.c_attn.weight", [8, 24], .f32, .linear),
    ("model.layers.0.mlp.experts.3.w1.weight", [8, 8], .bf16, .linear),
    ("model.layers.0.mlp.experts.gate_up_proj", [4, 8, 8], .bf16, .linear),
    ("model.layers.0.mlp.gate.weight", [4, 8], .bf16, .router),
    ("model.layers.0.mlp.shared_expert_gate.weight", [1, 8], .bf16, .router),
    ("model.layers.0.block_sparse_moe.gate.weight", [4, 8], .bf16, .router),
    ("model.embed_tokens.weight", [9, 8], .bf16, .embedding),
    ("transformer.wte.weight", [9, 8], .f32, .embedding),
    ("bert.embeddings.word_embeddings.weight", [9, 8], .f32, .embedding),
    ("lm_head.weight", [9, 8], .bf16, .head), ("model.norm.weight", [8], .bf16, .norm),
    ("transformer.h.0.ln_1.weight", [8], .f32, .norm), ("transformer.h.0.ln_1.bias", [8], .f32, .bias),
    ("model.layers.0.self_attn.q_proj.bias", [8], .bf16, .bias), ("a.inv_freq", [8], .f32, .vector),
    ("conv1d.weight", [8, 1, 4], .f32, .convolution), ("A_log", [8, 16], .f32, .other),
    ("a.weight", [8, 8], .i32, .integer), ("a.weight", [8, 8], .f8E4M3, .float8), ("a.weight", [0, 8], .f32, .empty),
  ]

  @Test(arguments: rows.indices)
  func aTensorsRoleIsReadOffNameShapeAndType(row: Int) {
    let (name, shape, type, role) = Self.rows[row]
    #expect(TensorRole(TensorEntry(name: name, type: type, shape: shape, bytes: 0..<0)) == role, "\(name)")
  }

  /// Whatever its name, a tensor that is no floating-point matrix stays as it is.
  @Test func includingDoesNotQuantizeWhatCannotBe() throws {
    var recipe = Recipe()
    recipe.include = ["*"]
    for (name, shape, type, role) in Self.rows where role.isAlwaysKept {
      let entry = TensorEntry(name: name, type: type, shape: shape, bytes: 0..<0)
      #expect(try recipe.decision(for: entry) == .keep(reason: role.reasonToKeep ?? ""))
    }
  }
}
