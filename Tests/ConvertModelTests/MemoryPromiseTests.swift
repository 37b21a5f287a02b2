import Checkpoints
import Foundation
import Subprocess
import SystemPackage
import TestSupport
import Testing

/// Conversions hold to the memory that they were given, or refuse at once.
@Suite(.serialized) struct MemoryPromiseTests {
  let folder: TemporaryFolder
  let source = Fixtures.path("tiny-llama").string

  init() throws { folder = try TemporaryFolder() }

  static let methods: [[String]] = [
    ["-m", "nf4", "--double-quantization"],
    ["-m", "absmax", "-b", "4", "--calibration", "default"],
    ["-m", "gptq", "-g", "32"], ["-m", "awq", "-g", "32"], ["-m", "learned", "-g", "32"], ["-m", "llm-int8"],
    ["-m", "gptq", "-g", "32", "--layout", "gptq"], ["--type", "Q8_0"], ["--type", "Q4_K_M"],
    ["--type", "Q4_K_M", "--calibration", "default"],
  ]

  private static let text = ["--samples", "48", "--sequence-length", "128"]

  /// The bytes of a figure such as `46.1 MB` that follows some words.
  private func figure(after words: String, in text: String) -> Double? {
    guard let range = text.range(of: words) else { return nil }
    let parts = text[range.upperBound...].split(separator: " ").prefix(2)
    let units = ["B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9]
    guard let value = parts.first.flatMap({ Double($0) }), let unit = parts.last?.prefix(while: { $0.isLetter }) else {
      return nil
    }
    return units[String(unit)].map { $0 * value }
  }

  @Test("The peak stays under what the plan promised, with activations in memory or in a file", arguments: methods)
  func thePeakIsUnderThePromise(_ method: [String]) async throws {
    let arguments = [source, "-o", folder.appending("out").string] + method + Self.text
    let plan = try await ConvertModelProgram.run(arguments + ["--dry-run", "--json"]).json
    let least = try #require(plan["memory"]?["bytes"]?.integer)
    let parts = try #require(plan["memory"]?["parts"]?.array)
    #expect(parts.reduce(0) { $0 + ($1["bytes"]?.integer ?? 0) } == least)
    // One byte too few, and nothing begins.
    let refused = try await ConvertModelProgram.run(arguments + ["--max-memory", "\(least - 1)"])
    #expect(refused.code == 65 && refused.error.contains("cannot hold this conversion"))
    #expect(!FileManager.default.fileExists(atPath: folder.appending("out").string))
    #expect(!FileManager.default.fileExists(atPath: folder.appending(".out.partial").string))
    // Just enough: activations go to a file.
    let run = try await ConvertModelProgram.run(arguments + ["--max-memory", "\(least)"])
    #expect(run.code == 0, "\(run.error)")
    let peak = try #require(figure(after: "Peak memory: ", in: run.output))
    #expect(peak <= Double(least), "\(peak) of \(least)")
    let spilled = try contents(folder.appending("out"))
    try FileManager.default.removeItem(atPath: folder.appending("out").string)
    _ = try await ConvertModelProgram.run(arguments)
    #expect(try contents(folder.appending("out")) == spilled)
  }

  /// A limit on addresses stands for a machine that has no more to give.
  @Test(arguments: [methods[2], methods[3]])
  func aConversionRunsUnderALimitOfTheSystem(_ method: [String]) async throws {
    let program = FilePath(CommandLine.arguments[0]).removingLastComponent().appending("convert-model")
    func run(kilobytes: Int) async throws -> (code: Int32, error: String) {
      let arguments = [program.string, source, "-o", folder.appending("out").string] + method + Self.text
      let command =
        "ulimit -v \(kilobytes); exec timeout -s KILL 60 "
        + (arguments + ["--max-memory", "160M"]).joined(separator: " ")
      let record = try await Subprocess.run(
        .path("/bin/sh"), arguments: ["-c", command], output: .discarded, error: .string(limit: 1 << 20))
      guard case .exited(let code) = record.terminationStatus else { return (-1, record.standardError ?? "") }
      return (Int32(code), record.standardError ?? "")
    }
    // OpenBLAS's threads try for ever to reserve their buffers under the first; leaving must not wait for them.
    for limit in [250_000, 400_000] {
      let refused = try await run(kilobytes: limit)
      #expect(refused.code == 65 && refused.error.contains("ulimit -v"), "\(refused)")
    }
    let done = try await run(kilobytes: 1_000_000)
    #expect(done.code == 0, "\(done)")
  }

  private func contents(_ folder: FilePath) throws -> [String: [UInt8]] {
    if try Stat(folder).type == .regular { return ["": try readWhole(folder)] }
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.string)
    return try Dictionary(uniqueKeysWithValues: names.map { ($0, try readWhole(folder.appending($0))) })
  }
}
