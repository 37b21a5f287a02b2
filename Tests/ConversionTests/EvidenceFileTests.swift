import Calibration
import Checkpoints
import Conversion
import Crypto
import Foundation
import Kernels
import Models
import Quantization
import SystemPackage
import TestSupport
import Testing

/// Evidence of a small model for tests, and the file that `convert-model calibrate` would write.
struct SampleEvidence {
  let folder: TemporaryFolder

  static func checkpoint(_ name: String) throws -> Checkpoint {
    try Checkpoint(Fixtures.path("architectures/\(name)/model.safetensors"))
  }

  /// Windows of random tokens as a text would give them.
  func windows(_ seed: UInt64, count: Int = 12, length: Int = 16) throws -> CalibrationWindows {
    var generator = SplitMix64(seed: seed)
    let tokens = (0..<(count * length)).map { _ in Int32.random(in: 0..<36, using: &generator) }
    let name = "tokens-\(seed).jsonl"
    try folder.write(Array("\(tokens)\n".utf8), to: name)
    return try CalibrationWindows(
      [CalibrationSource(.file(folder.appending(name)))],
      CalibrationWindows.Options(samples: count, sequenceLength: length), vocabulary: 36
    ) { _ in [] }
  }

  func calibration(_ model: Model, _ windows: CalibrationWindows, workers: Int = 2) -> BlockCalibration {
    BlockCalibration(
      model, windows: windows.windows.map { Array(windows.tokens[$0]) }, heldOut: [],
      BlockCalibration.Options(workers: workers, memoryLimit: 1 << 30, spillFolder: folder.path))
  }

  /// - Parameter stop: blocks after which the work is stopped.
  @discardableResult
  func write(
    _ name: String, of source: Checkpoint, seed: UInt64 = 1, _ options: EvidenceOptions = .init(sumsHessians: true),
    count: Int = 12, workers: Int = 2, stop: Double = .infinity
  ) throws -> FilePath {
    let model = try Model(source, configuration: source.configuration)
    let windows = try windows(seed, count: count)
    let header = EvidenceHeader(
      model: try source.identity(), modelType: model.description.modelType, threshold: options.threshold,
      texts: [windows.evidenceRecord], inputs: model.description.linearInputs, hasHessians: options.sumsHessians)
    let path = folder.appending(name)
    let output = try OutputFile(path, source: source.folder, overwrite: false)
    let earlier = try output.begin(
      ConversionIdentity(toolVersion: "test", recipe: [:], source: source, kernels: nil))
    do {
      _ = try EvidenceGathering(calibration(model, windows, workers: workers), header).run(
        into: output.written, of: output, goingOnFrom: earlier, workers: workers,
        onProgress: { Double($0.block ?? 0) + $0.blockShare < stop })
      try output.commit()
    } catch {
      throw output.leave(error)
    }
    return path
  }
}

@Suite struct EvidenceFileTests {
  let folder: TemporaryFolder
  let sample: SampleEvidence

  init() throws {
    folder = try TemporaryFolder()
    sample = SampleEvidence(folder: folder)
  }

  @Test("What is read is what was gathered", arguments: ["llama", "gpt2", "mixtral-fused"])
  func roundTrips(_ name: String) throws {
    let source = try SampleEvidence.checkpoint(name)
    let model = try Model(source, configuration: source.configuration)
    let path = try sample.write("a.safetensors", of: source)
    let file = try EvidenceFile(path)
    let gathered = try sample.calibration(model, sample.windows(1)).collect(EvidenceOptions(sumsHessians: true)) { _ in
      true
    }.inputs
    #expect(file.inputs.count == gathered.count && file.hasHessians)
    for (index, input) in gathered.enumerated() {
      let read = try file.evidence(ofInput: index, withHessian: true, workers: 1)
      #expect(read.layers == input.layers && read.statistics == input.statistics)
      #expect(read.hessian?.sum.values() == input.hessian?.sum.values())
      #expect(read.hessian?.tokens == input.hessian?.tokens)
    }
    let again = try sample.write("b.safetensors", of: source, workers: 1)
    #expect(try readWhole(path) == readWhole(again))
    let summary = try EvidenceSummary(file, workers: 1)
    #expect(summary.text.contains("statistics and Hessians of \(gathered.count) inputs"))
    #expect(summary.json["inputs"]?.array?.count == gathered.count)
  }

