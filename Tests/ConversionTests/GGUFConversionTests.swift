import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing
import Tokenizers

@Suite struct GGUFConversionTests {
  let folder: TemporaryFolder
  let tiny = Fixtures.path("tiny-llama")

  init() throws { folder = try TemporaryFolder() }

  @discardableResult
  private func convert(
    _ source: FilePath, _ mix: GGUFMix, to name: String, tokenizer: Bool = true, workers: Int = 2,
    importance: ImportanceMatrix? = nil
  ) throws -> GGUFSource {
    let opened = try OpenedWeights(source)
    var options = GGUFConversion.Options(mix: mix)
    options.writesTokenizer = tokenizer
    options.importance = importance
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, options)
    let file = try OutputFile(folder.appending(name), source: source, overwrite: false)
    try conversion.run(into: file, workers: workers) { _ in true }
    return try GGUFSource(GGUFFile(folder.appending(name)))
  }

  private func values(_ source: any WeightSource, _ name: String) throws -> [Float] {
    var reader = source.makeReader()
    var values: [Float] = []
    let count = try #require(source.shape(of: name)).reduce(1, *)
    try reader.read(name, 0..<count, into: &values)
    return values
  }

  /// Every architecture of the table that the fixtures have: written as F32 and read back, nothing is changed.
  @Test(arguments: [
    "llama", "llama-bias", "llama-tied", "llama-rope-llama3", "llama-rope-linear", "mistral", "mistral-head-dim",
    "qwen2", "qwen3",
    "gemma2", "gemma3", "phi3", "phi3-longrope", "gpt2", "gpt2-bare",
  ])
  func inF32TheModelIsTheSame(_ name: String) throws {
    var path = Fixtures.path("architectures/\(name)")
    if name == "gemma2" || name == "gemma3" {
      // The fixture's scale of scores is one that GGUF has no key for.
      let refusal = #expect(throws: GGUFError.self) { try convert(path, .f32, to: "x.gguf", tokenizer: false) }
      #expect(refusal?.description.contains("'query_pre_attn_scalar' must be 8") == true)
      let changed = folder.appending("changed")
      try FileManager.default.copyItem(atPath: path.string, toPath: changed.string)
      let text = String(decoding: try readWhole(changed.appending("config.json")), as: UTF8.self)
      // Nor has it one for which layers have windows: all but every sixth.
      let other = text.replacing("\"query_pre_attn_scalar\": 6", with: "\"query_pre_attn_scalar\": 8")
        .replacing("\"full_attention\",", with: "\"sliding_attention\",")
      try Data(other.utf8).write(to: URL(fileURLWithPath: changed.appending("config.json").string))
      path = changed
    }
    let written = try convert(path, .f32, to: "f32.gguf", tokenizer: false)
    let original = try Checkpoint(path)
    let model = try Model(written, configuration: written.configuration)
    let reference = try Model(original, configuration: original.configuration)
    #expect(model.description.blocks.count == reference.description.blocks.count)
    #expect(model.description.hiddenSize == reference.description.hiddenSize)
    #expect(model.unusedTensors.isEmpty)
    if name == "gemma3" {
      #expect(written.file.header.metadata["gemma3.rope.freq_base_swa"] == .float32(50))
      #expect(written.configuration["rope_local_base_freq"]?.double == 50)
    }
    for name in written.tensorNames {
      let found = try values(written, name)
      let bare = name.hasPrefix("transformer.") ? String(name.dropFirst(12)) : name
      let own = original[name] == nil ? bare : name
      let expected = try values(original, own)
      #expect(written.shape(of: name) == original.shape(of: own))
      // Gemma's norms are stored with one added, which rounds.
      #expect(zip(found, expected).allSatisfy { abs($0 - $1) <= (name.contains("norm") ? 1.2e-7 : 0) }, "\(name)")
    }
    // Reads that begin and end inside rows.
    let name = try #require(
      written.tensorNames.first {
        $0.contains("q_proj.weight") || $0.contains("c_attn.weight") || $0.contains("qkv_proj")
      })
    let whole = try values(written, name)
    var reader = written.makeReader()
    var part: [Float] = []
    try reader.read(name, 8..<(whole.count - 5), into: &part)
    #expect(part == Array(whole[8..<(whole.count - 5)]))
  }

  @Test(arguments: [GGUFMix.q80, .q4KM, .q40, .mxfp4]) func theFileIsTheSameForAnyThreads(_ mix: GGUFMix) throws {
    try convert(tiny, mix, to: "one.gguf", workers: 1)
    try convert(tiny, mix, to: "three.gguf", workers: 3)
    #expect(try readWhole(folder.appending("one.gguf")) == readWhole(folder.appending("three.gguf")))
  }

  @Test func wordsAreCutAsByTheTokenizerOfTheFolder() throws {
    let text = "Once upon a time, there were 3 naïve cats — it's true!\n\n  Really?  12345 <|endoftext|> x"
    var folders = [tiny]
    for name in ["models/stories5M", "models/stories260K"] {
      if let shared = Fixtures.shared(name) { folders.append(shared) }
    }
    for (index, path) in folders.enumerated() {
      let written = try convert(path, .q80, to: "t\(index).gguf")
      let found = try GGUFTokenizer.tokenizer(of: written.file)
      let own = try Tokenizer(folder: path)
      let expected = own.encode(text, addSpecialTokens: false)
      #expect(found.encode(text, addSpecialTokens: false) == expected, "\(path)")
      #expect(found.decode(expected, skipSpecialTokens: false) == own.decode(expected, skipSpecialTokens: false))
    }
  }

  @Test func anUnpackedFileIsAModelWithTheSameValues() throws {
    let written = try convert(tiny, .q80, to: "q8.gguf")
    let output = try OutputFolder(folder.appending("dense"), source: written.file.path, overwrite: false)
    let summary = try GGUFUnpacker(written.file.path, workers: 2).run(into: output) { _ in true }
    #expect(summary.tensorCount == written.tensorNames.count && summary.decodedCount > 0)
    let dense = try Checkpoint(folder.appending("dense"))
    for name in written.tensorNames { #expect(try values(dense, name) == values(written, name), "\(name)") }
    _ = try Model(dense, configuration: dense.configuration)
    _ = try Tokenizer(folder: folder.appending("dense"))
  }

  @Test func importancesOfTheWrongLengthAreRefused() throws {
    var matrix = ImportanceMatrix()
    matrix.means["blk.0.attn_q.weight"] = [1, 2, 3]
    let error = #expect(throws: GGUFError.self) { try convert(tiny, .q40, to: "x.gguf", importance: matrix) }
    #expect(error?.description.contains("the imatrix has 3 importances for it") == true)
    #expect(!FileManager.default.fileExists(atPath: folder.appending("x.gguf").string))
  }

  /// A mixture's files, with the same names for its experts: those of the fused fixtures, too.
  private func mixture(_ name: String) throws -> (path: FilePath, source: Checkpoint) {
    var path = Fixtures.path("architectures/\(name)")
    if name.hasPrefix("qwen3-moe") {
      // The fixtures have dense layers, biases or probabilities that GGUF's row has no key for.
      var config = try Fixtures.json("architectures/\(name)/config.json").object ?? [:]
      config["mlp_only_layers"] = []
      config["decoder_sparse_step"] = 1
      config["norm_topk_prob"] = true
      config["attention_bias"] = false
      config["num_hidden_layers"] = 1
      let tensors = try Checkpoint(path).tensors.filter { tensor in
        !tensor.name.contains("layers.0.")
      }.filter { !$0.name.hasSuffix("_proj.bias") }
      path = folder.appending(name)
      try FileManager.default.createDirectory(atPath: path.string, withIntermediateDirectories: true)
      try SampleTensor.write(
        tensors.map { tensor in
          SampleTensor(
            tensor.name.replacing("layers.1.", with: "layers.0."), tensor.entry.shape, type: tensor.entry.type,
            bytes: try allBytes(tensor))
        }, to: path.appending("model.safetensors"))
      try Data(JSONValue.object(config).text().utf8).write(
        to: URL(fileURLWithPath: path.appending("config.json").string))
    }
    return (path, try Checkpoint(path).unfusingExperts)
  }

  @Test(
    "Experts become one tensor, and are found again",
    arguments: [
      "mixtral", "mixtral-fused", "qwen3-moe", "qwen3-moe-fused",
    ])
  func expertsAreStacked(_ name: String) throws {
    let (path, source) = try mixture(name)
    let written = try convert(path, .f32, to: "f32.gguf", tokenizer: false)
    let header = written.file.header
    let count = try #require(header.metadata["\(written.architecture.name).expert_count"]?.integer)
    let stack = try #require(header.tensors.first { $0.name == "blk.0.ffn_gate_exps.weight" })
    #expect(stack.shape.count == 3 && stack.shape[0] == count)
    #expect(header.tensors.first { $0.name == "blk.0.ffn_gate_inp.weight" }?.type == .f32)
    #expect(Set(written.tensorNames) == Set(source.tensors.map(\.name)))
    for name in written.tensorNames { #expect(try values(written, name) == values(source, name), "\(name)") }
    // The model runs, and gives the same.
    let (model, own) = (
      try Model(written, configuration: written.configuration),
      try Model(Checkpoint(path), configuration: source.configuration)
    )
    let tokens = (0..<12).map { Int32($0 * 5 % 30) }
    let batch = TokenBatch(lengths: [12])
    let found = try Forward(model, workers: 1).lastHiddenStates(tokens, batch).values()
    #expect(try found == Forward(own, workers: 1).lastHiddenStates(tokens, batch).values())
    // From the file again, and unpacked.
    let again = try convert(written.file.path, .q80, to: "q8.gguf", tokenizer: false)
    #expect(Set(again.tensorNames) == Set(written.tensorNames))
    let dense = try OutputFolder(folder.appending("dense"), source: written.file.path, overwrite: false)
    _ = try GGUFUnpacker(written.file.path, workers: 2).run(into: dense) { _ in true }
    let unpacked = try Checkpoint(folder.appending("dense"))
    #expect(
      try Difference(unpacked.folder, written.file.path, source: nil).run(workers: 2) { _ in true }
        .isSame(ignoringFormat: true))
    // Nothing is missing but the tokenizer.
    #expect(try RuntimeCheck.findings(of: written.file.path, runtime: .llamaCpp).allSatisfy { !$0.isFatal })
  }

  @Test func whatRuntimesTakeForGrantedOfExpertsIsAskedFor() throws {
    for (name, key) in [("qwen3-moe", "mlp_only_layers"), ("qwen3-moe-fused", "decoder_sparse_step")] {
      let error = #expect(throws: GGUFError.self) {
        try convert(Fixtures.path("architectures/\(name)"), .f32, to: "x.gguf", tokenizer: false)
      }
      #expect(error?.description.contains("'\(key)' must be") ?? false, "\(error?.description ?? "")")
    }
    let (path, _) = try mixture("mixtral")
    let tensors = try Checkpoint(path).tensors.filter { !$0.name.contains("experts.2.w3") }
    try FileManager.default.createDirectory(
      atPath: folder.appending("cut").string, withIntermediateDirectories: true)
    try SampleTensor.write(
      tensors.map { SampleTensor($0.name, $0.entry.shape, type: $0.entry.type, bytes: try allBytes($0)) },
      to: folder.appending("cut/model.safetensors"))
    try FileManager.default.copyItem(
      atPath: path.appending("config.json").string, toPath: folder.appending("cut/config.json").string)
    let error = #expect(throws: GGUFError.self) {
      try convert(folder.appending("cut"), .f32, to: "x.gguf", tokenizer: false)
    }
    #expect(error?.description.contains("lacks the weights of 1 experts") ?? false, "\(error?.description ?? "")")
  }

  /// Importances of each expert's inputs, one expert after another; written and read back.
  @Test(arguments: ["mixtral", "mixtral-fused"]) func importancesOfExpertsAreTheirOwn(_ name: String) throws {
    let path = Fixtures.path("architectures/\(name)")
    let checkpoint = try Checkpoint(path)
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    let evidence = try BlockCalibration(
      model, windows: [(0..<24).map { Int32($0 * 7 % 30) }], heldOut: [],
      BlockCalibration.Options(workers: 1, memoryLimit: 1 << 28, spillFolder: folder.path)
    ).collect(EvidenceOptions()) { _ in true }
    var matrix = try ImportanceMatrix(
      evidence.inputs, of: checkpoint, configuration: checkpoint.configuration, datasets: ["a"])
    let means = try #require(matrix.means["blk.1.ffn_down_exps.weight"])
    #expect(means.count == 4 * 24 && matrix.expertCounts["blk.1.ffn_down_exps.weight"] == 4)
    let input = try #require(
      evidence.inputs.first { input in
        input.layers.contains { layer in
          layer.weight.hasSuffix("layers.1.block_sparse_moe.experts.2.w2.weight")
            || layer.weight.hasSuffix("layers.1.mlp.experts.down_proj") && layer.expert == 2
        }
      })
    #expect(
      Array(means[48..<72]) == (input.tokens > 0 ? input.statistics.meanSquares : [Float](repeating: 1, count: 24)))
    matrix.chunkCount = 1
    try folder.write(matrix.file(tokens: 24, chunkSize: 24), to: "i.gguf")
    let read = try ImportanceMatrix(folder.appending("i.gguf"))
    #expect(read.expertCounts == matrix.expertCounts && Set(read.means.keys) == Set(matrix.means.keys))
    try convert(path, .q80, to: "m.gguf", tokenizer: false, importance: read)
  }

  /// GPT-2 stores weights [inputs, outputs]; in a GGUF file they are turned round, and importances are of inputs there.
  @Test(arguments: ["llama", "gpt2"]) func importancesComeFromEvidence(_ name: String) throws {
    let path = Fixtures.path("architectures/\(name)")
    let checkpoint = try Checkpoint(path)
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    let window = (0..<24).map { Int32($0 * 7 % 30) }
    let evidence = try BlockCalibration(
      model, windows: [window], heldOut: [],
      BlockCalibration.Options(workers: 1, memoryLimit: 1 << 28, spillFolder: folder.path)
    ).collect(EvidenceOptions()) { _ in true }
    let matrix = try ImportanceMatrix(
      evidence.inputs, of: checkpoint, configuration: checkpoint.configuration, datasets: ["a"])
    #expect(matrix.means.count == model.description.blocks.flatMap(\.linears).count)
    let architecture = try #require(GGUFArchitecture.named(name))
    let prefix = architecture.prefix(of: checkpoint.tensorNames)
    for linear in model.description.blocks.flatMap(\.linears) {
      let place = try #require(architecture.place(of: linear.weight, prefix: prefix))
      let means = try #require(matrix.means[place.name])
      #expect(means.count == linear.inputs && means.allSatisfy { $0 >= 0 } && means.contains { $0 > 0 })
      let input = try #require(evidence.inputs.first { $0.layers.contains { $0.weight == linear.weight } })
      #expect(means == input.statistics.meanSquares)
    }
    let written = try convert(path, .q80, to: "m.gguf", tokenizer: false, importance: matrix)
    #expect(written.file.header.metadata["quantize.imatrix.entries_count"] == .int32(Int32(matrix.means.count)))
    #expect(throws: GGUFError.self) {
      try ImportanceMatrix([InputEvidence](), of: checkpoint, configuration: checkpoint.configuration, datasets: [])
    }
  }

  @Test func whatRuntimesDoOtherwiseIsSaid() throws {
    func warning(_ name: String) throws -> String? {
      let opened = try OpenedWeights(Fixtures.path("architectures/\(name)"))
      var options = GGUFConversion.Options(mix: .f32)
      options.writesTokenizer = false
      return try GGUFConversion(opened.source, configuration: opened.configuration, folder: opened.folder, options)
        .warning
    }
    #expect(try warning("mistral")?.contains("lets those of 'llama' files see all") == true)
    #expect(try warning("phi3")?.contains("'phi3'") == true)
    #expect(try warning("llama") == nil && warning("qwen2") == nil)
  }

  @Test func sourcesThatAreQuantizedAreNamed() throws {
    #expect(try OpenedWeights(tiny).quantizationNote == nil)
    let written = try convert(tiny, .q80, to: "q8.gguf")
    #expect(
      try OpenedWeights(written.file.path).quantizationNote?.contains("tensors are quantized already (GGUF)") == true)
    let layout = try OpenedWeights(Fixtures.path("layouts/gptq-4"))
    #expect(layout.quantizationNote?.hasPrefix("1 of 2 tensors are quantized already (GPTQ (v1))") == true)
  }

  @Test func animatrixIsReadBackAsItWasWritten() throws {
    var matrix = ImportanceMatrix()
    matrix.means = ["blk.0.ffn_down.weight": [0.5, 2, 0, 1], "blk.0.attn_q.weight": [1, 0.25]]
    matrix.datasets = ["text.txt"]
    matrix.chunkCount = 3
    try folder.write(matrix.file(tokens: 256, chunkSize: 512), to: "i.gguf")
    let found = try ImportanceMatrix(folder.appending("i.gguf"))
    #expect(found.means["blk.0.ffn_down.weight"] == [0.5, 2, 0, 1] && found.means["blk.0.attn_q.weight"] == [1, 0.25])
    #expect(found.datasets == ["text.txt"] && found.chunkCount == 3)
  }

  @Test func theOlderFormIsRead() throws {
    func little(_ value: Int32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
    func float(_ value: Float) -> [UInt8] { little(Int32(bitPattern: value.bitPattern)) }
    let entry = little(3) + Array("abc".utf8) + little(4) + little(2) + float(8) + float(2)
    let good = little(1) + entry + little(7) + little(5) + Array("a.txt".utf8)
    try folder.write(good, to: "i.dat")
    let found = try ImportanceMatrix(folder.appending("i.dat"))
    #expect(found.means == ["abc": [2, 0.5]] && found.chunkCount == 7 && found.datasets == ["a.txt"])
    for count in 0..<(4 + entry.count) {
      try folder.write(Array(good[..<count]), to: "cut.dat")
      #expect(throws: GGUFError.self) { try ImportanceMatrix(folder.appending("cut.dat")) }
    }
  }

  @Test func whatHasNoNamesInGGUFIsRefusedWithTheList() throws {
    let error = #expect(throws: GGUFError.self) {
      try convert(Fixtures.path("architectures/opt"), .q80, to: "opt.gguf", tokenizer: false)
    }
    #expect(error?.description.contains("model_type 'opt' has no GGUF names here; known are gemma") == true)
  }

  @Test func weightsThatAreNotFiniteAreRefused() throws {
    let source = folder.appending("bad")
    try FileManager.default.copyItem(atPath: Fixtures.path("architectures/llama").string, toPath: source.string)
    let checkpoint = try Checkpoint(source)
    let tensor = try #require(checkpoint["model.norm.weight"])
    var bytes = try readWhole(tensor.file.path)
    let width = tensor.entry.type.bitWidth / 8
    // All bits of the exponent.
    bytes[tensor.entry.bytes.lowerBound + width - 1] = 0x7f
    bytes[tensor.entry.bytes.lowerBound + width - 2] = 0xff
    try Data(bytes).write(to: URL(fileURLWithPath: tensor.file.path.string))
    let error = #expect(throws: GGUFError.self) { try convert(source, .q80, to: "bad.gguf", tokenizer: false) }
    #expect(error?.description.contains("holds an infinity or NaN at [0]") == true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path.string) == ["bad"])
  }

  @Test func mixesFollowTheTable() {
    let situation = GGUFMix.Situation(blockCount: 32, headsPerKey: 4, isTied: false, hasImportance: false)
    func type(_ mix: GGUFMix, _ part: String, _ layer: Int, columns: Int = 4096) -> String {
      mix.type(of: part, layer: layer, shape: [4096, columns], isMatrix: true, in: situation).name
    }
    #expect(
      (0..<8).map { type(.q4KM, "ffn_down", $0) } == ["Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K"])
    #expect(type(.q4KM, "attn_v", 31) == "Q6_K" && type(.q4KM, "attn_q", 31) == "Q4_K")
    #expect(type(.q4KM, "output", 0) == "Q6_K" && type(.q80, "output", 0) == "Q8_0")
    #expect(type(.q2K, "attn_v", 9) == "Q4_K" && type(.q2K, "attn_output", 9) == "Q3_K")
    #expect(type(.q3KM, "attn_v", 1) == "Q5_K" && type(.q3KM, "attn_v", 2) == "Q4_K")
    #expect(
      type(.q4KM, "ffn_down", 0, columns: 4128) == "Q8_0" && type(.q4KS, "ffn_up", 0, columns: 4128) == "Q5_0")
    #expect(type(.q40, "ffn_up", 0, columns: 4100) == "F16")
    #expect(GGUFMix.q40.type(of: "attn_norm", layer: 0, shape: [4096], isMatrix: true, in: situation) == .f32)
    #expect(GGUFMix.f16.type(of: "position_embd", layer: nil, shape: [9, 8], isMatrix: true, in: situation) == .f32)
  }
}
