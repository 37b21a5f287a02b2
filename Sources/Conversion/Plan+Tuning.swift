import Checkpoints
import Kernels
import Models
import Quantization

extension Plan {
  static let tunedNote = "tuned"

  static func requireTunable(_ recipe: Recipe) throws(RecipeError) {
    let learning = recipe.calibration.learning
    guard learning.tunesNorms else { return }
    guard recipe.needsLearning, learning.iterations > 0 || learning.distillation > 0 else {
      throw .tuningNeedsSteps
    }
  }

  /// The tensors, those marked that are tuned along: norms, and biases of linear layers, of the blocks in which rounding
  /// is learned. What is excluded, not finite, or of use in two places stays.
  static func tuning(_ tensors: [Tensor], _ recipe: Recipe, _ model: Model?, _ nonFinite: Set<String>) -> [Tensor] {
    guard recipe.calibration.learning.tunesNorms, let model else { return tensors }
    let learned = Set(
      tensors.filter { if case .calibrate(let scheme) = $0.work { scheme.method == .learned } else { false } }
        .map(\.source.name))
    let vectors = model.description.blocks.filter { $0.linears.contains { learned.contains($0.weight) } }
      .flatMap(\.vectors)
    let uses = model.description.blocks.flatMap(\.vectors).reduce(into: [:]) { $0[$1.tensor, default: 0] += 1 }
    let tuned = Set(vectors.map(\.tensor).filter { uses[$0] == 1 })
    return tensors.map { tensor in
      let entry = tensor.source.entry
      guard case .keep(let reason) = tensor.work, tuned.contains(entry.name), entry.type.isFullPrecision,
        !nonFinite.contains(entry.name), !recipe.exclude.contains(where: { matches(entry.name, pattern: $0) })
      else { return tensor }
      return Tensor(
        source: tensor.source, work: .rewrite(reason: "\(reason), \(tunedNote)"), members: tensor.members,
        layout: tensor.layout, isTuned: true)
    }
  }
}
