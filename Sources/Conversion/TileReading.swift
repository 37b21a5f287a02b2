import Checkpoints
import Kernels
import Quantization
import SystemPackage

/// Reads elements of a tensor as they are stored.
/// - Returns: the bytes read, to the front of the buffer.
func readBytes(
  _ tensor: CheckpointTensor, _ elements: Range<Int>, into bytes: inout [UInt8]
) throws(CheckpointError) -> Int {
  let width = tensor.entry.type.bitWidth
  let range = elements.lowerBound * width / 8..<(elements.upperBound * width + 7) / 8
  try tensor.file.read(range, of: tensor.entry, into: &bytes)
  return range.count
}

/// Reads elements of a tensor as float32.
/// - Returns: the bytes read.
func readValues(
  _ tensor: CheckpointTensor, _ elements: Range<Int>, bytes: inout [UInt8], values: inout [Float]
) throws(CheckpointError) -> Int {
  let count = try readBytes(tensor, elements, into: &bytes)
  values.resize(to: elements.count)
  var target = values.mutableSpan
  decodeElements(bytes.span.bytes, as: tensor.entry.type, into: &target)
  return count
}

/// The error of a quantizer with the file, the tensor and the place in it.
func explained(_ error: QuantizationError, _ tensor: CheckpointTensor) -> ConversionError {
  let file = tensor.file.path.string
  switch error {
  case .notFinite(let element, let value):
    let index = position(of: element, in: tensor.entry.shape)
    return .notFinite(file: file, tensor: tensor.name, index: index, value: value)
  case .scaleOverflow(let element, let scale, let type):
    let index = position(of: element, in: tensor.entry.shape)
    return .scaleOverflow(file: file, tensor: tensor.name, index: index, scale: scale, type: type.rawValue)
  case .outlierOverflow(let element, let value, let type):
    let index = position(of: element, in: tensor.entry.shape)
    return .outlierOverflow(file: file, tensor: tensor.name, index: index, value: value, type: type.rawValue)
  }
}
