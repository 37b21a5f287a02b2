import Checkpoints
import Kernels

/// What a runtime's layout cannot hold.
package enum LayoutError: Error, Hashable, CustomStringConvertible {
  /// An encoding that the layout has no place for.
  case encoding(RuntimeLayout, module: String, found: String, takes: String, alternatives: [RuntimeLayout])
  case negativeScale(RuntimeLayout, module: String)
  case scaleOverflow(RuntimeLayout, module: String, scale: Float)
  case groupDoesNotDivide(RuntimeLayout, module: String, columns: Int, group: Int, fitting: [Int])
  case dimension(RuntimeLayout, module: String, name: String, size: Int, multiple: Int)
  case mixedSchemes(RuntimeLayout, modules: [String])
  case fusedSchemes(modules: [String], found: [String])
  /// - Parameter group: nil where not groups but words of 32 codes must stay whole.
  case tensorParallel(module: String, name: String, size: Int, group: Int?, parts: Int)
  case heads(count: Int, parts: Int)
  case notAMatrix(RuntimeLayout, tensor: String, shape: [Int])
  case unsupportedModel(RuntimeLayout, modelType: String, reason: String)

  package var description: String {
    switch self {
    case .encoding(let layout, let module, let found, let takes, let alternatives):
      "layout \(layout.rawValue): '\(module.printable)' is to be \(found), but the layout takes \(takes)"
        + (alternatives.isEmpty
          ? "; no layout of a runtime takes it: leave out --layout"
          : "; layouts that take it: \(alternatives.map(\.rawValue).joined(separator: ", "))")
    case .negativeScale(let layout, let module):
      "layout \(layout.rawValue): '\(module.printable)' has negative scales, which its runtimes do not expect; take"
        + " --scale-search mse instead of mse-signed"
    case .scaleOverflow(let layout, let module, let scale):
      "layout \(layout.rawValue): '\(module.printable)' has a scale of \(scale), beyond the largest finite one of its"
        + " type; leave the tensor alone with --exclude"
    case .groupDoesNotDivide(let layout, let module, let columns, let group, let fitting):
      "layout \(layout.rawValue): groups of \(group) do not divide the \(columns) inputs of '\(module.printable)'; "
        + (fitting.isEmpty
          ? "leave it alone with --exclude"
          : "take --group-size \(fitting.map(String.init).joined(separator: " or ")), or leave it alone with --exclude")
    case .dimension(let layout, let module, let name, let size, let multiple):
      "layout \(layout.rawValue): '\(module.printable)' has \(size) \(name), which must be a multiple of \(multiple);"
        + " leave it alone with --exclude"
    case .mixedSchemes(let layout, let modules):
      "layout \(layout.rawValue) holds one scheme for the whole model, but \(Self.list(modules)) differ from the rest;"
        + " leave out the override, or exclude them"
    case .fusedSchemes(let modules, let found):
      "\(Self.list(modules)) are fused into one layer by vLLM and need one scheme, but have \(found.joined(separator: ", "));"
        + " give all of them the same"
    case .tensorParallel(let module, let name, let size, let group, let parts):
      "'\(module.printable)': \(size) \(name) cannot be split over \(parts) devices in multiples of \(group ?? 32); take "
        + Self.splits(size, group: group, parts: parts)
    case .heads(let count, let parts):
      "config.json: \(count) heads of attention, which vLLM gives to devices whole, do not divide among \(parts) devices;"
        + " take another number of devices"
    case .notAMatrix(let layout, let tensor, let shape):
      "layout \(layout.rawValue): tensor '\(tensor.printable)' \(shape) "
        + (shape.count == 3
          ? "stacks the weights of experts, which the runtimes of this layout know one by one only; convert without --layout,"
            + " or leave it alone with --exclude"
          : "is not a matrix named '….weight'; leave it alone with --exclude")
    case .unsupportedModel(let layout, let modelType, let reason):
      "layout \(layout.rawValue): a model of type '\(modelType.printable)' cannot be written: \(reason)"
    }
  }

  private static func list(_ modules: [String]) -> String {
    let names = modules.prefix(3).map { "'\($0.printable)'" }.joined(separator: ", ")
    return modules.count > 3 ? names + " and \(modules.count - 3) others" : names
  }

  /// What would divide: numbers of devices, powers of two as they usually are, and groups.
  private static func splits(_ size: Int, group: Int?, parts: Int) -> String {
    var ways: [String] = []
    let devices = (0..<10).map { 1 << $0 }.last { $0 < parts && size % ($0 * (group ?? 32)) == 0 } ?? 1
    ways.append(devices == 1 ? "one device" : "\(devices) devices")
    let groups = group.map { group in [128, 64, 32, 16].filter { $0 < group && size % (parts * $0) == 0 } } ?? []
    if !groups.isEmpty { ways.append("groups of \(groups.map(String.init).joined(separator: " or "))") }
    return ways.joined(separator: ", or ")
  }

  /// What is wrong, and what to do about it: the description's last part.
  package var halves: (problem: String, remedy: String) {
    let text = description
    guard let end = text.lastIndex(of: ";") else { return (text, "") }
    return (String(text[..<end]), text[text.index(after: end)...].drop { $0 == " " }.description)
  }
}
