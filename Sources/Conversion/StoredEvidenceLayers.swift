import Calibration
import Checkpoints
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import SystemPackage

/// Quantizes the tensors of a plan that need calibration from evidence that was gathered before: input by input, one
/// Hessian and one weight in memory at a time, without running a model.
///
/// Layers see the original model's inputs (parallel evidence), and their outputs are not corrected. There are no
/// activations to measure errors on.
struct StoredEvidenceLayers {
  let plan: Plan
  let evidence: any StoredEvidence
  let workers: Int

  /// - Parameters:
  ///   - finished: layers that are written already.
  ///   - onLayer: a layer has been written.
  func run(
    finished: [FinishedWork.LayerKey: LayerOutcome], onProgress: (WorkProgress) -> Bool,
    onLayer: (LayerOutcome) throws -> Void, write: CalibratedLayers.TileWriter
  ) throws -> [LayerOutcome] {
    var wanted: [String: (tensor: Plan.Tensor, scheme: WeightScheme)] = [:]
    for tensor in plan.tensors {
      if case .calibrate(let scheme) = tensor.work { wanted[tensor.source.name] = (tensor, scheme) }
    }
    let allTokens = evidence.tokens.max() ?? 0
    var outcomes: [LayerOutcome] = []
    let planned = evidence.inputs.map { input in
      input.layers.reduce(0.0) { sum, layer in
        guard let shape = wanted[layer.weight]?.tensor.source.entry.shape, shape.count > 1 else { return sum }
        let (rows, columns) = (Double(shape[shape.count - 2]), Double(shape[shape.count - 1]))
        return sum + columns * columns * (columns + 4 * rows)
      }
    }
    func tell(_ index: Int, _ layer: String?) -> Bool {
      onProgress(
        WorkProgress(
          done: [.quantize: planned[..<index].reduce(0, +)], total: [.quantize: planned.reduce(0, +)], layer: layer))
    }
    for (index, input) in evidence.inputs.enumerated() {
      guard tell(index, input.layers.first?.weight) else { throw CancellationError() }
      let layers = input.layers.filter { wanted[$0.weight] != nil }
      let done = layers.compactMap { finished[FinishedWork.LayerKey(tensor: $0.weight, expert: $0.expert)] }
      if done.count == layers.count {
        outcomes += done
        continue
      }
      let found = try evidence.evidence(ofInput: index, withHessian: true, workers: workers)
      for layer in layers {
        guard let (tensor, scheme) = wanted[layer.weight] else { continue }
        let source = tensor.source
        let shape = source.entry.shape
        guard shape.last == input.dimension else {
          throw ConversionError.otherInputs(
            file: source.file.path.string, tensor: source.name, inputs: shape.last ?? 1, found: input.dimension)
        }
        let (rows, columns) = (shape[shape.count - 2], shape[shape.count - 1])
        let first = (layer.expert ?? 0) * rows * columns
        let weight = try matrix(source, first: first, rows: rows, columns: columns)
        let quantized: AffineWeight
        let outcome: LayerOutcome
        do {
          (quantized, outcome) = try quantize(
            weight, layer, found, scheme, seesAll: evidence.tokens[index] == allTokens)
        } catch let error as QuantizationError {
          throw explained(error.shifted(by: first), source)
        }
        outcomes.append(outcome)
        try CalibratedLayers.write(quantized, of: tensor, scheme, first: first, write)
        try onLayer(outcome)
      }
    }
    _ = tell(planned.count, nil)
    return outcomes
  }

  private func quantize(
    _ weight: Matrix, _ layer: EvidencedLayer, _ found: InputEvidence, _ scheme: WeightScheme, seesAll: Bool
  ) throws -> (AffineWeight, LayerOutcome) {
    let options = plan.recipe.calibration
    guard let hessian = found.hessian else { throw EvidenceFileError(evidence.place, .noHessians) }
    let asked = options.dampening(inputs: found.dimension, tokens: found.tokens)
    func outcome(dampening: Double?, dead: Int, fallback: String?) -> LayerOutcome {
      LayerOutcome(
        tensor: layer.weight, expert: layer.expert, inputs: found.dimension, tokens: found.tokens, routedTokens: nil,
        dampening: dampening, askedDampening: dampening.map { _ in asked }, deadColumns: dead, fallback: fallback,
        heldOut: nil, features: FeatureStrengths(meanSquares: found.statistics.meanSquares))
    }
    let least = MixtureRule.leastTokens(inputs: found.dimension)
    if !seesAll, found.tokens < least {
      // Too few tokens for products of features; their mean squares still tell which features matter.
      let importance = found.statistics.meanSquares
      let rounded = try AffineWeight(
        roundingToNearest: weight, scheme.rounding,
        importance: importance.contains { $0 > 0 } ? importance : nil, workers: workers)
      let why = "\(found.tokens) tokens reached it, fewer than \(least)"
      return (rounded, outcome(dampening: nil, dead: 0, fallback: why))
    }
    let method = try GPTQ(
      scheme: scheme.rounding, order: options.order, groupRanges: GPTQ.GroupRanges(scheme.groupOrder),
      dampening: asked, sweeps: options.sweeps)
    let result = try method.quantize(weight, hessian: hessian, weighsRanges: true, workers: workers)
    return (
      result.weight,
      outcome(
        dampening: result.dampening, dead: result.deadColumns.count, fallback: result.fallback?.description)
    )
  }

  /// Rows of a tensor as float32.
  private func matrix(_ source: CheckpointTensor, first: Int, rows: Int, columns: Int) throws -> Matrix {
    let matrix = Matrix(rows: rows, columns: columns)
    let height = max(1, (1 << 18) / columns)
    try runParallel(count: (rows + height - 1) / height, workers: workers) {
      (bytes: [UInt8](), values: [Float]())
    } body: { item, buffers in
      let part = item * height..<min(rows, (item + 1) * height)
      _ = try readValues(
        source, first + part.lowerBound * columns..<first + part.upperBound * columns, bytes: &buffers.bytes,
        values: &buffers.values)
      copyRows(buffers.values.span, from: 0, into: matrix, rows: part)
    }
    return matrix
  }
}

extension QuantizationError {
  /// The same in a tensor that holds the weight from an element on.
  fileprivate func shifted(by first: Int) -> QuantizationError {
    switch self {
    case .notFinite(let element, let value): .notFinite(element: first + element, value: value)
    case .scaleOverflow(let element, let scale, let type):
      .scaleOverflow(element: first + element, scale: scale, type: type)
    case .outlierOverflow(let element, let value, let type):
      .outlierOverflow(element: first + element, value: value, type: type)
    }
  }
}
