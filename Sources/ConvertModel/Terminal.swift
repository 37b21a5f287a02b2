import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Foundation
import Models
import Packing
import Synchronization
import SystemPackage
import Tokenizers

/// Exit codes as in `sysexits.h`.
enum Exit {
  /// Of `diff`: what was compared is not the same.
  static let different = ExitCode(1)
  static let data = ExitCode(65)
  static let noInput = ExitCode(66)
  static let cannotCreate = ExitCode(73)
  static let inputOutput = ExitCode(74)
  static let inUse = ExitCode(75)
  static let interrupted = ExitCode(130)
}

/// Runs a command; an error becomes one line on standard error and its exit code.
func reportingErrors(_ body: () throws -> Void) throws {
  // Where files may not grow, a write then fails and is reported, instead of ending the program.
  signal(SIGXFSZ, SIG_IGN)
  leaveWithoutDestructors()
  do {
    try body()
  } catch let error as CheckpointError {
    printError("\(error)")
    throw exitCode(of: error)
  } catch let error as ConversionError {
    printError(error.lines)
    throw exitCode(of: error)
  } catch let error as SuspendedConversion {
    printError("\(error)")
    throw (error.cause as? CheckpointError).map(exitCode) ?? (error.cause as? ConversionError).map(exitCode)
      ?? Exit.interrupted
  } catch let error as ModelError {
    printError("\(error)")
    throw Exit.data
  } catch let error as GGUFError {
    printError("\(error)")
    throw Exit.data
  } catch let error as CalibrationError {
    printError("\(error)")
    throw Exit.data
  } catch let error as EvidenceError {
    printError("\(error)")
    throw Exit.data
  } catch let error as EvidenceFileError {
    printError("\(error)")
    throw Exit.data
  } catch let error as TokenizerError {
    printError("\(error)")
    throw error.isMissingInput ? Exit.noInput : Exit.data
  } catch let error as InputError {
    printError("\(error)")
    throw Exit.data
  } catch is CancellationError {
    printError("interrupted")
    throw Exit.interrupted
  } catch let error as RecipeError {
    printError("\(error)")
    throw ExitCode.validationFailure
  }
}

/// Ends the process as soon as its output is written. The destructor of OpenBLAS waits for its threads, which where
/// addresses are few (`ulimit -v`) try for ever to reserve a buffer.
private func leaveWithoutDestructors() {
  #if canImport(Glibc)
    _ = on_exit(
      { status, _ in
        fflush(nil)
        _exit(status)
      }, nil)
  #endif
}

private func exitCode(of error: CheckpointError) -> ExitCode {
  error.isMissingInput ? Exit.noInput : error.isReadFailure ? Exit.inputOutput : Exit.data
}

private func exitCode(of error: ConversionError) -> ExitCode {
  switch error {
  case .outputExists, .outputIsNotAModel, .cannotCreate, .otherConversion: Exit.cannotCreate
  case .outputIsSource, .layout: ExitCode.validationFailure
  case .writeFailed: Exit.inputOutput
  case .inUse: Exit.inUse
  case .cancelled: Exit.interrupted
  default: Exit.data
  }
}

/// Prints one line, whatever names and values of a file are in it.
func printError(_ text: String) { printError([text]) }

/// Prints each on a line of its own.
func printError(_ lines: [String]) {
  let text = lines.map(\.printable).joined(separator: "\n")
  FileHandle.standardError.write(Data("convert-model: error: \(text)\n".utf8))
}

func printNote(_ text: String) {
  FileHandle.standardError.write(Data("convert-model: \(text.printable)\n".utf8))
}

/// Prints one line, as for errors.
func printWarning(_ text: String) {
  FileHandle.standardError.write(Data("convert-model: warning: \(text.printable)\n".utf8))
}

/// A file that cannot serve as what it was given for.
struct InputError: Error, CustomStringConvertible {
  let file: String
  let problem: String

  init(_ file: String, _ problem: String) {
    self.file = file
    self.problem = problem
  }

  var description: String { "\(file.printable): \(problem)" }
}

/// Reads a text file, which must be UTF-8.
func readText(_ path: FilePath) throws -> String {
  let bytes = try readWhole(path, limit: 1 << 30)
  guard let text = String(validating: bytes, as: UTF8.self) else {
    throw InputError(path.string, "is not text in UTF-8; convert it first, for example with iconv")
  }
  return text
}

/// The addresses that the system allows this process (`ulimit -v`); nil: any.
var addressSpaceLimit: Int? {
  var limit = rlimit()
  #if canImport(Glibc)
    guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { return nil }
  #else
    guard getrlimit(RLIMIT_AS, &limit) == 0 else { return nil }
  #endif
  return limit.rlim_cur < UInt64(Int.max) / 2 ? Int(limit.rlim_cur) : nil
}

/// Writes a file that appears complete or not at all.
func writeFile(_ data: Data, to path: String) throws {
  do {
    try data.write(to: URL(fileURLWithPath: path), options: .atomic)
  } catch {
    throw ConversionError.cannotCreate(path, error.localizedDescription)
  }
}

/// Turns SIGINT and SIGTERM into a request to stop at a place from which the work can go on.
struct Interruption: Sendable {
  private static let requested = Atomic(false)

  init() {
    // Touched before the handlers are set: a handler must not be the first to initialize it.
    Self.requested.store(false, ordering: .relaxed)
    // A second one does not wait for the place: what was recorded until then is kept as well.
    for number in [SIGINT, SIGTERM] {
      signal(number) { _ in if Self.requested.exchange(true, ordering: .relaxed) { _exit(Exit.interrupted.rawValue) } }
    }
    // A parent with threads can have handed down that they are blocked.
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGINT, SIGTERM] { sigaddset(&signals, number) }
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }

  var isRequested: Bool { Self.requested.load(ordering: .relaxed) }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
