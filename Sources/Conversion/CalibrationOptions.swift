import Calibration
import Checkpoints
import Quantization

/// How calibrated methods get their evidence, and what they do with it.
package struct CalibrationOptions: Hashable, Sendable {
  package var sources = [CalibrationSource(.defaultText)]
  /// Windows to calibrate on.
  package var samples = 128
  /// Tokens of a window; nil: 2048, or as many as the model was made for.
  package var sequenceLength: Int?
  package var layout = CalibrationWindows.Layout.packed
  /// nil: the first windows of the text.
  package var seed: UInt64?
  /// Windows that are never calibrated on, to measure errors with.
  package var heldOut = 8
  package var dampening = 0.01
  package var order = GPTQ.ColumnOrder.activation
  /// Whether layers see the inputs that the original model gives, not those that quantized blocks give.
  package var usesOriginalInputs = false
  /// Whether the original model runs along, and layers make up for what earlier ones changed; nil: for methods that gather
  /// evidence layer after layer, as GPTQ does.
  package var correctsOutputs: Bool?
  /// Whether a layer that the method made worse than rounding to nearest is rounded to nearest.
  package var fallsBack = false

  package init() {}

  /// - Parameter usesLayerEvidence: see `correctsOutputs`.
  func json(usesLayerEvidence: Bool) -> JSONValue {
    [
      "sources": .array(sources.map { ["name": .string($0.name), "weight": .real($0.weight)] }),
      "samples": .integer(samples), "sequence_length": sequenceLength.map { .integer($0) } ?? .null,
      "layout": .string(layout.rawValue), "seed": seed.map { .number("\($0)") } ?? .null,
      "held_out": .integer(heldOut), "dampening": .real(dampening), "activation_order": .bool(order == .activation),
      "original_inputs": .bool(usesOriginalInputs), "correct_outputs": .bool(correctsOutputs ?? usesLayerEvidence),
      "fallback_rtn": .bool(fallsBack),
    ]
  }
}
