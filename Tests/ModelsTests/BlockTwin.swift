import Foundation
import Kernels
import Models

/// A block in double precision, written down from its description, to differentiate by central differences.
struct BlockTwin {
  struct Linear {
    var weight: [Double]
    var bias: [Double]
    let outputs: Int
    let inputs: Int
  }

  struct Norm {
    var weight: [Double]
    var bias: [Double]
    let description: NormDescription
  }

  let block: BlockDescription
  let batch: TokenBatch
  var linears: [LinearPlace: Linear] = [:]
  var norms: [NormPlace: Norm] = [:]
  private let router: Linear?
  private let relativeBias: [[Double]]?
  private let cosines: [Double]
  private let sines: [Double]
  private let half: Int
  /// By expert; fixed once they are known.
  private(set) var routes: [[(token: Int, share: Double)]] = []

  init(_ block: BlockDescription, _ weights: BlockWeights, _ batch: TokenBatch, _ tables: RotaryTables?) {
    self.block = block
    self.batch = batch
    for place in weights.linearPlaces { linears[place] = Self.linear(weights[place]) }
    for place in weights.normPlaces {
      guard let norm = weights[place] else { continue }
      norms[place] = Norm(
        weight: norm.weight.map(Double.init), bias: norm.bias.map(Double.init), description: norm.description)
    }
    router = weights.router.map(Self.linear)
    relativeBias = weights.relativeBias?.map { $0.map(Double.init) }
    cosines = tables?.cosines.values().map(Double.init) ?? []
    sines = tables?.sines.values().map(Double.init) ?? []
    half = tables?.cosines.columns ?? 0
  }

  private static func linear(_ linear: LoadedLinear) -> Linear {
    Linear(
      weight: linear.weight.values().map(Double.init),
      bias: linear.bias?.map(Double.init) ?? [Double](repeating: 0, count: linear.weight.rows),
      outputs: linear.weight.rows, inputs: linear.weight.columns)
  }

  /// Chooses experts for this input, and keeps to the choice.
  mutating func fixRoutes(_ hidden: [Double]) {
    guard case .mixture(let mixture) = block.feedForward, let router else { return }
    var found = [[(token: Int, share: Double)]](repeating: [], count: mixture.experts.count)
    let middle = block.isParallel ? hidden : add(hidden, attentionBranch(hidden), .attentionSum)
    let scores = apply(router, norm(.feedForwardBefore, middle))
    for token in 0..<batch.tokenCount {
      let row = (0..<router.outputs).map { scores[token * router.outputs + $0] }
      let powers = row.map { exp($0 - (row.max() ?? 0)) }
      let chosen = row.indices.sorted { row[$0] > row[$1] }.prefix(mixture.chosen)
      let total = mixture.normalizes ? chosen.reduce(0) { $0 + powers[$1] } : powers.reduce(0, +)
      for expert in chosen { found[expert].append((token, powers[expert] / total)) }
    }
    routes = found
  }

  /// `[tokens, hidden]` to the same.
  func run(_ hidden: [Double]) -> [Double] {
    let attention = attentionBranch(hidden)
    if block.isParallel {
      return zip(add(hidden, attention, .attentionSum), feedForward(hidden)).map(+)
    }
    let middle = add(hidden, attention, .attentionSum)
    return add(middle, norm(.feedForwardAfter, feedForward(middle)), .feedForwardSum)
  }

  private func add(_ stream: [Double], _ branch: [Double], _ place: NormPlace) -> [Double] {
    norm(place, zip(stream, branch).map(+))
  }

  private func apply(_ linear: Linear, _ x: [Double]) -> [Double] {
    (0..<(x.count / linear.inputs)).flatMap { token in
      (0..<linear.outputs).map { output in
        var sum = linear.bias[output]
        for input in 0..<linear.inputs {
          sum += linear.weight[output * linear.inputs + input] * x[token * linear.inputs + input]
        }
        return sum
      }
    }
  }

  private func apply(_ place: LinearPlace, _ x: [Double]) -> [Double] { linears[place].map { apply($0, x) } ?? x }

  private func norm(_ place: NormPlace, _ x: [Double]) -> [Double] { norms[place].map { Self.normalize($0, x) } ?? x }

