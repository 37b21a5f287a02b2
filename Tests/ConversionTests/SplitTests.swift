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
import Tokenizers

/// LLM.int8() from checkpoint to folder and back, and models run by integer products.
@Suite struct SplitTests {
  let folder: TemporaryFolder
  private let tiny = Fixtures.path("tiny-llama")

  init() throws { folder = try TemporaryFolder() }

  /// Statistics of the linear layers of a model, as if these features had been outliers in every token.
  private func statistics(
    of model: FilePath, outliers: @escaping (LinearDescription) -> [Int]
  ) throws -> [String: FeatureStatistics] {
    var result: [String: FeatureStatistics] = [:]
    for linear in try Model(model).description.blocks.flatMap(\.linears) {
      var statistics = FeatureStatistics(dimension: linear.inputs)
      let columns = outliers(linear)
      let token = (0..<linear.inputs).map { columns.contains($0) ? Float(9) : 1 }
      statistics.add(Matrix(rows: 1, columns: linear.inputs, token), workers: 1)
      result[linear.weight] = statistics
    }
    return result
  }

  @discardableResult
  private func convert(
    _ source: FilePath, to name: String, workers: Int = 2, statistics: [String: FeatureStatistics],
    _ change: (inout Recipe) -> Void = { _ in }
  ) throws -> FilePath {
    var recipe = Recipe()
    recipe.options.method = .llmInt8
    change(&recipe)
    let checkpoint = try Checkpoint(source)
    let plan = try Plan(converting: checkpoint, recipe: recipe, statistics: statistics)
    let output = folder.appending(name)
    let target = try OutputFolder(output, source: checkpoint.folder, overwrite: false)
    try Converter(plan: plan, toolVersion: "test", workers: workers).run(into: target) { _ in true }
    return output
  }

  private func evaluate(
    _ path: FilePath, tokens: Int = 2048, text: FilePath? = nil, workers: Int = 2, _ arithmetic: LinearArithmetic
  ) throws -> Double {
    let text = text ?? Fixtures.path("text/tiny-eval.txt")
    let ids = try Tokenizer(folder: path)
      .encode(String(decoding: readWhole(text), as: UTF8.self), addSpecialTokens: false)
    let options = Evaluator.Options(
      workers: workers, memoryLimit: 1 << 30, spillFolder: folder.path, arithmetic: arithmetic)
    return try Evaluator(Model(path), against: nil, options)
      .run(TextWindows(Array(ids.prefix(tokens)), length: 256, stride: 256)) { _ in true }.perplexity
  }

  private func decoded(_ packed: PackedCheckpoint, _ name: String) throws -> [Float] {
    let record = try #require(packed[name])
    var values: [Float] = []
    var workspace = PackedCheckpoint.Workspace()
    try packed.decode(record, 0..<record.elementCount, into: &values, using: &workspace)
    // Decoding by parts, which begin within rows, gives the same.
    var parts: [Float] = []
    for start in stride(from: 0, to: record.elementCount, by: 1000) {
      var part: [Float] = []
      try packed.decode(record, start..<min(start + 1000, record.elementCount), into: &part, using: &workspace)
      parts += part
    }
    #expect(parts == values)
    return values
  }

