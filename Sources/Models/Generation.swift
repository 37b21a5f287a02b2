import Kernels

/// Continues a sequence token by token, with the keys and values of earlier tokens kept.
package final class Generation {
  private let forward: Forward
  private let caches: [KeyValueCache]
  private let head: LoadedHead
  /// The blocks' weights, where all of them fit into memory; otherwise each is read again for every token.
  private let resident: [BlockWeights]?
  private var tables: ModelRotaryTables
  /// The most tokens, prompt included.
  package let capacity: Int
  package private(set) var length = 0

  /// - Parameter memoryLimit: bytes up to which the weights are kept as float32.
  package init(_ model: Model, capacity: Int, memoryLimit: Int, workers: Int) throws {
    let description = model.description
    self.capacity = description.positionLimit.map { min($0, capacity) } ?? capacity
    forward = Forward(model, workers: workers)
    head = try forward.loadHead()
    caches = description.blocks.map { [capacity = self.capacity] in KeyValueCache($0.attention, capacity: capacity) }
    tables = ModelRotaryTables(description, length: self.capacity)
    let weightCount = description.blocks.reduce(0) { $0 + $1.weightCount }
    resident =
      weightCount * MemoryLayout<Float>.stride <= memoryLimit
      ? try description.blocks.indices.map { [forward] in try forward.weights(ofBlock: $0) } : nil
  }

  /// Forgets what came before, to begin another sequence with the weights that are loaded.
  package func restart() { length = 0 }

  /// Appends tokens and gives the logits of the one that comes next.
  /// - Throws: `ModelError` where the capacity is used up.
  package func append(_ tokens: [Int32]) throws -> [Float] {
    let model = forward.model
    guard !tokens.isEmpty, length + tokens.count <= capacity else {
      throw ModelError(file: model.source.place, .tooLong(tokens: length + tokens.count, limit: capacity))
    }
    let batch = TokenBatch(lengths: [tokens.count], past: length)
    if model.description.blocks.contains(where: { $0.attention.rotary?.dependsOnLength ?? false }) {
      tables = ModelRotaryTables(model.description, length: batch.longest, rows: capacity)
    }
    let hidden = forward.pool.take(rows: tokens.count, columns: model.description.hiddenSize)
    defer { forward.pool.give(hidden) }
    try forward.embed(tokens, batch, into: hidden)
    for (index, block) in model.description.blocks.enumerated() {
      let weights = try resident?[index] ?? forward.weights(ofBlock: index)
      forward.run(block: index, weights, hidden, batch, tables: tables[block], cache: caches[index])
      if resident == nil { forward.pool.give(weights.matrices) }
    }
    length += tokens.count
    let last = Matrix(sharing: hidden, rows: tokens.count - 1..<tokens.count)
    let logits = forward.pool.take(rows: 1, columns: head.vocabulary)
    defer { forward.pool.give(logits) }
    forward.logits(last, head, into: logits)
    let values = logits.values()
    guard values.allSatisfy(\.isFinite) else {
      throw ModelError(file: model.source.place, .notFinite("logits after \(length) tokens"))
    }
    return values
  }
}

extension BlockDescription {
  /// The linear layers of the block, experts included.
  package var linears: [LinearDescription] {
    let inner: [LinearDescription] =
      switch feedForward {
      case .gated(let input, let output, _): input.linears + [output]
      case .plain(let input, let output, _): [input, output]
      case .mixture(let mixture): [mixture.router] + mixture.experts.flatMap { $0.input.linears + [$0.output] }
      }
    return attention.input.linears + [attention.output] + inner
  }

  /// Elements of the block's linear layers.
  package var weightCount: Int { linears.reduce(0) { $0 + $1.outputs * $1.inputs } }
}

/// How the next token is drawn from logits.
package struct Sampling: Sendable {
  /// Divides the logits; zero takes the token of highest probability.
  package var temperature: Float
  /// Only this many of the most probable tokens.
  package var topK: Int?
  /// Only the most probable tokens whose probabilities together reach this share (nucleus, arXiv 1904.09751, §3.1).
  package var topP: Float

  package init(temperature: Float = 0, topK: Int? = nil, topP: Float = 1) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
  }

  package func token(_ logits: [Float], using generator: inout some RandomNumberGenerator) -> Int32 {
    if temperature > 0, topK == nil, topP >= 1 { return Self.draw(logits, temperature, using: &generator) }
    // Of equal logits the first, so that results repeat.
    var order = logits.indices.sorted { (logits[$0], $1) > (logits[$1], $0) }
    guard temperature > 0 else { return Int32(order.first ?? 0) }
    if let topK { order = Array(order.prefix(max(1, topK))) }
    let largest = logits[order[0]]
    var powers = order.map { exponential((logits[$0] - largest) / temperature) }
    let total = powers.reduce(0, +)
    var sum: Float = 0
    let kept = powers.firstIndex { power in
      sum += power
      return sum >= topP * total
    }
    powers = Array(powers.prefix((kept ?? powers.count - 1) + 1))
    var draw = Float.random(in: 0..<1, using: &generator) * powers.reduce(0, +)
    for (index, power) in powers.enumerated() {
      draw -= power
      if draw < 0 { return Int32(order[index]) }
    }
    return Int32(order[powers.count - 1])
  }

  /// Any token, by its probability: no order is needed.
  private static func draw(
    _ logits: [Float], _ temperature: Float, using generator: inout some RandomNumberGenerator
  ) -> Int32 {
    let largest = logits.max() ?? 0
    let powers = logits.map { exponential(($0 - largest) / temperature) }
    var draw = Double.random(in: 0..<1, using: &generator) * powers.reduce(0) { $0 + Double($1) }
    for (token, power) in powers.enumerated() {
      draw -= Double(power)
      if draw < 0 { return Int32(token) }
    }
    return Int32(powers.lastIndex { $0 > 0 } ?? 0)
  }
}

/// A repeatable sequence of random numbers (SplitMix64, Steele, Lea and Flood, OOPSLA 2014, figure 16).
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z &>> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z &>> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z &>> 31)
  }
}
