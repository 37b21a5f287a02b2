import Checkpoints
import Foundation
import Kernels
import SystemPackage

/// A folder that appears complete or not at all: it is written under a temporary name beside its place and renamed at
/// the end.
///
/// A durable one is flushed to the device before it is renamed. For any other the system writes the data when it sees
/// fit, as after `cp`: a power cut soon after the end can leave files whose bytes are missing.
package final class OutputFolder: Sendable {
  package let path: FilePath
  /// Where the files are written.
  let work: FilePath
  let isDurable: Bool

  /// - Parameters:
  ///   - source: the folder that is read, which must not be the output.
  ///   - overwrite: replace an existing model folder.
  ///   - durable: flush everything before the folder appears.
  package init(_ path: FilePath, source: FilePath, overwrite: Bool, durable: Bool = false) throws(ConversionError) {
    isDurable = durable
    let manager = FileManager.default
    var trimmed = path.lexicallyNormalized()
    if trimmed.lastComponent == nil { trimmed = Self.resolved(path) }
    self.path = trimmed
    guard let name = trimmed.lastComponent else { throw .cannotCreate(path.string, "it is no folder's name") }
    if Self.resolved(source) == Self.resolved(trimmed) { throw .outputIsSource(path.string) }
    var isDirectory: ObjCBool = false
    if manager.fileExists(atPath: trimmed.string, isDirectory: &isDirectory) {
      guard overwrite else { throw .outputExists(path.string) }
      let contents = (try? manager.contentsOfDirectory(atPath: trimmed.string)) ?? []
      guard isDirectory.boolValue, contents.isEmpty || contents.contains(where: { $0.hasSuffix(".safetensors") }) else {
        throw .outputIsNotAModel(path.string)
      }
      // Replacing the parent of the source would delete the source.
      if Self.resolved(source).starts(with: Self.resolved(trimmed)) { throw .outputIsSource(path.string) }
    }
    let parent = trimmed.removingLastComponent()
    // A name of its own: one left by a killed process must not lend its files to this output.
    work = parent.appending(".\(name.string).partial-\(UUID().uuidString.prefix(8))")
    do {
      if !parent.isEmpty { try manager.createDirectory(atPath: parent.string, withIntermediateDirectories: true) }
      try manager.createDirectory(atPath: work.string, withIntermediateDirectories: false)
    } catch {
      throw .cannotCreate(path.string, Self.explanation(error))
    }
  }

  /// The path with symbolic links followed, as far as it exists.
  private static func resolved(_ path: FilePath) -> FilePath {
    let absolute = URL(fileURLWithPath: path.string).standardizedFileURL.resolvingSymlinksInPath().path
    return FilePath(absolute).lexicallyNormalized()
  }

  static func explanation(_ error: any Error) -> String {
    let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
    return underlying?.localizedDescription ?? error.localizedDescription
  }

  /// Bytes that the file system of the output has left; nil if it does not tell.
  var freeBytes: Int? {
    let attributes = try? FileManager.default.attributesOfFileSystem(forPath: work.string)
    return (attributes?[.systemFreeSize] as? NSNumber)?.intValue
  }

  /// Creates a file of the folder.
  func create(_ name: String) throws(ConversionError) -> FileDescriptor {
    do {
      return try FileDescriptor.open(
        work.appending(name), .readWrite, options: [.create, .exclusiveCreate, .closeOnExec],
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
      try file.writeFully(bytes, count: bytes.count, at: 0)
    } catch {
      throw .writeFailed(path.appending(name).string, error.description)
    }
  }

  /// Puts the finished folder in its place; an old one is removed only once the new one stands.
  func commit() throws(ConversionError) {
    if isDurable { try flush() }
    let manager = FileManager.default
    let old = work.removingLastComponent().appending((work.lastComponent?.string ?? "") + "-old")
    do {
      let replaces = manager.fileExists(atPath: path.string)
      if replaces { try manager.moveItem(atPath: path.string, toPath: old.string) }
      do {
        try manager.moveItem(atPath: work.string, toPath: path.string)
      } catch {
        if replaces { try? manager.moveItem(atPath: old.string, toPath: path.string) }
        throw error
      }
      if replaces { try? manager.removeItem(atPath: old.string) }
    } catch {
      throw .writeFailed(path.string, Self.explanation(error))
    }
    if isDurable { try Self.flush(work.removingLastComponent()) }
  }

  /// Flushes every file, and the folder that names them.
  private func flush() throws(ConversionError) {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: work.string).sorted()
    } catch {
      throw .writeFailed(path.string, Self.explanation(error))
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

  /// Removes what has been written.
  func abandon() { try? FileManager.default.removeItem(atPath: work.string) }
}
