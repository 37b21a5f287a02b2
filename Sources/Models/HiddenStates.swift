import Checkpoints
import Foundation
import Kernels
import SystemPackage

/// The residual stream of all tokens between two blocks, `[tokens, hidden]`: in memory or, beyond a limit or where they
/// are to be kept, in a file.
package final class HiddenStates: Sendable {
  package let tokens: Int
  package let width: Int
  private let memory: Matrix?
  private let file: FileDescriptor?
  private let path: FilePath
  private let pool: MatrixPool
  private let storage: MatrixPool?
  private let workers: Int

  /// What the states are is not said until they are written.
  /// - Parameters:
  ///   - memoryLimit: bytes up to which the states stay in memory.
  ///   - folder: where the file is made otherwise; it has no name once it is open, so that nothing can be left behind.
  ///   - pool: of the parts of a file that are worked on.
  ///   - storage: where the memory of all states comes from, and goes to in the end.
  ///   - workers: threads that read and write a file.
  package init(
    tokens: Int, width: Int, memoryLimit: Int, folder: FilePath, pool: MatrixPool, storage: MatrixPool? = nil,
    workers: Int
  ) throws(CheckpointError) {
    self.workers = workers
    self.tokens = tokens
    self.width = width
    self.pool = pool
    self.storage = storage
    path = folder.appending(".convert-model-states-\(UInt64.random(in: 0...UInt64.max))")
    let byteCount = tokens * width * MemoryLayout<Float>.stride
    if byteCount <= memoryLimit {
      memory = storage?.take(rows: tokens, columns: width) ?? Matrix(rows: tokens, columns: width)
      file = nil
      return
    }
    memory = nil
    do {
      let descriptor = try FileDescriptor.open(
        path, .readWrite, options: [.create, .exclusiveCreate, .closeOnExec], permissions: [.ownerReadWrite])
      file = descriptor
      try FileManager.default.removeItem(atPath: path.string)
    } catch let error {
      throw CheckpointError(file: path.string, .notReadable("hidden states do not fit into memory, and \(error)"))
    }
  }

  /// States in a file that stays, of which it may hold some already.
  package init(
    tokens: Int, width: Int, at path: FilePath, pool: MatrixPool, workers: Int
  ) throws(CheckpointError) {
    self.workers = workers
    self.tokens = tokens
    self.width = width
    self.pool = pool
    self.path = path
    storage = nil
    memory = nil
    do {
      file = try FileDescriptor.open(
        path, .readWrite, options: [.create, .closeOnExec], permissions: [.ownerReadWrite])
    } catch {
      throw CheckpointError(file: path.string, .notReadable("hidden states are kept there, and \(error)"))
    }
  }

  deinit {
    try? file?.close()
    if let memory { storage?.give(memory) }
  }

  package var isSpilled: Bool { file != nil }

  /// Makes the memory ready, if there is any; what stands in it is lost.
  package func touch() { memory?.touch(workers: workers) }

  /// Gives a body the states of some tokens to change; they are kept afterwards.
  package func update(_ rows: Range<Int>, _ body: (Matrix) throws -> Void) throws {
    try use(rows, isWritten: true, body)
  }

  /// Gives a body the states of some tokens to look at; it must not change them.
  package func read(_ rows: Range<Int>, _ body: (Matrix) throws -> Void) throws {
    try use(rows, isWritten: false, body)
  }

  private static let fileRows = 4096

  /// - Parameter workers: used where the states are in memory; else one part is, too.
  private func forEachPart(workers: Int, _ body: @Sendable (Range<Int>) throws -> Void) throws {
    let tokens = tokens
    let count = (tokens + Self.fileRows - 1) / Self.fileRows
    try runParallel(count: count, workers: isSpilled ? 1 : workers, makeState: {}) { part, _ in
      try body((part * Self.fileRows)..<min(tokens, (part + 1) * Self.fileRows))
    }
  }

  /// Writes the states to a file, row after row.
  package func save(to path: FilePath, workers: Int) throws {
    do {
      let file = try FileDescriptor.open(
        path, .writeOnly, options: [.create, .truncate, .closeOnExec], permissions: [.ownerReadWrite])
      defer { try? file.close() }
      try forEachPart(workers: workers) { rows in
        try read(rows) { part in
          try file.writeRows(of: part, at: rows.lowerBound * width * MemoryLayout<Float>.stride)
        }
      }
    } catch let error as Errno {
      throw CheckpointError(file: path.string, .readFailed("writing hidden states: \(error)"))
    }
  }

  /// Reads what `save` wrote of states of the same size.
  package func restore(from path: FilePath) throws {
    do {
      let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
      defer { try? file.close() }
      try forEachPart(workers: 1) { rows in
        try update(rows) { part in
          try file.readRows(into: part, at: rows.lowerBound * width * MemoryLayout<Float>.stride)
        }
      }
    } catch let error as Errno {
      throw CheckpointError(file: path.string, .readFailed("reading hidden states: \(error)"))
    }
  }

  /// Gives runs of rows to a body, with their places in the file.
  private func transfer(
    _ part: Matrix, at offset: Int, _ body: @Sendable (_ rows: Matrix, _ offset: Int) throws -> Void
  ) throws {
    let rowBytes = width * MemoryLayout<Float>.stride
    let length = max(1, (1 << 20) / max(1, rowBytes))
    try runParallel(count: (part.rows + length - 1) / length, workers: workers, makeState: {}) { run, _ in
      let rows = (run * length)..<min(part.rows, (run + 1) * length)
      try body(Matrix(sharing: part, rows: rows), offset + rows.lowerBound * rowBytes)
    }
  }

  private func use(_ rows: Range<Int>, isWritten: Bool, _ body: (Matrix) throws -> Void) throws {
    if let memory { return try body(Matrix(sharing: memory, rows: rows)) }
    guard let file else { return }
    let part = pool.take(rows: rows.count, columns: width)
    defer { pool.give(part) }
    let offset = rows.lowerBound * width * MemoryLayout<Float>.stride
    do {
      // The first block's input is written before anything is read.
      if try file.stat().size >= offset + rows.count * width * MemoryLayout<Float>.stride {
        try transfer(part, at: offset) { try file.readRows(into: $0, at: $1) }
      }
    } catch {
      throw CheckpointError(file: path.string, .readFailed("\(error)"))
    }
    try body(part)
    guard isWritten else { return }
    do {
      try transfer(part, at: offset) { try file.writeRows(of: $0, at: $1) }
    } catch {
      throw CheckpointError(file: path.string, .readFailed("writing hidden states: \(error)"))
    }
  }
}