  /// Outlier columns come back as they were, others as rows rounded without them; the same bytes for any threads.
  @Test func outlierColumnsComeBackAsTheyWere() throws {
    let known = try statistics(of: tiny) { [0, 5, $0.inputs - 1] }
    let output = try convert(tiny, to: "a", statistics: known)
    #expect(try contents(convert(tiny, to: "b", workers: 1, statistics: known)) == contents(output))
    try requireRecordedErrors(output, tiny)
    let (source, packed) = (try Checkpoint(tiny), try PackedCheckpoint(output))
    var workspace = PackedCheckpoint.Workspace()
    for name in known.keys.sorted() {
      let original = try allValues(try #require(source[name]))
      let found = try decoded(packed, name)
      let record = try #require(packed[name])
      let width = try #require(record.shape.last)
      let columns = packed.outlierColumns(of: record)
      #expect(columns == [0, 5, Int32(width - 1)])
      let type = try #require(record.encoding?.outliers?.type)
      var (codes, scales, outliers): ([Float], [Float], [Float]) = ([], [], [])
      let rows = record.elementCount / width
      try packed.decodeIntegers(
        record, 0..<rows, into: &codes, scales: &scales, outliers: &outliers, using: &workspace)
      for row in 0..<rows {
        for column in 0..<width {
          let element = row * width + column
          if let position = columns.firstIndex(of: Int32(column)) {
            #expect(found[element] == rounded(original[element], to: type))
            #expect(codes[element] == 0 && outliers[row * 3 + position] == found[element])
          } else {
            #expect(found[element] == scales[row] * codes[element])
            #expect(abs(found[element] - original[element]) <= 0.57 * scales[row])
          }
        }
      }
    }
    // What reports and `unpack` see.
    #expect(try report(output, against: tiny).tensors.count == source.tensors.count)
    let label = try Inspector(output).inspection().tensors.map(\.format)
    #expect(label.contains { $0.hasPrefix("int8 row f16 + 3 columns") })
  }

  @Test func withoutOutliersTheBytesAreThoseOfAbsmax() throws {
    let output = try convert(tiny, to: "split", statistics: try statistics(of: tiny) { _ in [] })
    let absmax = try convert(tiny, to: "absmax", statistics: [:]) { $0.options.method = .absmax }
    func weights(_ path: FilePath) throws -> [String: [UInt8]] {
      try contents(path).filter { $0.key.hasSuffix(".safetensors") }
    }
    #expect(try weights(output) == weights(absmax))
  }

  @Test func whatNothingIsKnownOfIsRefused() throws {
    let none = #expect(throws: ConversionError.self) { try convert(tiny, to: "out", statistics: [:]) }
    #expect(none == .noStatistics("llm-int8"))
    #expect(none?.description.contains("nothing is known of the inputs of any layer") ?? false)
    let other = try statistics(of: tiny) { _ in [] }.mapValues { _ in FeatureStatistics(dimension: 3) }
    let error = #expect(throws: ConversionError.self) { try convert(tiny, to: "out", statistics: other) }
    #expect(error?.description.contains("its evidence is of 3") ?? false)
  }

  @Test func aWeightBeyondTheTypeOfOutliersIsRefusedByPlace() throws {
    var values = [Float](repeating: 0.1, count: 8 * 16)
    values[35] = 1e6
    let path = folder.appending("model.safetensors")
    try SampleTensor.write([SampleTensor("layers.0.proj.weight", [8, 16], values)], to: path)
    var known = FeatureStatistics(dimension: 16)
    known.add(Matrix(rows: 1, columns: 16, (0..<16).map { $0 == 3 ? 8 : 0 }), workers: 1)
    let statistics = ["layers.0.proj.weight": known]
    let error = #expect(throws: ConversionError.self) { try convert(path, to: "out", statistics: statistics) }
    #expect(error?.description.contains("found 1000000.0 at [2, 3], in an outlier column") ?? false, "\(error as Any)")
    try convert(path, to: "out", statistics: statistics) { $0.options.scaleType = .bf16 }
  }

  /// Whatever is wrong with outlier columns, the folder is refused with an error that says so, never a trap.
  @Test func malformedOutlierColumnsAreRefused() throws {
    let output = try convert(tiny, to: "out", statistics: try statistics(of: tiny) { _ in [2, 5] })
    let name = "model.layers.0.self_attn.q_proj.weight.outlier_columns"
    let tensor = try #require(try Checkpoint(output)[name])
    let file = tensor.file.path
    let weights = try readWhole(file)
    let start = tensor.entry.bytes.lowerBound
    func bytes(_ columns: [Int32]) -> [UInt8] {
      columns.flatMap { column in (0..<4).map { UInt8(truncatingIfNeeded: column >> Int32(8 * $0)) } }
    }
    #expect(Array(weights[start..<start + 8]) == bytes([2, 5]))
    for columns in [[5, 2], [2, 2], [-1, 5], [2, 1 << 20], [2, .max], [.min, 5]] as [[Int32]] {
      var changed = weights
      changed.replaceSubrange(start..<start + 8, with: bytes(columns))
      try Data(changed).write(to: URL(fileURLWithPath: file.string))
      let error = #expect(throws: CheckpointError.self) { try PackedCheckpoint(output) }
      #expect(error?.description.contains("rising column numbers below") ?? false, "\(error as Any)")
    }
    try Data(weights).write(to: URL(fileURLWithPath: file.string))
    let manifest = output.appending(PackedManifest.fileName)
    let text = try readJSONObject(manifest).text()
    for (from, to) in [
      (#""outlier_columns":2"#, #""outlier_columns":0"#), (#""outlier_columns":2"#, #""outlier_columns":-2"#),
      (#""outlier_columns":2"#, #""outlier_columns":3"#), (#""outlier_columns":2"#, #""outlier_columns":1000000"#),
      (#""outlier_columns":2"#, #""outlier_columns":"2""#), (#""outlier_columns":2,"#, ""),
      (#""outlier_type":"BF16""#, #""outlier_type":"F32""#), (#""outlier_type":"BF16""#, #""outlier_type":"F16""#),
      (#""role":"outlier_columns""#, #""role":"outlier_weights""#),
    ] {
      let range = try #require(text.range(of: from), "\(from)")
      try Data(text.replacingCharacters(in: range, with: to).utf8).write(to: URL(fileURLWithPath: manifest.string))
      #expect(throws: CheckpointError.self, "\(from) \(to)") { try PackedCheckpoint(output) }
    }
    try Data(text.utf8).write(to: URL(fileURLWithPath: manifest.string))
    _ = try PackedCheckpoint(output)
  }

  /// Integer products give what float32 gives, but for the rounding of the inputs; the same for any number of threads.
  @Test func modelsRunByIntegerProducts() throws {
    let split = try convert(tiny, to: "split", statistics: try statistics(of: tiny) { _ in [1, 7] })
    let plain = try evaluate(split, .float32)
    let integers = try evaluate(split, .integers(splitsOutliers: true))
    #expect(integers != plain && abs(integers / plain - 1) < 0.01, "\(integers) \(plain)")
    #expect(try evaluate(split, workers: 1, .integers(splitsOutliers: true)) == integers)
    let unsplit = try evaluate(split, .integers(splitsOutliers: false))
    #expect(unsplit != integers && abs(unsplit / plain - 1) < 0.02, "\(unsplit) \(plain)")
    // Layers of other forms run in float32 beside them, also where they share an input.
    let mixed = try convert(tiny, to: "mixed", statistics: [:]) {
      $0.options.method = .absmax
      var other = SchemeOptions()
      other.method = .nf4
      $0.overrides = [Recipe.Override(pattern: "*k_proj.weight", options: other)]
    }
    #expect(try Model(mixed).integerLayers < (try Model(split).integerLayers))
    #expect(abs(try evaluate(mixed, .integers(splitsOutliers: true)) / evaluate(mixed, .float32) - 1) < 0.01)
  }

  @Test func aModelWithoutIntegersIsRefused() throws {
    for method in [Quantization.Method.nf4, .zeroPoint] {
      let output = try convert(tiny, to: method.rawValue, statistics: [:]) { $0.options.method = method }
      let error = #expect(throws: ModelError.self) { try evaluate(output, .integers(splitsOutliers: true)) }
      #expect(error?.description.contains("no linear layer is stored as 8-bit integers") ?? false)
    }
    #expect(throws: ModelError.self) { try evaluate(tiny, .integers(splitsOutliers: true)) }
  }

  /// Every architecture runs by integers, fused, stacked and transposed layers too.
  @Test(arguments: ["llama", "phi3", "gpt2", "gpt-neox", "opt-post-norm", "mixtral-fused", "gemma2"])
  func architecturesRunByIntegers(_ name: String) throws {
    let source = Fixtures.path("architectures/\(name)")
    let output = try convert(source, to: "out", statistics: try statistics(of: source) { _ in [3] })
    let model = try Model(output)
    #expect(model.integerLayers > 0)
    let tokens = (0..<20).map { Int32($0 * 7 % 36) }
    let batch = TokenBatch(lengths: [20])
    let exact = try Forward(model, workers: 2).lastHiddenStates(tokens, batch).values()
    let found = try Forward(model, workers: 2, arithmetic: .integers(splitsOutliers: true))
      .lastHiddenStates(tokens, batch).values()
    let error = zip(found, exact).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
    let size = exact.reduce(0.0) { $0 + pow(Double($1), 2) }
    #expect(error > 0 && (error / size).squareRoot() < 0.05, "\((error / size).squareRoot())")
  }

  /// The bar: on a model with outlier features, splitting turns a visible loss into less than 0.1 %.
  @Test(.enabled(if: Fixtures.shared("models") != nil, "the trained models are not on this machine"))
  func splittingSavesAModelWithOutliers() throws {
    let source = try #require(Fixtures.shared("models/stories5M-outliers"))
    let model = try Model(source)
    let text = try String(decoding: readWhole(#require(Fixtures.shared("text/calibration.txt"))), as: UTF8.self)
    let ids = try Tokenizer(folder: source).encode(String(text.prefix(40_000)), addSpecialTokens: false)
    let windows = (0..<16).map { Array(ids[$0 * 256..<($0 + 1) * 256]) }
    let known = try BlockCalibration(
      model, windows: windows, heldOut: [],
      BlockCalibration.Options(workers: 2, memoryLimit: 1 << 30, spillFolder: folder.path)
    ).collect(EvidenceOptions()) { _ in true }.columnStatistics
    let output = try convert(source, to: "out", statistics: known)
    let packed = try PackedCheckpoint(output)
    // The features that were planted.
    #expect(packed.outlierColumns(of: try #require(packed["model.layers.2.mlp.up_proj.weight"])) == [1, 23, 139, 175])
    let eval = try #require(Fixtures.shared("text/eval.txt"))
    func perplexity(_ path: FilePath, _ arithmetic: LinearArithmetic) throws -> Double {
      try evaluate(path, tokens: 16_384, text: eval, arithmetic)
    }
    let full = try perplexity(source, .float32)
    let split = try perplexity(output, .integers(splitsOutliers: true)) / full - 1
    let unsplit = try perplexity(output, .integers(splitsOutliers: false)) / full - 1
    #expect(split < 0.001 && unsplit > 0.05, "\(split) \(unsplit)")
  }
}
