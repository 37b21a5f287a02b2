import Dispatch
import Foundation
import Synchronization

/// Writes files and, if asked to, flushes them: then all their bytes are on the device when it returns.
func flushing<Result>(_ files: [TargetFile], if isAsked: Bool, _ write: () throws -> Result) throws -> Result {
  guard isAsked else { return try write() }
  let flush = BackgroundFlush(files)
  do {
    let result = try write()
    try flush.finish()
    return result
  } catch {
    flush.stop()
    throw error
  }
}

/// Flushes files again and again while they are written, so that little is left to wait for at the end, and unwritten
/// data never fills the machine's memory.
private final class BackgroundFlush: Sendable {
  private struct State {
    var isStopped = false
    var failure: (any Error)?
  }

  private let files: [TargetFile]
  private let state = Mutex(State())
  private let ended = DispatchGroup()

  init(_ files: [TargetFile]) {
    self.files = files
    ended.enter()
    Thread.detachNewThread { [self] in
      while !state.withLock({ $0.isStopped }) {
        do {
          for file in files where !state.withLock({ $0.isStopped }) { try file.flush() }
        } catch {
          // The system reports a failed write once; it must not be lost.
          state.withLock { $0 = State(isStopped: true, failure: error) }
        }
        // A little rest, for outputs so small that there is nothing to flush.
        Thread.sleep(forTimeInterval: 0.01)
      }
      ended.leave()
    }
  }

  /// Ends the thread.
  func stop() {
    state.withLock { $0.isStopped = true }
    ended.wait()
  }

  /// Ends the thread, and flushes what is left.
  /// - Throws: the first failure of any flush.
  func finish() throws {
    stop()
    if let failure = state.withLock({ $0.failure }) { throw failure }
    for file in files { try file.flush() }
  }
}
