import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Quantization

extension ModelReport {
  /// The report for programs. Infinite figures (an exact reconstruction's SQNR) are null.
  package func json(path: String, seconds: Double? = nil) -> JSONValue {
    var totals: OrderedDictionary<String, JSONValue> = [
      "quantized_tensors": .integer(quantized.count),
      "kept_tensors": .integer(kept.count),
      "folded_tensors": .integer(folded.count),
      "source_file_bytes": .integer(sourceFileBytes),
      "stored_file_bytes": .integer(storedFileBytes),
      "tensor_bytes": .integer(tensors.reduce(0) { $0 + $1.storedByteCount }),
      "codebook_bytes": .integer(codebookBytes),
      "header_bytes": .integer(headerBytes),
      "compression_ratio": .real(compressionRatio),
    ]
    if let bits = quantizedBitsPerWeight { totals["bits_per_quantized_weight"] = .real(bits) }
    if let error = relativeError {
      totals["relative_error"] = .real(error)
      totals["sqnr_db"] = .real(Self.decibels(error))
    }
    if let seconds { totals["seconds"] = .real(seconds) }
    let share: JSONValue =
      switch coverage {
      case .all: .real(1)
      case .oneTileIn(let step): .real(1 / Double(step))
      }
    return [
      "path": .string(path),
      "measured_share": share,
      "totals": .object(totals),
      "worst": .array(worst(10).map { .string($0.name) }),
      "altered": .array(altered.map { .string($0.name) }),
      "tensors": .array(tensors.map(\.json)),
      "layers": .array((calibration?.layers ?? []).map(\.json)),
    ]
  }
}

extension TensorReport {
  fileprivate var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [
      "name": .string(name), "shape": .array(shape.map { .integer($0) }), "dtype": .string(sourceType.rawValue),
    ]
    switch outcome {
    case .quantized(let scheme, let distortion):
      fields["bucket"] = "quantized"
      fields["scheme"] = .string(scheme)
      fields["relative_error"] = .real(distortion.relativeError)
      fields["sqnr_db"] = .real(distortion.sqnr)
      fields["cosine"] = .real(distortion.cosine)
      fields["largest_error"] = .real(Double(distortion.largestError))
      fields["largest_error_index"] = .array((largestErrorIndex ?? []).map { .integer($0) })
    case .kept(let reason, let isIdentical):
      fields["bucket"] = "kept"
      fields["reason"] = .string(reason)
      fields["identical"] = .bool(isIdentical)
    case .folded(let scheme, let reason, let error):
      fields["bucket"] = scheme == nil ? "folded" : "quantized"
      fields["folded"] = true
      if let scheme { fields["scheme"] = .string(scheme) } else { fields["reason"] = .string(reason) }
      if let error {
        fields["output_error"] = .real(error.own)
        fields["output_error_rtn"] = .real(error.plain)
      }
    }
    fields["source_bytes"] = .integer(sourceByteCount)
    fields["stored_bytes"] = .integer(storedByteCount)
    fields["bits_per_weight"] = .real(bitsPerWeight)
    return .object(fields)
  }
}

func decimalLogarithm(_ value: Double) -> Double { log10(value) }
