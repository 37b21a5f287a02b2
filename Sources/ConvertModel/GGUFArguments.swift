import ArgumentParser
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Reports
import SystemPackage
import Tokenizers

/// Output as a GGUF file, for llama.cpp and its kin.
struct GGUFArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The types of a GGUF file's weights, as llama.cpp names its mixes. (default: Q4_K_M)", valueName: "mix"))
  var type: GGUFMix?

  @Option(
    help: ArgumentHelp(
      "How much the columns of weights matter: an imatrix file, of llama.cpp's or of 'calibrate --imatrix'."
        + " --evidence and --calibration say it, too.", valueName: "file"))
  var imatrix: String?

  @Flag(help: "Leave the tokenizer out of the GGUF file.")
  var noTokenizer = false

  /// Whether an output is to be a GGUF file.
  func isAsked(for output: String) -> Bool { type != nil || output.lowercased().hasSuffix(".gguf") }
}

extension GGUFMix: ExpressibleByArgument {
  public init?(argument: String) {
    guard let mix = Self.allCases.first(where: { $0.rawValue.lowercased() == argument.lowercased() }) else {
      return nil
    }
    self = mix
  }
}

/// The tokenizer of a model, from the folder or the GGUF file that it was read from, or from a folder that was named.
func tokenizer(of model: Model, named folder: String?) throws -> Tokenizer {
  if let folder { return try Tokenizer(folder: FilePath(folder)) }
  if let source = model.source as? GGUFSource { return try GGUFTokenizer.tokenizer(of: source.file) }
  return try Tokenizer(folder: model.folder)
}
