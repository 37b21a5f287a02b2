import Kernels
import Models

/// Windows in a shuffled order, again and again, a few at a time.
struct LearningBatches {
  private let windows: [Range<Int>]
  private let size: Int
  private var pending: [Int] = []
  private var generator: SeededGenerator

  /// - Parameter windows: the rows of each in the hidden states.
  init(_ windows: [Range<Int>], size: Int, seed: UInt64) {
    self.windows = windows
    self.size = min(size, windows.count)
    generator = SeededGenerator(seed: seed)
  }

  /// Each window comes once before any comes again.
  mutating func next() -> [Range<Int>] {
    var batch: [Int] = []
    while batch.count < size {
      if pending.isEmpty { pending = windows.indices.filter { !batch.contains($0) }.shuffled(using: &generator) }
      batch.append(pending.removeLast())
    }
    return batch.map { windows[$0] }
  }
}

extension HiddenStates {
  /// Copies the rows of some windows, one after the other.
  func gather(_ windows: [Range<Int>], into target: Matrix) throws {
    var row = 0
    for window in windows {
      try read(window) {
        copyColumns(MatrixColumns($0, from: 0), into: target, at: row, count: window.count)
      }
      row += window.count
    }
  }
}

/// What learning did to the loss on windows that no step was taken on.
package struct LearningOutcome: Hashable, Codable, Sendable {
  /// The loss of the start.
  package let before: Double
  /// The loss of what is kept: the least of all that were measured, the start's among them.
  package let after: Double
  /// Steps after which it was measured; 0: nothing was gained, and the start is kept.
  package let steps: Int
}

/// Keeps the best of several states.
struct BestSoFar<State> {
  private(set) var state: State
  private(set) var outcome: LearningOutcome

  init(_ start: State, loss: Double) {
    state = start
    outcome = LearningOutcome(before: loss, after: loss, steps: 0)
  }

  mutating func offer(_ loss: Double, steps: Int, _ candidate: @autoclosure () -> State) {
    // A loss that is not a number is no improvement.
    guard loss < outcome.after else { return }
    state = candidate()
    outcome = LearningOutcome(before: outcome.before, after: loss, steps: steps)
  }
}

extension LearningOutcome {
  /// Whether a loss is measured after so many of all steps: at each quarter.
  static func isMeasured(after steps: Int, of count: Int) -> Bool {
    (1...4).contains { steps == max(1, count * $0 / 4) }
  }
}
