import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import OrderedCollections
import Packing
import SystemPackage
import TestSupport
import Testing

/// Whether llama.cpp will load a file, told from the file alone.
@Suite struct GGUFCheckTests {
  let folder: TemporaryFolder
  let file: GGUFFile

  init() throws {
    folder = try TemporaryFolder()
    let opened = try OpenedWeights(Fixtures.path("tiny-llama"))
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, GGUFConversion.Options(mix: .q80))
    let output = try OutputFile(folder.appending("m.gguf"), source: opened.folder, overwrite: false)
    try conversion.run(into: output, workers: 2) { _ in true }
    file = try GGUFFile(folder.appending("m.gguf"))
  }

  /// The file with other metadata and tensors, all of them zero.
  private func findings(
    _ runtime: Runtime = .llamaCpp, _ change: (inout GGUFMetadata, inout [GGUFSpecification]) -> Void
  ) throws -> [RuntimeCheck.Finding] {
    var metadata = file.header.metadata
    var tensors = file.header.tensors.map { GGUFSpecification(name: $0.name, type: $0.type, shape: $0.shape) }
    change(&metadata, &tensors)
    let layout = GGUFLayout(tensors, metadata: metadata)
    try folder.write(
      layout.head + [UInt8](repeating: 0, count: layout.fileSize - layout.head.count), to: "changed.gguf")
    return try RuntimeCheck.findings(of: folder.appending("changed.gguf"), runtime: runtime)
  }

  private func fatal(_ change: (inout GGUFMetadata, inout [GGUFSpecification]) -> Void) throws -> [String] {
    try findings(change: change).filter(\.isFatal).map(\.problem)
  }

  private func findings(
    change: (inout GGUFMetadata, inout [GGUFSpecification]) -> Void
  ) throws -> [RuntimeCheck.Finding] { try findings(.llamaCpp, change) }

  @Test func whatWasWrittenLoads() throws {
    #expect(try RuntimeCheck.findings(of: file.path, runtime: .llamaCpp).isEmpty)
    for runtime in [Runtime.transformers, .vllm] {
      let found = try RuntimeCheck.findings(of: file.path, runtime: runtime)
      #expect(found.count == 1 && !found[0].isFatal)
    }
    for runtime in [Runtime.mlx, .gptqmodel, .autoawq] {
      let found = try RuntimeCheck.findings(of: file.path, runtime: runtime)
      #expect(found.count == 1 && found[0].isFatal && found[0].remedy.contains("convert-model unpack"))
    }
    #expect(try RuntimeCheck.findings(of: Fixtures.path("tiny-llama"), runtime: .llamaCpp)[0].remedy.contains(".gguf"))
  }

  @Test func keysAndTensorsThatAreMissing() throws {
    #expect(
      try fatal { metadata, _ in metadata["llama.embedding_length"] = nil }
        == ["llama.embedding_length is missing, or no number"])
    let missing = try fatal { _, tensors in tensors.removeAll { $0.name == "blk.1.ffn_up.weight" } }
    #expect(missing.count == 1 && missing[0].hasPrefix("1 tensors are missing, 'blk.1.ffn_up.weight' among them"))
    let stranger = try fatal { _, tensors in
      tensors.append(GGUFSpecification(name: "blk.77.attn_q.weight", type: .f32, shape: [8, 8]))
    }
    #expect(stranger.count == 1 && stranger[0].contains("have no place in a model of"))
    #expect(try fatal { metadata, _ in metadata["general.architecture"] = nil } == ["general.architecture is missing"])
    let width = try fatal { metadata, _ in metadata["llama.embedding_length"] = .uint32(7) }
    #expect(width.count == 1 && width[0].contains("expected 7 columns"))
    let half = try fatal { _, tensors in
      tensors = tensors.map { $0.shape.count == 1 ? GGUFSpecification(name: $0.name, type: .f16, shape: $0.shape) : $0 }
    }
    #expect(half.count == 1 && half[0].contains("vectors are not F32"))
  }

  @Test func tokenizersThatDoNotFit() throws {
    let none = try fatal { metadata, _ in metadata["tokenizer.ggml.model"] = nil }
    #expect(none == ["tokenizer.ggml.model is missing, and with it the tokenizer"])
    let short = try fatal { metadata, _ in metadata["tokenizer.ggml.tokens"] = .strings(["a", "b"]) }
    #expect(short.count == 1 && short[0].hasPrefix("the tokenizer has 2 tokens, the embedding"))
    let merges = try fatal { metadata, _ in
      metadata["tokenizer.ggml.model"] = .string("gpt2")
      metadata["tokenizer.ggml.merges"] = nil
    }
    #expect(merges.contains { $0.hasPrefix("tokenizer.ggml.merges is missing") })
    let without = try findings { metadata, _ in metadata["tokenizer.ggml.model"] = .string("none") }
    #expect(without.count == 1 && !without[0].isFatal && without[0].problem.contains("no tokenizer"))
  }

  @Test func whatIsNotCheckedIsSaid() throws {
    let other = try findings { metadata, _ in metadata["general.architecture"] = .string("mamba") }
    #expect(other.count == 1 && !other[0].isFatal && other[0].problem.contains("'mamba' is not known here"))
    let parts = try findings { metadata, _ in metadata["split.count"] = .uint16(3) }
    #expect(parts.count == 1 && !parts[0].isFatal && parts[0].problem.contains("over 3 files"))
  }

  @Test func valuesThatAreNotFiniteAreFoundByVerifying() throws {
    let whole = try Verification(file.path, workers: 2).run { _ in true }
    #expect(whole.damaged == [] && !whole.hasHashes && whole.tensorCount == file.header.tensors.count)
    let tensor = try #require(file["blk.0.attn_k.weight"])
    let handle = try FileDescriptor.open(file.path, .readWrite)
    defer { try? handle.close() }
    // The binary16 scale of the second block.
    try handle.writeFully([0, 0x7e], count: 2, at: tensor.bytes.lowerBound + tensor.type.blockBytes)
    #expect(try Verification(file.path, workers: 1).run { _ in true }.damaged == ["blk.0.attn_k.weight"])
  }
}
