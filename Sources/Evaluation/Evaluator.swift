import Checkpoints
import Foundation
import Kernels
import Models
import SystemPackage

/// Runs a model, and a reference beside it, over the windows of a text and measures their predictions.
///
/// Block by block: one block's weights are in memory at a time, and the hidden states of all windows. Last comes the
/// head, over parts of the tokens, so that logits never take more than about 64 MB.
package struct Evaluator {
  package struct Options: Sendable {
    package var workers: Int
    /// Bytes up to which hidden states stay in memory.
    package var memoryLimit: Int
    /// Where they go otherwise.
    package var spillFolder: FilePath
    /// How the linear layers of the model are run; those of a reference run in float32.
    package var arithmetic: LinearArithmetic

    package init(workers: Int, memoryLimit: Int, spillFolder: FilePath, arithmetic: LinearArithmetic = .float32) {
      self.workers = workers
      self.arithmetic = arithmetic
      self.memoryLimit = memoryLimit
      self.spillFolder = spillFolder
    }
  }

  private let models: [Forward]
  private let options: Options

  package init(_ model: Model, against reference: Model?, _ options: Options) throws(ModelError) {
    for model in [model] + (reference.map { [$0] } ?? []) where model.description.head.linear == nil {
      throw ModelError(file: model.source.place, .notGenerative)
    }
    if case .integers = options.arithmetic, model.integerLayers == 0 {
      throw ModelError(file: model.source.place, .noIntegers)
    }
    models =
      [Forward(model, workers: options.workers, arithmetic: options.arithmetic)]
      + (reference.map { [Forward($0, workers: options.workers)] } ?? [])
    self.options = options
    if let reference {
      let (own, other) = (model.description.embedding.vocabulary, reference.description.embedding.vocabulary)
      guard own == other else {
        throw ModelError(
          file: model.source.place, "vocab_size",
          .wrongValue(found: "\(own)", expected: "\(other), as in \(reference.source.place.printable)"))
      }
    }
  }

  /// Tokens that go through a block together.
  private static let groupTokens = 4096

  /// - Parameter onProgress: how far it is; returns false to stop.
  package func run(_ text: TextWindows, onProgress: (WorkProgress) -> Bool) throws -> Evaluation {
    let windows = text.windows
    let perGroup = max(1, Self.groupTokens / text.length)
    let groups = stride(from: 0, to: windows.count, by: perGroup).map { $0..<min(windows.count, $0 + perGroup) }
    let tokens = Double(windows.count * text.length)
    let kinds: [WorkProgress.Kind] = [.run, .reference]
    var progress = WorkProgress()
    for (kind, forward) in zip(kinds, models) {
      progress.total[kind] = tokens * forward.model.description.blocks.reduce(0) { $0 + $1.operationsPerToken }
    }
    let head = models.reduce(0) {
      $0 + Double($1.model.description.head.linear.map { $0.inputs * $0.outputs } ?? 0) * 2
    }
    progress.total[.head] = tokens * head
    func step(_ kind: WorkProgress.Kind, _ amount: Double, block: Int?, of count: Int, share: Double) throws {
      progress.done[kind, default: 0] += amount
      (progress.block, progress.blockCount, progress.blockShare) = (block, count, share)
      guard onProgress(progress) else { throw CancellationError() }
    }
    let states = try zip(kinds, models).map { kind, forward in
      let blocks = forward.model.description.blocks
      return try hiddenStates(forward, text, groups) { index, group in
        let amount = Double(groups[group].count * text.length) * blocks[index].operationsPerToken
        try step(kind, amount, block: index, of: blocks.count, share: Double(group + 1) / Double(groups.count))
      }
    }
    return try measure(states, text) { rows in
      try step(.head, Double(rows) * head, block: nil, of: 0, share: 0)
    }
  }

  private func rows(_ group: Range<Int>, _ length: Int) -> Range<Int> {
    group.lowerBound * length..<group.upperBound * length
  }

  /// The last block's output for all windows.
  private func hiddenStates(
    _ forward: Forward, _ text: TextWindows, _ groups: [Range<Int>],
    step: (_ block: Int, _ group: Int) throws -> Void
  ) throws -> HiddenStates {
    let description = forward.model.description
    let states = try HiddenStates(
      tokens: text.windows.count * text.length, width: description.hiddenSize,
      memoryLimit: options.memoryLimit / models.count, folder: options.spillFolder, pool: forward.pool,
      workers: forward.workers)
    let tables = ModelRotaryTables(description, length: text.length)
    for group in groups {
      let batch = TokenBatch(lengths: group.map { _ in text.length })
      try states.update(rows(group, text.length)) { hidden in
        try forward.embed(group.flatMap { text.tokens[text.windows[$0].tokens] }, batch, into: hidden)
      }
    }
    for (index, block) in description.blocks.enumerated() {
      let weights = try forward.weights(ofBlock: index)
      for (number, group) in groups.enumerated() {
        let batch = TokenBatch(lengths: group.map { _ in text.length })
        try states.update(rows(group, text.length)) { hidden in
          forward.run(block: index, weights, hidden, batch, tables: tables[block])
        }
        try step(index, number)
      }
      forward.pool.give(weights.matrices)
    }
    forward.pool.clear()
    return states
  }

  private func measure(
    _ states: [HiddenStates], _ text: TextWindows, step: (_ rows: Int) throws -> Void
  ) throws -> Evaluation {
    let heads = try models.map { try $0.loadHead() }
    let vocabulary = heads[0].vocabulary
    // About 64 MB of logits for each model.
    let perPart = min(4096, max(64, (1 << 24) / vocabulary))
    let rowCount = text.windows.count * text.length
    var tally = EvaluationTally(text, hasReference: models.count > 1)
    let measures = Matrix(rows: perPart, columns: PredictionColumn.count)
    for start in stride(from: 0, to: rowCount, by: perPart) {
      let rows = start..<min(rowCount, start + perPart)
      let targets = rows.map { row in target(ofRow: row, text) }
      let logits = models.map { $0.pool.take(rows: rows.count, columns: vocabulary) }
      for (index, forward) in models.enumerated() {
        // Each state is needed once, so that it may be normalized where it is.
        try states[index].update(rows) { hidden in forward.logits(hidden, heads[index], into: logits[index]) }
      }
      measurePredictions(
        logits[0], reference: models.count > 1 ? logits[1] : nil, targets: targets, into: measures,
        workers: options.workers)
      tally.add(measures, rows: rows, targets: targets)
      if models.count > 1 {
        measurePredictions(logits[1], reference: nil, targets: targets, into: measures, workers: options.workers)
        tally.addReference(measures, rows: rows, targets: targets)
      }
      for (forward, matrix) in zip(models, logits) { forward.pool.give(matrix) }
      try step(rows.count)
    }
    let result = tally.evaluation
    guard result.perplexity.isFinite else {
      throw ModelError(file: models[0].model.source.place, .notFinite("perplexity \(result.perplexity)"))
    }
    return result
  }

  /// The token that comes after a row's, −1 where its prediction does not count.
  private func target(ofRow row: Int, _ text: TextWindows) -> Int32 {
    let window = text.windows[row / text.length]
    let next = window.tokens.lowerBound + row % text.length + 1
    return next < window.tokens.upperBound && next >= window.firstPredicted ? text.tokens[next] : -1
  }
}
