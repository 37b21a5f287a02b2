/// Predicts how long work of several parts will still take, from what the parts that are done took.
///
/// A part is work whose units take about as long each, such as the bytes that are quantized by one method. Until some of a
/// part is done, its prior cost counts, scaled by how much slower or faster than their priors the others were: so a busy
/// machine makes all predictions longer. Time that passed while several parts advanced is divided by what they were
/// predicted to take.
package struct TimeEstimate: Sendable {
  private struct Part: Sendable {
    var total: Double
    var done = 0.0
    /// Seconds for a unit, as a first guess.
    var prior: Double
    /// Spent on what is done.
    var seconds = 0.0
  }

  private var parts: [String: Part] = [:]
  private var last = 0.0
  /// Whether any part was told of.
  private var hasBegun = false

  /// How much of a part its prior weighs, and how much of all work the priors' own pace.
  private static let priorWeight = 0.03
  private static let paceWeight = 0.0005
  /// Of what the first step of parts takes, so many times what was predicted counts, at most.
  private static let beginningLimit = 4.0

  package init() {}

  /// Declares a part, or corrects its total.
  /// - Parameter cost: seconds for each unit, as a first guess.
  package mutating func plan(_ name: String, total: Double, cost: Double) {
    guard total.isFinite, total >= 0, cost.isFinite, cost > 0 else { return }
    if parts[name] == nil {
      parts[name] = Part(total: total, prior: cost)
    } else {
      parts[name]?.total = total
    }
  }

  /// Parts of the work have advanced.
  /// - Parameters:
  ///   - done: units of parts that were planned; a part that is not named has not moved.
  ///   - seconds: since the beginning of the work; never less than before.
  package mutating func advance(_ done: [String: Double], at seconds: Double) {
    let elapsed = max(0, seconds - last)
    let steps = done.compactMap { name, done in
      parts[name].map { (name: name, units: max(0, min(done, $0.total) - $0.done)) }
    }.filter { $0.units > 0 }
    guard !steps.isEmpty else {
      // What went before the work is no part's: opening files, reading texts.
      if !hasBegun { last = max(last, seconds) }
      hasBegun = true
      return
    }
    hasBegun = true
    last = max(last, seconds)
    let weights = steps.map { $0.units * cost($0.name) }
    let whole = weights.reduce(0, +)
    // What parts begin with, such as opening a file, is not what their units take.
    let isBeginning = steps.allSatisfy { parts[$0.name]?.done == 0 }
    let counted = isBeginning ? min(elapsed, Self.beginningLimit * whole) : elapsed
    for (step, weight) in zip(steps, weights) {
      parts[step.name]?.done += step.units
      parts[step.name]?.seconds += whole > 0 ? counted * weight / whole : 0
    }
  }

  /// How much slower than their priors the parts were.
  private var pace: Double {
    let whole = parts.values.reduce(0) { $0 + $1.prior * $1.total } * Self.paceWeight
    let expected = parts.values.reduce(0) { $0 + $1.prior * $1.done } + whole
    return expected > 0 ? (parts.values.reduce(0) { $0 + $1.seconds } + whole) / expected : 1
  }

  /// Seconds for a unit of a part.
  private func cost(_ name: String) -> Double {
    guard let part = parts[name] else { return 0 }
    let weight = part.total * Self.priorWeight
    let units = part.done + weight
    return units > 0 ? (part.seconds + weight * part.prior * pace) / units : part.prior * pace
  }

  /// Seconds that the rest will take; 0 where nothing is planned.
  /// - Parameter seconds: since the beginning, now: time since the last step is counted as work on the next one.
  package func left(at seconds: Double) -> Double {
    let rest = parts.reduce(0) { $0 + max(0, $1.value.total - $1.value.done) * cost($1.key) }
    return max(0, rest - max(0, seconds - last))
  }

  /// The share of all work that is done, by time: 1 where nothing is left.
  package func share(at seconds: Double) -> Double {
    let left = left(at: seconds)
    return left > 0 ? seconds / (seconds + left) : 1
  }
}
