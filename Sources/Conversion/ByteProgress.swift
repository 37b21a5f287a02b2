import Synchronization

/// How far a long task is, in bytes read.
package struct ByteProgress: Hashable, Sendable {
  package let done: Int
  package let total: Int
  /// What is done with them, such as `writing`: tasks of several stages count each by itself.
  package let stage: String
  /// Those of a kind that were done, and all of it: some kinds of tensors take longer for each byte than others.
  package let kinds: [String: Part]

  package struct Part: Hashable, Sendable {
    package var done: Int
    package var total: Int
  }
}

/// Adds up the progress of several threads, and asks at each step whether to go on.
final class ProgressCounter: Sendable {
  private struct State {
    var done = 0
    var kinds: [String: ByteProgress.Part]
  }

  private let state: Mutex<State>
  private let total: Int
  private let stage: String
  private let report: @Sendable (ByteProgress) -> Bool

  /// - Parameters:
  ///   - kinds: bytes of each kind, all together `total`; empty where they are of one kind.
  ///   - report: called from any thread, one call at a time; false stops the work.
  init(
    total: Int, stage: String = "writing", kinds: [String: Int] = [:],
    report: @escaping @Sendable (ByteProgress) -> Bool
  ) {
    self.total = total
    self.stage = stage
    state = Mutex(State(kinds: kinds.mapValues { ByteProgress.Part(done: 0, total: $0) }))
    self.report = report
  }

  func add(_ bytes: Int, _ kind: String = "") throws(ConversionError) {
    let goOn = state.withLock { state in
      state.done += bytes
      state.kinds[kind]?.done += bytes
      return report(ByteProgress(done: state.done, total: total, stage: stage, kinds: state.kinds))
    }
    if !goOn { throw .cancelled }
  }
}
