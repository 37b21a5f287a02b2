import Checkpoints

/// Why a model cannot become a GGUF file, or a GGUF file a model.
package struct GGUFError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    case noConfiguration
    case unknownModelType(String)
    case unknownArchitecture(String)
    case configuration(key: String, expected: String)
    case metadata(key: String, expected: String)
    case noPlace(architecture: String)
    case missingTensor
    case missingExperts(Int)
    case nameTooLong(String)
    case shape([Int], expected: String)
    case tokenizer(String)
    case notFinite(index: [Int])
    case scaleOverflow(type: String)
    case importanceLength(found: Int, expected: Int)
    case importance(String)
  }

  /// The file or folder as the user gave it.
  package let file: String
  package let tensor: String?
  package let reason: Reason

  package init(file: String, tensor: String? = nil, _ reason: Reason) {
    self.file = file
    self.tensor = tensor
    self.reason = reason
  }

  package var description: String {
    (tensor.map { "\(file.printable): tensor '\($0.printable)': " } ?? "\(file.printable): ") + explanation
  }

  private var explanation: String {
    switch reason {
    case .noConfiguration: "has no config.json, from which a GGUF file takes its metadata; put the model's beside it"
    case .unknownModelType(let found):
      "model_type '\(found.printable)' has no GGUF names here; known are"
        + " \(GGUFArchitecture.all.flatMap(\.modelTypes).sorted().joined(separator: ", "))"
    case .unknownArchitecture(let found):
      "architecture '\(found.printable)' is not known here; known are"
        + " \(GGUFArchitecture.all.map(\.name).joined(separator: ", ")). `inspect` lists its tensors"
    case .configuration(let key, let expected): "config.json: '\(key)' must be \(expected)"
    case .metadata(let key, let expected): "metadata key '\(key)' must be \(expected)"
    case .noPlace(let architecture):
      "has no name in GGUF's architecture '\(architecture)': the checkpoint is of another kind than its config.json says"
    case .missingTensor: "is missing"
    case .missingExperts(let count): "lacks the weights of \(count) experts that config.json counts"
    case .nameTooLong(let name): "would be named '\(name.printable)', longer than the 63 bytes that GGUF allows"
    case .shape(let found, let expected): "has shape \(found), expected \(expected)"
    case .tokenizer(let what):
      "its tokenizer cannot be written to a GGUF file: \(what); pass --no-tokenizer to go without"
    case .notFinite(let index): "holds an infinity or NaN at \(index); expected finite weights"
    case .scaleOverflow(let type):
      "has values too large for the binary16 scales of \(type); choose --type F32 or BF16"
    case .importanceLength(let found, let expected):
      "the imatrix has \(found) importances for it, expected \(expected), one a column: it was made for another model"
    case .importance(let what): "is no imatrix file: \(what)"
    }
  }
}
