import Kernels

/// Why a weight cannot be quantized. `element` counts in the flattened tensor.
package enum QuantizationError: Error, Hashable, Sendable {
  /// A value is infinite or not a number.
  case notFinite(element: Int, value: String)
  /// A scale is beyond the range of the type that is to store it.
  case scaleOverflow(element: Int, scale: Float, type: ElementType)
  /// A weight of an outlier column is beyond the range of the type that is to store it.
  case outlierOverflow(element: Int, value: Float, type: ElementType)
}
