import ArgumentParser
import Packing

/// What is written instead of our own format: a folder in a runtime's layout, or a GGUF file.
enum OutputLayout: ExpressibleByArgument, Hashable {
  case runtime(RuntimeLayout)
  case gguf

  static let allCases = RuntimeLayout.allCases.map { OutputLayout.runtime($0) } + [.gguf]

  init?(argument: String) {
    guard let found = Self.allCases.first(where: { $0.rawValue == argument }) else { return nil }
    self = found
  }

  static var allValueStrings: [String] { allCases.map(\.rawValue) }

  var runtime: RuntimeLayout? { if case .runtime(let layout) = self { layout } else { nil } }
  var rawValue: String { runtime?.rawValue ?? "gguf" }
  var summary: String { runtime?.summary ?? "a file for llama.cpp, whatever OUTPUT is named; --type chooses its types" }
}
