import Checkpoints
import Kernels
import Models
import Quantization

/// Told before each step: the share of the work that is done, and the loss on windows held out.
package typealias LearningObserver = (_ share: Double, _ loss: WorkProgress.Loss) throws -> Void

/// Gradient steps on some blocks, of which the best state counts: by the loss on windows that no step is taken on, at the
/// start and at each quarter.
///
/// Where there are files to keep it in, the whole state is kept every so many steps: what is learned, the optimizer's
/// moments, the best so far, and the number of steps, from which the order of windows follows. A run that is taken up
/// from there takes the steps that an undisturbed one would.
struct LearningSteps {
  let method: LearnedRounding
  let students: [BlockStudent]
  let windows: [Range<Int>]
  let seed: UInt64
  let kept: LearningState?
  /// What finding the loss takes, in steps.
  let lossCost: Double

  /// The share of the work that is done before the next of so many steps.
  private func share(after steps: Int) -> Double {
    func work(_ steps: Int) -> Double {
      Double(steps) + lossCost * Double(1 + LearningOutcome.measurements(upTo: steps, of: method.iterations))
    }
    return work(steps) / work(method.iterations)
  }

  /// - Parameters:
  ///   - loss: of the state that the students are in.
  ///   - step: takes one, and decodes what is learned.
  func run(
    onStep: LearningObserver, loss: () throws -> Double, step: (_ windows: [Range<Int>], _ index: Int) throws -> Void
  ) throws -> LearningOutcome {
    let learned = students.flatMap(\.parameters)
    let moving = learned + students.flatMap(\.optimizer)
    let best = learned.map { Matrix(rows: $0.rows, columns: $0.columns) }
    func put(_ source: [Matrix], into target: [Matrix]) {
      for (source, target) in zip(source, target) {
        copyColumns(MatrixColumns(source, from: 0), into: target, at: 0, count: source.rows)
      }
    }
    var (first, outcome) = (0, LearningOutcome(before: 0, after: 0, steps: 0))
    if let found = try kept?.restore(moving, best) {
      (first, outcome) = found
      students.forEach { $0.decode() }
    } else {
      students.forEach { $0.decode() }
      let before = try loss()
      outcome = LearningOutcome(before: before, after: before, steps: 0)
      put(learned, into: best)
    }
    var batches = LearningBatches(windows, size: method.batchSize, seed: seed)
    for index in 0..<method.iterations {
      let batch = batches.next()
      guard index >= first else { continue }
      try onStep(
        share(after: index), WorkProgress.Loss(before: outcome.before, least: outcome.after))
      try step(batch, index)
      let done = index + 1
      if LearningOutcome.isMeasured(after: done, of: method.iterations) {
        let found = try loss()
        // A loss that is not a number is no improvement.
        if found < outcome.after {
          outcome = LearningOutcome(before: outcome.before, after: found, steps: done)
          put(learned, into: best)
        }
      }
      if let kept, kept.isDue, LearningState.isKept(after: done, of: method.iterations) {
        try kept.keep(moving, best, steps: done, outcome)
      }
    }
    put(best, into: learned)
    students.forEach { $0.decode() }
    return outcome
  }
}

/// Where the state of gradient steps is kept: the last two, since a process may end while it writes one.
package struct LearningState {
  private let files: any KeptFiles
  private let name: String

  package init(_ files: any KeptFiles, _ name: String) { (self.files, self.name) = (files, name) }

  /// Every fourth step, or every sixteenth part of them where that is more: writing takes about as long as a step of
  /// short windows. After the last, too, for what follows may be interrupted. Each only where it is due (`isDue`).
  static func isKept(after steps: Int, of count: Int) -> Bool {
    steps == count || steps.isMultiple(of: max(4, count / 16))
  }

  var isDue: Bool { files.isDue }

  private var slots: [String] { (0...1).map { "\(name)-\($0)" } }

  package func discard() { slots.forEach(files.discard) }

  func keep(_ moving: [Matrix], _ best: [Matrix], steps: Int, _ outcome: LearningOutcome) throws {
    let others = slots.filter(files.has)
    let slot = others.count == 1 ? slots.first { $0 != others[0] } ?? slots[0] : slots[0]
    let writer = try StateWriter(files.path(of: slot))
    for number in [
      UInt64(steps), UInt64(outcome.steps), outcome.before.bitPattern, outcome.after.bitPattern,
    ] { try writer.write(number) }
    try writer.write(moving)
    try writer.write(best)
    try files.keep(slot)
    others.forEach { if $0 != slot { files.discard($0) } }
  }

  /// - Returns: nil where nothing is kept.
  func restore(_ moving: [Matrix], _ best: [Matrix]) throws -> (steps: Int, outcome: LearningOutcome)? {
    var newest: (slot: String, steps: UInt64)?
    for slot in slots where files.has(slot) {
      let steps = try StateReader(files.path(of: slot)).number()
      if steps >= newest?.steps ?? 0 { newest = (slot, steps) }
    }
    guard let newest else { return nil }
    let reader = try StateReader(files.path(of: newest.slot))
    let steps = Int(try reader.number())
    let bestSteps = Int(try reader.number())
    let before = Double(bitPattern: try reader.number())
    let outcome = LearningOutcome(before: before, after: Double(bitPattern: try reader.number()), steps: bestSteps)
    try reader.read(into: moving)
    try reader.read(into: best)
    return (steps, outcome)
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

  /// Whether a loss is measured after so many of all steps: at each quarter.
  static func isMeasured(after steps: Int, of count: Int) -> Bool {
    (1...4).contains { steps == max(1, count * $0 / 4) }
  }

  /// How often a loss was measured after so many of all steps, that of the start not counted.
  static func measurements(upTo steps: Int, of count: Int) -> Int {
    Set((1...4).map { max(1, count * $0 / 4) }).count { $0 <= steps }
  }

  /// What measuring it takes, in steps of so many windows: a pass forwards, where a step has one backwards, too. Measured
  /// over the whole of stories5M.
  static func cost(judges: [Range<Int>], windows: [Range<Int>], batchSize: Int) -> Double {
    func tokens(_ windows: [Range<Int>]) -> Double { Double(windows.reduce(0) { $0 + $1.count }) }
    let step = tokens(windows) / Double(max(1, windows.count)) * Double(batchSize)
    return 0.44 * tokens(judges) / max(1, step)
  }
}
