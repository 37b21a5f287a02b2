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

@Suite struct DifferenceTests {
  let folder: TemporaryFolder
  let tiny = Fixtures.path("tiny-llama")

  init() throws { folder = try TemporaryFolder() }

  private func difference(
    _ first: FilePath, _ second: FilePath, source: FilePath? = nil, workers: Int = 2
  ) throws -> DifferenceReport {
    try Difference(first, second, source: source).run(workers: workers) { _ in true }
  }

  private func write(_ tensors: [SampleTensor], to name: String) throws -> FilePath {
    let path = folder.appending(name)
    try SampleTensor.write(tensors, to: path)
    return path
  }

  @Test func tensorsThatWereAddedRemovedReshapedRetypedOrChangedAreTold() throws {
    let first = try write(
      [
        SampleTensor("gone", [2], [1, 2]), SampleTensor("same", [2], [1, 2]), SampleTensor("shape", [4], [1, 2, 3, 4]),
        SampleTensor("type", [2], [1, 0.5]), SampleTensor("w.2.weight", [2, 2], [1, 2, 3, 4]),
        SampleTensor("w.10.weight", [2, 2], [1, 2, 3, 4]),
      ], to: "a.safetensors")
    let second = try write(
      [
        SampleTensor("new", [2], [1, 2]), SampleTensor("same", [2], [1, 2]),
        SampleTensor("shape", [2, 2], [1, 2, 3, 4]),
        SampleTensor("type", [2], [1, 0.5], as: .bf16), SampleTensor("w.2.weight", [2, 2], [1, 2, 3, 4.5]),
        SampleTensor("w.10.weight", [2, 2], [1, 2, 2, 4]),
      ], to: "b.safetensors")
    let found = try difference(first, second)
    let outcomes = Dictionary(uniqueKeysWithValues: found.tensors.map { ($0.name, $0.outcome) })
    #expect(outcomes["gone"] == .onlyInFirst && outcomes["new"] == .onlyInSecond && outcomes["same"] == .same)
    #expect(outcomes["shape"] == .reshaped && outcomes["type"] == .restored)
    // The farthest first.
    #expect(found.changed.map(\.name) == ["w.10.weight", "w.2.weight"])
    let figures = try #require(found.changed.last?.distance?.figures)
    #expect(figures.largestError == 0.5 && figures.largestErrorElement == 3)
    #expect(abs(figures.relativeError - 0.5 / 30.0.squareRoot()) < 1e-12)
    #expect(abs(try #require(found.relativeDistance) - (1.25 / 60).squareRoot()) < 1e-12)
    #expect(!found.isSame(ignoringFormat: true))
    let text = found.text(all: false)
    let whole = "7 tensors: 1 the same, 1 stored otherwise with equal values, 2 with other values, 1 of another shape,"
    #expect(text.contains(whole + " 1 only in A, 1 only in B"))
    #expect(text.contains("[1, 1]") && !text.contains("The same\n") && found.text(all: true).contains("The same\n"))
    let json = found.json(ignoringFormat: false)
    #expect(try JSONParser.parse(Array(json.text().utf8)) == json)
    #expect(json["counts"]?["other_values"] == 2 && json["same"] == false)
  }

