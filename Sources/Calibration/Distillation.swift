import Kernels
import Models
import Quantization
import SystemPackage

/// Learns the rounding of all blocks together: the quantized model's predictions are to be those of the original, by the
/// mean Kullback-Leibler divergence per token. All blocks are in memory.
package struct Distillation {
  package let method: LearnedRounding
  package let seed: UInt64
  private let forward: Forward
  private let windows: [[Int32]]
  private let heldOut: [[Int32]]
  private let memoryLimit: Int
  private let spillFolder: FilePath

  /// - Parameters:
  ///   - memoryLimit: bytes up to which the original's last hidden states stay in memory.
  package init(
    _ method: LearnedRounding, _ model: Model, windows: [[Int32]], heldOut: [[Int32]], seed: UInt64 = 0,
    memoryLimit: Int, spillFolder: FilePath, workers: Int
  ) {
    self.method = method
    self.seed = seed
    forward = Forward(model, workers: workers)
    self.windows = windows.filter { !$0.isEmpty }
    self.heldOut = heldOut.filter { !$0.isEmpty }
    self.memoryLimit = memoryLimit
    self.spillFolder = spillFolder
  }

  /// What is learned of a block.
  package struct Part {
    package let layers: [LearnedLayer]
    package let vectors: [TunedVector]

    package init(layers: [LearnedLayer], vectors: [TunedVector]) { (self.layers, self.vectors) = (layers, vectors) }
  }

  /// Bytes for each learned weight: the weight, its gradient, anchor, offset, running mean, and the best offset.
  package static let bytesPerWeight = 24

  /// Windows that go through a block together where nothing is learned.
  private static let groupTokens = 4096

  private var description: ModelDescription { forward.model.description }

  /// - Parameters:
  ///   - parts: of each block.
  ///   - kept: where the state is kept, and taken up.
  ///   - onOriginal: told how much of its pass over the windows the original has done.
  /// - Returns: what was gained in nats per token, and the blocks' weights as learned; nil where the model has no head to
  ///   predict with.
  package func run(
    _ parts: [Part], kept: LearningState? = nil, onOriginal: (_ share: Double) throws -> Void, onStep: LearningObserver
  ) throws -> (outcome: LearningOutcome, weights: [BlockWeights])? {
    guard description.head.linear != nil, method.iterations > 0 else { return nil }
    let all = windows + heldOut
    var rows: [Range<Int>] = []
    for window in all {
      let start = rows.last?.upperBound ?? 0
      rows.append(start..<(start + window.count))
    }
    let tables = ModelRotaryTables(description, length: all.map(\.count).max() ?? 1)
    let inputs = try states(rows)
    try fillInputs(inputs, all, rows)
    let targets = try states(rows)
    try fillTargets(targets, inputs, rows, tables, onOriginal)
    let head = try forward.loadHead()
    let students = try description.blocks.enumerated().map { index, block in
      BlockStudent(
        block, try forward.weights(ofBlock: index), parts[index].layers, parts[index].vectors, method,
        pool: forward.pool, workers: forward.workers)
    }
    let run = Run(
      forward: forward, students: students, head: head, tables: tables, inputs: inputs, targets: targets)
    let judges = heldOut.isEmpty ? Array(rows.prefix(16)) : Array(rows[windows.count...])
    let learned = Array(rows.prefix(windows.count))
    let steps = LearningSteps(
      method: method, students: students, windows: learned, seed: seed, kept: kept,
      lossCost: LearningOutcome.cost(judges: judges, windows: learned, batchSize: method.batchSize))
    let outcome = try steps.run(
      onStep: onStep, loss: { try run.divergence(judges, batch: method.batchSize) },
      step: { try run.step($0, index: $1) })
    return (outcome, students.map(\.weights))
  }

  private func states(_ rows: [Range<Int>]) throws -> HiddenStates {
    try HiddenStates(
      tokens: rows.last?.upperBound ?? 0, width: description.hiddenSize, memoryLimit: memoryLimit / 2,
      folder: spillFolder, pool: forward.pool, workers: forward.workers)
  }

  private func fillInputs(_ states: HiddenStates, _ windows: [[Int32]], _ rows: [Range<Int>]) throws {
    for (window, rows) in zip(windows, rows) {
      try states.update(rows) { try forward.embed(window, TokenBatch(lengths: [window.count]), into: $0) }
    }
  }

  /// The original's last hidden states.
  private func fillTargets(
    _ targets: HiddenStates, _ inputs: HiddenStates, _ rows: [Range<Int>], _ tables: ModelRotaryTables,
    _ onPart: (_ share: Double) throws -> Void
  ) throws {
    var groups: [[Range<Int>]] = []
    for window in rows {
      if let last = groups.last, window.upperBound - (last.first?.lowerBound ?? 0) <= Self.groupTokens {
        groups[groups.count - 1].append(window)
      } else {
        groups.append([window])
      }
    }
    let spans = groups.map { ($0.first?.lowerBound ?? 0)..<($0.last?.upperBound ?? 0) }
    for span in spans {
      try targets.update(span) { target in
        try inputs.read(span) { copyColumns(MatrixColumns($0, from: 0), into: target, at: 0, count: target.rows) }
      }
    }
    for (index, block) in description.blocks.enumerated() {
      let weights = try forward.weights(ofBlock: index)
      for (group, span) in zip(groups, spans) {
        try targets.update(span) { hidden in
          forward.run(
            block: index, weights, hidden, TokenBatch(lengths: group.map(\.count)), tables: tables[block])
        }
      }
      forward.pool.give(weights.matrices)
      try onPart(Double(index + 1) / Double(description.blocks.count))
    }
  }

  /// The students on their way.
  private struct Run {
    let forward: Forward
    let students: [BlockStudent]
    let head: LoadedHead
    let tables: ModelRotaryTables
    let inputs: HiddenStates
    let targets: HiddenStates

    func step(_ windows: [Range<Int>], index: Int) throws {
      let pool = forward.pool
      let batch = TokenBatch(lengths: windows.map(\.count))
      let input = pool.take(rows: batch.tokenCount, columns: inputs.width)
      let gradient = pool.take(rows: batch.tokenCount, columns: inputs.width)
      defer { pool.give(input, gradient) }
      try inputs.gather(windows, into: input)
      var tapes: [BlockTape] = []
      for student in students {
        tapes.append(student.record(tapes.last?.output ?? input, batch, tables: tables[student.block]))
      }
      _ = try divergence(of: tapes.last?.output ?? input, windows, into: gradient)
      // A block's tape holds the input of the next one: tapes are read and released from the last to the first.
      for (position, student) in students.enumerated().reversed() {
        student.step(tapes[position], gradient, index: index, wantsInput: position > 0)
        tapes[position].release()
        student.decode()
      }
    }

    /// The mean over some windows.
    func divergence(_ windows: [Range<Int>], batch size: Int) throws -> Double {
      let pool = forward.pool
      var (total, count) = (0.0, 0)
      for start in stride(from: 0, to: windows.count, by: size) {
        let part = Array(windows[start..<min(windows.count, start + size)])
        let batch = TokenBatch(lengths: part.map(\.count))
        let hidden = pool.take(rows: batch.tokenCount, columns: inputs.width)
        let gradient = pool.take(rows: batch.tokenCount, columns: inputs.width)
        try inputs.gather(part, into: hidden)
        for student in students { student.run(hidden, batch, tables: tables[student.block]) }
        total += try divergence(of: hidden, part, into: gradient)
        count += batch.tokenCount
        pool.give(hidden, gradient)
      }
      return total / Double(max(1, count))
    }

    private func divergence(of hidden: Matrix, _ windows: [Range<Int>], into gradient: Matrix) throws -> Double {
      let target = forward.pool.take(rows: hidden.rows, columns: hidden.columns)
      defer { forward.pool.give(target) }
      try targets.gather(windows, into: target)
      return forward.divergence(
        hidden, head, from: target, head, factor: 1 / Float(max(1, hidden.rows)), into: gradient)
    }
  }
}
