import Synchronization

/// How far a long task is, in bytes read.
package struct ByteProgress: Hashable, Sendable {
  package let done: Int
  package let total: Int
}

/// Adds up the progress of several threads, and asks at each step whether to go on.
final class ProgressCounter: Sendable {
  private let done = Mutex(0)
  private let total: Int
  private let report: @Sendable (ByteProgress) -> Bool

  /// - Parameter report: called from any thread, one call at a time; false stops the work.
  init(total: Int, report: @escaping @Sendable (ByteProgress) -> Bool) {
    self.total = total
    self.report = report
  }

  func add(_ bytes: Int) throws(ConversionError) {
    let goOn = done.withLock { done in
      done += bytes
      return report(ByteProgress(done: done, total: total))
    }
    if !goOn { throw .cancelled }
  }
}