  /// Relative distance, cosine and largest difference beside a loop in double precision, whatever the number of threads.
  @Test func distancesAreThoseOfANaiveTwin() throws {
    var random = SplitMix64(seed: 5)
    let count = 3 * 50_001
    let (source, noise, more) = (random.weights(count), random.weights(count), random.weights(count))
    let own = zip(source, noise).map { $0 + 0.1 * $1 }
    let other = zip(source, more).map { $0 + 0.05 * $1 }
    let shape = [3, 50_001]
    let paths = try [("s", source), ("a", own), ("b", other)].map { name, values in
      try write(
        [SampleTensor("w.weight", shape, values), SampleTensor("kept", [1], [1])], to: "\(name).safetensors")
    }
    func twin(_ a: [Float], _ b: [Float]) -> (relative: Double, cosine: Double) {
      let (a, b) = (a.map { Double($0) }, b.map { Double($0) })
      let product = zip(a, b).reduce(0) { $0 + $1.0 * $1.1 }
      let (aa, bb) = (a.reduce(0) { $0 + $1 * $1 }, b.reduce(0) { $0 + $1 * $1 })
      let squares = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      return ((squares / aa).squareRoot(), product / (aa * bb).squareRoot())
    }
    let found = try difference(paths[1], paths[2], source: paths[0])
    let tensor = try #require(found.tensors.first { $0.name == "w.weight" })
    let figures = try #require(tensor.distance?.figures)
    let expected = twin(own, other)
    #expect(abs(figures.relativeError / expected.relative - 1) < 1e-6)
    #expect(abs(figures.cosine - expected.cosine) < 1e-8)
    let largest = zip(own, other).map { abs($0 - $1) }
    #expect(
      figures.largestError == largest.max() && figures.largestErrorElement == largest.firstIndex(of: largest.max()!))
    let errors = try #require(tensor.toSource)
    #expect(errors.nearer == .second && found.wins(.second) == 1 && found.wins(.first) == 0)
    #expect(abs(errors.first.figures.relativeError / twin(source, own).relative - 1) < 1e-6)
    #expect(abs(try #require(found.sourceErrors).second / twin(source, other).relative - 1) < 1e-6)
    #expect(found.text(all: false).contains("A in 0 of 1 tensor, B in 1, equal in 0"))
    let alone = try difference(paths[1], paths[2], source: paths[0], workers: 1)
    #expect(alone.json(ignoringFormat: false) == found.json(ignoringFormat: false))
  }

  @Test func valuesThatAreNotFiniteAreCountedNotSummed() throws {
    let first = try write([SampleTensor("w", [4], [1, .nan, .infinity, 2])], to: "a.safetensors")
    let same = try write([SampleTensor("w", [4], [1, .nan, .infinity, 2], as: .bf16)], to: "b.safetensors")
    let other = try write([SampleTensor("w", [4], [1, 0, .infinity, .nan])], to: "c.safetensors")
    #expect(try difference(first, same).tensors[0].outcome == .restored)
    let found = try #require(try difference(first, other).tensors[0].distance)
    #expect(found.nonFinite == 2 && found.figures.relativeError == 0 && !found.isZero)
    #expect(try difference(first, other).text(all: false).contains("2 not finite"))
    // Complex numbers are compared by their bytes.
    let complex = [UInt8](repeating: 1, count: 16)
    let a = try write([SampleTensor("c", [2], type: .c64, bytes: complex)], to: "d.safetensors")
    let b = try write([SampleTensor("c", [2], type: .c64, bytes: complex)], to: "e.safetensors")
    let c = try write([SampleTensor("c", [2], type: .c64, bytes: complex.map { $0 * 2 })], to: "f.safetensors")
    #expect(try difference(a, b).isSame(ignoringFormat: false))
    #expect(try difference(a, c).tensors[0].outcome == .unreadable)
  }

  @Test func aPackedFolderIsComparedByItsHashesAndByItsValues() throws {
    let paths = ["one", "two", "three"].map { folder.appending($0) }
    for (index, path) in paths.enumerated() {
      _ = try convert(tiny, to: path) { recipe in if index == 2 { recipe.options.method = .hqq } }
    }
    #expect(try difference(paths[0], paths[1]).isSame(ignoringFormat: false))
    let found = try difference(paths[0], paths[2], source: tiny)
    #expect(found.changed.count == 21 && found.count(of: .same) == 9)
    let measured = try report(paths[2], against: tiny)
    let error = try #require(found.sourceErrors).second
    #expect(abs(error / (try #require(measured.relativeError)) - 1) < 1e-9)
    #expect(found.otherFiles == ["config.json differs"])
    // Packed and kept tensors beside the source's own.
    let against = try difference(tiny, paths[0])
    #expect(against.count(of: .same) == 9 && against.changed.count == 21)
  }

  /// A folder in a runtime's layout holds the values that its own program decodes, some of them in half precision.
  @Test(arguments: [
    "awq", "gptq-4-order", "pack-quantized-4-zero", "nf4-double", "llm-int8", "mlx-4", "mxfp4", "nvfp4",
  ])
  func everyLayoutIsDecoded(_ name: String) throws {
    let path = Fixtures.path("layouts/\(name)")
    let decoded = try Checkpoint(Fixtures.path("layouts/decoded.safetensors"))
    let expected = try allValues(try #require(decoded[name]))
    let weight = try #require(try LayoutCheckpoint(Checkpoint(path))?.records.first { $0.label != nil })
    let dense = try write([SampleTensor(weight.name, weight.shape, expected)], to: "dense.safetensors")
    let found = try difference(path, dense)
    let tensor = try #require(found.tensors.first { $0.name == weight.name })
    #expect((tensor.distance?.figures.relativeError ?? 0) < 2e-3, "\(tensor.outcome)")
    #expect(tensor.first?.format == weight.label && tensor.second?.format == "F32")
    #expect(try difference(path, path).isSame(ignoringFormat: false))
  }

  private func writeGGUF(_ source: FilePath, _ mix: GGUFMix, to name: String) throws -> FilePath {
    let opened = try OpenedWeights(source)
    var options = GGUFConversion.Options(mix: mix)
    options.writesTokenizer = false
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, options)
    let file = try OutputFile(folder.appending(name), source: source, overwrite: false)
    try conversion.run(into: file, workers: 2) { _ in true }
    return folder.appending(name)
  }

  /// Names, permuted heads, transposed matrices: a GGUF file in float32 holds the checkpoint's values.
  @Test(arguments: ["tiny-llama", "architectures/gpt2", "architectures/phi3", "architectures/qwen3"])
  func aGGUFFileIsComparedUnderTheCheckpointsNames(_ name: String) throws {
    let source = Fixtures.path(name)
    let file = try writeGGUF(source, .f32, to: "whole.gguf")
    for found in [try difference(source, file), try difference(file, source)] {
      #expect(found.isSame(ignoringFormat: true), "\(found.text(all: false))")
      #expect(
        found.tensors.allSatisfy {
          $0.name.contains("lm_head") || $0.name.hasPrefix("model.") || $0.name.hasPrefix("transformer.")
        })
    }
  }

  @Test func twoGGUFFilesAreComparedUnderTheirOwnNames() throws {
    let files = [try writeGGUF(tiny, .q80, to: "a.gguf"), try writeGGUF(tiny, .f16, to: "b.gguf")]
    let found = try difference(files[0], files[1])
    #expect(found.tensors.contains { $0.name == "blk.0.attn_q.weight" && $0.first?.format == "Q8_0" })
    #expect(found.changed.count == 23 && found.count(of: .same) == 7)
    let nearer = try difference(files[0], files[1], source: tiny)
    #expect(nearer.tensors.contains { $0.name == "model.layers.0.self_attn.q_proj.weight" })
    #expect(nearer.wins(.second) == 23)
  }

  @Test func namesWithoutTheUsualPrefixAreMatched() throws {
    let names = [
      ("model.", "language_model.model."), ("model.", ""),
    ]
    for (index, (own, other)) in names.enumerated() {
      let paths = try [own, other].enumerated().map { side, prefix in
        let name = "\(index)-\(side)"
        try FileManager.default.createDirectory(
          atPath: folder.appending(name).string, withIntermediateDirectories: true)
        try folder.write(Array(#"{"model_type": "llama"}"#.utf8), to: "\(name)/config.json")
        try SampleTensor.write(
          ["embed_tokens.weight", "layers.0.mlp.up_proj.weight"].map {
            SampleTensor(prefix + $0, [2, 2], [1, 2, 3, 4])
          },
          to: folder.appending(name).appending("model.safetensors"))
        return folder.appending(name)
      }
      #expect(try difference(paths[0], paths[1]).isSame(ignoringFormat: false))
    }
  }

  @Test func theWorkCanBeStopped() throws {
    _ = try convert(tiny, to: folder.appending("out"))
    #expect(throws: ConversionError.cancelled) {
      try Difference(tiny, folder.appending("out"), source: nil).run(workers: 2) { _ in false }
    }
  }
}
