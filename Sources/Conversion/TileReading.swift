import Checkpoints
import Kernels
import Quantization
import SystemPackage

/// Reads elements of a tensor as float32.
/// - Returns: the bytes read.
func readValues(
  _ tensor: CheckpointTensor, _ elements: Range<Int>, bytes: inout [UInt8], values: inout [Float]
) throws(CheckpointError) -> Int {
  let count = try tensor.read(elements, into: &bytes)
  values.resize(to: elements.count)
  var target = values.mutableSpan
  decodeElements(bytes.span.bytes, as: tensor.entry.type, into: &target)
  return count
}

/// The error of a quantizer with the file, the tensor and the place in it.
func explained(_ error: QuantizationError, _ tensor: CheckpointTensor) -> ConversionError {
  let file = tensor.file.path.string
  func place(_ element: Int) -> [Int] {
    let index = position(of: element, in: tensor.entry.shape)
    return tensor.isTransposed ? exchangingLastTwo(index) : index
  }
  switch error {
  case .notFinite(let element, let value):
    return .notFinite(file: file, tensor: tensor.name, index: place(element), value: value)
  case .scaleOverflow(let element, let scale, let type):
    return .scaleOverflow(file: file, tensor: tensor.name, index: place(element), scale: scale, type: type.rawValue)
  case .outlierOverflow(let element, let value, let type):
    return .outlierOverflow(file: file, tensor: tensor.name, index: place(element), value: value, type: type.rawValue)
  }
}
