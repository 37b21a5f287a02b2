import Checkpoints
import Foundation
import Subprocess
import SystemPackage
import TestSupport
import Testing

/// The same bytes for the same input, options and version. Each run is a process of its own, with hash tables seeded
/// anew; see Docs/Determinism.md.
@Suite struct DeterminismTests {
  static let tiny = Fixtures.path("tiny-llama").string
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private static let text = [
    "--calibration", Fixtures.path("text/tiny-eval.txt").string, "--samples", "3", "--sequence-length", "24",
  ]
  /// A row of conversions: the ways that codes are found, and the ways that they are stored.
  static let conversions: [[String]] = [
    ["-m", "absmax"], ["-m", "nf4", "--double-quantization"], ["-m", "hqq", "-g", "64"],
    ["-m", "gptq", "-b", "4", "-g", "32"] + text, ["-m", "awq", "-b", "4", "-g", "32"] + text,
    ["-m", "learned", "-b", "3", "-g", "32"] + text, ["-m", "llm-int8"] + text,
    ["-m", "absmax", "-b", "8", "--scaling", "smooth"] + text,
    ["-m", "gptq", "-g", "32", "--layout", "pack-quantized"] + text, ["--layout", "mlx"], ["--type", "q4_k_m"],
  ]

  /// Every file of an output, by its name; one file stands for itself.
  private func bytes(_ output: FilePath) throws -> [String: [UInt8]] {
    guard try Stat(output).type == .directory else { return ["": try readWhole(output)] }
    let names = try FileManager.default.contentsOfDirectory(atPath: output.string)
    return try Dictionary(uniqueKeysWithValues: names.map { ($0, try readWhole(output.appending($0))) })
  }

  private func compare(_ found: [String: [UInt8]], _ first: [String: [UInt8]], _ what: String) {
    #expect(Set(found.keys) == Set(first.keys), "\(what)")
    for (name, bytes) in first where found[name] != bytes { Issue.record("\(what): \(name) differs") }
  }

  @Test(arguments: conversions.indices) func bytesAreTheSameForAnyNumberOfThreads(row: Int) async throws {
    let options = Self.conversions[row]
    var first: [String: [UInt8]]?
    for threads in [1, 2, 4, 7] {
      let output = folder.appending("\(threads)" + (options.contains("--type") ? ".gguf" : ""))
      let outcome = try await CommandTests.run([Self.tiny, "-o", output.string, "--threads", "\(threads)"] + options)
      try #require(outcome.code == 0, "\(outcome.error)")
      let found = try bytes(output)
      if let first { compare(found, first, "\(threads) threads") } else { first = found }
    }
  }

  /// Neither the place, the dates of files nor the user's settings reach the output.
  @Test func bytesAreTheSameAnywhere() async throws {
    let options = ["-m", "gptq", "-b", "3", "-g", "32"] + Self.text
    let here = folder.appending("here")
    try #require(try await CommandTests.run([Self.tiny, "-o", here.string] + options).code == 0)
    let moved = folder.appending("elsewhere/model copy")
    try FileManager.default.createDirectory(
      atPath: moved.removingLastComponent().string, withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: Self.tiny, toPath: moved.string)
    try FileManager.default.setAttributes(
      [.modificationDate: Date(timeIntervalSince1970: 4e9)],
      ofItemAtPath: moved.appending("model-00001-of-00002.safetensors").string)
    let program = FilePath(CommandLine.arguments[0]).removingLastComponent().appending("convert-model")
    let there = folder.appending("there")
    let record = try await Subprocess.run(
      .path(program), arguments: Arguments([moved.string, "-o", there.string] + options),
      environment: .inherit.updating(["TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "HOME": "/", "COLUMNS": "20"]),
      workingDirectory: folder.path, output: .discarded, error: .string(limit: 1 << 16))
    #expect(record.terminationStatus.isSuccess, "\(record.standardError)")
    compare(try bytes(there), try bytes(here), "another place")
  }

  /// No code reads the date: a clock that jumps can change progress shown on a terminal at most, which is timed by a
  /// clock that only goes forward.
  @Test func nothingReadsTheDate() throws {
    let sources = Fixtures.folder.removingLastComponent().appending("Sources")
    let names = try #require(FileManager.default.enumerator(atPath: sources.string))
    for case let name as String in names where name.hasSuffix(".swift") {
      let text = String(decoding: try readWhole(sources.pushing(FilePath(name))), as: UTF8.self)
      for word in ["Date()", "Date.now", "gettimeofday", "CLOCK_REALTIME", "time(nil)", "SystemClock"] {
        #expect(!text.contains(word), "\(name): \(word)")
      }
    }
  }

  @Test func theFamilyOfProcessorsIsRecordedWhereItCounts() async throws {
    for (options, counts) in [(["-m", "nf4"], false), (["-m", "gptq", "-g", "32"] + Self.text, true)] {
      let output = folder.appending(options[1])
      try #require(try await CommandTests.run([Self.tiny, "-o", output.string] + options).code == 0)
      let producer = try readJSONObject(output.appending("quantization_manifest.json"))["producer"]
      #expect((producer?["openblas_family"]?.string?.isEmpty == false) == counts)
    }
  }
}
