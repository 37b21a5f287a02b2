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

/// Reports of GGUF files beside the checkpoints that they were made from, and their tensors taken apart.
@Suite struct GGUFReportTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func convert(_ source: FilePath, _ mix: GGUFMix) throws -> FilePath {
    let opened = try OpenedWeights(source)
    var options = GGUFConversion.Options(mix: mix)
    options.writesTokenizer = false
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, options)
    let path = folder.appending("\(mix.rawValue).gguf")
    try conversion.run(into: try OutputFile(path, source: source, overwrite: true), workers: 2) { _ in true }
    return path
  }

  private func values(_ source: any WeightSource, _ name: String) throws -> [Float] {
    var reader = source.makeReader()
    var values: [Float] = []
    try reader.read(name, 0..<(try #require(source.shape(of: name)).reduce(1, *)), into: &values)
    return values
  }

  private func report(_ file: FilePath, _ source: FilePath, workers: Int = 2) throws -> ModelReport {
    let original = try Checkpoint(source)
    var report = try Measurement(packed: file, source: original).run(sampling: .all, workers: workers) { _ in true }
    report.profiles = try TensorProfiling(packed: file, source: original).run(workers: workers) { true }
    report.provenance = try ConversionRecord(
      of: file, source: original, calibration: CalibrationReport(beside: file), reporter: "test", workers: workers
    ) { true }
    return report
  }

  /// Names, heads that change places, matrices that are stored the other way round, norms with one added: what a figure
  /// compares is the same tensor.
  @Test(arguments: ["llama", "llama-bias", "llama-tied", "qwen3", "phi3", "gpt2", "gpt2-bare"], [GGUFMix.q80, .f16])
  func errorsAreThoseOfTheSameTensors(_ name: String, _ mix: GGUFMix) throws {
    let source = Fixtures.path("architectures/\(name)")
    let file = try convert(source, mix)
    let found = try report(file, source)
    let (original, written) = (try Checkpoint(source), try GGUFSource(GGUFFile(file)))
    #expect(found.altered.isEmpty && !found.tensors.isEmpty)
    let prefix = written.architecture.prefix(of: original.tensors.map(\.name))
    for tensor in found.tensors {
      let weights = try allValues(try #require(original[tensor.name]))
      let stored = try #require(
        written.tensorNames.first {
          written.architecture.place(of: tensor.name, prefix: prefix)?.name == written.storedTensor($0)?.name
        })
      let decoded = try values(written, stored)
      switch tensor.outcome {
      case .quantized(let scheme, let distortion):
        #expect(scheme == written.storedType(of: stored)?.name)
        let error = zip(weights, decoded).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) }
        #expect(abs(distortion.squaredError - error) <= 1e-5 * error, "\(tensor.name)")
        let norm = weights.reduce(0.0) { $0 + Double($1) * Double($1) }
        #expect(distortion.squaredError < 1e-3 * norm, "\(tensor.name)")
      case .kept(let reason, _):
        let type = try #require(written.storedType(of: stored)?.elementType)
        #expect(reason == "stored as \(type.rawValue)")
        #expect(decoded == weights.map { rounded($0, to: type) })
      case .folded: Issue.record("\(tensor.name) is folded")
      }
    }
    #expect(found.storedFileBytes == (try Int(Stat(file).size)))
  }

  @Test func theReportIsWholeAndTheSameForAnyThreads() throws {
    let source = Fixtures.path("tiny-llama")
    let file = try convert(source, .q4KM)
    let found = try report(file, source)
    let text = found.text(path: "out.gguf")
    let again = try report(file, source, workers: 1)
    #expect(text == again.text(path: "out.gguf"))
    #expect(text.contains("GGUF file, version 3") && text.contains("mix  Q4_K_M"))
    #expect(found.quantized.count == found.profiles.count && found.quantized.count > 7)
    for (name, profile) in found.profiles {
      let tensor = try #require(found.tensors.first { $0.name == name })
      #expect(profile.codes.reduce(0, +) == tensor.elementCount)
      // Of Q8_0: two bytes in 34.
      if case .quantized("Q8_0", _) = tensor.outcome {
        #expect(profile.scaleByteCount * 17 == tensor.storedByteCount && profile.codes.count == 256)
      }
    }
    let page = try ReportPage(title: "out", report: found).html()
    #expect(page.contains("model.layers.0.mlp.up_proj.weight"))
  }

  /// Files of others have a head of their own though the embedding serves as one, and constants that runtimes compute; what
  /// is missing or strange is told by name.
  @Test func whatHasNoCounterpartIsTold() throws {
    let source = Fixtures.path("architectures/llama-rope-llama3")
    let file = try convert(source, .q80)
    let constants = try GGUFFile(file).header.tensors.filter { $0.name.hasPrefix("rope_") }
    #expect(!constants.isEmpty)
    #expect(try report(file, source).codebookBytes == constants.reduce(0) { $0 + $1.bytes.count })

    // The source of another model, with more blocks.
    var tensors = try Checkpoint(source).tensors.map {
      SampleTensor($0.name, $0.entry.shape, type: $0.entry.type, bytes: try allBytes($0))
    }
    let head = try #require(try Checkpoint(source)["lm_head.weight"])
    func write() throws -> FilePath {
      try SampleTensor.write(tensors, to: folder.appending("model.safetensors"))
      return folder.appending("model.safetensors")
    }
    tensors.append(SampleTensor("model.layers.9.mlp.up_proj.weight", [2, 2], [1, 2, 3, 4]))
    var error = #expect(throws: ConversionError.self) { try report(file, write()) }
    #expect(error?.description.contains("'model.layers.9.mlp.up_proj.weight'") == true)
    // Without a head, that of the file is compared with the embedding.
    tensors = tensors.filter { $0.specification.name != head.name }.dropLast()
    let tied = try report(file, write())
    #expect(tied.tensors.filter { $0.name == "model.embed_tokens.weight" }.count == 2)
    tensors = tensors.filter { !$0.specification.name.hasSuffix("norm.weight") }
    error = #expect(throws: ConversionError.self) { try report(file, write()) }
    #expect(error?.description.contains("no such tensor") == true)
  }

  /// The codes, scales and zero points of blocks, counted by a few independent lines.
  @Test(arguments: BlockType.known.filter { !$0.isPlain }) func blocksAreTakenApart(_ type: BlockType) throws {
    var random = SplitMix64(seed: 7)
    let values = random.weights(12 * 512, scale: 0.1)
    var (encoder, bytes) = (BlockEncoder(type), [UInt8]())
    #expect(encoder.encode(values.span, columns: 512, importance: nil, into: &bytes))
    let layout = GGUFLayout(
      [GGUFSpecification(name: "blk.0.ffn_up.weight", type: type, shape: [12, 512])],
      metadata: ["general.architecture": .string("llama")])
    let path = folder.appending("x.gguf")
    let padding = [UInt8](repeating: 0, count: layout.fileSize - layout.head.count - bytes.count)
    try Data(layout.head + bytes + padding).write(to: URL(fileURLWithPath: path.string))
    let found = try Inspector(path).tensor("blk.0.ffn_up.weight", against: nil, slice: TensorSlice("3:5,30:40"))
    let codes = try #require(found.codes)
    let parts = type.parts(of: bytes.span)
    let groups = try #require(type.groups)
    #expect(codes.usage.count == groups.levels.count)
    #expect(codes.usage == groups.levels.indices.map { code in parts.codes.count { Int($0) == code } })
    #expect(codes.groupCount == values.count / groups.length)
    #expect(codes.smallestScale == parts.scales.min() && codes.largestScale == parts.scales.max())
    #expect((codes.smallestZeroPoint != nil) == !parts.offsets.isEmpty)
    #expect(codes.unused == groups.levels.indices.filter { !parts.codes.contains(UInt8($0)) })
    let lowest = groups.levels.firstIndex(of: groups.levels.min() ?? 0) ?? 0
    #expect(codes.ends.first == lowest && codes.saturation > 0)
    let excerpt = try #require(found.excerpt)
    #expect(excerpt.codes == [3, 4].flatMap { row in (30..<40).map { Int(parts.codes[row * 512 + $0]) } })
    #expect(try Inspector(path).depth(workers: 2) { _ in true }.tensors.first?.inspection.codes?.usage == codes.usage)
  }
}
