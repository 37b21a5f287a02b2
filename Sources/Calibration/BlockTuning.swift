import Kernels
import Models
import Quantization

/// Learns the rounding of one block: its output, on the inputs that quantized blocks before it give, is to be what the
/// original model has there. The target is the original's stream, so that a block makes up for what earlier ones changed.
package struct BlockTuning {
  package let method: LearnedRounding
  package let seed: UInt64

  package init(_ method: LearnedRounding, seed: UInt64 = 0) {
    self.method = method
    self.seed = seed
  }

  /// A block after its layers were quantized one by one.
  package struct Problem {
    package let block: BlockDescription
    /// Matrices of layers that are learned change to what was.
    package let weights: BlockWeights
    /// Streams of the quantized model before the block, of the original after it.
    let inputs: HiddenStates
    let targets: HiddenStates
    /// The rows of the windows to learn from, and of those to judge by.
    let windows: [Range<Int>]
    let heldOut: [Range<Int>]
    let tables: RotaryTables?
    let pool: MatrixPool
  }

  /// - Parameters:
  ///   - vectors: what is tuned beside the rounding of layers.
  ///   - kept: where the state is kept, and taken up.
  /// - Returns: what was gained, with the loss ‖output − target‖² / ‖target‖², and the weights as learned.
  package func run(
    _ problem: Problem, _ layers: [LearnedLayer], _ vectors: [TunedVector], kept: LearningState? = nil, workers: Int,
    onStep: LearningObserver
  ) throws -> (outcome: LearningOutcome, weights: BlockWeights) {
    let pool = problem.pool
    let student = BlockStudent(
      problem.block, problem.weights, layers, vectors, method, pool: pool, workers: workers)
    // Without windows to judge by, some of those learned from must do.
    let judges = problem.heldOut.isEmpty ? Array(problem.windows.prefix(16)) : problem.heldOut
    let steps = LearningSteps(
      method: method, students: [student], windows: problem.windows, seed: seed, kept: kept,
      lossCost: LearningOutcome.cost(judges: judges, windows: problem.windows, batchSize: method.batchSize))
    let outcome = try steps.run(
      onStep: onStep, loss: { try loss(student, problem, judges, pool, workers) },
      step: { windows, index in
        try withError(student, problem, windows, pool, workers) { tape, gradient, _ in
          student.step(tape, gradient, index: index, wantsInput: false)
        }
        student.decode()
      })
    return (outcome, student.weights)
  }

  /// Runs the block on some windows, and gives a body what the output has too much, which is half the loss's gradient.
  private func withError(
    _ student: BlockStudent, _ problem: Problem, _ windows: [Range<Int>], _ pool: MatrixPool, _ workers: Int,
    _ body: (BlockTape, _ error: Matrix, _ target: Matrix) -> Void
  ) throws {
    let batch = TokenBatch(lengths: windows.map(\.count))
    let width = problem.inputs.width
    let (hidden, target) = (
      pool.take(rows: batch.tokenCount, columns: width), pool.take(rows: batch.tokenCount, columns: width)
    )
    let error = pool.take(rows: batch.tokenCount, columns: width)
    defer { pool.give(hidden, target, error) }
    try problem.inputs.gather(windows, into: hidden)
    try problem.targets.gather(windows, into: target)
    let tape = student.record(hidden, batch, tables: problem.tables)
    copyColumns(MatrixColumns(tape.output, from: 0), into: error, at: 0, count: error.rows)
    subtract(target, from: error, workers: workers)
    body(tape, error, target)
    tape.release()
  }

  private func loss(
    _ student: BlockStudent, _ problem: Problem, _ windows: [Range<Int>], _ pool: MatrixPool, _ workers: Int
  ) throws -> Double {
    var (errors, targets) = (0.0, 0.0)
    for start in stride(from: 0, to: windows.count, by: method.batchSize) {
      let part = Array(windows[start..<min(windows.count, start + method.batchSize)])
      try withError(student, problem, part, pool, workers) { _, error, target in
        for row in 0..<error.rows {
          errors += sumOfSquares(error, row: row)
          targets += sumOfSquares(target, row: row)
        }
      }
    }
    return targets > 0 ? errors / targets : errors
  }
}
