import Algorithms
import Dispatch
import Kernels
import Synchronization

/// Work on many tensors at once: each passes through stages, each stage is cut into tiles.
///
/// Tensors are spread over lanes, one per file up to `laneLimit`, and tiles are taken from the lanes in turn, so that
/// threads seldom write to the same file, which its lock would not let them do at the same time. Within a lane the order is
/// fixed: stage by stage along the tensors, a tensor's next stage one tensor later, so that waiting for a stage to end
/// is rare. Memory is per tensor, not per tile.
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

  private struct Lane: Sendable {
    var segments: [Segment] = []
    var count: Int { segments.last?.end ?? 0 }
  }

  /// A stretch of the order in which the same lanes are left.
  private struct Rounds: Sendable {
    let firstItem: Int
    let firstRound: Int
    let firstLane: Int
  }

  static let laneLimit = 4

  /// By rising length.
  private let lanes: [Lane]
  private let rounds: [Rounds]
  private let tileCounts: [[Int]]
  package let count: Int

  /// - Parameters:
  ///   - tileCounts: for each tensor the number of tiles of each of its stages.
  ///   - files: for each tensor the file that it is written to.
  package init(tileCounts: [[Int]], files: [Int]) {
    self.tileCounts = tileCounts
    let laneCount = min(Self.laneLimit, (files.max() ?? 0) + 1)
    lanes = (0..<laneCount).map { lane in
      Self.lane(of: tileCounts.indices.filter { files[$0] % laneCount == lane }, tileCounts)
    }.sorted { $0.count < $1.count }
    var rounds: [Rounds] = []
    var (item, round) = (0, 0)
    for (index, lane) in lanes.enumerated() where lane.count > round {
      rounds.append(Rounds(firstItem: item, firstRound: round, firstLane: index))
      item += (lane.count - round) * (lanes.count - index)
      round = lane.count
    }
    self.rounds = rounds
    count = item
  }

  private static func lane(of tensors: [Int], _ tileCounts: [[Int]]) -> Lane {
    var lane = Lane()
    let deepest = tensors.map { tileCounts[$0].count }.max() ?? 0
    for slot in 0..<(tensors.count + deepest) {
      for stage in 0..<deepest where slot - stage >= 0 && slot - stage < tensors.count {
        let tensor = tensors[slot - stage]
        guard stage < tileCounts[tensor].count, tileCounts[tensor][stage] > 0 else { continue }
        let end = lane.count + tileCounts[tensor][stage]
        lane.segments.append(Segment(tensor: tensor, stage: stage, end: end))
      }
    }
    return lane
  }

  /// The item at a position of the order.
  package func item(at position: Int) -> Item {
    let stretch = rounds[rounds.partitioningIndex { $0.firstItem > position } - 1]
    let (round, lane) = (position - stretch.firstItem).quotientAndRemainder(dividingBy: lanes.count - stretch.firstLane)
    let segments = lanes[stretch.firstLane + lane].segments
    let place = stretch.firstRound + round
    let index = segments.partitioningIndex { $0.end > place }
    let start = index > 0 ? segments[index - 1].end : 0
    return Item(tensor: segments[index].tensor, stage: segments[index].stage, tile: place - start)
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
    let failed = Mutex<Set<Int>>([])
    // Items are taken in order and always leave their group, so whatever is waited for has been begun and will end.
    try runParallel(count: count, workers: workers, makeState: makeState) { position, state in
      let item = item(at: position)
      let groups = stages[item.tensor]
      for earlier in 0..<item.stage { groups[earlier].wait() }
      defer { groups[item.stage].leave() }
      // What an earlier stage was to find is missing where it failed; its error is the one that counts.
      guard item.stage == 0 || !failed.withLock({ $0.contains(item.tensor) }) else { return }
      do {
        try body(item, &state)
      } catch {
        failed.withLock { _ = $0.insert(item.tensor) }
        throw error
      }
    }
  }
}
