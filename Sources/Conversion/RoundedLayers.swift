import Calibration
import Checkpoints
import Kernels
import Models
import Quantization

/// Layers that are rounded to nearest on their way through the model: AWQ, and absmax and zero points behind a scaling.
extension CalibratedLayers {
  func round(
    _ problem: LayerProblem, _ scheme: WeightScheme, _ source: CheckpointTensor
  ) throws -> (AffineWeight, LayerOutcome) {
    let options = plan.recipe.calibration
    do {
      let weight = problem.weight
      var goal = weight
      if let target = problem.target {
        goal = copy(weight)
        let dampening = options.dampening(inputs: weight.columns, tokens: problem.hessian.tokens)
        _ = target.shift(goal, hessian: problem.hessian, dampening: dampening, workers: workers)
      }
      var quantized = try AffineWeight(
        roundingForOutputs: goal, scheme.rounding, hessian: problem.hessian, workers: workers)
      var fallback: String?
      var errors: HeldOutErrors?
      if let heldOut = problem.heldOut, heldOut.inputs.rows > 0 {
        let plain = try plainRounding(weight, scheme, factors: problem.scaling?.factors)
        let found = HeldOutErrors(weight, goal: goal, quantized, plain: plain, heldOut, workers: workers)
        errors = found
        if options.fallsBack, found.error > found.plainError {
          // Without a search for ranges; the scales are in the weights before it and stay.
          quantized = try AffineWeight(roundingToNearest: weight, scheme.plain, importance: nil, workers: workers)
          fallback = "its error on held-out tokens was above that of rounding to nearest"
        }
      }
      var expert: Int?
      if case .expert(let index, _) = problem.linear.storage { expert = index }
      return (
        quantized,
        LayerOutcome(
          tensor: problem.linear.weight, expert: expert, inputs: weight.columns, tokens: problem.hessian.tokens,
          routedTokens: problem.routedTokens, dampening: nil, askedDampening: nil,
          deadColumns: problem.hessian.diagonal.count { $0 == 0 }, fallback: fallback, heldOut: errors,
          features: FeatureStrengths(meanSquares: problem.hessian.importance))
      )
    } catch let error as QuantizationError {
      throw explained(error, source)
    }
  }

  /// The weight as plain rounding to nearest would leave it without scaling, in the columns of the scaled one.
  func plainRounding(_ weight: Matrix, _ scheme: WeightScheme, factors: [Float]?) throws -> Matrix {
    let plain = copy(weight)
    if let factors { scaleColumns(plain, by: factors.map { 1 / $0 }, workers: workers) }
    try AffineWeight(roundingToNearest: plain, scheme.plain, importance: nil, workers: workers)
      .decode(into: plain, workers: workers)
    if let factors { scaleColumns(plain, by: factors, workers: workers) }
    return plain
  }

  private func copy(_ weight: Matrix) -> Matrix {
    let result = Matrix(rows: weight.rows, columns: weight.columns)
    copyColumns(MatrixColumns(weight, from: 0), into: result, at: 0, count: weight.rows)
    return result
  }

  /// What the walk through the model is to scale; nil where nothing was asked for and layers are handed out one by one.
  func scalingRequest(
    _ scheme: @escaping (LinearDescription) -> WeightScheme?, handsOut: Bool,
    _ rewrite: @escaping TensorRewriter
  ) -> ScalingRequest? {
    guard let method = plan.recipe.inputScaling else { return nil }
    let rules = ScalingRules(plan.tensors)
    let tensors = Dictionary(plan.tensors.map { ($0.source.name, $0) }) { first, _ in first }
    return ScalingRequest(
      method: method,
      obstacle: { group in
        // What the plan decided holds: it knows of tensors that are not finite, too.
        group.allTensors.allSatisfy { tensors[$0]?.isFolded ?? false }
          ? nil : rules.obstacle(to: group) ?? "a tensor around it holds infinities or NaN"
      }, scheme: { scheme($0)?.rounding }, storage: rules.storage, handsOut: handsOut,
      rewrite: { name, first, values in
        guard let tensor = tensors[name] else { return }
        try rewrite(tensor, first, values)
      })
  }
}
