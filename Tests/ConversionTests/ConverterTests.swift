import Checkpoints
import Conversion
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

/// Converts a source as the command does; with `stopAt` it is interrupted once that many bytes have been read.
func convert(
  _ source: FilePath, to output: FilePath, workers: Int = 2, overwrite: Bool = false,
  stopAt: Int = .max, _ change: (inout Recipe) throws -> Void = { _ in }
) throws -> Plan {
  var recipe = Recipe()
  try change(&recipe)
  let checkpoint = try Checkpoint(source)
  let nonFinite =
    recipe.nonFinite == .keep ? try NonFiniteScan(checkpoint, recipe: recipe).run(workers: 2) { _ in true } : []
  let plan = try Plan(converting: checkpoint, recipe: recipe, nonFinite: nonFinite)
  let folder = try OutputFolder(output, source: checkpoint.folder, overwrite: overwrite)
  try Converter(plan: plan, toolVersion: "test", workers: workers).run(into: folder) { $0.done < stopAt }
  return plan
}

func report(_ packed: FilePath, against source: FilePath, workers: Int = 2) throws -> ModelReport {
  try Measurement(packed: packed, source: try Checkpoint(source)).run(sampling: .all, workers: workers) { _ in true }
}

/// The errors that a manifest records are those of what is read back.
func requireRecordedErrors(_ packed: FilePath, _ source: FilePath) throws {
  let records = try PackedCheckpoint(packed).manifest.records.filter(\.fate.isQuantized)
  #expect(!records.isEmpty)
  #expect(records.allSatisfy { ($0.loss?.decoded ?? 0) > 0 && ($0.loss?.error == 0) == $0.isFolded })
  #expect(try DecodedCheck(packed, against: Checkpoint(source), workers: 2).run { _ in true } == [])
}

/// Every file of a folder.
func contents(_ folder: FilePath) throws -> [String: [UInt8]] {
  let names = try FileManager.default.contentsOfDirectory(atPath: folder.string)
  return try Dictionary(uniqueKeysWithValues: names.map { ($0, try readWhole(folder.appending($0))) })
}

@Suite struct ConverterTests {
  let tiny = Fixtures.path("tiny-llama")
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  static let methods: [(String, @Sendable (inout SchemeOptions) -> Void)] = [
    ("nf4", { _ in }), ("nf4 double", { $0.doubleQuantization = true }), ("absmax", { $0.method = .absmax }),
    (
      "absmax tensor mse",
      {
        $0.method = .absmax
        $0.bits = 4
        $0.granularity = .tensor
        $0.scaleSearch = .mse
      }
    ),
    (
      "zero-point 3",
      {
        $0.method = .zeroPoint
        $0.bits = 3
        $0.granularity = .group(100)
      }
    ), ("hqq", { $0.method = .hqq }),
  ]

