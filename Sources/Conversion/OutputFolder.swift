import Algorithms
import Checkpoints
import Foundation
import Kernels
import Synchronization
import SystemPackage

/// A folder that appears complete or not at all: it is written elsewhere and renamed at the end.
///
/// A durable one is flushed to the device before it is renamed. For any other the system writes the data when it sees
/// fit, as after `cp`: a power cut soon after the end can leave files whose bytes are missing.
package final class OutputFolder: ResumableOutput {
  package let path: FilePath
  /// Where the files are written.
  let work: FilePath
  let isDurable: Bool
  package let staging: Staging
  private let mayReplace: Bool
  private let run = Mutex<Run?>(nil)

  private struct Run {
    let journal: Journal?
  }

  /// Claims the folder's place for this process.
  /// - Parameters:
  ///   - source: the folder that is read, which must not be the output.
  ///   - overwrite: replace an existing model folder.
  ///   - durable: flush everything before the folder appears.
  package init(_ path: FilePath, source: FilePath, overwrite: Bool, durable: Bool = false) throws(ConversionError) {
    (isDurable, mayReplace) = (durable, overwrite)
    let manager = FileManager.default
    var trimmed = path.lexicallyNormalized()
    if trimmed.lastComponent == nil { trimmed = Self.resolved(path) }
    self.path = trimmed
    guard trimmed.lastComponent != nil else { throw .cannotCreate(path.string, "it is no folder's name") }
    if Self.resolved(source) == Self.resolved(trimmed) { throw .outputIsSource(path.string) }
    var isDirectory: ObjCBool = false
    if manager.fileExists(atPath: trimmed.string, isDirectory: &isDirectory) {
      guard overwrite else {
        Staging.tidy(beside: trimmed)
        throw .outputExists(path.string)
      }
      let contents = (try? manager.contentsOfDirectory(atPath: trimmed.string)) ?? []
      guard isDirectory.boolValue, contents.isEmpty || contents.contains(where: { $0.hasSuffix(".safetensors") }) else {
        throw .outputIsNotAModel(path.string)
      }
      // Replacing the parent of the source would delete the source.
      if Self.resolved(source).starts(with: Self.resolved(trimmed)) { throw .outputIsSource(path.string) }
    }
    staging = try Staging(for: trimmed)
    work = staging.folder.appending(Staging.outputName)
    replaced = staging.folder.appending("replaced")
    // A run that was killed between the two renames of `commit` is undone.
    if manager.fileExists(atPath: replaced.string), !manager.fileExists(atPath: trimmed.string) {
      try Self.move(replaced, to: trimmed)
    }
  }

  /// Where the folder is kept that is being replaced.
  private let replaced: FilePath

  /// Begins a run, or takes up one that was interrupted.
  /// - Parameters:
  ///   - identity: what the output is made of; nil: the run cannot be taken up.
  ///   - restart: discard what an interrupted run has done.
  ///   - interval: blocks that end sooner after the last that was recorded are recorded with those that follow.
  /// - Returns: the entries of the interrupted run; empty where there is none.
  @discardableResult
  package func begin(
    _ identity: ConversionIdentity?, restart: Bool = false, recordingEvery interval: Duration = .zero
  ) throws(ConversionError) -> [JSONValue] {
    let journal = try staging.beginJournal(identity, restart: restart, interval: interval)
    do {
      try FileManager.default.createDirectory(atPath: work.string, withIntermediateDirectories: true)
    } catch {
      throw .cannotCreate(path.string, Staging.explanation(error))
    }
    run.withLock { $0 = Run(journal: journal) }
    return Array(journal?.entries.dropFirst() ?? [])
  }

  /// Begins a run that cannot be taken up, if none has begun.
  func beginIfNeeded() throws(ConversionError) {
    if run.withLock({ $0 == nil }) { try begin(nil) }
  }

  /// Nil where the run cannot be taken up.
  package var journal: Journal? { run.withLock { $0?.journal } }

  /// The path with symbolic links followed, as far as it exists.
  private static func resolved(_ path: FilePath) -> FilePath {
    let absolute = URL(fileURLWithPath: path.string).standardizedFileURL.resolvingSymlinksInPath().path
    return FilePath(absolute).lexicallyNormalized()
  }

  /// Bytes that the file system of the output has left; nil if it does not tell.
  var freeBytes: Int? {
    let attributes = try? FileManager.default.attributesOfFileSystem(forPath: work.string)
    return (attributes?[.systemFreeSize] as? NSNumber)?.intValue
  }

  /// Bytes of the output that an interrupted run has written.
  var writtenBytes: Int {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: work.string)) ?? []
    return names.reduce(0) { $0 + Int((try? Stat(work.appending($1)).size) ?? 0) }
  }

  /// Creates a file of the folder, or opens one that an interrupted run has left.
  func create(_ name: String) throws(ConversionError) -> FileDescriptor {
    do {
      return try FileDescriptor.open(
        work.appending(name), .readWrite, options: [.create, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch {
      throw .cannotCreate(path.appending(name).string, "\(error)")
    }
  }

  /// Writes a whole small file.
  func write(_ bytes: [UInt8], to name: String) throws(ConversionError) {
    let file = try create(name)
    defer { try? file.close() }
    do {
      try file.resize(to: 0, retryOnInterrupt: true)
      try file.writeFully(bytes, count: bytes.count, at: 0)
    } catch {
      throw .writeFailed(path.appending(name).string, "\(error)")
    }
  }

  /// Puts the finished folder in its place; an old one is removed only once the new one stands.
  func commit() throws(ConversionError) {
    if isDurable { try flush() }
    let replaces = FileManager.default.fileExists(atPath: path.string)
    // It was not there at the start.
    if replaces, !mayReplace { throw .outputExists(path.string) }
    if replaces { try Self.move(path, to: replaced) }
    do {
      try Self.move(work, to: path)
    } catch {
      if replaces { try? Self.move(replaced, to: path) }
      throw error
    }
    staging.remove()
    if isDurable { try Self.flush(path.removingLastComponent()) }
  }

  private static func move(_ source: FilePath, to target: FilePath) throws(ConversionError) {
    do {
      try FileManager.default.moveItem(atPath: source.string, toPath: target.string)
    } catch {
      throw .writeFailed(target.string, Staging.explanation(error))
    }
  }

  /// Flushes every file, and the folder that names them.
  private func flush() throws(ConversionError) {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: work.string).sorted()
    } catch {
      throw .writeFailed(path.string, Staging.explanation(error))
    }
    for name in names { try Self.flush(work.appending(name)) }
    try Self.flush(work)
  }

  /// Flushes a file or a folder.
  private static func flush(_ path: FilePath) throws(ConversionError) {
    do {
      let file = try FileDescriptor.open(path.isEmpty ? "." : path, .readOnly, options: .closeOnExec)
      defer { try? file.close() }
      try file.flush()
    } catch {
      throw .writeFailed(path.string, "\(error)")
    }
  }
}
