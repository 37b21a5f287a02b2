import Checkpoints
import Foundation
import SystemPackage

/// Where an output is written until it is complete: the folder `.NAME.partial` beside its place, which one process holds
/// at a time. The lock goes with the process that has it, however it ends.
package final class Staging: Sendable {
  /// The output's place.
  let path: FilePath
  let folder: FilePath
  private let lock: FileDescriptor

  /// Makes the folder, or takes over one that no process holds.
  init(for path: FilePath) throws(ConversionError) {
    self.path = path
    folder = Self.folder(of: path)
    let parent = path.removingLastComponent()
    do {
      if !parent.isEmpty {
        try FileManager.default.createDirectory(atPath: parent.string, withIntermediateDirectories: true)
      }
      lock = try Self.hold(folder, of: path)
    } catch let error as ConversionError {
      throw error
    } catch {
      throw .cannotCreate(path.string, error is Errno ? "\(error)" : Self.explanation(error))
    }
  }

  deinit {
    // Of a run that ended before it began, the folder is empty and goes; any other stays.
    rmdir(folder.string)
    try? lock.close()
  }

  static func folder(of path: FilePath) -> FilePath {
    path.removingLastComponent().appending(".\(path.lastComponent?.string ?? "").partial")
  }

  static func explanation(_ error: any Error) -> String {
    let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
    return underlying?.localizedDescription ?? error.localizedDescription
  }

  /// Locks the folder. Between its opening and its locking another process can have put its output in place and removed
  /// the folder: then it is made anew.
  private static func hold(_ folder: FilePath, of path: FilePath) throws -> FileDescriptor {
    while true {
      do {
        try FileManager.default.createDirectory(atPath: folder.string, withIntermediateDirectories: false)
      } catch CocoaError.fileWriteFileExists {}
      guard let file = try? FileDescriptor.open(folder, .readOnly, options: [.directory, .closeOnExec]) else {
        if FileManager.default.fileExists(atPath: folder.string) {
          throw ConversionError.cannotCreate(path.string, "\(folder) is in its way; remove it")
        }
        continue
      }
      if flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 {
        let code = Errno(rawValue: errno)
        // A file system without locks has no two processes told apart; all others are.
        if code == .wouldBlock {
          try? file.close()
          throw ConversionError.inUse(path.string)
        }
      }
      if let held = try? file.stat(), let there = try? Stat(folder), held.inode == there.inode { return file }
      try? file.close()
    }
  }

  // MARK: Runs

  private static let journalName = "journal"

  /// Begins a run, or takes up one that was interrupted.
  /// - Parameters:
  ///   - identity: what the output is made of; nil: the run cannot be taken up.
  ///   - restart: discard what an interrupted run has done.
  ///   - interval: see `Journal`.
  /// - Returns: nil for a run that cannot be taken up. The first entry of any other is its identity.
  func beginJournal(
    _ identity: ConversionIdentity?, restart: Bool, interval: Duration
  ) throws(ConversionError) -> Journal? {
    let place = folder.appending(Self.journalName)
    if !restart, FileManager.default.fileExists(atPath: place.string) {
      let journal = try Journal(place, interval: interval)
      if let earlier = journal.entries.first?[Journal.Fact.identity].flatMap({ ConversionIdentity($0) }) {
        guard let identity, identity == earlier else {
          throw .otherConversion(
            path.string, kept: folder.string,
            differences: identity?.differences(from: earlier) ?? ["it is no run that can be gone on with"])
        }
        return journal
      }
    }
    try clear()
    guard let identity else { return nil }
    let journal = try Journal(place, interval: interval)
    try journal.append([Journal.Fact.identity: identity.json])
    return try Journal(place, interval: interval)
  }

  /// Leaves a run after an error: see `OutputFolder.leave`.
  func leave(_ error: any Error, journal: Journal?) -> any Error {
    // Where the output has taken its place, nothing is kept beside it.
    let isInPlace = !FileManager.default.fileExists(atPath: folder.appending(Self.journalName).string)
    if error is SuspendedConversion || journal != nil && isInPlace { return error }
    guard let journal, journal.stepCount > 0, Self.mayEndBetter(error) else {
      remove()
      return error
    }
    return SuspendedConversion(cause: error, kept: folder.string, steps: journal.stepCount)
  }

  /// Whether the same run could end otherwise: not where the input is at fault.
  private static func mayEndBetter(_ error: any Error) -> Bool {
    switch error {
    case is CancellationError: true
    case let error as ConversionError:
      switch error {
      case .cancelled, .writeFailed, .cannotCreate, .outputExists: true
      default: false
      }
    case let error as CheckpointError: error.isReadFailure || error.isMissingInput
    default: false
    }
  }

  /// Removes what earlier runs have left in the folder.
  func clear() throws(ConversionError) {
    let manager = FileManager.default
    do {
      for name in try manager.contentsOfDirectory(atPath: folder.string) {
        try manager.removeItem(atPath: folder.appending(name).string)
      }
    } catch {
      throw .cannotCreate(path.string, Self.explanation(error))
    }
  }

  func remove() { try? FileManager.default.removeItem(atPath: folder.string) }

  /// Removes the folder that a process left which was killed after its output had taken its place.
  static func tidy(beside path: FilePath) {
    let manager = FileManager.default
    let folder = folder(of: path)
    guard manager.fileExists(atPath: folder.string), let staging = try? Staging(for: path) else { return }
    if !manager.fileExists(atPath: folder.appending(outputName).string) { staging.remove() }
  }

  /// The output's name in the folder.
  static let outputName = "output"
}

/// A conversion that ended early, but for which the same command does only what is left.
package struct SuspendedConversion: Error, CustomStringConvertible {
  package let cause: any Error
  /// The folder with what is done.
  package let kept: String
  /// Tensors and blocks that need not be done again.
  package let steps: Int

  package var description: String {
    let what =
      switch cause {
      case is CancellationError, ConversionError.cancelled: "interrupted"
      default: "\(cause)"
      }
    return what + "; \(steps) finished steps are kept in \(kept): the same command goes on from there"
      + " (with --restart it begins anew)"
  }
}
