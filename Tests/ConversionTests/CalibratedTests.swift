import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// Methods that run the model, on models small enough to run in a test.
@Suite struct CalibratedTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Converts with GPTQ on random tokens.
  private func convert(
    _ source: FilePath, to name: String, workers: Int = 2, tokens: [Int32], length: Int = 16,
    memoryLimit: Int = 1 << 30, _ change: (inout Recipe) -> Void = { _ in }
  ) throws -> (outcomes: [LayerOutcome], output: FilePath) {
    var recipe = Recipe()
    recipe.options.method = .gptq
    recipe.options.bits = 3
    recipe.options.granularity = .group(8)
    change(&recipe)
    let checkpoint = try Checkpoint(source)
    let plan = try Plan(converting: checkpoint, recipe: recipe)
    let file = folder.appending("tokens.jsonl")
    try folder.write(Array("\(tokens)\n".utf8), to: "tokens.jsonl")
    let windows = try CalibrationWindows(
      [CalibrationSource(.file(file))],
      CalibrationWindows.Options(samples: tokens.count / length - 2, sequenceLength: length, heldOut: 2),
      vocabulary: try #require(plan.model).description.embedding.vocabulary
    ) { _ in [] }
    let output = folder.appending(name)
    let target = try OutputFolder(output, source: checkpoint.folder, overwrite: false)
    let outcomes = try Converter(
      plan: plan, toolVersion: "test", workers: workers, windows: windows,
      resources: RunResources(activationMemory: memoryLimit, spillFolder: folder.path)
    ).run(into: target) { _ in true }
    return (outcomes, output)
  }

  private func randomTokens(_ count: Int, below vocabulary: Int32) -> [Int32] {
    var generator = SplitMix64(seed: 11)
    return (0..<count).map { _ in Int32.random(in: 0..<vocabulary, using: &generator) }
  }

  static let architectures: [String] = [
    "llama", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "gpt2", "gpt-neox", "gpt-neox-sequential", "opt-post-norm",
    "mixtral",
    "mixtral-fused", "qwen3-moe", "bert", "modernbert",
  ]

  @Test("Every layer is calibrated, and most come out better than rounded", arguments: architectures)
  func calibrates(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)")
    let (outcomes, output) = try convert(
      source.appending("model.safetensors"), to: "out", tokens: randomTokens(640, below: 36))
    let model = try Model(source)
    let linears = model.description.blocks.flatMap(\.linears)
    let routers = model.description.blocks.compactMap { block in
      if case .mixture(let mixture) = block.feedForward { mixture.router } else { nil }
    }
    #expect(outcomes.count == linears.count - routers.count)
    let ratios = outcomes.compactMap { $0.heldOut?.ratio }
    #expect(ratios.count { $0 < 1 } * 10 >= ratios.count * 7, "\(ratios)")
    // What was written decodes to a model that runs.
    let packed = try Model(output)
    let batch = TokenBatch(lengths: [8])
    let tokens = randomTokens(8, below: 36)
    let hidden = try Forward(packed, workers: 1).lastHiddenStates(tokens, batch)
    #expect(!hidden.values().contains { !$0.isFinite })
    try requireRecordedErrors(output, source.appending("model.safetensors"))
  }

  @Test("Threads and spilling do not change a byte", arguments: ["llama", "mixtral"])
  func isDeterministic(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)/model.safetensors")
    let tokens = randomTokens(480, below: 36)
    let first = try contents(try convert(source, to: "a", workers: 1, tokens: tokens).output)
    #expect(try contents(try convert(source, to: "b", workers: 2, tokens: tokens).output) == first)
    #expect(try contents(try convert(source, to: "c", tokens: tokens, memoryLimit: 0).output) == first)
  }

  @Test("Groups in activation order are found again by the stored index", arguments: ["llama", "mixtral-fused"])
  func groupsInActivationOrder(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)/model.safetensors")
    let (outcomes, output) = try convert(source, to: "out", tokens: randomTokens(640, below: 36)) { recipe in
      recipe.options.groupOrder = .activation
    }
    let ratios = outcomes.compactMap { $0.heldOut?.ratio }
    #expect(ratios.count { $0 < 1 } * 10 >= ratios.count * 7, "\(ratios)")
    try requireRecordedErrors(output, source)
    let packed = try PackedCheckpoint(output)
    var workspace = PackedCheckpoint.Workspace()
    for record in packed.manifest.records where record.encoding != nil {
      let index = try #require(packed.groupIndex(of: record))
      #expect(index != index.sorted())
      // A part that begins within a row decodes to the same as the whole.
      var (whole, part) = ([Float](), [Float]())
      try packed.decode(record, 0..<record.elementCount, into: &whole, using: &workspace)
      let range = 8..<min(record.elementCount, 8 + 3 * (record.shape.last ?? 1))
      try packed.decode(record, range, into: &part, using: &workspace)
      #expect(part == Array(whole[range]))
    }
    // An index that names a group that is not there.
    let record = try #require(packed.manifest.records.first { $0.encoding != nil })
    let member = try #require(packed.checkpoint["\(record.name).group_index"])
    let file = member.file.path
    var bytes = try readWhole(file)
    let place = member.entry.bytes.lowerBound
    bytes[place + 3] = 0x40
    try FileManager.default.removeItem(atPath: file.string)
    try Data(bytes).write(to: URL(fileURLWithPath: file.string))
    let error = #expect(throws: CheckpointError.self) { _ = try PackedCheckpoint(output) }
    #expect(error?.description.contains("a group's number, below") ?? false, "\(error?.description ?? "")")
  }

  @Test func itBeatsRoundingToNearestOnATrainedModel() throws {
    let tiny = Fixtures.path("tiny-llama")
    let tokenizer = try Tokenizer(folder: tiny)
    let text = try String(decoding: readWhole(Fixtures.path("text/tiny-eval.txt")), as: UTF8.self)
    let ids = tokenizer.encode(text, addSpecialTokens: false)
    let half = ids.count / 2 / 128 * 128
    func divergence(_ output: FilePath) throws -> Double {
      let options = Evaluator.Options(workers: 2, memoryLimit: 1 << 30, spillFolder: folder.path)
      let windows = TextWindows(Array(ids[half...]), length: 128, stride: 128)
      let found = try Evaluator(Model(output), against: Model(tiny), options).run(windows) { _ in true }
      return try #require(found.comparison).divergence
    }
    func run(_ name: String, _ change: @escaping (inout Recipe) -> Void) throws -> Double {
      try divergence(
        convert(tiny, to: name, tokens: Array(ids[..<half]), length: 128) { recipe in
          recipe.options.granularity = .group(64)
          change(&recipe)
        }.output)
    }
    let full = try run("full") { _ in }
    let plain = try run("plain") { $0.calibration.correction = OutputCorrection.none }
    var recipe = Recipe()
    recipe.options.method = .absmax
    recipe.options.bits = 3
    recipe.options.granularity = .group(64)
    let checkpoint = try Checkpoint(tiny)
    let target = try OutputFolder(folder.appending("rtn"), source: checkpoint.folder, overwrite: false)
    try Converter(plan: Plan(converting: checkpoint, recipe: recipe), toolVersion: "test", workers: 2)
      .run(into: target) { _ in true }
    let rounded = try divergence(folder.appending("rtn"))
    #expect(plain < 0.6 * rounded && full < plain, "\(full) \(plain) \(rounded)")
  }
}
