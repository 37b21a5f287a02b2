import Calibration
import Checkpoints
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// Activations that another program captured: for a linear layer a tensor `<linear>.input`, `[tokens, in]`, where
/// `<linear>` is its weight's name without `.weight`. They serve models that cannot be run here.
///
/// Read by tiles of rows, so that memory does not grow with the number of tokens. More than two dimensions, such as
/// `[batch, tokens, in]`, are taken as so many rows.
package struct CapturedActivations: StoredEvidence {
  package let place: String
  package let inputs: [LinearInput]
  private let tensors: [CheckpointTensor]

  private static let suffix = ".input"
  /// Values of a tile.
  private static let tileLength = 1 << 20

  /// - Throws: `EvidenceFileError` where no tensor, or not every one, is the input of a layer of the model.
  init(_ checkpoint: Checkpoint, place: String, for source: Checkpoint) throws(EvidenceFileError) {
    let found = checkpoint.tensors.filter { $0.name.hasSuffix(Self.suffix) }
    guard !found.isEmpty else { throw EvidenceFileError(place, .noActivations) }
    var inputs: [LinearInput] = []
    for tensor in found {
      let entry = tensor.entry
      let weight = entry.name.dropLast(Self.suffix.count) + ".weight"
      guard let layer = source[String(weight)]?.entry, layer.shape.count == 2, layer.type.isFullPrecision else {
        throw EvidenceFileError(place, .unknownLayer(entry.name))
      }
      guard entry.shape.count >= 2, entry.type.isFullPrecision else {
        throw EvidenceFileError(place, .activations(entry.name, shape: entry.shape, type: entry.type.rawValue))
      }
      let width = entry.shape[entry.shape.count - 1]
      guard width == layer.shape[1] else {
        throw EvidenceFileError(place, .otherWidth(entry.name, found: width, expected: layer.shape[1]))
      }
      guard entry.elementCount > 0 else { throw EvidenceFileError(place, .noTokens(entry.name)) }
      inputs.append(LinearInput(layers: [EvidencedLayer(weight: layer.name)], dimension: width))
    }
    self.place = place
    self.inputs = inputs
    tensors = found
  }

  package var hasHessians: Bool { true }
  package var tokens: [Int] { zip(inputs, tensors).map { $1.entry.elementCount / $0.dimension } }

  package var record: JSONValue {
    [
      "file": .string(place),
      "captured": .object(
        .init(
          zip(inputs, tensors).map { input, tensor in
            (input.layers[0].weight, .integer(tensor.entry.elementCount / input.dimension))
          }, uniquingKeysWith: { $1 })),
    ]
  }

  package func evidence(ofInput index: Int, withHessian: Bool, workers: Int) throws -> InputEvidence {
    let (input, tensor) = (inputs[index], tensors[index])
    var evidence = InputEvidence(
      input.layers, dimension: input.dimension, EvidenceOptions(sumsHessians: withHessian))
    let tokens = tensor.entry.elementCount / input.dimension
    let height = max(1, Self.tileLength / input.dimension)
    let x = Matrix(rows: min(height, tokens), columns: input.dimension)
    var bytes: [UInt8] = []
    var values: [Float] = []
    for first in stride(from: 0, to: tokens, by: height) {
      let rows = first..<min(first + height, tokens)
      _ = try readValues(
        tensor, rows.lowerBound * input.dimension..<rows.upperBound * input.dimension, bytes: &bytes, values: &values)
      x.use(rows: rows.count)
      copyRows(values.span, from: 0, into: x, rows: 0..<rows.count)
      do {
        try evidence.add(x, workers: workers)
      } catch {
        throw EvidenceError(place, input.layers, error)
      }
    }
    return evidence
  }
}
