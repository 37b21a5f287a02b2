import Dispatch
import Synchronization

/// Runs work items `0..<count` on several threads. Items are taken in order; each worker has its own state.
///
/// What an item computes must depend on its index alone, never on the worker, so that results are the same for any
/// number of threads.
/// - Throws: the error of the lowest failing item; items not yet begun are then dropped.
package func runParallel<State>(
  count: Int, workers: Int, makeState: @Sendable () -> State,
  body: @Sendable (_ item: Int, _ state: inout State) throws -> Void
) throws {
  let progress = Mutex(WorkProgress())
  let threads = max(1, min(workers, count))
  DispatchQueue.concurrentPerform(iterations: threads) { _ in
    var state = makeState()
    while true {
      let taken: Int? = progress.withLock { progress in
        guard progress.failure == nil, progress.next < count else { return nil }
        defer { progress.next += 1 }
        return progress.next
      }
      guard let item = taken else { return }
      do {
        try body(item, &state)
      } catch {
        progress.withLock { progress in
          if item < progress.failure?.item ?? .max { progress.failure = (item, error) }
        }
      }
    }
  }
  if let failure = progress.withLock({ $0.failure }) { throw failure.error }
}

private struct WorkProgress {
  var next = 0
  var failure: (item: Int, error: any Error)?
}

/// Runs tiles that cannot fail.
package func runTiles(count: Int, workers: Int, _ body: @Sendable (_ tile: Int) -> Void) {
  let threads = max(1, min(workers, count))
  if threads == 1 {
    for tile in 0..<count { body(tile) }
    return
  }
  let next = Atomic(0)
  DispatchQueue.concurrentPerform(iterations: threads) { _ in
    while true {
      let tile = next.wrappingAdd(1, ordering: .relaxed).oldValue
      guard tile < count else { return }
      body(tile)
    }
  }
}
