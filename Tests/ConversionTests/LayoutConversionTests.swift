import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

/// Conversions to the layouts of runtimes, from the source to the bytes on disk and back.
@Suite struct LayoutConversionTests {
  let tiny = Fixtures.path("tiny-llama")
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  struct Row: Sendable, CustomTestStringConvertible {
    let layout: RuntimeLayout
    let method: Quantization.Method
    var bits: Int?
    var granularity: Granularity?
    var isNested = false
    var scaleType: ElementType?
    /// The largest difference from our own format, as a share of the value.
    var tolerance: Float = 0

    var testDescription: String { "\(layout.rawValue) \(method.rawValue) \(bits.map(String.init) ?? "")" }

    func apply(to options: inout SchemeOptions) {
      options.method = method
      options.bits = bits
      options.granularity = granularity
      options.doubleQuantization = isNested ? true : nil
      options.scaleType = scaleType
    }
  }

  static let rows = [
    Row(layout: .packQuantized, method: .absmax, bits: 4, granularity: .group(64)),
    Row(layout: .packQuantized, method: .zeroPoint, bits: 8),
    Row(layout: .intQuantized, method: .absmax, scaleType: .f32),
    Row(layout: .gptq, method: .absmax, bits: 3, granularity: .group(64)),
    Row(layout: .gptqV2, method: .zeroPoint, bits: 4, granularity: .group(32)),
    Row(layout: .awq, method: .zeroPoint, bits: 4, granularity: .group(64)),
    Row(layout: .bitsandbytes, method: .nf4),
    Row(layout: .bitsandbytes, method: .fp4, isNested: true),
    // SCB is 127 times the scale, rounded.
    Row(layout: .bitsandbytes, method: .absmax, scaleType: .f32, tolerance: 1e-6),
    Row(layout: .mlx, method: .absmax, bits: 5, granularity: .group(32)),
    // The offset, −scale · zero point, is rounded to F16.
    Row(layout: .mlx, method: .zeroPoint, bits: 4, granularity: .group(64), tolerance: 1e-2),
  ]

  /// Every weight of a folder in a layout, beside that of our own format.
  private func expectSameValues(_ layout: FilePath, _ packed: FilePath, tolerance: Float) throws {
    let layout = try #require(try LayoutCheckpoint(Checkpoint(layout)))
    let packed = try PackedCheckpoint(packed)
    #expect(Set(layout.records.map(\.name)) == Set(packed.manifest.records.map(\.name)))
    var workspace = PackedCheckpoint.Workspace()
    var (bytes, found, expected): ([UInt8], [Float], [Float]) = ([], [], [])
    for record in packed.manifest.records {
      let other = try #require(layout[record.name])
      #expect(other.shape == record.shape && (other.label != nil) == (record.encoding != nil), "\(record.name)")
      try layout.decode(other, 0..<record.elementCount, into: &found, bytes: &bytes)
      if record.encoding == nil {
        #expect(other.type == record.type)
        let kept = try #require(packed.checkpoint[record.name])
        #expect(try allValues(kept) == Array(found.prefix(record.elementCount)), "\(record.name)")
        continue
      }
      try packed.decode(record, 0..<record.elementCount, into: &expected, using: &workspace)
      let largest = expected.prefix(record.elementCount).reduce(0) { max($0, abs($1)) }
      let difference = zip(found, expected).prefix(record.elementCount).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(difference <= tolerance * largest, "\(record.name): \(difference) of \(largest)")
      // A run read alone is what the whole weight has there.
      let (count, whole) = (record.elementCount, found)
      for range in [0..<8, count / 3..<count / 2, count - 5..<count] {
        let opened = try #require(try LayoutCheckpoint(layout.checkpoint))
        try opened.decode(other, range, into: &found, bytes: &bytes, isAlone: true)
        #expect(found == Array(whole[range]), "\(record.name) \(range)")
      }
    }
  }

  @Test("A layout holds what our own format does", arguments: rows)
  func holdsTheSameValues(row: Row) throws {
    _ = try convert(tiny, to: folder.appending("packed")) { row.apply(to: &$0.options) }
    _ = try convert(tiny, to: folder.appending("layout")) {
      row.apply(to: &$0.options)
      $0.layout = row.layout
    }
    try expectSameValues(folder.appending("layout"), folder.appending("packed"), tolerance: row.tolerance)
    let report = try report(folder.appending("layout"), against: tiny)
    #expect(report.altered.isEmpty && report.quantized.count == 21)
  }