  /// The bytes of the folder are the same for any number of threads and from run to run, and the plan knows their number.
  @Test(arguments: methods.indices)
  func outputIsIdenticalForAnyNumberOfThreads(row: Int) throws {
    var first: [String: [UInt8]]?
    for workers in [1, 2, 4, 7] {
      let output = folder.appending("out-\(workers)")
      let plan = try convert(tiny, to: output, workers: workers) { Self.methods[row].1(&$0.options) }
      let files = try contents(output)
      #expect(files.values.reduce(0) { $0 + $1.count } == plan.outputByteCount(toolVersion: "test"))
      if let first { #expect(files == first, "\(workers) threads") } else { first = files }
    }
  }

  @Test func everyTensorIsInOneBucketAndSizesAddUp() throws {
    _ = try convert(tiny, to: folder.appending("out"))
    let source = try Checkpoint(tiny)
    let report = try report(folder.appending("out"), against: tiny)
    #expect(Set(report.tensors.map(\.name)) == Set(source.tensors.map(\.name)))
    #expect(report.tensors.count == source.tensors.count)
    #expect(report.quantized.count == 21)
    #expect(report.altered.isEmpty)
    #expect(
      report.tensors.reduce(0) { $0 + $1.storedByteCount } + report.headerBytes + report.codebookBytes
        == report.storedFileBytes)
    let shards = try contents(folder.appending("out")).filter { $0.key.hasSuffix(".safetensors") }
    #expect(shards.values.reduce(0) { $0 + $1.count } == report.storedFileBytes)
    for tensor in report.kept { #expect(tensor.storedByteCount == tensor.sourceByteCount) }
    #expect(report.kept.contains { $0.name == "lm_head.weight" } && report.kept.contains { $0.name.contains("norm") })
  }

  @Test func unpackingGivesTheMeasuredWeightsInTheSourcesTypes() throws {
    _ = try convert(tiny, to: folder.appending("out")) { $0.options.doubleQuantization = true }
    let unpacker = try Unpacker(folder.appending("out"), workers: 2)
    let dense = try OutputFolder(folder.appending("dense"), source: unpacker.source, overwrite: false)
    _ = try unpacker.run(into: dense) { _ in true }
    let source = try Checkpoint(tiny)
    let result = try Checkpoint(folder.appending("dense"))
    let packed = try PackedCheckpoint(folder.appending("out"))
    #expect(result.tensors.map(\.name).sorted() == source.tensors.map(\.name).sorted())
    for tensor in source.tensors {
      let unpacked = try #require(result[tensor.name])
      #expect(unpacked.entry.type == tensor.entry.type && unpacked.entry.shape == tensor.entry.shape)
      let record = try #require(packed[tensor.name])
      if record.encoding == nil {
        #expect(try allBytes(unpacked) == allBytes(tensor))
      } else {
        var values: [Float] = []
        var workspace = PackedCheckpoint.Workspace()
        try packed.decode(record, 0..<record.elementCount, into: &values, using: &workspace)
        #expect(try allValues(unpacked) == values.map { rounded($0, to: tensor.entry.type) })
      }
    }
    // Everything else is as it was: the configuration by value, other files to the byte.
    #expect(result.configuration == source.configuration)
    #expect(try readWhole(tiny.appending("tokenizer.json")) == readWhole(folder.path.pushing("dense/tokenizer.json")))
  }

  @Test func theConfigurationStatesTheQuantizationAndKeepsItsKeys() throws {
    _ = try convert(tiny, to: folder.appending("out"))
    let before = try #require(try Checkpoint(tiny).configuration?.object)
    let after = try #require(try Checkpoint(folder.appending("out")).configuration?.object)
    for (key, value) in before { #expect(after[key] == value) }
    #expect(after["quantization_config"]?["quant_method"]?.string == "convert-model-packed")
    #expect(after["quantization_config"]?["method"]?.string == "nf4")
  }

  @Test func patternsChooseTensors() throws {
    _ = try convert(tiny, to: folder.appending("out")) { recipe in
      recipe.include = ["lm_head.weight"]
      recipe.exclude = ["model.layers.0.*"]
      var options = SchemeOptions()
      options.method = .absmax
      options.bits = 8
      recipe.overrides = [Recipe.Override(pattern: "*.down_proj.weight", options: options)]
    }
    let packed = try PackedCheckpoint(folder.appending("out"))
    #expect(packed["lm_head.weight"]?.encoding?.label == "nf4 b64 f32")
    #expect(packed["model.layers.0.mlp.up_proj.weight"]?.fate == .kept(reason: "excluded by 'model.layers.0.*'"))
    #expect(packed["model.layers.1.mlp.down_proj.weight"]?.encoding?.label == "int8 row f16")
    #expect(packed["model.layers.1.mlp.up_proj.weight"]?.encoding?.label == "nf4 b64 f32")
    let error = #expect(throws: RecipeError.self) {
      try convert(tiny, to: folder.appending("other")) { $0.exclude = ["*.no_such_proj.*"] }
    }
    #expect(error == .unmatched(["*.no_such_proj.*"]))
  }

  @Test func aChangedByteIsFound() throws {
    let output = folder.appending("out")
    _ = try convert(tiny, to: output)
    func verify() throws -> [String] { try Verification(output, workers: 2).run { _ in true }.damaged }
    #expect(try verify() == [])
    let packed = try PackedCheckpoint(output)
    let codes = try #require(packed.checkpoint["model.layers.1.self_attn.q_proj.weight.codes"])
    let norm = try #require(packed.checkpoint["model.norm.weight"])
    for tensor in [codes, norm] {
      let file = try FileDescriptor.open(tensor.file.path, .readWrite)
      var byte: [UInt8] = [0]
      _ = try file.readFully(at: tensor.entry.bytes.lowerBound, count: 1, into: &byte)
      try file.writeFully([byte[0] ^ 1], count: 1, at: tensor.entry.bytes.lowerBound)
      try file.close()
    }
    #expect(try verify() == ["model.layers.1.self_attn.q_proj.weight.codes", "model.norm.weight"])
    #expect(try report(output, against: tiny).altered.map(\.name) == ["model.norm.weight"])
  }
}
