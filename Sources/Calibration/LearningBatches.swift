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
