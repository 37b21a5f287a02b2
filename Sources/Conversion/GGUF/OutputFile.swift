import Foundation
import Kernels
import SystemPackage

/// A file that appears complete or not at all: written under a temporary name beside its place, renamed at the end.
package final class OutputFile: Sendable {
  package let path: FilePath
  private let work: FilePath
  private let descriptor: FileDescriptor
  private let isDurable: Bool

  /// - Parameters:
  ///   - source: what is read, which must not be the output.
  ///   - overwrite: replace an existing file.
  ///   - durable: flush it before it appears.
  package init(_ path: FilePath, source: FilePath, overwrite: Bool, durable: Bool = false) throws(ConversionError) {
    let manager = FileManager.default
    self.path = path
    isDurable = durable
    guard let name = path.lastComponent, name.kind == .regular else {
      throw .cannotCreate(path.string, "it is no file's name")
    }
    func resolved(_ path: FilePath) -> String {
      URL(fileURLWithPath: path.string).standardizedFileURL.resolvingSymlinksInPath().path
    }
    if resolved(path) == resolved(source) { throw .outputIsSource(path.string) }
    var isDirectory: ObjCBool = false
    if manager.fileExists(atPath: path.string, isDirectory: &isDirectory) {
      if isDirectory.boolValue { throw .cannotCreate(path.string, "it is a folder") }
      guard overwrite else { throw .outputExists(path.string) }
    }
    let parent = path.removingLastComponent()
    work = parent.appending(".\(name.string).partial-\(UUID().uuidString.prefix(8))")
    do {
      if !parent.isEmpty { try manager.createDirectory(atPath: parent.string, withIntermediateDirectories: true) }
      descriptor = try FileDescriptor.open(
        work, .readWrite, options: [.create, .exclusiveCreate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch {
      throw .cannotCreate(path.string, error is Errno ? "\(error)" : OutputFolder.explanation(error))
    }
  }

  /// What was not put in its place goes.
  deinit {
    try? descriptor.close()
    abandon()
  }

  /// Writes the whole file and puts it in its place; it is removed on an error.
  package func finish(_ bytes: [UInt8]) throws(ConversionError) {
    do throws(ConversionError) {
      try allocate(bytes.count)
      try write(bytes, count: bytes.count, at: 0)
      try commit()
    } catch {
      abandon()
      throw error
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

  /// Puts the finished file in its place.
  package func commit() throws(ConversionError) {
    do {
      if isDurable { try descriptor.flush() }
      guard rename(work.string, path.string) == 0 else { throw Errno(rawValue: errno) }
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

  /// Removes what has been written.
  package func abandon() { try? FileManager.default.removeItem(atPath: work.string) }
}
