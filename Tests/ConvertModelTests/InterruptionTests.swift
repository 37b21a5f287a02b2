import Foundation
import SystemPackage
import TestSupport
import Testing

/// The program, interrupted by signals while it works.
@Suite(.serialized) struct InterruptionTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private final class Run {
    let process = Process()
    private let errors = Pipe()

    init(_ arguments: [String]) throws {
      let program = FilePath(CommandLine.arguments[0]).removingLastComponent().appending("convert-model")
      process.executableURL = URL(fileURLWithPath: program.string)
      process.arguments = arguments
      process.standardOutput = FileHandle.nullDevice
      process.standardError = errors
      try process.run()
    }

    /// Waits for the end.
    func end() throws -> (code: Int32, isSignal: Bool, error: String) {
      let text = try errors.fileHandleForReading.readToEnd() ?? Data()
      process.waitUntilExit()
      return (
        process.terminationStatus, process.terminationReason == .uncaughtSignal, String(decoding: text, as: UTF8.self)
      )
    }
  }

  private var command: [String] {
    [
      Fixtures.path("tiny-llama").string, "-o", folder.appending("out").string, "-m", "gptq", "-g", "32", "--samples",
      "64", "--sequence-length", "128", "--record-every", "0",
    ]
  }

  private func exists(_ name: String) -> Bool {
    FileManager.default.fileExists(atPath: folder.appending(name).string)
  }

  /// Starts the conversion and waits until its first block is done.
  private func started() throws -> Run {
    let run = try Run(command)
    let journal = URL(fileURLWithPath: folder.appending(".out.partial/journal").string)
    while run.process.isRunning {
      if let text = try? String(contentsOf: journal, encoding: .utf8), text.contains("next_block") { break }
      Thread.sleep(forTimeInterval: 0.002)
    }
    return run
  }

  @Test(arguments: [SIGTERM, SIGINT])
  func aSignalLeavesAStateToGoOnFrom(_ number: Int32) throws {
    let first = try started()
    kill(first.process.processIdentifier, number)
    let stopped = try first.end()
    #expect(stopped.code == 130 && !stopped.isSignal, "\(stopped)")
    #expect(stopped.error.contains("interrupted; ") && stopped.error.contains("the same command goes on from there"))
    #expect(exists(".out.partial") && !exists("out"))
    let second = try Run(command).end()
    #expect(second.code == 0 && second.error.contains("going on with an interrupted conversion"), "\(second)")
    #expect(!exists(".out.partial") && exists("out"))
    // Complete, it is refused without --resume, and fine with it.
    #expect(try Run(command).end().code == 73)
    #expect(try Run(command + ["--resume"]).end().code == 0)
    #expect(try Run(command + ["--resume", "--dampening", "0.5"]).end().code == 73)
  }

  /// The runs beside conversions to folders, each stopped when it has done a step.
  @Test(arguments: ["calibrate", "unpack", "gguf"])
  func otherRunsAreGoneOnWith(_ kind: String) throws {
    let tiny = Fixtures.path("tiny-llama").string
    let text = ["--samples", "64", "--sequence-length", "128", "--record-every", "0"]
    var command = ["calibrate", tiny] + text
    switch kind {
    case "unpack":
      #expect(try Run([tiny, "-o", folder.appending("packed").string, "-m", "absmax"]).end().code == 0)
      command = ["unpack", folder.appending("packed").string]
    case "gguf": command = [tiny, "--type", "Q4_K_M", "--calibration", "default"] + text
    default: break
    }
    command += ["-o", folder.appending("out").string]
    let first = try Run(command)
    let journal = URL(fileURLWithPath: folder.appending(".out.partial/journal").string)
    while first.process.isRunning {
      let lines = (try? String(contentsOf: journal, encoding: .utf8))?.split(separator: "\n") ?? []
      if lines.contains(where: { $0.contains("next_observed_block") || $0.contains("hashes") }) { break }
      Thread.sleep(forTimeInterval: 0.0005)
    }
    kill(first.process.processIdentifier, SIGTERM)
    let stopped = try first.end()
    // Unpacking so small a model may have ended before the signal came.
    if stopped.code != 0 {
      #expect(stopped.code == 130 && !stopped.isSignal, "\(stopped)")
      #expect(stopped.error.contains("the same command goes on from there"), "\(stopped)")
      let other = try Run(command + (kind == "unpack" ? ["--overwrite"] : ["--samples", "63"])).end()
      if kind != "unpack" {
        #expect(other.code == 73 && other.error.contains("What differs:\n"), "\(other)")
      }
      if !exists("out") {
        let second = try Run(command).end()
        #expect(second.code == 0 && second.error.contains("going on with an interrupted"), "\(second)")
      }
    }
    #expect(exists("out") && !exists(".out.partial"))
    let done = try readAll("out")
    #expect(try Run(command).end().code == 73)
    #expect(try Run(command + ["--resume"]).end().code == 0)
    #expect(try Run(command + ["--overwrite"]).end().code == 0)
    #expect(try readAll("out") == done)
  }

  private func readAll(_ name: String) throws -> [String: Data] {
    let path = folder.appending(name).string
    var isDirectory: ObjCBool = false
    _ = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
    let names = isDirectory.boolValue ? try FileManager.default.contentsOfDirectory(atPath: path) : [""]
    return try Dictionary(
      uniqueKeysWithValues: names.map { ($0, try Data(contentsOf: URL(fileURLWithPath: path + "/" + $0))) })
  }

  @Test func aSecondProcessOnTheSameOutputStops() throws {
    let first = try started()
    let second = try Run(command).end()
    #expect(second.code == 75 && second.error.contains("another process is writing it"))
    kill(first.process.processIdentifier, SIGKILL)
    #expect(try first.end().isSignal)
    // The lock went with the process.
    #expect(try Run(command).end().code == 0)
  }
}
