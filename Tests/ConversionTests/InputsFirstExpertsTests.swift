import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

/// Llama 4's experts: in one tensor, inputs first, gate and up side by side; in layouts one by one, outputs first.
@Suite struct InputsFirstExpertsTests {
  let folder: TemporaryFolder
  let fused: FilePath
  /// The same weights as they come out.
  let single: FilePath

  private static let (experts, inputs, width) = (3, 64, 96)
  private static let base = "model.layers.0.feed_forward."

  init() throws {
    folder = try TemporaryFolder()
    (fused, single) = (folder.appending("fused"), folder.appending("single"))
    var generator = SplitMix64(seed: 6)
    let (experts, inputs, width) = (Self.experts, Self.inputs, Self.width)
    // [experts, inputs, 2 · width] and [experts, width, inputs]
    let gateUp = generator.weights(experts * inputs * 2 * width)
    let down = generator.weights(experts * width * inputs)
    let others = [
      SampleTensor(Self.base + "router.weight", [experts, inputs], generator.weights(experts * inputs)),
      SampleTensor("model.layers.0.self_attn.o_proj.weight", [inputs, inputs], generator.weights(inputs * inputs)),
    ]
    var singles = others
    for expert in 0..<experts {
      for (name, first) in [("gate_proj", 0), ("up_proj", width)] {
        let values = (0..<width).flatMap { output in
          (0..<inputs).map { gateUp[(expert * inputs + $0) * 2 * width + first + output] }
        }
        singles.append(SampleTensor("\(Self.base)experts.\(expert).\(name).weight", [width, inputs], values))
      }
      let values = (0..<inputs).flatMap { output in
        (0..<width).map { down[(expert * width + $0) * inputs + output] }
      }
      singles.append(SampleTensor("\(Self.base)experts.\(expert).down_proj.weight", [inputs, width], values))
    }
    let stacks = [
      SampleTensor(Self.base + "experts.gate_up_proj", [experts, inputs, 2 * width], gateUp),
      SampleTensor(Self.base + "experts.down_proj", [experts, width, inputs], down),
    ]
    for (name, tensors) in [("fused", stacks + others), ("single", singles)] {
      try FileManager.default.createDirectory(
        atPath: folder.appending(name).string, withIntermediateDirectories: true)
      try SampleTensor.write(tensors, to: folder.appending(name).appending("model.safetensors"))
      try folder.write(Array(#"{"model_type": "llama4_text"}"#.utf8), to: "\(name)/config.json")
    }
  }

  private func convert(_ source: Checkpoint, to name: String, _ change: (inout Recipe) -> Void) throws -> FilePath {
    var recipe = Recipe()
    recipe.options.granularity = .group(32)
    change(&recipe)
    let target = try OutputFolder(folder.appending(name), source: source.folder, overwrite: false)
    try Converter(plan: Plan(converting: source, recipe: recipe), toolVersion: "test", workers: 2)
      .run(into: target) { _ in true }
    return folder.appending(name)
  }

  @Test func areSeenOneByOne() throws {
    let (seen, expected) = (try Checkpoint(fused).unfusingExperts, try Checkpoint(single))
    #expect(Set(seen.tensors.map(\.name)) == Set(expected.tensors.map(\.name)))
    for tensor in expected.tensors {
      let own = try #require(seen[tensor.name])
      #expect(own.entry.shape == tensor.entry.shape && own.stored.entry.shape == tensor.entry.shape)
      let values = try allValues(tensor)
      #expect(try allValues(own) == values, "\(tensor.name)")
      // From the middle of a row on.
      let range = 37..<min(1000, values.count)
      var (bytes, part): ([UInt8], [Float]) = ([], [Float](repeating: 0, count: range.count))
      #expect(try own.read(range, into: &bytes) == range.count * own.entry.type.bitWidth / 8)
      var target = part.mutableSpan
      decodeElements(bytes.span.bytes, as: own.entry.type, into: &target)
      #expect(part == Array(values[range]), "\(tensor.name)")
    }
  }

  @Test(arguments: [RuntimeLayout.packQuantized, .gptq, .awq, .bitsandbytes, .floatQuantizedWeights])
  func theirLayoutsAreThoseOfSingleExperts(_ layout: RuntimeLayout) throws {
    let outputs = try [fused, single].enumerated().map { index, path in
      try convert(Checkpoint(path).unfusingExperts, to: "\(index)") { recipe in
        recipe.layout = layout
        switch layout {
        case .floatQuantizedWeights: recipe.options.granularity = nil
        case .bitsandbytes: (recipe.options.method, recipe.options.granularity) = (.nf4, nil)
        default: (recipe.options.method, recipe.options.bits) = (.absmax, 4)
        }
        // One that is left alone is turned, too.
        recipe.exclude = ["*experts.1.up_proj.weight", "*experts.1.gate_proj.weight"]
      }
    }
    let folders = try outputs.map { try #require(try LayoutCheckpoint(Checkpoint($0))) }
    #expect(folders[0].records.count == 11)
    for record in folders[1].records {
      let own = try #require(folders[0][record.name])
      #expect(own.shape == record.shape && own.label == record.label)
      var (values, expected, bytes): ([Float], [Float], [UInt8]) = ([], [], [])
      try folders[0].decode(own, 0..<own.elementCount, into: &values, bytes: &bytes)
      try folders[1].decode(record, 0..<own.elementCount, into: &expected, bytes: &bytes)
      #expect(values == expected, "\(record.name)")
    }
    // Beside the fused source each is told by its name, and that which was left alone is the same.
    let difference = try Difference(outputs[0], fused, source: fused).run(workers: 2) { _ in true }
    #expect(difference.tensors.count == 11)
    let report = try Measurement(packed: outputs[0], source: Checkpoint(fused)).run(sampling: .all, workers: 2) { _ in
      true
    }
    for tensor in report.tensors {
      switch tensor.outcome {
      case .quantized(_, let distortion): #expect(distortion.relativeError < 0.2, "\(tensor.name)")
      case .kept(_, let isIdentical): #expect(isIdentical, "\(tensor.name)")
      case .folded: Issue.record("\(tensor.name) is folded")
      }
    }
  }

  @Test func bitsThatAreNotFiniteKeepTheirExpert() throws {
    var recipe = Recipe()
    recipe.layout = .packQuantized
    let seen = try Checkpoint(fused).unfusingExperts
    #expect(try NonFiniteScan(seen, recipe: recipe).run(workers: 1) { _ in true }.isEmpty)
    let changed = try Checkpoint(fused).tensors.map { tensor in
      var values = try allValues(tensor)
      // Expert 2, input 5, up's output 7.
      if tensor.name.hasSuffix("gate_up_proj") {
        values[(2 * Self.inputs + 5) * 2 * Self.width + Self.width + 7] = .nan
      }
      return SampleTensor(tensor.name, tensor.entry.shape, values)
    }
    try SampleTensor.write(changed, to: fused.appending("model.safetensors"))
    let found = try NonFiniteScan(Checkpoint(fused).unfusingExperts, recipe: recipe).run(workers: 1) { _ in true }
    #expect(found == [Self.base + "experts.2.up_proj.weight"])
  }

  @Test(arguments: [RuntimeLayout.mlx, .mlxMXFP4]) func clientsThatDoNotTakeThemAreNamed(_ layout: RuntimeLayout) throws
  {
    let reason = try #require(layout.obstacle(modelType: "llama4"))
    #expect(reason.contains("--layout pack-quantized"))
    // Nor does `check` send anybody there.
    let output = try convert(Checkpoint(fused).unfusingExperts, to: "out") {
      $0.layout = .gptq
      ($0.options.method, $0.options.bits) = (.absmax, 4)
    }
    let findings = try RuntimeCheck(output, runtime: .mlx).findings().filter(\.isFatal)
    #expect(
      findings.map(\.remedy) == [
        "no layout that it reads holds a model of type 'llama4_text': unpack it, or take another runtime"
      ])
  }
}
