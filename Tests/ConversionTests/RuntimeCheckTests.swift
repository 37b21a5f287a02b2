import Checkpoints
import Conversion
import Foundation
import Packing
import SystemPackage
import TestSupport
import Testing

@Suite struct RuntimeCheckTests {
  private func findings(_ name: String, _ runtime: Runtime, change: [(String, String)] = []) throws -> [RuntimeCheck
    .Finding]
  {
    let folder = try TemporaryFolder()
    let source = Fixtures.path("layouts/\(name)")
    try FileManager.default.copyItem(
      atPath: source.appending("model.safetensors").string, toPath: folder.appending("model.safetensors").string)
    var text = String(decoding: try readWhole(source.appending("config.json")), as: UTF8.self)
    for (from, to) in change {
      #expect(text.contains(from))
      text = text.replacing(from, with: to)
    }
    try folder.write(Array(text.utf8), to: "config.json")
    return try RuntimeCheck(folder.path, runtime: runtime).findings()
  }

  private func fatal(_ name: String, _ runtime: Runtime, change: [(String, String)] = []) throws -> [String] {
    try findings(name, runtime, change: change).filter(\.isFatal).map { "\($0.problem); \($0.remedy)" }
  }

  /// Which family loads where.
  @Test(arguments: [
    ("gptq-4", [Runtime.vllm, .transformers, .gptqmodel]), ("awq", [.vllm, .transformers, .gptqmodel, .autoawq, .mlx]),
    ("pack-quantized-4", [.vllm, .transformers]), ("nf4", [.transformers]), ("mlx-4", [.mlx]),
  ])
  func families(name: String, runtimes: [Runtime]) throws {
    for runtime in Runtime.allCases {
      #expect(try fatal(name, runtime).isEmpty == runtimes.contains(runtime), "\(name) \(runtime)")
    }
  }

  @Test func zeroPointsOfTheOtherVersion() throws {
    let found = try fatal(
      "gptq-4", .gptqmodel, change: [("\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"gptq_v2\"")])
    #expect(found.count == 1 && found[0].contains("zero points are 7 where symmetric ones are 8"))
    #expect(found[0].contains("set checkpoint_format to gptq"))
    let other = try fatal("gptq_v2-4", .transformers, change: [("gptq_v2", "gptq")])
    #expect(
      other.count == 1 && other[0].contains("zero points are 9") && other[0].hasSuffix("checkpoint_format to gptq_v2"))
  }

  @Test func whatVLLMDoesNotTakeOfGPTQ() throws {
    #expect(try fatal("gptq-3", .vllm)[0].contains("4 or 8 bits, not 3 bits"))
    #expect(try fatal("gptq_v2-4-zero", .vllm)[0].contains("not 4 bits with zero points"))
    #expect(try fatal("gptq-4-order", .vllm)[0].contains("vLLM ignores g_idx"))
    #expect(try fatal("gptq-4-zero", .gptqmodel)[0].contains("zero points of version 1 only from itself"))
  }

  @Test func statusOfCompressedTensors() throws {
    let found = try fatal("pack-quantized-4", .transformers, change: [("\"compressed\"", "\"frozen\"")])
    #expect(
      found == ["quantization_status is 'frozen': transformers then leaves the weights random; set it to compressed"])
    let notes = try findings("pack-quantized-4-zero", .transformers)
    #expect(notes.contains { !$0.isFatal && $0.problem.contains("dequantize=True") })
  }

  @Test func theMarlinKey() throws {
    let found = try fatal("gptq-4", .gptqmodel, change: [("\"bits\": 4", "\"is_marlin_format\": false, \"bits\": 4")])
    #expect(found == ["GPTQModel refuses the key is_marlin_format; remove it from quantization_config"])
  }

  /// Clients disagree about what Mixtral's experts are called.
  @Test func namesOfExperts() throws {
    let folder = try TemporaryFolder()
    let source = try Checkpoint(Fixtures.path("architectures/mixtral"))
    var recipe = Recipe()
    recipe.layout = .intQuantized
    let output = try OutputFolder(folder.appending("out"), source: source.folder, overwrite: false)
    try Converter(plan: Plan(converting: source, recipe: recipe), toolVersion: "test", workers: 2)
      .run(into: output) { _ in true }
    func fatal(_ runtime: Runtime) throws -> [String] {
      try RuntimeCheck(folder.appending("out"), runtime: runtime).findings().filter(\.isFatal).map(\.problem)
    }
    #expect(try fatal(.vllm).isEmpty)
    #expect(try fatal(.transformers).contains { $0.contains("asks for mlp.experts.N.gate_proj") })
  }

  @Test func missingFiles() throws {
    let folder = try TemporaryFolder()
    try FileManager.default.copyItem(
      atPath: Fixtures.path("layouts/awq/model.safetensors").string,
      toPath: folder.appending("model.safetensors").string)
    let found = try RuntimeCheck(folder.path, runtime: .vllm).findings()
    #expect(found.contains { $0.isFatal && $0.problem == "config.json is missing" })
    #expect(found.contains { !$0.isFatal && $0.problem.contains("no tokenizer") })
  }

  @Test func packedFoldersAreOurs() throws {
    let found = try RuntimeCheck(Fixtures.path("packed"), runtime: .vllm).findings()
    #expect(found[0].isFatal && found[0].remedy.contains("convert-model unpack"))
  }

  @Test func ordinaryCheckpointsLoad() throws {
    #expect(try RuntimeCheck(Fixtures.path("tiny-llama"), runtime: .transformers).findings().filter(\.isFatal).isEmpty)
  }
}