  @Test func filesOfTwoTextsAddUp() throws {
    let source = try SampleEvidence.checkpoint("mixtral")
    let one = try sample.write("one.safetensors", of: source, seed: 1)
    let two = try sample.write("two.safetensors", of: source, seed: 2)
    let output = folder.appending("both.safetensors")
    let file = try OutputFile(output, source: one, overwrite: false)
    try EvidenceFile.merge([one, two], into: file, workers: 2) { _ in true }
    let (first, second, both) = (try EvidenceFile(one), try EvidenceFile(two), try EvidenceFile(output))
    #expect(both.header.texts == first.header.texts + second.header.texts)
    for index in both.inputs.indices {
      let parts = try [first, second].map { try $0.evidence(ofInput: index, withHessian: true, workers: 1) }
      let sum = try both.evidence(ofInput: index, withHessian: true, workers: 1)
      #expect(sum.tokens == parts[0].tokens + parts[1].tokens)
      let squares = zip(parts[0].statistics.columnSums.squareSums, parts[1].statistics.columnSums.squareSums).map(+)
      #expect(sum.statistics.columnSums.squareSums == squares)
      let products = zip(parts[0].hessian?.sum.values() ?? [], parts[1].hessian?.sum.values() ?? []).map(+)
      #expect(sum.hessian?.sum.values() == products)
    }
  }

