import Conversion
import Foundation
import TestSupport
import Testing

@Suite struct TimeEstimateTests {
  /// Work of parts that take a time for each unit, in the order of steps.
  private struct Course {
    /// Part, units, seconds for each.
    let steps: [(part: String, units: Double, seconds: Double)]

    var end: Double { steps.reduce(0) { $0 + $1.units * $1.seconds } }

    /// The largest relative error of the predicted end, of all predictions from a share of the time on.
    func worst(from share: Double, priors: [String: Double]) -> Double {
      var estimate = TimeEstimate()
      var (totals, done): ([String: Double], [String: Double]) = ([:], [:])
      for step in steps { totals[step.part, default: 0] += step.units }
      for (part, total) in totals { estimate.plan(part, total: total, cost: priors[part] ?? 1) }
      var (now, worst) = (0.0, 0.0)
      for step in steps {
        now += step.units * step.seconds
        done[step.part, default: 0] += step.units
        estimate.advance([step.part: done[step.part] ?? 0], at: now)
        if now >= share * end, now < end { worst = max(worst, abs(now + estimate.left(at: now) - end) / end) }
      }
      #expect(abs(estimate.left(at: now)) < 1e-6 && estimate.share(at: now) == 1)
      return worst
    }
  }

  @Test func evenWorkIsPredictedWhateverThePrior() {
    let course = Course(steps: (0..<100).map { _ in ("a", 1, 0.5) })
    for prior in [0.01, 0.5, 20] {
      #expect(course.worst(from: 0.1, priors: ["a": prior]) < 0.1, "\(prior)")
      #expect(course.worst(from: 0.5, priors: ["a": prior]) < 0.02, "\(prior)")
    }
  }

  /// Blocks of steps of three kinds, of which one takes most of the time: each kind is learned in the first block.
  @Test func blocksOfSeveralKindsArePredictedAfterTheFirst() {
    let block: [(part: String, units: Double, seconds: Double)] = [
      ("gather", 10, 0.05), ("quantize", 3, 2), ("run", 20, 0.01), ("gather", 30, 0.05), ("quantize", 9, 2),
      ("run", 5, 0.01),
    ]
    let course = Course(steps: (0..<12).flatMap { _ in block })
    // Priors that are wrong by factors of 2 to 20, and not by the same.
    let priors = ["gather": 0.5, "quantize": 0.8, "run": 0.02]
    #expect(course.worst(from: 0.1, priors: priors) < 0.2)
    #expect(course.worst(from: 0.3, priors: priors) < 0.05)
  }

  /// A part that comes last is predicted by its prior, at the pace of the others: on a machine twice as slow, twice that.
  @Test func whatComesLaterIsPredictedAtThePaceOfTheRest() {
    for slowness in [0.25, 1, 4] {
      let course = Course(
        steps: (0..<50).map { _ in ("calibrating", 1, slowness) }
          + (0..<50).map { _ in ("writing", 1, 0.2 * slowness) })
      #expect(course.worst(from: 0.1, priors: ["calibrating": 1, "writing": 0.2]) < 0.1, "\(slowness)")
    }
  }

  /// Uneven layers: times that vary by half around what the units say.
  @Test func noiseAveragesOut() {
    var random = SplitMix64(seed: 2)
    let course = Course(
      steps: (0..<200).map { _ in
        ("a", Double.random(in: 1...5, using: &random), Double.random(in: 0.5...1.5, using: &random))
      })
    #expect(course.worst(from: 0.1, priors: ["a": 3]) < 0.2)
  }

  /// What a part begins with, such as opening a file, is not taken for what each of its units takes.
  @Test func aLongBeginningIsNoPace() {
    var estimate = TimeEstimate()
    estimate.plan("calibrating", total: 100, cost: 0.1)
    estimate.plan("writing", total: 4e6, cost: 1e-9)
    for step in 1...100 { estimate.advance(["calibrating": Double(step)], at: 0.1 * Double(step)) }
    estimate.advance(["writing": 512], at: 10.2)
    #expect(estimate.left(at: 10.2) < 0.01)
  }

  @Test func partsThatAdvanceTogetherShareTheTime() {
    var estimate = TimeEstimate()
    estimate.plan("copy", total: 100, cost: 1)
    estimate.plan("quantize", total: 100, cost: 3)
    estimate.advance(["copy": 50, "quantize": 50], at: 100)
    // 100 s for half of each: as much again.
    #expect(abs(estimate.left(at: 100) - 100) < 3)
    #expect(abs(estimate.share(at: 100) - 0.5) < 0.02)
  }

  /// While a step goes on, what is left falls; never below nothing.
  @Test func timePassesWithinAStep() {
    var estimate = TimeEstimate()
    estimate.plan("a", total: 10, cost: 1)
    estimate.advance(["a": 5], at: 5)
    let left = estimate.left(at: 5)
    #expect(abs(left - 5) < 0.1)
    #expect(abs(estimate.left(at: 7) - (left - 2)) < 1e-9)
    #expect(estimate.left(at: 100) == 0)
  }

  @Test func oddInputsAreHarmless() {
    var estimate = TimeEstimate()
    #expect(estimate.left(at: 5) == 0 && estimate.share(at: 0) == 1)
    estimate.plan("a", total: .infinity, cost: 1)
    estimate.plan("b", total: 10, cost: 0)
    estimate.advance(["a": 1, "b": 1, "c": 1], at: 1)
    #expect(estimate.left(at: 1) == 0)
    estimate.plan("d", total: 0, cost: 1)
    estimate.advance(["d": 5], at: 2)
    #expect(estimate.left(at: 2) == 0)
    estimate.plan("e", total: 10, cost: 1)
    estimate.advance(["e": 20], at: 3)
    estimate.advance(["e": 4], at: 2)
    #expect(estimate.left(at: 3) == 0)
    // A total that turns out larger.
    estimate.plan("e", total: 20, cost: 1)
    #expect(estimate.left(at: 3) > 0)
  }
}
