import Checkpoints
import Kernels
import Models
import Quantization

extension Recipe {
  /// Whether a tensor of a linear layer is quantized on the way through the model.
  func isCalibrated(_ scheme: WeightScheme) -> Bool {
    scheme.method.isCalibrated
      || inputScaling != nil && scheme.method.takesScaledInputs && scheme.granularity != .tensor
  }

  /// What asks for the model, for messages.
  var calibratedName: String {
    if let scaling { return "scaling '\(scaling.name)'" }
    return options.fitted(to: layout).method?.rawValue ?? "gptq"
  }
}

extension Plan {
  static func requireScalable(_ recipe: Recipe) throws(RecipeError) {
    guard let scaling = recipe.scaling else { return }
    do {
      let scheme = try recipe.options.fitted(to: recipe.layout).scheme()
      guard scheme.method != .awq || scaling == .activationAware else { throw RecipeError.scalesAlready(method: .awq) }
      guard recipe.isCalibrated(scheme) else { throw RecipeError.scaling(scaling.name, method: scheme.method) }
    } catch let error as SchemeError {
      throw .scheme(pattern: nil, error)
    } catch let error as RecipeError {
      throw error
    } catch {}
  }

  static let foldedNote = "with scales folded in"

  /// The tensors, those marked into which scales will be folded.
  static func folding(_ tensors: [Tensor], _ recipe: Recipe, _ model: Model?, _ nonFinite: Set<String>) -> [Tensor] {
    guard recipe.inputScaling != nil, let model else { return tensors }
    let rules = ScalingRules(tensors, nonFinite: nonFinite)
    let groups = model.description.blocks.flatMap(\.scaleGroups)
    let folded = Set(groups.filter { $0.absorber != nil && rules.obstacle(to: $0) == nil }.flatMap(\.allTensors))
    return tensors.map { tensor in
      guard folded.contains(tensor.source.name) else { return tensor }
      var work = tensor.work
      if case .keep(let reason) = work { work = .rewrite(reason: "\(reason), \(foldedNote)") }
      return Tensor(
        source: tensor.source, work: work, members: tensor.members, layout: tensor.layout, isFolded: true)
    }
  }
}

/// Which inputs can be scaled, given what becomes of the tensors around them.
struct ScalingRules {
  private let works: [String: Plan.Work]
  private let types: [String: ElementType]
  private let nonFinite: Set<String>

  init(_ tensors: [Plan.Tensor], nonFinite: Set<String> = []) {
    works = Dictionary(tensors.map { ($0.source.name, $0.work) }) { first, _ in first }
    types = Dictionary(tensors.map { ($0.source.name, $0.source.entry.type) }) { first, _ in first }
    self.nonFinite = nonFinite
  }

  /// Why a group stays as it is; nil: it is scaled.
  func obstacle(to group: ScaleGroup) -> String? {
    let isAnyQuantized = group.readers.contains { if case .calibrate = works[$0.weight] { true } else { false } }
    guard isAnyQuantized else { return "none of the layers that read it is quantized by a method that takes scales" }
    for name in group.allTensors {
      switch works[name] {
      case .calibrate, .rewrite: continue
      case .keep:
        if let type = types[name], !type.isFullPrecision { return "'\(name)' is stored as \(type.rawValue)" }
        if nonFinite.contains(name) { return "'\(name)' holds infinities or NaN" }
      case .quantize(let quantizer, _):
        return "'\(name)' is quantized by \(quantizer.scheme.method.rawValue), which takes weights as they are"
      case .round(let format, _): return "'\(name)' is stored as \(format.label), which takes weights as they are"
      case nil: return "'\(name)' is missing"
      }
    }
    return nil
  }

  /// The type in which a tensor is stored as it is; nil where it is quantized.
  func storage(of name: String) -> ElementType? {
    switch works[name] {
    case .keep, .rewrite: types[name]
    default: nil
    }
  }
}
