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
  /// Whether searches for scales weigh errors by E[x²] of the inputs: where text or evidence is given.
  package var weighsScales = false
  /// What is recorded of evidence that was gathered before; nil where a text is calibrated on.
  package var evidence: JSONValue?
  /// The magnitude from which an input counts as an outlier.
  package var outlierThreshold = FeatureStatistics.usualThreshold
  /// The share of tokens in which an input must be one, for its feature to be kept apart.
  package var outlierShare = OutlierColumns.usualShare
  /// Share of the mean diagonal that is added to a Hessian; nil: see `dampening(inputs:tokens:)`.
  package var dampening: Double?
  /// Sweeps of coordinate descent after GPTQ.
  package var sweeps = 8
  package var order = GPTQ.ColumnOrder.activation
  /// Whether layers see the inputs that the original model gives, not those that quantized blocks give.
  package var usesOriginalInputs = false
  /// nil: by layer where a method gathers evidence layer after layer, as GPTQ does, else none.
  package var correction: OutputCorrection?
  /// Whether a layer that the method made worse than rounding to nearest is rounded to nearest.
  package var fallsBack = false

  package var learning = LearningOptions()

  package init() {}

  /// One percent, or more where tokens are few for the inputs of a layer: their sample of H is then noisy by about this
  /// share.
  func dampening(inputs: Int, tokens: Int) -> Double {
    dampening ?? min(GPTQ.largestDampening, max(0.01, Double(inputs) / Double(max(1, tokens))))
  }

  func correction(usesLayerEvidence: Bool) -> OutputCorrection {
    correction ?? (usesLayerEvidence ? .layer : OutputCorrection.none)
  }

  /// - Parameter usesLayerEvidence: see `correction`.
  package func json(usesLayerEvidence: Bool) -> JSONValue {
    if let evidence {
      return [
        "evidence": evidence, "dampening": dampening.map { .real($0) } ?? "automatic",
        "sweeps": .integer(sweeps), "activation_order": .bool(order == .activation),
        "importance": .string("mean square of inputs"),
      ]
    }
    return [
      "sources": .array(sources.map { ["name": .string($0.name), "weight": .real($0.weight)] }),
      "samples": .integer(samples), "sequence_length": sequenceLength.map { .integer($0) } ?? .null,
      "layout": .string(layout.rawValue), "seed": seed.map { .number("\($0)") } ?? .null,
      "held_out": .integer(heldOut), "outlier_threshold": .real(Double(outlierThreshold)),
      "outlier_share": .real(outlierShare), "dampening": dampening.map { .real($0) } ?? "automatic",
      "sweeps": .integer(sweeps), "activation_order": .bool(order == .activation),
      "original_inputs": .bool(usesOriginalInputs),
      "output_correction": .string(correction(usesLayerEvidence: usesLayerEvidence).rawValue),
      "fallback_rtn": .bool(fallsBack),
    ]
  }
}

/// How the method `learned` goes on from GPTQ's codes.
package struct LearningOptions: Hashable, Sendable {
  /// Sweeps of coordinate descent by what the layers' outputs count for the predictions; 0: none.
  package var coupledSweeps = 4
  /// What is added to the diagonal of that curvature, as a share of its mean.
  package var coupledDampening = 0.1
  /// Steps for each block.
  package var iterations = 0
  /// Steps for the whole model, against the original's predictions.
  package var distillation = 0
  /// Windows of a step.
  package var batchSize = 8
  /// The first step of a rounding offset, in codes.
  package var rate: Float = 0.005
  /// Whether steps change norms and biases, too.
  package var tunesNorms = false
  /// Their first step, as a share of their root mean square.
  package var normRate: Float = 0.005

  package init() {}

  func method(iterations: Int) -> LearnedRounding {
    LearnedRounding(
      iterations: iterations, batchSize: batchSize, rate: rate, normRate: tunesNorms ? normRate : 0)
  }

  var json: JSONValue {
    [
      "coupled_sweeps": .integer(coupledSweeps), "iterations": .integer(iterations),
      "distillation": .integer(distillation), "batch_size": .integer(batchSize), "learning_rate": .real(Double(rate)),
      "tune_norms": .bool(tunesNorms), "norm_rate": .real(Double(normRate)),
    ]
  }
}

/// How layers make up for what quantized ones before them changed; the original model then runs along.
package enum OutputCorrection: String, CaseIterable, Hashable, Sendable {
  /// Each layer is first set to what gives the original's outputs, or residual stream, from the inputs it now has.
  case layer
  /// GPTQ corrects for it column by column (GPTAQ, arXiv 2504.02692).
  case columns
  case none
}
