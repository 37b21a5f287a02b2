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
  do {
    try body()
  } catch let error as CheckpointError {
    printError("\(error)")
    throw exitCode(of: error)
  } catch let error as ConversionError {
    printError("\(error)")
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

func printError(_ text: String) {
  FileHandle.standardError.write(Data("convert-model: error: \(text)\n".utf8))
}

func printNote(_ text: String) {
  FileHandle.standardError.write(Data("convert-model: \(text)\n".utf8))
}

func printWarning(_ text: String) {
  FileHandle.standardError.write(Data("convert-model: warning: \(text)\n".utf8))
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

/// Writes a file that appears complete or not at all.
func writeFile(_ data: Data, to path: String) throws {
  do {
    try data.write(to: URL(fileURLWithPath: path), options: .atomic)
  } catch {
    throw ConversionError.cannotCreate(path, error.localizedDescription)
  }
}

/// A line of progress on standard error where that is a terminal; silence elsewhere.
final class ProgressDisplay: Sendable {
  private struct State {
    let started = ContinuousClock.now
    var lastShown = ContinuousClock.now
    var hasShown = false
  }

  private let verb: String
  private let isTerminal = isatty(STDERR_FILENO) != 0
  private let state = Mutex(State())

  init(verb: String) { self.verb = verb }

  /// - Parameters:
  ///   - share: of the work that is done.
  ///   - total: what all of the work amounts to, in units of `noun`.
  func show(share: Double, of total: Int, _ noun: String) {
    show { elapsed in
      let rate = share * Double(total) / max(elapsed, 1e-3)
      return "\(Int(100 * share)) %  \(Int(rate)) \(noun)/s  \(clock(elapsed * (1 / max(share, 1e-6) - 1))) left"
    }
  }

  func show(_ progress: ByteProgress) {
    show { elapsed in
      let rate = Double(progress.done) / max(elapsed, 1e-3)
      let left = Double(progress.total - progress.done) / max(rate, 1)
      let share = 100 * progress.done / max(progress.total, 1)
      return
        "\(share) %  \(bytes(progress.done)) of \(bytes(progress.total))  \(bytes(Int(rate)))/s  \(clock(left)) left"
    }
  }

  private func show(_ text: (_ elapsed: Double) -> String) {
    guard isTerminal else { return }
    state.withLock { state in
      let now = ContinuousClock.now
      guard state.lastShown.duration(to: now) > .milliseconds(100) else { return }
      state.lastShown = now
      state.hasShown = true
      let line = text(state.started.duration(to: now).seconds)
      FileHandle.standardError.write(Data("\r\u{1b}[K\(verb) \(line)".utf8))
    }
  }

  /// Clears the line.
  func finish() {
    state.withLock { state in
      if state.hasShown { FileHandle.standardError.write(Data("\r\u{1b}[K".utf8)) }
      state.hasShown = false
    }
  }

  private func bytes(_ count: Int) -> String { String(format: "%.2f GB", Double(count) / 1e9) }

  private func clock(_ seconds: Double) -> String {
    let whole = Int(min(seconds, 1e6).rounded(.up))
    return whole < 90 ? "\(whole) s" : whole < 5400 ? "\(whole / 60) min" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }
}

/// Turns SIGINT and SIGTERM into a request to stop at a place from which the work can go on.
struct Interruption: Sendable {
  private static let requested = Atomic(false)

  init() {
    // Touched before the handlers are set: a handler must not be the first to initialize it.
    Self.requested.store(false, ordering: .relaxed)
    for number in [SIGINT, SIGTERM] { signal(number) { _ in Self.requested.store(true, ordering: .relaxed) } }
  }

  var isRequested: Bool { Self.requested.load(ordering: .relaxed) }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
