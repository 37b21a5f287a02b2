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
      "64", "--sequence-length", "128",
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
