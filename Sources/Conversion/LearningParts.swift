import Calibration
import Checkpoints
import Kernels
import Models
import Quantization
import SystemPackage

/// A layer quantized by itself, before it is learned.
struct LearningStart {
  var weight: AffineWeight
  /// What it was rounded from.
  let goal: Matrix
  let scheme: WeightScheme
}

/// What is learned of a block over the whole model, as it is kept in a file: for each layer sizes, codes, ranges, and of
/// learned ones what they were rounded from; then the vectors.
extension CalibratedLayers {
  func learnable(_ start: LearningStart) -> LearnedLayer.Weight {
    guard start.scheme.method == .learned else { return .fixed(start.weight) }
    return .learned(
      LearnedWeight(
        from: start.weight, goal: start.goal, scaleType: start.scheme.scaleType, isSymmetric: start.scheme.isSymmetric,
        hasMomentum: true, keepsCodes: plan.recipe.calibration.learning.rate == 0))
  }

  func part(
    of block: BlockDescription, _ starts: [LinearDescription: LearningStart], _ vectors: [TunedVector]
  ) -> Distillation.Part {
    Distillation.Part(
      layers: LearnedLayer.layers(of: block) { starts[$0].map(learnable) }, vectors: vectors)
  }

  func save(
    _ part: Distillation.Part, _ starts: [LinearDescription: LearningStart], to kept: KeptWork, _ name: String
  ) throws {
    let writer = try StateWriter(kept.path(of: name))
    for layer in part.layers {
      guard let start = starts[layer.linear] else { continue }
      let weight = start.weight
      for number in [weight.groupLength, Int(weight.ranges.first?.highestCode ?? 1), weight.groupIndex?.count ?? 0] {
        try writer.write(UInt64(number))
      }
      try writer.write(weight.codes)
      try writer.write([
        Matrix(rows: 1, columns: weight.ranges.count, weight.ranges.map(\.scale)),
        Matrix(rows: 1, columns: weight.ranges.count, weight.ranges.map(\.zeroPoint)),
      ])
      for group in weight.groupIndex ?? [] { try writer.write(UInt64(group)) }
      if start.scheme.method == .learned { try writer.write([start.goal]) }
    }
    for vector in part.vectors {
      let values = vector.values ?? []
      try writer.write([Matrix(rows: 1, columns: values.count, values)])
    }
    try kept.keep(name)
  }

  /// - Parameters:
  ///   - schemes: of the tensors that are quantized.
  ///   - vectors: those that are tuned.
  func load(
    _ block: BlockDescription, _ schemes: [String: WeightScheme], _ vectors: [(vector: BlockVector, type: ElementType)],
    from path: FilePath
  ) throws -> Distillation.Part {
    let reader = try StateReader(path)
    var starts: [LinearDescription: LearningStart] = [:]
    for linear in block.projections.flatMap(\.projection.linears) {
      guard let scheme = schemes[linear.weight] else { continue }
      let (groupLength, highest) = (Int(try reader.number()), Int32(try reader.number()))
      let indexCount = Int(try reader.number())
      let codes = try reader.bytes(linear.outputs * linear.inputs)
      let count = linear.outputs * ((linear.inputs + groupLength - 1) / max(1, groupLength))
      let (scales, zeroPoints) = (Matrix(rows: 1, columns: count), Matrix(rows: 1, columns: count))
      try reader.read(into: [scales, zeroPoints])
      let groups = try (0..<indexCount).map { _ in Int32(try reader.number()) }
      let goal = Matrix(rows: linear.outputs, columns: linear.inputs)
      if scheme.method == .learned { try reader.read(into: [goal]) }
      starts[linear] = LearningStart(
        weight: AffineWeight(
          rows: linear.outputs, columns: linear.inputs, groupLength: groupLength, codes: codes,
          ranges: zip(scales.values(), zeroPoints.values()).map {
            AffineRange(scale: $0, zeroPoint: $1, highestCode: highest)
          }, groupIndex: groups.isEmpty ? nil : groups),
        goal: goal, scheme: scheme)
    }
    return part(
      of: block, starts,
      try vectors.map { vector, type in
        let values = Matrix(rows: 1, columns: vector.count)
        try reader.read(into: [values])
        return TunedVector(vector, storedAs: type, from: values.values())
      })
  }
}
