import Calibration
import Checkpoints
import Quantization

/// Why a file cannot serve as evidence: what was found, what was expected, what to do.
package struct EvidenceFileError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    // The file
    case notEvidence
    case version(String)
    case missing(String)
    case malformed(String, String)
    case missingTensor(String)
    case unknownTensor(String)
    case wrongTensor(String, found: String, expected: String)
    case noHash(String)
    case changed(String)
    case value(String, index: Int, found: String, expected: String)
    // Its use
    case otherModel(found: String, expected: String)
    case noHessians
    case nothingToCalibrate
    // Merging
    case cannotMerge(with: String, why: String)
    // Captured activations
    case noActivations
    case unknownLayer(String)
    case activations(String, shape: [Int], type: String)
    case otherWidth(String, found: Int, expected: Int)
    case noTokens(String)
  }

  package let file: String
  package let reason: Reason

  package init(_ file: String, _ reason: Reason) {
    self.file = file
    self.reason = reason
  }

  package var description: String { "\(file.printable): \(explanation)" }

  private var explanation: String {
    switch reason {
    case .notEvidence:
      "is no evidence file (its metadata has no 'format' of '\(EvidenceHeader.formatName)'); `convert-model calibrate`"
        + " writes one"
    case .version(let found):
      "has version \(found.printable) of the evidence format; this program reads version \(EvidenceHeader.version)"
    case .missing(let key): "its metadata has no '\(key)': the file is damaged; write it again"
    case .malformed(let key, let what): "'\(key)' of its metadata cannot be read: \(what.printable)"
    case .missingTensor(let name): "tensor '\(name.printable)' is missing: the file is damaged; write it again"
    case .unknownTensor(let name):
      "tensor '\(name.printable)' belongs to no input that the metadata names: the file is damaged; write it again"
    case .wrongTensor(let name, let found, let expected):
      "tensor '\(name.printable)' is \(found), but must be \(expected)"
    case .noHash(let name): "its metadata has no SHA-256 of tensor '\(name.printable)'"
    case .changed(let name):
      "the bytes of tensor '\(name.printable)' are not those that were written (SHA-256): the file is damaged; write it"
        + " again"
    case .value(let name, let index, let found, let expected):
      "tensor '\(name.printable)' has \(found) at \(index), but must be \(expected): the evidence is damaged"
    case .otherModel(let found, let expected):
      "is evidence of another model (SHA-256 \(String(found.prefix(12)).printable)…, this one has \(expected.prefix(12))…); run"
        + " `convert-model calibrate` on this model"
    case .noHessians:
      "holds statistics only, and this method needs the products of inputs: write it again without --no-hessians"
    case .nothingToCalibrate:
      "knows no layer whose weight the model has as a matrix, as calibrated methods need; methods with a scale search"
        + " convert the model all the same"
    case .cannotMerge(let other, let why): "cannot be merged with \(other.printable): \(why)"
    case .noActivations:
      "has no tensor named '<linear>.input' with activations [tokens, in]; <linear> is the weight's name without"
        + " '.weight'"
    case .unknownLayer(let name):
      "tensor '\(name.printable)': the model has no weight '\(String(name.dropLast(6)).printable)"
        + ".weight' of two dimensions"
    case .activations(let name, let shape, let type):
      "tensor '\(name.printable)' is \(type) \(shape), but must be F32, F16 or BF16 [tokens, in]"
    case .otherWidth(let name, let found, let expected):
      "tensor '\(name.printable)' has \(found) features, but the layer has \(expected) inputs"
    case .noTokens(let name): "tensor '\(name.printable)' has no tokens"
    }
  }
}
