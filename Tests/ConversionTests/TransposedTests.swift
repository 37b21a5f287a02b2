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

/// Weights that the checkpoint stores `[inputs, outputs]` are quantized as their transposes, and come back as they were.
@Suite struct TransposedTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private static let weights: [(name: String, shape: [Int])] = [
    ("h.0.attn.c_attn.weight", [64, 96]), ("h.0.mlp.c_proj.weight", [128, 64]),
  ]
  private static let stack = (name: "layers.0.experts.down_proj", shape: [3, 16, 24])

  private static func exchanged(_ values: [Float], _ shape: [Int]) -> [Float] {
    let (rows, columns) = (shape[shape.count - 2], shape[shape.count - 1])
    return stride(from: 0, to: values.count, by: rows * columns).flatMap { first in
      (0..<columns).flatMap { column in (0..<rows).map { values[first + $0 * columns + column] } }
    }
  }

  /// A folder with weights as a model type has them, and one without configuration with their transposes.
  private func sources(_ modelType: String = "gpt2") throws -> (stored: FilePath, turned: FilePath) {
    var generator = SplitMix64(seed: 5)
    let wanted = modelType == "gpt2" ? Self.weights : [Self.stack]
    let values = wanted.map { generator.weights($0.shape.reduce(1, *)) }
    for (name, turns) in [("stored", false), ("turned", true)] {
      try FileManager.default.createDirectory(
        atPath: folder.appending(name).string, withIntermediateDirectories: true)
      let tensors = zip(wanted, values).map { weight, values in
        SampleTensor(
          weight.name, turns ? exchangingLastTwo(weight.shape) : weight.shape,
          turns ? Self.exchanged(values, weight.shape) : values)
      }
      try SampleTensor.write(tensors, to: folder.appending(name).appending("model.safetensors"))
      if !turns { try folder.write(Array(#"{"model_type": "\#(modelType)"}"#.utf8), to: "stored/config.json") }
    }
    return (folder.appending("stored"), folder.appending("turned"))
  }

  @discardableResult
  private func convert(
    _ source: FilePath, to name: String, statistics: [String: FeatureStatistics] = [:], workers: Int = 2,
    _ change: (inout Recipe) -> Void
  ) throws -> FilePath {
    var recipe = Recipe()
    change(&recipe)
    let checkpoint = try Checkpoint(source)
    let plan = try Plan(converting: checkpoint, recipe: recipe, statistics: statistics)
    let target = try OutputFolder(folder.appending(name), source: checkpoint.folder, overwrite: false)
    try Converter(plan: plan, toolVersion: "test", workers: workers).run(into: target) { _ in true }
    return folder.appending(name)
  }

  private static let methods: [(Quantization.Method, Int?, Granularity?)] = [
    (.absmax, 8, .row), (.absmax, 4, .tensor), (.zeroPoint, 3, .group(32)), (.nf4, nil, nil), (.hqq, 4, .group(64)),
  ]

  @Test("The members are those of a checkpoint that stores the transpose", arguments: methods)
  func isQuantizedAsItsTranspose(_ method: Quantization.Method, _ bits: Int?, _ granularity: Granularity?) throws {
    for modelType in ["gpt2", "llama4_text"] {
      let (stored, turned) = try sources(modelType)
      let outputs = try [(stored, "a\(modelType)"), (turned, "b\(modelType)")].map { source, name in
        try PackedCheckpoint(
          convert(source, to: name) { recipe in
            recipe.options.method = method
            recipe.options.bits = bits
            recipe.options.granularity = granularity
            recipe.include = ["*"]
          })
      }
      let wanted = modelType == "gpt2" ? Self.weights : [Self.stack]
      #expect(outputs.map(\.manifest.version) == [2, 1])
      for (name, shape) in wanted {
        let records = try outputs.map { try #require($0[name]) }
        #expect(records[0].isTransposed && !records[1].isTransposed)
        #expect(records[0].shape == shape && records[1].shape == exchangingLastTwo(shape))
        #expect(
          records[0].encoding == records[1].encoding
            && records[0].members.map(\.sha256) == records[1].members.map(\.sha256))
        // Decoded, whole and from the middle of a row on, in the source's order.
        var workspace = PackedCheckpoint.Workspace()
        var (own, other, part): ([Float], [Float], [Float]) = ([], [], [])
        let count = shape.reduce(1, *)
        try outputs[0].decode(records[0], 0..<count, into: &own, using: &workspace)
        try outputs[1].decode(records[1], 0..<count, into: &other, using: &workspace)
        #expect(Self.exchanged(own, shape) == other)
        let range = 8 * (count / 24)..<count - 3
        try outputs[0].decode(records[0], range, into: &part, using: &workspace)
        #expect(part == Array(own[range]))
      }
      try FileManager.default.removeItem(atPath: stored.string)
      try FileManager.default.removeItem(atPath: turned.string)
    }
  }

  @Test func everyReaderGivesTheSourcesOrderBack() throws {
    let (stored, _) = try sources()
    let output = try convert(stored, to: "out") { recipe in
      recipe.options.method = .absmax
      recipe.options.bits = 8
    }
    let source = try Checkpoint(stored)
    let report = try Measurement(packed: output, source: source).run(sampling: .all, workers: 2) { _ in true }
    for tensor in report.tensors {
      guard case .quantized(_, let distortion) = tensor.outcome else {
        Issue.record("\(tensor.name) is not quantized")
        continue
      }
      #expect(distortion.relativeError < 0.01 && tensor.shape == source[tensor.name]?.entry.shape)
    }
    let dense = try OutputFolder(folder.appending("dense"), source: output, overwrite: false)
    _ = try Unpacker(output, workers: 2).run(into: dense) { _ in true }
    let unpacked = try Checkpoint(folder.appending("dense"))
    for (name, shape) in Self.weights {
      let tensor = try #require(unpacked[name])
      #expect(tensor.entry.shape == shape)
      let (values, expected) = (try allValues(tensor), try allValues(#require(source[name])))
      #expect(zip(values, expected).allSatisfy { abs($0 - $1) < 0.001 })
    }
    #expect(
      try Difference(output, folder.appending("dense"), source: stored).run(workers: 2) { _ in true }
        .tensors.allSatisfy { if case .restored = $0.outcome { true } else { false } })
    #expect(try DecodedCheck(output, workers: 2).run { _ in true }.isEmpty)
    // Places of errors, values and codes are told as the source has them.
    let (name, shape) = Self.weights[0]
    let slice = try #require(TensorSlice("3:5,7:10"))
    let found = try Inspector(output).tensor(name, against: source, slice: slice)
    let excerpt = try #require(found.excerpt)
    let values = try allValues(#require(source[name]))
    let rows = [3, 4].map { Array(values[$0 * shape[1] + 7..<$0 * shape[1] + 10]) }
    #expect(excerpt.source == rows[0] + rows[1])
    #expect(zip(excerpt.values, excerpt.source).allSatisfy { abs($0 - $1) < 0.001 } && excerpt.codes.count == 6)
    for place in found.largestErrors ?? [] {
      #expect(place.source == values[place.index[0] * shape[1] + place.index[1]])
    }
    #expect(found.codes?.groupCount == shape[1])
  }

  @Test func badPlacesAreToldAsTheSourceHasThem() throws {
    let (stored, _) = try sources()
    let tensors = try Checkpoint(stored).tensors.map { tensor in
      var values = try allValues(tensor)
      if tensor.name == Self.weights[0].name { values[5 * 96 + 7] = .nan }
      return SampleTensor(tensor.name, tensor.entry.shape, values)
    }
    try SampleTensor.write(tensors, to: stored.appending("model.safetensors"))
    let error = #expect(throws: ConversionError.self) {
      try convert(stored, to: "out") { $0.options.method = .absmax }
    }
    #expect(error?.description.contains("[5, 7]") ?? false, "\(error?.description ?? "")")
  }

  @Test(arguments: [RuntimeLayout.gptqV2, .bitsandbytes]) func layoutsHoldTheTranspose(_ layout: RuntimeLayout) throws {
    let (stored, turned) = try sources()
    let outputs = try [(stored, "a"), (turned, "b")].map { source, name in
      try convert(source, to: name) { recipe in
        recipe.layout = layout
        recipe.options.method = layout == .bitsandbytes ? .nf4 : .absmax
        if layout != .bitsandbytes { recipe.options.granularity = .group(32) }
      }
    }
    let layouts = try outputs.map { try #require(try LayoutCheckpoint(Checkpoint($0))) }
    for (name, shape) in Self.weights {
      let records = try layouts.map { try #require($0[name]) }
      #expect(records[0].shape == shape && records[0].isTransposed)
      var (own, other, bytes): ([Float], [Float], [UInt8]) = ([], [], [])
      try layouts[0].decode(records[0], 0..<shape.reduce(1, *), into: &own, bytes: &bytes)
      try layouts[1].decode(records[1], 0..<shape.reduce(1, *), into: &other, bytes: &bytes)
      #expect(Self.exchanged(own, shape) == other)
    }
    _ = try Measurement(packed: outputs[0], source: Checkpoint(stored)).run(sampling: .all, workers: 2) { _ in true }
  }

  @Test(arguments: [RuntimeLayout.packQuantized, .mlx, .intQuantized])
  func layoutsWhoseRuntimesDoNotLoadTheModelAreRefused(_ layout: RuntimeLayout) throws {
    let (stored, _) = try sources()
    let error = #expect(throws: ConversionError.self) { try convert(stored, to: "x") { $0.layout = layout } }
    let text = error?.description ?? ""
    #expect(
      text.contains("a model of type 'gpt2' cannot be written") && text.contains("--layout bitsandbytes"), "\(text)")
  }

  @Test func aManifestThatTransposesWhatCannotBeIsRefused() throws {
    let (stored, _) = try sources()
    let output = try convert(stored, to: "out") { $0.options.method = .absmax }
    let file = output.appending(PackedManifest.fileName)
    let text = String(decoding: try readWhole(file), as: UTF8.self)
    for (from, to) in [("\"version\": 2", "\"version\": 1"), ("\"version\": 2", "\"version\": 3")] {
      #expect(text.contains(from))
      try Data(text.replacing(from, with: to).utf8).write(to: URL(fileURLWithPath: file.string))
      #expect(throws: CheckpointError.self) { _ = try PackedCheckpoint(output) }
    }
  }

  /// Law: reading a run of the transpose gives the same as transposing what is read.
  @Test(arguments: [[5, 7], [2, 3, 8], [1, 9], [9, 1], [40, 3]]) func runsOfATransposeAreItsElements(_ shape: [Int])
    throws
  {
    var generator = SplitMix64(seed: 9)
    let values = generator.weights(shape.reduce(1, *))
    let path = folder.appending("t.safetensors")
    try SampleTensor.write([SampleTensor("t", shape, values)], to: path)
    let tensor = try #require(try Checkpoint(path)["t"]).transposed
    let expected = Self.exchanged(values, shape)
    var bytes: [UInt8] = []
    for start in 0..<values.count {
      for end in start...values.count {
        let count = try tensor.read(start..<end, into: &bytes)
        var found = [Float](repeating: 0, count: end - start)
        var span = found.mutableSpan
        decodeElements(bytes.span.bytes.extracting(..<count), as: .f32, into: &span)
        #expect(found == Array(expected[start..<end]))
      }
    }
  }
}
