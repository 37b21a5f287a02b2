import Checkpoints
import Foundation
import Kernels
import Synchronization
import SystemPackage

/// A file that appears complete or not at all: it is written elsewhere and renamed at the end.
package final class OutputFile: ResumableOutput {
  package let path: FilePath
  package let staging: Staging
  private let work: FilePath
  private let isDurable: Bool
  private let mayReplace: Bool
  private let run = Mutex<Run?>(nil)

  private struct Run {
    let journal: Journal?
    let descriptor: FileDescriptor
  }

  /// Claims the file's place for this process.
  /// - Parameters:
  ///   - source: what is read, which must not be the output.
  ///   - overwrite: replace an existing file.
  ///   - durable: flush it before it appears.
  package init(_ path: FilePath, source: FilePath, overwrite: Bool, durable: Bool = false) throws(ConversionError) {
    let manager = FileManager.default
    self.path = path
    (isDurable, mayReplace) = (durable, overwrite)
    guard path.lastComponent?.kind == .regular else {
      throw .cannotCreate(path.string, "it is no file's name")
    }
    func resolved(_ path: FilePath) -> String {
      URL(fileURLWithPath: path.string).standardizedFileURL.resolvingSymlinksInPath().path
    }
    if resolved(path) == resolved(source) { throw .outputIsSource(path.string) }
    var isDirectory: ObjCBool = false
    if manager.fileExists(atPath: path.string, isDirectory: &isDirectory) {
      if isDirectory.boolValue { throw .cannotCreate(path.string, "it is a folder") }
      guard overwrite else {
        Staging.tidy(beside: path)
        throw .outputExists(path.string)
      }
    }
    staging = try Staging(for: path)
    work = staging.folder.appending(Staging.outputName)
  }

  deinit { try? run.withLock { $0 }?.descriptor.close() }

  /// Begins a run, or takes up one that was interrupted: see `OutputFolder.begin`.
  @discardableResult
  package func begin(
    _ identity: ConversionIdentity?, restart: Bool = false, recordingEvery interval: Duration = .zero
  ) throws(ConversionError) -> [JSONValue] {
    let journal = try staging.beginJournal(identity, restart: restart, interval: interval)
    do {
      let descriptor = try FileDescriptor.open(
        work, .readWrite, options: [.create, .closeOnExec], permissions: [.ownerReadWrite, .groupRead, .otherRead])
      run.withLock { $0 = Run(journal: journal, descriptor: descriptor) }
    } catch {
      throw .cannotCreate(path.string, "\(error)")
    }
    return Array(journal?.entries.dropFirst() ?? [])
  }

  /// Begins a run that cannot be taken up, if none has begun.
  func beginIfNeeded() throws(ConversionError) {
    if run.withLock({ $0 == nil }) { try begin(nil) }
  }

  /// Nil where the run cannot be taken up.
  package var journal: Journal? { run.withLock { $0?.journal } }

  private var descriptor: FileDescriptor {
    guard let descriptor = run.withLock({ $0?.descriptor }) else { preconditionFailure("no run has begun") }
    return descriptor
  }

  /// Where the bytes of the run are.
  package var written: FilePath { work }

  /// Writes the whole file and puts it in its place; it is removed on an error.
  package func finish(_ bytes: [UInt8]) throws {
    do {
      try beginIfNeeded()
      try allocate(bytes.count)
      try write(bytes, count: bytes.count, at: 0)
      try commit()
    } catch {
      throw leave(error)
    }
  }

  /// Gives the file its size, and its room where the system can.
  func allocate(_ count: Int) throws(ConversionError) {
    do {
      try descriptor.allocate(count)
    } catch {
      throw .writeFailed(path.string, error.description)
    }
  }

  func write(_ bytes: [UInt8], count: Int, at offset: Int) throws(ConversionError) {
    do {
      try descriptor.writeFully(bytes, count: count, at: offset)
    } catch {
      throw .writeFailed(path.string, error.description)
    }
  }

  /// Reads what was written.
  func read(at offset: Int, count: Int, into bytes: inout [UInt8]) throws(ConversionError) {
    let got: Int
    do {
      got = try descriptor.readFully(at: offset, count: count, into: &bytes)
    } catch {
      throw .writeFailed(path.string, "reading it back: \(error.description)")
    }
    guard got == count else { throw .writeFailed(path.string, "it was cut while it was written") }
  }

  /// Puts the finished file in its place.
  package func commit() throws(ConversionError) {
    // It was not there at the start.
    if !mayReplace, FileManager.default.fileExists(atPath: path.string) { throw .outputExists(path.string) }
    do {
      if isDurable { try descriptor.flush() }
      guard rename(work.string, path.string) == 0 else { throw Errno(rawValue: errno) }
      staging.remove()
      if isDurable {
        let parent = path.removingLastComponent()
        let folder = try FileDescriptor.open(parent.isEmpty ? "." : parent, .readOnly, options: .closeOnExec)
        defer { try? folder.close() }
        try folder.flush()
      }
    } catch {
      throw .writeFailed(path.string, "\(error)")
    }
  }
}