  private static func normalize(_ norm: Norm, _ x: [Double]) -> [Double] {
    let width = norm.weight.count
    return (0..<(x.count / width)).flatMap { row in
      var values = Array(x[row * width..<(row + 1) * width])
      if norm.description.kind == .layer {
        let mean = values.reduce(0, +) / Double(width)
        values = values.map { $0 - mean }
      }
      let square = values.reduce(0) { $0 + $1 * $1 } / Double(width)
      let factor = 1 / (square + Double(norm.description.epsilon)).squareRoot()
      let isLayer = norm.description.kind == .layer
      return values.indices.map { values[$0] * factor * norm.weight[$0] + (isLayer ? norm.bias[$0] : 0) }
    }
  }

  private func attentionBranch(_ hidden: [Double]) -> [Double] {
    let form = block.attention.form
    let width = form.headDimension
    let projected = apply(.attentionInput, norm(.attentionBefore, hidden))
    let stride = (form.heads + 2 * form.keyValueHeads) * width
    func head(_ token: Int, _ index: Int) -> [Double] {
      Array(projected[token * stride + index * width..<token * stride + (index + 1) * width])
    }
    func placed(_ token: Int, _ index: Int, _ place: NormPlace, _ position: Int) -> [Double] {
      var values = norm(place, head(token, index))
      for pair in 0..<half {
        let (a, b) = (values[pair], values[pair + half])
        let (c, s) = (cosines[position * half + pair], sines[position * half + pair])
        values[pair] = a * c - b * s
        values[pair + half] = b * c + a * s
      }
      return values
    }
    var attended = [Double](repeating: 0, count: batch.tokenCount * form.heads * width)
    for sequence in batch.sequences {
      for index in 0..<form.heads {
        let keyIndex = form.heads + index / (form.heads / form.keyValueHeads)
        let keys = sequence.map { placed($0, keyIndex, .key, $0 - sequence.lowerBound) }
        for (position, token) in sequence.enumerated() {
          let query = placed(token, index, .query, position)
          let first = form.before.map { max(0, position - $0) } ?? 0
          let end = form.after.map { min(sequence.count, position + $0 + 1) } ?? sequence.count
          let scores = (first..<end).map { key in
            var score = Double(form.scale) * zip(query, keys[key]).reduce(0) { $0 + $1.0 * $1.1 }
            if let description = block.attention.relativeBias, let relativeBias {
              score += relativeBias[index][description.bucket(ofDistance: key - position)]
            }
            return form.softCap.map { Double($0) * tanh(score / Double($0)) } ?? score
          }
          let powers = scores.map { exp($0 - (scores.max() ?? 0)) }
          let total = powers.reduce(0, +)
          for (key, power) in zip(first..<end, powers) {
            let value = head(sequence.lowerBound + key, keyIndex + form.keyValueHeads)
            for dimension in 0..<width {
              attended[(token * form.heads + index) * width + dimension] += power / total * value[dimension]
            }
          }
        }
      }
    }
    return norm(.attentionAfter, apply(.attentionOutput, attended))
  }

  private func feedForward(_ middle: [Double]) -> [Double] {
    let x = norm(.feedForwardBefore, middle)
    switch block.feedForward {
    case .gated(_, _, let activation): return expert(0, x, activation, isGated: true)
    case .plain(_, _, let activation): return expert(0, x, activation, isGated: false)
    case .mixture(let mixture):
      let width = x.count / batch.tokenCount
      var result = [Double](repeating: 0, count: x.count)
      for (index, route) in routes.enumerated() {
        for (token, share) in route {
          let own = expert(
            index, Array(x[token * width..<(token + 1) * width]), mixture.activation, isGated: true)
          for column in 0..<width { result[token * width + column] += share * own[column] }
        }
      }
      return result
    }
  }

  private func expert(_ index: Int, _ x: [Double], _ activation: Activation, isGated: Bool) -> [Double] {
    let before = apply(.feedForwardInput(index), x)
    guard isGated else { return apply(.feedForwardOutput(index), before.map { activate($0, activation) }) }
    let width = (linears[.feedForwardInput(index)]?.outputs ?? 0) / 2
    let inner = (0..<before.count / 2).map { element in
      let row = element / width * 2 * width + element % width
      return activate(before[row], activation) * before[row + width]
    }
    return apply(.feedForwardOutput(index), inner)
  }
}

/// The activations by their definitions.
func activate(_ x: Double, _ activation: Activation) -> Double {
  switch activation {
  case .silu: x / (1 + exp(-x))
  case .gelu: 0.5 * x * erfc(-x / 2.0.squareRoot())
  case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
  case .quickGelu: x / (1 + exp(-1.702 * x))
  case .relu: max(x, 0)
  case .reluSquared: max(x, 0) * max(x, 0)
  }
}
