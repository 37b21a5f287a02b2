import Checkpoints
import Kernels
import SystemPackage

/// Files in which long work keeps what it has come to, so that it can be gone on with after an interruption.
///
/// A file counts from when `keep` was called, as long as its bytes are those that it had then.
package protocol KeptFiles {
  /// Where a file of this name is, or is to be written.
  func path(of name: String) -> FilePath
  func has(_ name: String) -> Bool
  /// Whether enough work has been done since a file was last kept for it to be worth the writing.
  var isDue: Bool { get }
  /// The file is written.
  func keep(_ name: String) throws
  /// The file, if there is one, is needed no more.
  func discard(_ name: String)
}

/// Writes numbers, bytes and matrices one after the other, for the same program to read.
package final class StateWriter {
  private let path: FilePath
  private let file: FileDescriptor
  private var end = 0

  package init(_ path: FilePath) throws(CheckpointError) {
    self.path = path
    do {
      file = try FileDescriptor.open(
        path, .writeOnly, options: [.create, .truncate, .closeOnExec], permissions: [.ownerReadWrite])
    } catch {
      throw Self.failure(path, error)
    }
  }

  deinit { try? file.close() }

  private static func failure(_ path: FilePath, _ error: any Error) -> CheckpointError {
    CheckpointError(file: path.string, .readFailed("writing what is to be gone on with: \(error)"))
  }

  package func write(_ bytes: [UInt8]) throws(CheckpointError) {
    do {
      try file.writeFully(bytes, count: bytes.count, at: end)
    } catch {
      throw Self.failure(path, error)
    }
    end += bytes.count
  }

  package func write(_ number: UInt64) throws(CheckpointError) {
    try write(stride(from: 0, to: 64, by: 8).map { UInt8(truncatingIfNeeded: number >> $0) })
  }

  package func write(_ matrices: [Matrix]) throws(CheckpointError) {
    for matrix in matrices {
      do {
        try file.writeRows(of: matrix, at: end)
      } catch {
        throw Self.failure(path, error)
      }
      end += matrix.rows * matrix.columns * MemoryLayout<Float>.stride
    }
  }
}

/// Reads what a `StateWriter` wrote, in the same order.
package final class StateReader {
  private let path: FilePath
  private let file: FileDescriptor
  private var end = 0

  package init(_ path: FilePath) throws(CheckpointError) {
    self.path = path
    do {
      file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
    } catch {
      throw CheckpointError(file: path.string, .notReadable("\(error)"))
    }
  }

  deinit { try? file.close() }

  package func bytes(_ count: Int) throws(CheckpointError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var found = 0
    do {
      found = try file.readFully(at: end, count: count, into: &bytes)
    } catch {
      throw CheckpointError(file: path.string, .readFailed("\(error)"))
    }
    guard found == count else { throw CheckpointError(file: path.string, .readFailed("it ends early")) }
    end += count
    return bytes
  }

  package func number() throws(CheckpointError) -> UInt64 {
    try bytes(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  package func read(into matrices: [Matrix]) throws(CheckpointError) {
    for matrix in matrices {
      do {
        try file.readRows(into: matrix, at: end)
      } catch {
        throw CheckpointError(file: path.string, .readFailed("\(error)"))
      }
      end += matrix.rows * matrix.columns * MemoryLayout<Float>.stride
    }
  }
}