  @Test("Threads do not change a byte, and the plan knows their number", arguments: RuntimeLayout.allCases)
  func isDeterministic(layout: RuntimeLayout) throws {
    var first: [String: [UInt8]]?
    for workers in [1, 3] {
      let output = folder.appending("out-\(workers)")
      let plan = try convert(tiny, to: output, workers: workers) { recipe in
        recipe.layout = layout
        recipe.options.granularity = [.gptq, .gptqV2, .awq, .packQuantized].contains(layout) ? .group(64) : nil
        if [.gptq, .gptqV2, .awq].contains(layout) {
          recipe.options.method = .absmax
          recipe.options.bits = 4
        }
      }
      let files = try contents(output)
      #expect(files.values.reduce(0) { $0 + $1.count } == plan.outputByteCount(toolVersion: "test"))
      #expect(files["quantization_manifest.json"] == nil)
      if let first { #expect(files == first, "\(workers) threads") } else { first = files }
    }
  }

  // MARK: Calibrated methods

  private func calibrate(to name: String, _ change: (inout Recipe) -> Void) throws -> FilePath {
    var recipe = Recipe()
    recipe.options.bits = 4
    recipe.options.granularity = .group(64)
    change(&recipe)
    let checkpoint = try Checkpoint(tiny)
    let plan = try Plan(converting: checkpoint, recipe: recipe)
    var generator = SplitMix64(seed: 11)
    let tokens = (0..<512).map { _ in Int32.random(in: 0..<512, using: &generator) }
    try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(folder.appending("tokens.jsonl")))],
      CalibrationWindows.Options(samples: 14, sequenceLength: 32, heldOut: 2), vocabulary: 512
    ) { _ in [] }
    let output = folder.appending(name)
    try Converter(
      plan: plan, toolVersion: "test", workers: 2, windows: windows,
      resources: RunResources(activationMemory: 1 << 30, spillFolder: folder.path)
    ).run(into: OutputFolder(output, source: checkpoint.folder, overwrite: false)) { _ in true }
    return output
  }

  @Test(
    "Calibrated weights go to a layout as they are",
    arguments: [(RuntimeLayout.gptq, Quantization.Method.gptq), (.gptqV2, .awq), (.packQuantized, .gptq)])
  func calibratedWeights(layout: RuntimeLayout, method: Quantization.Method) throws {
    let laid = try calibrate(to: "layout") {
      $0.options.method = method
      $0.layout = layout
    }
    let packed = try calibrate(to: "packed") {
      $0.options.method = method
      $0.options.scaleSearch = .mse
    }
    try expectSameValues(laid, packed, tolerance: 0)
  }

  @Test(
    "Groups in the order of activations go to GPTQ's layouts with their numbers",
    arguments: [RuntimeLayout.gptq, .gptqV2])
  func activationOrder(layout: RuntimeLayout) throws {
    func choose(_ recipe: inout Recipe) {
      recipe.options.method = .gptq
      recipe.options.groupOrder = .activation
      recipe.options.scaleSearch = .mse
    }
    let laid = try calibrate(to: "layout") {
      choose(&$0)
      $0.layout = layout
    }
    let packed = try calibrate(to: "packed", choose)
    try expectSameValues(laid, packed, tolerance: 0)
    let checkpoint = try Checkpoint(laid)
    #expect(checkpoint.configuration?["quantization_config"]?["desc_act"] == true)
    let index = try allValues(try #require(checkpoint["model.layers.0.self_attn.q_proj.g_idx"]))
    #expect(index != index.sorted() && Set(index) == [0, 1])
    #expect(try RuntimeCheck.findings(of: laid, runtime: .gptqmodel).filter(\.isFatal).isEmpty)
    #expect(try RuntimeCheck.findings(of: laid, runtime: .vllm).contains { $0.isFatal && $0.problem.contains("g_idx") })
    #expect(throws: ConversionError.self) {
      _ = try calibrate(to: "other") {
        choose(&$0)
        $0.layout = .packQuantized
      }
    }
  }

  @Test("AWQ in its own layout: what scales are folded into is told apart from what was kept")
  func foldedTensors() throws {
    let output = try calibrate(to: "out") { $0.layout = .awq }
    let report = try report(output, against: tiny)
    #expect(report.altered.isEmpty)
    let norm = try #require(report.tensors.first { $0.name == "model.layers.0.input_layernorm.weight" })
    #expect(norm.isFolded && !norm.isQuantized)
    let query = try #require(report.tensors.first { $0.name == "model.layers.0.self_attn.q_proj.weight" })
    #expect(query.isFolded && query.isQuantized)
    let head = try #require(report.tensors.first { $0.name == "model.norm.weight" })
    #expect(!head.isFolded)
  }

  // MARK: Options

  @Test("No search gives negative scales where a layout refuses them", arguments: RuntimeLayout.allCases)
  func searchesFitTheLayout(layout: RuntimeLayout) throws {
    for method in [Quantization.Method.gptq, .awq] {
      var options = SchemeOptions()
      options.method = method
      options.isSymmetric = true
      let search = try options.fitted(to: layout).scheme().scaleSearch
      #expect((search == .signedMSE) == layout.rules.allowsNegativeScales, "\(method)")
    }
    guard layout.rules.widths[.middle] != nil else { return }
    var recipe = Recipe()
    recipe.layout = layout
    recipe.options.method = .absmax
    try recipe.weighScales()
    #expect(recipe.options.scaleSearch == (layout.rules.allowsNegativeScales ? .signedMSE : .mse))
  }

  @Test func refusesASignedSearch() throws {
    #expect(throws: ConversionError.self) {
      try convert(tiny, to: folder.appending("out")) {
        $0.layout = .packQuantized
        $0.options.method = .absmax
        $0.options.bits = 4
        $0.options.granularity = .group(64)
        $0.options.scaleSearch = .signedMSE
      }
    }
    #expect(!FileManager.default.fileExists(atPath: folder.appending("out").string))
  }

  /// The runtime finds outlier columns by its own activations.
  @Test func int8NeedsNoEvidenceInALayout() throws {
    var recipe = Recipe()
    recipe.options.method = .llmInt8
    #expect(recipe.needsStatistics)
    recipe.layout = .bitsandbytes
    #expect(!recipe.needsStatistics && !recipe.needsCalibration)
    _ = try convert(tiny, to: folder.appending("out")) {
      $0.layout = .bitsandbytes
      $0.options.method = .llmInt8
      $0.options.scaleType = .f32
    }
    #expect(try report(folder.appending("out"), against: tiny).altered.isEmpty)
  }

  /// What tells the two layouts of FP8 apart, and MLX's modes.
  @Test func layoutsOfFloatsSayWhatTheyAre() throws {
    func configuration(_ layout: RuntimeLayout) throws -> JSONValue {
      let output = folder.appending(layout.rawValue)
      _ = try convert(tiny, to: output) { $0.layout = layout }
      return try #require(Checkpoint(output).configuration?["quantization_config"])
    }
    let (both, weights) = (try configuration(.floatQuantized), try configuration(.floatQuantizedWeights))
    #expect(both["format"] == "float-quantized" && weights["format"] == "float-quantized")
    let group = weights["config_groups"]?["group_0"]
    #expect(group?["input_activations"] == .null && group?["format"] == "float-quantized")
    #expect(both["config_groups"]?["group_0"]?["input_activations"]?["dynamic"] == true)
    #expect(group?["weights"] == both["config_groups"]?["group_0"]?["weights"])
    for name in ["model.safetensors", "model-00001-of-00002.safetensors"] {
      let (a, b) = (
        folder.appending("float-quantized/\(name)"), folder.appending("float-quantized-weight-only/\(name)")
      )
      #expect((try? readWhole(a)) == (try? readWhole(b)))
    }
    let mlx = try configuration(.mlxMXFP4)
    #expect(mlx["mode"] == "mxfp4" && mlx["group_size"] == 32 && mlx["bits"] == 4 && mlx["lm_head"] == false)
    // The same numbers as in compressed-tensors' own form of them.
    _ = try convert(tiny, to: folder.appending("mxfp4")) { $0.layout = .mxfp4 }
    let one = try #require(try LayoutCheckpoint(Checkpoint(folder.appending("mxfp4"))))
    let other = try #require(try LayoutCheckpoint(Checkpoint(folder.appending("mlx-mxfp4"))))
    for record in one.records where record.label != nil {
      let same = try #require(other[record.name])
      #expect(try one.weight(record)?.codes == other.weight(same)?.codes, "\(record.name)")
      #expect(try one.weight(record)?.scales == other.weight(same)?.scales, "\(record.name)")
    }
  }

  @Test func stackedExpertsAreRefusedWithTheReason() throws {
    let error = #expect(throws: ConversionError.self) {
      try convert(Fixtures.path("architectures/qwen3-moe-fused"), to: folder.appending("out")) {
        $0.layout = .intQuantized
      }
    }
    #expect(error?.description.contains("stacks the weights of experts") == true)
  }

  @Test func devicesThatLayersDoNotDivideAmongAreRefusedBeforeWork() throws {
    let source = try Checkpoint(tiny)
    func refusal(_ parts: Int) throws -> String {
      var recipe = Recipe()
      recipe.layout = .packQuantized
      recipe.options.granularity = .group(32)
      let plan = try Plan(converting: source, recipe: recipe)
      do {
        try plan.requireSplit(over: parts)
        return ""
      } catch {
        return "\(error)"
      }
    }
    #expect(try refusal(1).isEmpty && refusal(2).isEmpty)
    #expect(
      try refusal(3).contains("heads of attention, which vLLM gives to devices whole, do not divide among 3 devices"))
    #expect(try refusal(4).contains("cannot be split over 4 devices in multiples of"))
    let output = folder.appending("out")
    _ = try convert(tiny, to: output) {
      $0.layout = .packQuantized
      $0.options.granularity = .group(32)
    }
    for parts in [1, 2, 3, 4] {
      let found = try RuntimeCheck(output, runtime: .vllm, parts: parts).findings().filter(\.isFatal)
      #expect(try found.isEmpty == refusal(parts).isEmpty, "\(found)")
    }
  }

  /// Runtimes ask for experts one by one.
  @Test(arguments: ["mixtral-fused", "qwen3-moe-fused"]) func stackedExpertsAreSeenOneByOne(_ name: String) throws {
    let path = Fixtures.path("architectures/\(name)")
    let (stacked, source) = (try Checkpoint(path), try Checkpoint(path).unfusingExperts)
    #expect(source.tensors.count > stacked.tensors.count)
    #expect(
      source.tensors.reduce(0) { $0 + $1.entry.bytes.count } == stacked.tensors.reduce(0) { $0 + $1.entry.bytes.count })
    let fused = try #require(stacked.tensors.first { $0.name.hasSuffix("experts.gate_up_proj") })
    let isMixtral = name.hasPrefix("mixtral")
    let up = isMixtral ? "layers.1.block_sparse_moe.experts.2.w3.weight" : "layers.1.mlp.experts.2.up_proj.weight"
    let expert = try #require(source.tensors.first { $0.name.hasSuffix(up) })
    let own = try #require(isMixtral ? stacked["model.layers.1.mlp.experts.gate_up_proj"] : fused)
    let (rows, columns) = (own.entry.shape[1], own.entry.shape[2])
    #expect(try allValues(expert) == Array(allValues(own)[(2 * rows + rows / 2) * columns..<3 * rows * columns]))
    #expect(expert.entry.shape == [rows / 2, columns])
    let output = folder.appending("out")
    var recipe = Recipe()
    recipe.layout = .intQuantized
    let target = try OutputFolder(output, source: source.folder, overwrite: false)
    try Converter(plan: Plan(converting: source, recipe: recipe), toolVersion: "test", workers: 2)
      .run(into: target) { _ in true }
    let layout = try #require(try LayoutCheckpoint(Checkpoint(output)))
    #expect(layout[expert.name]?.label != nil)
    // Measured against the stacked source, and run.
    let report = try Measurement(packed: output, source: stacked).run(sampling: .all, workers: 2) { _ in true }
    #expect(report.tensors.count == source.tensors.count)
    _ = try Model(output)
    // Nothing changes where nothing is stacked.
    let plain = try Checkpoint(Fixtures.path("architectures/mixtral"))
    #expect(plain.unfusingExperts.tensors.map(\.name) == plain.tensors.map(\.name))
  }

  /// A folder without hashes is decoded instead.
  @Test func damageInALayoutIsFound() throws {
    let output = folder.appending("out")
    _ = try convert(tiny, to: output) { $0.layout = .intQuantized }
    let whole = try Verification(output, workers: 2).run { _ in true }
    #expect(whole.damaged == [] && !whole.hasHashes && whole.tensorCount == 30)
    let scale = try #require(try Checkpoint(output)["model.layers.1.mlp.up_proj.weight_scale"])
    let file = try FileDescriptor.open(scale.file.path, .readWrite)
    defer { try? file.close() }
    try file.writeFully([0, 0, 0xc0, 0x7f], count: 4, at: scale.entry.bytes.lowerBound)
    let found = try Verification(output, workers: 2).run { _ in true }
    #expect(found.damaged == ["model.layers.1.mlp.up_proj.weight"])
    #expect(throws: ConversionError.self) { try Verification(tiny, workers: 1) }
  }

  @Test func evidenceIsUnusedByLayoutsOfFloats() throws {
    var recipe = Recipe()
    recipe.layout = .mxfp4
    #expect(throws: RecipeError.evidenceUnused) { try recipe.weighScales() }
  }
}
