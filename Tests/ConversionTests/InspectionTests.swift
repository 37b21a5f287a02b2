import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

/// What `inspect` tells of whole models: how they were made, and what is odd.
@Suite struct InspectionTests {
  let folder: TemporaryFolder
  let tiny = Fixtures.path("tiny-llama")

  init() throws { folder = try TemporaryFolder() }

  /// A folder with one safetensors file and a configuration.
  private func model(_ name: String, _ tensors: [SampleTensor], configuration: String?) throws -> FilePath {
    let path = folder.appending(name)
    try FileManager.default.createDirectory(atPath: path.string, withIntermediateDirectories: true)
    try SampleTensor.write(tensors, to: path.appending("model.safetensors"))
    if let configuration { try folder.write(Array(configuration.utf8), to: "\(name)/config.json") }
    try folder.write(Array("{}".utf8), to: "\(name)/tokenizer.json")
    return path
  }

  private func weights(_ names: [String]) -> [SampleTensor] { names.map { SampleTensor($0, [2, 2], [1, 2, 3, 4]) } }

  private func texts(_ path: FilePath) throws -> String {
    try Inspector(path).inspection().oddities.map(\.text).joined(separator: "\n")
  }

  // MARK: How it was made

  @Test func toolAndRecipeAreTold() throws {
    _ = try convert(tiny, to: folder.appending("out")) { $0.options.doubleQuantization = true }
    let packed = try Inspector(folder.appending("out")).inspection().text()
    #expect(packed.contains("Written by: convert-model test"))
    #expect(packed.contains("Recipe: method nf4, bits 4, group size 64"))
    #expect(packed.contains("double quantization"))
    #expect(packed.contains("Quantized: 21 of 21 linear weights, 4.129 bits per weight with scales"), "\(packed)")
    #expect(packed.contains("Not quantized: 1 embedding BF16") && packed.contains("norm BF16"))
    let layouts = [
      ("gptq-4", "GPTQ (v1)", "bits 4, group size 32, sym"), ("awq", "AWQ", "bits 4, group size 32"),
      ("pack-quantized-4", "compressed-tensors", "group_0 (Linear): num bits 4, type int, symmetric"),
      ("nf4-double", "bitsandbytes", "bnb 4bit quant type nf4, bnb 4bit use double quant"),
      ("mlx-4", "MLX", "group size 32, bits 4, mode affine"),
    ]
    for (name, family, recipe) in layouts {
      let text = try Inspector(Fixtures.path("layouts/\(name)")).inspection().text()
      #expect(text.contains("in the layout of \(family)\n") && text.contains(recipe), "\(text)")
      #expect(text.contains("Quantized: 1 of 1 linear weight,"), "\(text)")
    }
    #expect(try Inspector(tiny).inspection().text().contains("Quantized: nothing; 16.000 bits per weight, 21 linear"))
  }

