import Dispatch
import Kernels

/// Work on many tensors at once: each passes through stages, each stage is cut into tiles.
///
/// Tiles are taken in a fixed order, stage by stage along the tensors, a tensor's next stage one tensor later, so that
/// waiting for a stage to end is rare. Memory is per tensor, not per tile.
package struct Schedule: Sendable {
  package struct Item: Hashable, Sendable {
    package let tensor: Int
    package let stage: Int
    package let tile: Int
  }

  private struct Segment: Sendable {
    let tensor: Int
    let stage: Int
    let end: Int
  }

  private let segments: [Segment]
  private let tileCounts: [[Int]]
  package let count: Int

  /// - Parameter tileCounts: for each tensor the number of tiles of each of its stages.
  package init(tileCounts: [[Int]]) {
    self.tileCounts = tileCounts
    var segments: [Segment] = []
    var end = 0
    let deepest = tileCounts.map(\.count).max() ?? 0
    for slot in 0..<(tileCounts.count + deepest) {
      for stage in 0..<deepest where slot - stage >= 0 && slot - stage < tileCounts.count {
        let tensor = slot - stage
        guard stage < tileCounts[tensor].count, tileCounts[tensor][stage] > 0 else { continue }
        end += tileCounts[tensor][stage]
        segments.append(Segment(tensor: tensor, stage: stage, end: end))
      }
    }
    self.segments = segments
    count = end
  }

  /// The item at a position of the order.
  func item(at position: Int) -> Item {
    var low = 0
    var high = segments.count - 1
    while low < high {
      let middle = (low + high) / 2
      if position < segments[middle].end { high = middle } else { low = middle + 1 }
    }
    let start = low > 0 ? segments[low - 1].end : 0
    return Item(tensor: segments[low].tensor, stage: segments[low].stage, tile: position - start)
  }

  /// Runs every item; one begins only when all items of its tensor's earlier stages have ended.
  /// - Throws: the error of the first failing item in the order.
  package func run<State>(
    workers: Int, makeState: @Sendable () -> State, body: @Sendable (Item, inout State) throws -> Void
  ) throws {
    let stages = tileCounts.map { counts in
      counts.map { tiles in
        let group = DispatchGroup()
        for _ in 0..<tiles { group.enter() }
        return group
      }
    }
    // Items are taken in order and always leave their group, so whatever is waited for has been begun and will end.
    try runParallel(count: count, workers: workers, makeState: makeState) { position, state in
      let item = item(at: position)
      let groups = stages[item.tensor]
      for earlier in 0..<item.stage { groups[earlier].wait() }
      defer { groups[item.stage].leave() }
      try body(item, &state)
    }
  }
}
