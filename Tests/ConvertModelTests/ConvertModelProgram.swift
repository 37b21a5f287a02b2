import Checkpoints
import Subprocess
import SystemPackage
import TestSupport
import Testing

/// The built program, run as a user runs it.
enum ConvertModelProgram {
  struct Outcome {
    let code: Int32
    let output: String
    let error: String

    var json: JSONValue { get throws { try JSONParser.parse(Array(output.utf8)) } }
  }

  static func run(_ arguments: [String]) async throws -> Outcome {
    // The program is built beside the bundle of the tests.
    let program = FilePath(CommandLine.arguments[0]).removingLastComponent().appending("convert-model")
    let record = try await Subprocess.run(
      .path(program), arguments: Arguments(arguments), output: .string(limit: 1 << 24), error: .string(limit: 1 << 20))
    guard case .exited(let code) = record.terminationStatus else {
      return Outcome(code: -1, output: "", error: "ended by a signal: \(record.terminationStatus)")
    }
    return Outcome(code: code, output: record.standardOutput, error: record.standardError)
  }

  /// Runs it, and requires that all is well.
  static func require(_ arguments: String...) async throws -> Outcome {
    let outcome = try await run(arguments)
    try #require(outcome.code == 0 && outcome.error.isEmpty, "\(arguments): \(outcome.error)")
    return outcome
  }

  static let tiny = Fixtures.path("tiny-llama").string
  /// A calibration of a second or so.
  static let calibration = [
    "--calibration", Fixtures.path("text/tiny-eval.txt").string, "--samples", "8", "--sequence-length", "64",
  ]
}

extension ConvertModelProgram {
  /// As the system's own program computes it.
  static func sha256(of path: FilePath) async throws -> String {
    let record = try await Subprocess.run(
      .name("sha256sum"), arguments: [path.string], output: .string(limit: 1 << 12), error: .discarded)
    return String(record.standardOutput.prefix(64))
  }
}