  @Test func whatAGGUFFileWasMadeFromIsTold() throws {
    let opened = try OpenedWeights(tiny)
    var options = GGUFConversion.Options(mix: .q4KM)
    options.writesTokenizer = false
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, options)
    try conversion.run(
      into: try OutputFile(folder.appending("m.gguf"), source: tiny, overwrite: false), workers: 2
    ) { _ in true }
    let found = try Inspector(folder.appending("m.gguf")).inspection()
    #expect(found.provenance.map(\.value) == ["name tiny-llama", "mix Q4_K_M"])
    #expect(found.oddities.map(\.text) == ["no tokenizer is in it"])
    let values = try Inspector(folder.appending("m.gguf"))
      .tensor("blk.1.ffn_up.weight", against: nil, slice: TensorSlice("1:3,40:44"))
    #expect(values.excerpt?.values.count == 8 && values.excerpt?.codes.count == 8 && values.codes != nil)
    #expect(try Inspector(folder.appending("m.gguf")).depth(workers: 2) { _ in true }.tensors.count == 30)
  }

  // MARK: What is odd

  @Test func foldersThatCannotBeLoadedAreListedWithTheirDefects() throws {
    let cases = [
      ("index-missing-shard", "model-00002-of-00002.safetensors, where the index has 6 of the tensors, is missing"),
      ("index-extra-tensor", "in no file: 1 of the tensors of the index, such as 'model.layers.1.extra'"),
      ("index-misses-tensor", "not in the index: 1 of the tensors"),
      ("shards-same-tensor", "in two files or more: 1 of the tensors, such as 'model.norm.weight'"),
      ("shards-without-index", "2 safetensors files without model.safetensors.index.json"),
      ("shard-truncated", "truncated: the header describes 544 bytes of data, the file holds 543"),
      ("index-swapped", "index and shards do not belong together"),
    ]
    for (name, text) in cases {
      let found = try Inspector(Fixtures.path("malformed/\(name)")).inspection()
      #expect(found.isDefective && !found.tensors.isEmpty)
      #expect(found.text().contains("DEFECT: ") && found.text().contains(text), "\(name): \(found.text())")
      #expect(throws: CheckpointError.self) {
        try Inspector(Fixtures.path("malformed/\(name)")).tensor("model.norm.weight", against: nil)
      }
    }
  }

  @Test func filesAndConfigurationsThatDoNotFitAreTold() throws {
    let embedding = ["model.embed_tokens.weight"]
    let bare = try model("bare", weights(embedding), configuration: nil)
    #expect(try texts(bare).contains("config.json is missing"))
    try FileManager.default.removeItem(atPath: bare.appending("tokenizer.json").string)
    #expect(try texts(bare).contains("no tokenizer is beside the weights"))
    let stray = try model("stray", weights(embedding), configuration: #"{"model_type": "llama"}"#)
    try SampleTensor.write(weights(["x"]), to: stray.appending("other.safetensors"))
    #expect(try texts(stray).contains("other.safetensors is not among the files of the model"))
    let tied = try model(
      "tied", weights(embedding + ["lm_head.weight"]), configuration: #"{"tie_word_embeddings": true}"#)
    #expect(try texts(tied).contains("but lm_head.weight is stored too"))
    let headless = try model(
      "headless", weights(embedding),
      configuration: #"{"tie_word_embeddings": false, "architectures": ["LlamaForCausalLM"]}"#)
    #expect(try texts(headless).contains("there is no lm_head.weight"))
    let typed = try model("typed", weights(embedding), configuration: #"{"torch_dtype": "bfloat16"}"#)
    #expect(try texts(typed).contains("config.json says bfloat16, but most weights are F32"))
    let quantized = try model(
      "said", weights(embedding), configuration: #"{"quantization_config": {"quant_method": "hqq"}}"#)
    #expect(try texts(quantized).contains("quantized by hqq, but no tensor is of a layout known here"))
    let empty = try model(
      "empty", [SampleTensor("e.weight", [0, 2], [])] + weights(embedding), configuration: "{}")
    #expect(try texts(empty).contains("1 tensor without elements, such as 'e.weight'"))
    // An index whose total is not that of the tensors.
    let copy = folder.appending("copy")
    try FileManager.default.copyItem(atPath: tiny.string, toPath: copy.string)
    #expect(try texts(copy).isEmpty)
    let index = String(decoding: try readWhole(copy.appending(Checkpoint.indexName)), as: UTF8.self)
    try folder.write(
      Array(index.replacing(/"total_size": \d+/, with: "\"total_size\": 7").utf8), to: "copy/" + Checkpoint.indexName)
    #expect(try texts(copy).contains("total_size is 7, but the tensors take 1296128 bytes"))
  }

  @Test func blocksThatAreMissingOrIncompleteAreTold() throws {
    func names(_ blocks: [Int], _ parts: [String]) -> [String] {
      blocks.flatMap { block in parts.map { "model.layers.\(block).\($0).weight" } }
    }
    let parts = ["mlp.up_proj", "mlp.down_proj", "self_attn.o_proj"]
    let config = #"{"num_hidden_layers": 5}"#
    let gap = try model("gap", weights(names([0, 1, 3, 4], parts)), configuration: config)
    #expect(try texts(gap) == "blocks are missing: 2 of 5")
    let short = try model("short", weights(names([0, 1, 2], parts)), configuration: config)
    #expect(try texts(short) == "num_hidden_layers of config.json is 5, but the tensors are those of 3 blocks")
    let lacking = try model(
      "lacking", weights(names([0, 1, 2, 4], parts) + names([3], Array(parts.dropFirst()))), configuration: config)
    #expect(try texts(lacking) == "block 3 lacks what others have: mlp.up_proj.weight")
    // A block of another kind, such as a dense one before mixtures, lacks nothing.
    let mixed = try model(
      "mixed", weights(names([1, 2, 3, 4], parts + ["mlp.gate"]) + names([0], parts + ["mlp.gate_proj"])),
      configuration: config)
    #expect(try texts(mixed).isEmpty)
  }

  /// A GPTQ folder with a scale whose weight is gone, and one whose configuration is.
  @Test func companionsWithoutTheirWeightAreTold() throws {
    let source = try Checkpoint(Fixtures.path("layouts/gptq-4"))
    let stored = try source.tensors.map {
      SampleTensor($0.name, $0.entry.shape, type: $0.entry.type, bytes: try allBytes($0))
    }
    let config = String(decoding: try readWhole(Fixtures.path("layouts/gptq-4/config.json")), as: UTF8.self)
    let orphan = SampleTensor("model.layers.9.up.scales", [1, 2], [1, 1], as: .f16)
    let path = try model("orphan", stored + [orphan], configuration: config)
    #expect(try texts(path).contains("1 tensor such as 'model.layers.9.up.scales' belongs to a quantized weight"))
    let silent = try model("silent", stored, configuration: #"{"model_type": "llama"}"#)
    #expect(try texts(silent).contains("quantized as GPTQ (v1) writes them, but config.json says nothing of it"))
  }

  // MARK: Values

  @Test func readingEverythingFindsWhatIsOddAboutValues() throws {
    var random = SplitMix64(seed: 3)
    var values = random.weights(64 * 128)
    // One group of zeros, and a tensor that saturates: most of its weights are at the ends.
    for column in 0..<64 { values[column] = 0 }
    let ends = (0..<64 * 128).map { $0 % 3 == 0 ? Float(1) : $0 % 3 == 1 ? -1 : 0.1 }
    let source = try model(
      "values",
      [
        SampleTensor("model.layers.0.a_proj.weight", [64, 128], values),
        SampleTensor("model.layers.0.b_proj.weight", [64, 128], ends),
        SampleTensor("model.layers.0.c_norm.weight", [4], [1, .nan, .infinity, 1]),
        SampleTensor("model.layers.0.d_norm.weight", [4], [0, 0, 0, 0]),
      ], configuration: "{}")
    for layout in [nil, RuntimeLayout.packQuantized] {
      let output = folder.appending("out-\(layout?.rawValue ?? "own")")
      _ = try convert(source, to: output) { recipe in
        recipe.options.method = .absmax
        recipe.options.bits = 4
        recipe.options.granularity = .group(64)
        recipe.layout = layout
      }
      let found = try Inspector(output).depth(workers: 2) { _ in true }
      let findings = Dictionary(
        uniqueKeysWithValues: found.tensors.map { ($0.inspection.tensor.name, $0.findings.joined(separator: "; ")) })
      #expect(findings["model.layers.0.a_proj.weight"]?.contains("1 of 128 groups are all 0") == true, "\(findings)")
      #expect(findings["model.layers.0.b_proj.weight"]?.contains("of the codes are the lowest or the highest") == true)
      #expect(findings["model.layers.0.b_proj.weight"]?.contains("of 16 codes are not used") == true)
      #expect(findings["model.layers.0.c_norm.weight"] == "1 values are NaN; 1 values are infinite")
      #expect(findings["model.layers.0.d_norm.weight"] == "all values are 0")
      #expect(found.text.contains("4 tensors with something odd"))
      let alone = try Inspector(output).depth(workers: 1) { _ in true }
      #expect(alone.json == found.json)
      #expect(throws: ConversionError.cancelled) { try Inspector(output).depth(workers: 2) { _ in false } }
    }
  }

  @Test func aSliceOfValuesComesWithItsCodesInEveryLayout() throws {
    var random = SplitMix64(seed: 4)
    let values = random.weights(32 * 64).map { rounded($0, to: .bf16) }
    let source = try model(
      "slice", [SampleTensor("model.layers.0.up_proj.weight", [32, 64], values)], configuration: "{}")
    let name = "model.layers.0.up_proj.weight"
    let ranges = try #require(TensorSlice("3:6,5:12"))
    let dense = try Inspector(source).tensor(name, against: nil, slice: ranges)
    let expected = (3..<6).flatMap { row in (5..<12).map { values[row * 64 + $0] } }
    #expect(dense.excerpt?.values == expected && dense.excerpt?.codes == [])
    var slices: [[Int]] = []
    for layout in [nil, RuntimeLayout.packQuantized, .gptq] {
      let output = folder.appending("slice-\(layout?.rawValue ?? "own")")
      _ = try convert(source, to: output) { recipe in
        recipe.options.method = .absmax
        recipe.options.bits = 4
        recipe.options.granularity = .group(64)
        recipe.options.scaleType = .f16
        recipe.layout = layout
      }
      let found = try Inspector(output).tensor(name, against: try Checkpoint(source), slice: ranges)
      let excerpt = try #require(found.excerpt)
      #expect(excerpt.source == expected && excerpt.ranges == [3..<6, 5..<12])
      #expect(zip(excerpt.values, expected).allSatisfy { abs($0 - $1) < 0.01 })
      slices.append(excerpt.codes)
      #expect(found.text().contains("  codes") && found.text().contains("  source"))
      let whole = try Inspector(output).tensor(name, against: nil)
      #expect(whole.codes?.usage.reduce(0, +) == 2048 && whole.codes?.groupCount == 32)
      #expect(whole.text(plain: true).contains("###") && !whole.text(plain: true).contains("█"))
    }
    #expect(slices[0].count == 21 && slices.allSatisfy { $0 == slices[0] })
    let beyond = #expect(throws: ConversionError.self) {
      try Inspector(source).tensor(name, against: nil, slice: TensorSlice("0:33,0:1"))
    }
    #expect(beyond?.description.contains("its shape is [32, 64], of which '0:33,0:1' is no part") == true)
  }

  @Test func slicesAreReadAsRanges() {
    #expect(TensorSlice("0:4,0:8")?.ranges(in: [8, 8]) == [0..<4, 0..<8])
    #expect(TensorSlice("7")?.ranges(in: [8, 8]) == [7..<8, 0..<8])
    #expect(TensorSlice(":, 6:")?.ranges(in: [8, 8]) == [0..<8, 6..<8])
    #expect(TensorSlice("1,2,3")?.ranges(in: [2, 3, 4]) == [1..<2, 2..<3, 3..<4])
    for text in ["", "a", "1:2:3", "-1", "0:x", "1,"] where TensorSlice(text)?.ranges(in: [8, 8]) != nil {
      Issue.record("'\(text)' was taken for a slice")
    }
    #expect(TensorSlice("4:2")?.ranges(in: [8]) == nil && TensorSlice("0,0")?.ranges(in: [8]) == nil)
    #expect(TensorSlice(":")?.ranges(in: [5000]) == nil && TensorSlice(":")?.ranges(in: [4096]) == [0..<4096])
    #expect(TensorSlice("9223372036854775807")?.ranges(in: [8]) == nil)
  }

  /// Names with many numbers, no two the same: as many combinations as no integer counts.
  @Test func namesWithManyNumbersAreListed() throws {
    let names = (0..<1000).map { number in (0..<8).map { "\(number + $0 * 1000)" }.joined(separator: ".") }
    let path = try model("numbers", weights(names), configuration: "{}")
    let found = try Inspector(path).inspection()
    #expect(found.families.count == 1 && found.families[0].name == "*.*.*.*.*.*.*.*")
  }

  // MARK: Pages and speed

  @Test func pagesStandAlone() throws {
    _ = try convert(tiny, to: folder.appending("out"))
    let inspector = try Inspector(folder.appending("out"))
    var whole = try inspector.inspection()
    whole.depth = try inspector.depth(workers: 2) { _ in true }
    whole.oddities = [Inspection.Oddity("<script>")]
    let tensor = try inspector.tensor(
      "model.layers.0.mlp.up_proj.weight", against: try Checkpoint(tiny), slice: TensorSlice("0:2,0:2"))
    for page in [try whole.html(), try tensor.html()] {
      #expect(page.hasPrefix("<!DOCTYPE html>") && page.contains("prefers-color-scheme:dark"))
      #expect(page.contains("<table>") && page.contains("<svg role=\"img\" aria-label="))
      #expect(!page.contains("{{") && !page.contains("<script>") && !page.contains("http://") && !page.contains("src="))
    }
    #expect(try whole.html().contains("&lt;script&gt;"))
    #expect(try tensor.html().contains("Largest errors"))
  }

  /// Headers as large as those of a model of 7 billion weights, over files without data: no values are read.
  @Test func aModelOfSevenBillionWeightsIsListedAtOnce() throws {
    var specifications: [TensorSpecification] = []
    func add(_ name: String, _ type: ElementType, _ shape: [Int]) {
      specifications.append(TensorSpecification(name: name, type: type, shape: shape))
    }
    add("model.embed_tokens.weight", .bf16, [32_000, 4096])
    for layer in 0..<32 {
      let prefix = "model.layers.\(layer)."
      for (name, outputs, inputs) in [
        ("self_attn.q_proj", 4096, 4096), ("self_attn.k_proj", 4096, 4096), ("self_attn.v_proj", 4096, 4096),
        ("self_attn.o_proj", 4096, 4096), ("mlp.gate_proj", 11008, 4096), ("mlp.up_proj", 11008, 4096),
        ("mlp.down_proj", 4096, 11008),
      ] {
        add(prefix + name + ".qweight", .i32, [inputs / 8, outputs])
        add(prefix + name + ".qzeros", .i32, [inputs / 128, outputs / 8])
        add(prefix + name + ".scales", .f16, [inputs / 128, outputs])
        add(prefix + name + ".g_idx", .i32, [inputs])
      }
      add(prefix + "input_layernorm.weight", .bf16, [4096])
      add(prefix + "post_attention_layernorm.weight", .bf16, [4096])
    }
    add("model.norm.weight", .bf16, [4096])
    add("lm_head.weight", .bf16, [32_000, 4096])
    let path = folder.appending("large")
    try FileManager.default.createDirectory(atPath: path.string, withIntermediateDirectories: true)
    let layout = SafetensorsLayout(specifications, metadata: ["format": "pt"])
    try Data(layout.head).write(to: URL(fileURLWithPath: path.appending("model.safetensors").string))
    let file = try FileDescriptor.open(path.appending("model.safetensors"), .readWrite)
    // The rest is a hole.
    try file.resize(to: Int64(layout.fileSize))
    try file.close()
    let config = #"{"model_type": "llama", "num_hidden_layers": 32, "quantization_config": "#
    let method = #"{"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true}}"#
    try folder.write(Array((config + method).utf8), to: "large/config.json")
    let clock = ContinuousClock()
    var found: Inspection?
    let seconds = try clock.measure { found = try Inspector(path).inspection() }
    let inspection = try #require(found)
    #expect(inspection.weightCount == 6_738_415_616 && inspection.quantized.count == 224)
    #expect(inspection.families.count == 12)
    #expect(inspection.families.contains { $0.name == "model.layers.0-31.mlp.up_proj.weight" })
    // Unoptimized on a busy machine; the command takes a twentieth of it.
    #expect(seconds < .seconds(5), "\(seconds)")
  }
}
