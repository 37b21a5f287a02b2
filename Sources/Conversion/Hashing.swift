import Checkpoints
import Crypto
import Kernels
import Synchronization
import SystemPackage

let hashBlock = 1 << 17

/// SHA-256 of a tensor whose parts are written by several threads, in any order.
///
/// A part is hashed as it is written, while it is in a cache of the core, if all parts before it have been. One that
/// comes before its turn is read back from the file when its turn has come, by the thread that brings the turn: threads
/// never wait for each other, and no part is kept in memory.
package final class WrittenHash: Sendable {
  private struct State {
    /// Nil while a thread is hashing.
    var hasher: SHA256? = SHA256()
    /// The bytes hashed so far.
    var position = 0
    /// Lengths of the parts that are written but not hashed, by offset.
    var parts: [Int: Int] = [:]
  }

  private let state = Mutex(State())
  private let byteCount: Int

  /// - Parameter byteCount: of the whole tensor.
  package init(byteCount: Int) { self.byteCount = byteCount }

  /// Adds `bytes[0..<count]`, which the file holds by now at an offset within the tensor.
  /// - Parameter readBack: reads a range of the tensor into the front of a buffer.
  /// - Returns: whether every byte has been hashed now: true for one of the calls.
  @discardableResult
  package func add<Failure: Error>(
    _ bytes: [UInt8], _ count: Int, at offset: Int,
    readBack: (Range<Int>, inout [UInt8]) throws(Failure) -> Void
  ) throws(Failure) -> Bool {
    let taken = state.withLock { state -> SHA256? in
      state.parts[offset] = count
      return state.position == offset ? state.hasher.take() : nil
    }
    guard var hasher = taken else { return false }
    hasher.update(data: bytes[..<count])
    var buffer: [UInt8] = []
    while true {
      switch next(after: hasher) {
      case .end: return true
      case .wait: return false
      case .part(let part):
        buffer.resize(to: part.count)
        try readBack(part, &buffer)
        hasher.update(data: buffer)
      }
    }
  }

  private enum Next {
    case part(Range<Int>)
    /// It has not been written; the hasher is put back.
    case wait
    case end
  }

  /// Ends the part whose turn it was.
  private func next(after hasher: SHA256) -> Next {
    state.withLock { state in
      state.position += state.parts.removeValue(forKey: state.position) ?? 0
      if let count = state.parts[state.position] {
        return .part(state.position..<(state.position + count))
      }
      state.hasher = hasher
      return state.position == byteCount ? .end : .wait
    }
  }

  /// The hash, in lower-case hexadecimal, once every part has been added.
  package func value() -> String {
    state.withLock { state in
      guard let hasher = state.hasher, state.parts.isEmpty else { preconditionFailure("some parts are missing") }
      return hexadecimal(hasher.finalize())
    }
  }
}

/// SHA-256, in lower-case hexadecimal, of the bytes of a tensor.
func sha256(of tensor: CheckpointTensor, using buffer: inout [UInt8]) throws(CheckpointError) -> String {
  var hasher = SHA256()
  let size = tensor.entry.bytes.count
  for start in stride(from: 0, to: size, by: hashBlock) {
    let part = start..<min(start + hashBlock, size)
    try tensor.file.read(part, of: tensor.entry, into: &buffer)
    hasher.update(data: buffer[..<part.count])
  }
  return hexadecimal(hasher.finalize())
}

/// SHA-256, in lower-case hexadecimal, of a whole file, and its size.
/// - Parameter goOn: false stops the work.
func sha256(
  ofFile path: FilePath, using buffer: inout [UInt8], goOn: () -> Bool
) throws -> (hash: String, byteCount: Int) {
  let (descriptor, size) = try openForReading(path)
  defer { try? descriptor.close() }
  buffer.resize(to: hashBlock)
  var hasher = SHA256()
  for start in stride(from: 0, to: size, by: hashBlock) {
    guard goOn() else { throw CancellationError() }
    let count = min(hashBlock, size - start)
    let got: Int
    do {
      got = try descriptor.readFully(at: start, count: count, into: &buffer)
    } catch {
      throw CheckpointError(file: path.string, .readFailed(error.description))
    }
    guard got == count else {
      throw CheckpointError(file: path.string, .fileShrank(expected: count, found: got))
    }
    hasher.update(data: buffer[..<count])
  }
  return (hexadecimal(hasher.finalize()), size)
}

func hexadecimal(_ digest: SHA256.Digest) -> String {
  digest.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}
