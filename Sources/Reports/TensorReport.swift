import Kernels
import Quantization

/// What became of one tensor, measured on the bytes on disk.
package struct TensorReport: Hashable, Sendable {
  package enum Outcome: Hashable, Sendable {
    /// Quantized, with what it lost.
    case quantized(scheme: String, Distortion)
    /// Kept, and whether its bytes are those of the source.
    case kept(reason: String, isIdentical: Bool)
    /// Scales are folded in, or it was tuned, so that its values say nothing beside the source's; quantized by a scheme, or kept in its
    /// type.
    case folded(scheme: String?, reason: String, OutputError?)
  }

  /// The relative error of a layer's output on tokens held out in calibration, and that of rounding to nearest.
  package struct OutputError: Hashable, Sendable {
    package let own: Double
    package let plain: Double

    package init(own: Double, plain: Double) {
      self.own = own
      self.plain = plain
    }
  }

  package let name: String
  package let shape: [Int]
  package let sourceType: ElementType
  package let outcome: Outcome
  package let sourceByteCount: Int
  package let storedByteCount: Int

  package init(
    name: String, shape: [Int], sourceType: ElementType, outcome: Outcome, sourceByteCount: Int, storedByteCount: Int
  ) {
    self.name = name
    self.shape = shape
    self.sourceType = sourceType
    self.outcome = outcome
    self.sourceByteCount = sourceByteCount
    self.storedByteCount = storedByteCount
  }

  package var elementCount: Int { shape.reduce(1, *) }
  package var bitsPerWeight: Double {
    elementCount > 0 ? Double(storedByteCount) * 8 / Double(elementCount) : 0
  }

  package var distortion: Distortion? { if case .quantized(_, let distortion) = outcome { distortion } else { nil } }

  package var isQuantized: Bool {
    switch outcome {
    case .quantized: true
    case .kept: false
    case .folded(let scheme, _, _): scheme != nil
    }
  }

  package var isFolded: Bool { if case .folded = outcome { true } else { false } }

  /// Where the largest error is, along each dimension.
  package var largestErrorIndex: [Int]? {
    distortion.map { position(of: $0.largestErrorElement, in: shape) }
  }
}

/// What became of a whole checkpoint.
package struct ModelReport: Sendable {
  /// How much of each quantized tensor was decoded and compared.
  package enum Coverage: Hashable, Sendable {
    case all
    /// One tile in so many, spread evenly.
    case oneTileIn(Int)
  }

  package let tensors: [TensorReport]
  package let coverage: Coverage
  /// Sizes of the files that hold tensors, headers included.
  package let sourceFileBytes: Int
  package let storedFileBytes: Int
  /// Bytes of those files that belong to no source tensor: headers, and codebooks.
  package let headerBytes: Int
  package let codebookBytes: Int
  /// What calibration measured; nil where there was none.
  package var calibration: CalibrationReport?
  /// Of quantized tensors, by name; empty where they were not looked at.
  package var profiles: [String: TensorProfile] = [:]
  /// What `evaluate` measured; nil where it was not given.
  package var evaluation: EvaluationFigures?
  package var provenance: ConversionRecord?

  package init(
    tensors: [TensorReport], coverage: Coverage, sourceFileBytes: Int, storedFileBytes: Int, headerBytes: Int,
    codebookBytes: Int
  ) {
    self.tensors = tensors
    self.coverage = coverage
    self.sourceFileBytes = sourceFileBytes
    self.storedFileBytes = storedFileBytes
    self.headerBytes = headerBytes
    self.codebookBytes = codebookBytes
  }

  package var quantized: [TensorReport] { tensors.filter(\.isQuantized) }
  package var kept: [TensorReport] { tensors.filter { !$0.isQuantized } }
  /// Tensors whose values differ from the source's because scales are folded in, or because they were tuned.
  package var folded: [TensorReport] { tensors.filter(\.isFolded) }

  /// Kept tensors whose bytes differ from the source's: always a defect.
  package var altered: [TensorReport] {
    tensors.filter { if case .kept(_, isIdentical: false) = $0.outcome { true } else { false } }
  }

  /// Relative Frobenius error over all quantized weights together that no scales are folded into; nil if there are none.
  package var relativeError: Double? {
    let error = quantized.reduce(0) { $0 + ($1.distortion?.squaredError ?? 0) }
    let norm = quantized.reduce(0) { $0 + ($1.distortion?.squaredNorm ?? 0) }
    return !quantized.contains { $0.distortion != nil } ? nil : error == 0 ? 0 : (error / norm).squareRoot()
  }

  package var compressionRatio: Double { Double(sourceFileBytes) / Double(max(storedFileBytes, 1)) }

  /// Bits per weight over all quantized weights together; nil if there are none.
  package var quantizedBitsPerWeight: Double? {
    let weights = quantized.reduce(0) { $0 + $1.elementCount }
    let bytes = quantized.reduce(0) { $0 + $1.storedByteCount }
    return weights > 0 ? Double(bytes) * 8 / Double(weights) : nil
  }

  /// The quantized tensors with the largest relative error, worst first.
  package func worst(_ count: Int) -> [TensorReport] {
    let ranked = quantized.filter { $0.distortion != nil }.sorted {
      ($0.distortion?.relativeError ?? 0, $1.name) > ($1.distortion?.relativeError ?? 0, $0.name)
    }
    return Array(ranked.prefix(count))
  }
}