  @Test func whatDoesNotBelongTogetherIsNotMerged() throws {
    let source = try SampleEvidence.checkpoint("llama")
    let first = try sample.write("first.safetensors", of: source)
    let others: [(FilePath, String)] = [
      (first, "the same windows"),
      (try sample.write("q.safetensors", of: SampleEvidence.checkpoint("qwen2"), seed: 2), "different models"),
      (
        try sample.write("t.safetensors", of: source, seed: 2, EvidenceOptions(threshold: 3, sumsHessians: true)),
        "outliers count from 3.0 in the one, from 6.0 in the other"
      ),
      (try sample.write("s.safetensors", of: source, seed: 2, EvidenceOptions()), "only one of them has Hessians"),
    ]
    for (other, message) in others {
      let error = #expect(throws: EvidenceFileError.self) {
        let output = try OutputFile(folder.appending("x"), source: first, overwrite: false)
        try EvidenceFile.merge([first, other], into: output, workers: 1) { _ in true }
      }
      #expect(error?.description.contains(message) ?? false, "\(error?.description ?? "")")
    }
    #expect(
      try !FileManager.default.contentsOfDirectory(atPath: folder.path.string).contains {
        $0.contains("x") && !$0.contains(".")
      })
    let error = #expect(throws: ConversionError.self) { try sample.write("first.safetensors", of: source) }
    #expect(error == .outputExists(first.string))
  }

  /// Changes a text of the header for another of the same length.
  private func replace(_ text: String, by other: String, in path: FilePath) throws {
    var bytes = try readWhole(path)
    let (old, new) = (Array(text.utf8), Array(other.utf8))
    #expect(old.count == new.count)
    let start = try #require(bytes.indices.first { bytes[$0...].starts(with: old) })
    bytes.replaceSubrange(start..<(start + old.count), with: new)
    try Data(bytes).write(to: URL(fileURLWithPath: path.string))
  }

  /// Changes bytes of a tensor, and the hash with them.
  private func change(_ tensor: String, at offset: Int, to new: [UInt8], in path: FilePath) throws {
    let file = try SafetensorsFile(path)
    let entry = try #require(file.header.tensors.first { $0.name == tensor })
    var bytes = try readWhole(path)
    let hash = { (bytes: [UInt8]) in
      SHA256.hash(data: bytes[entry.bytes]).map { String(format: "%02x", $0) }.joined()
    }
    let old = hash(bytes)
    bytes.replaceSubrange((entry.bytes.lowerBound + offset)..<(entry.bytes.lowerBound + offset + new.count), with: new)
    try Data(bytes).write(to: URL(fileURLWithPath: path.string))
    // Inputs of equal content share a hash; the table lists tensors in order, so that the first is taken where needed.
    try replace(#"\"\#(tensor)\":\"\#(old)"#, by: #"\"\#(tensor)\":\"\#(hash(bytes))"#, in: path)
  }

  private static func bytes(_ value: Double) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt64($0))) }
  }

  private static func bytes(_ value: Float) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) }
  }

  @Test func whatIsDamagedIsNamed() throws {
    let source = try SampleEvidence.checkpoint("llama")
    let good = try readWhole(sample.write("good.safetensors", of: source))
    let cases: [(message: String, damage: (FilePath) throws -> Void)] = [
      ("is no evidence file", { try replace("convert-model evidence", by: "convert-model Evidence", in: $0) }),
      ("has version 2 of the evidence format", { try replace(#""version":"1""#, by: #""version":"2""#, in: $0) }),
      ("has no 'model_sha256'", { try replace(#""model_sha256""#, by: #""model_sha257""#, in: $0) }),
      (
        "must be F32", { try replace(#""input.0.gram":{"dtype":"F32""#, by: #""input.0.gram":{"dtype":"I32""#, in: $0) }
      ),
      ("is missing", { try replace(#""input.1.square_sums":"#, by: #""input.1.square_sumz":"#, in: $0) }),
      ("a layer is named twice", { try replace("self_attn.k_proj.weight", by: "self_attn.q_proj.weight", in: $0) }),
      (
        "square_sums' has nan at 2, but must be finite",
        { try change("input.1.square_sums", at: 16, to: Self.bytes(Double.nan), in: $0) }
      ),
      ("has -1.0 at 0", { try change("input.0.magnitude_sums", at: 0, to: Self.bytes(-1.0), in: $0) }),
      ("has inf at 0", { try change("input.0.largest_magnitudes", at: 0, to: Self.bytes(Float.infinity), in: $0) }),
      (
        "from 0 to 192",
        { try change("input.0.outlier_tokens", at: 0, to: [193, 0, 0, 0, 0, 0, 0, 0], in: $0) }
      ),
      ("input feature 1 is nan", { try change("input.0.gram", at: 4, to: Self.bytes(Float.nan), in: $0) }),
      ("entries (1, 0) and (0, 1)", { try change("input.0.gram", at: 4, to: Self.bytes(Float(99)), in: $0) }),
      ("input feature 0 is negative", { try change("input.0.gram", at: 0, to: Self.bytes(Float(-1)), in: $0) }),
      (
        "are not those that were written (SHA-256)",
        { path in
          let file = try SafetensorsFile(path)
          let entry = try #require(file.header.tensors.first { $0.name == "input.2.gram" })
          var bytes = try readWhole(path)
          bytes[entry.bytes.lowerBound + 5] ^= 1
          try Data(bytes).write(to: URL(fileURLWithPath: path.string))
        }
      ),
    ]
    for (message, damage) in cases {
      try folder.write(good, to: "bad.safetensors")
      let path = folder.appending("bad.safetensors")
      try damage(path)
      var text = "no error"
      do {
        let file = try EvidenceFile(path)
        for index in file.inputs.indices { _ = try file.evidence(ofInput: index, withHessian: true, workers: 1) }
      } catch let error as EvidenceFileError {
        text = error.description
      } catch let error as EvidenceError {
        text = error.description
      }
      #expect(text.contains(message) && text.contains("bad.safetensors"), "\(message): \(text)")
    }
    try folder.write(Array(good.dropLast(8)), to: "bad.safetensors")
    #expect(throws: CheckpointError.self) { _ = try EvidenceFile(folder.appending("bad.safetensors")) }
  }
}
