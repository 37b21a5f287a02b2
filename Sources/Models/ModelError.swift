import Checkpoints

/// Why a model cannot be run: which file, which key or tensor, what was found, what was expected.
package struct ModelError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    case noConfiguration
    case unknownType(String, known: [String])
    case missingKey
    case wrongValue(found: String, expected: String)
    case missingTensor(shape: [Int])
    case wrongShape(found: [Int], expected: [Int])
    case notGenerative
    case tokenOutOfRange(token: Int, vocabulary: Int)
    case tooLong(tokens: Int, limit: Int)
    case notFinite(String)
    case noIntegers
  }

  package let file: String
  /// The key of the configuration, or the tensor, that is wrong.
  package let item: String?
  package let reason: Reason

  package init(file: String, _ item: String?, _ reason: Reason) {
    self.file = file
    self.item = item
    self.reason = reason
  }

  package init(file: String, _ reason: Reason) { self.init(file: file, nil, reason) }

  package var description: String { "\(file.printable): \(explanation)" }

  private var explanation: String {
    let name = item?.printable ?? ""
    return switch reason {
    case .noConfiguration: "there is no config.json, so the model cannot be run. Put it beside the weights"
    case .unknownType(let type, let known):
      "model_type '\(type.printable)' is not one that can be run here; known are \(known.joined(separator: ", "))."
        + " Methods without calibration convert it all the same"
    case .missingKey: "'\(name)' is missing; this model needs it"
    case .wrongValue(let found, let expected): "'\(name)' is \(found.printable); expected \(expected)"
    case .missingTensor(let shape):
      "tensor '\(name)' \(shape) is missing, which the configuration asks for: checkpoint and config.json do not"
        + " belong together, or a shard is missing"
    case .wrongShape(let found, let expected):
      "tensor '\(name)' has shape \(found); the configuration asks for \(expected)"
    case .notGenerative: "the model is an encoder without a language head: it gives no probabilities of next tokens"
    case .tokenOutOfRange(let token, let vocabulary):
      "token \(token) is outside the vocabulary of \(vocabulary): the tokenizer is another model's"
    case .tooLong(let tokens, let limit):
      "a window of \(tokens) tokens is longer than the \(limit) positions of the model; use a smaller --window"
    case .noIntegers:
      "no linear layer is stored as 8-bit integers with a scale per row, so that none can be run with 8-bit activations;"
        + " convert with --method llm-int8, or with --method absmax"
    case .notFinite(let place):
      "the model gives values that are not finite (\(place.printable)): its weights are damaged"
    }
  }
}
