import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Quantization

extension ModelReport {
  /// The report for programs; `Docs/report.schema.json` describes it. Figures that are not known are left out or null;
  /// infinite ones (an exact reconstruction's SQNR) are null.
  /// - Parameter seconds: of the conversion whose end this is.
  package func json(path: String, seconds: Double? = nil) -> JSONValue {
    let ledger = Ledger(self)
    let findings = Findings(self, ledger)
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
    if !profiles.isEmpty {
      totals["code_bytes"] = .integer(
        ledger.entries.reduce(0) { $0 + ($1.report.isQuantized ? $1.codeByteCount : 0) })
      totals["scale_bytes"] = .integer(ledger.entries.reduce(0) { $0 + $1.scaleByteCount })
      totals["outlier_bytes"] = .integer(ledger.entries.reduce(0) { $0 + $1.outlierByteCount })
    }
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
      "answers": .array(
        findings.answers.map { ["question": .string($0.question), "answer": .string($0.answer)] }),
      "warnings": .array(findings.warnings.map(\.json)),
      "worst": .array(worst(10).map { .string($0.name) }),
      "altered": .array(altered.map { .string($0.name) }),
      "provenance": provenance?.json ?? .null,
      "evaluation": evaluation?.json ?? .null,
      "kinds": .array(ledger.kindSummaries.map { json(of: $0) }),
      "sizes": .array(ledger.sizeSummaries.map(\.json)),
      "blocks": .array(ledger.blockSummaries.map(\.json)),
      "tensors": .array(ledger.entries.map(\.json)),
      "layers": .array((calibration?.layers ?? []).map(\.json)),
      "input_features": .array((calibration?.inputFeatures ?? []).map(\.json)),
    ]
  }

  private func json(of kind: Ledger.KindSummary) -> JSONValue {
    [
      "kind": .string(kind.kind), "tensors": .integer(kind.tensors), "weights": .integer(kind.weights),
      "stored_bytes": .integer(kind.storedBytes), "code_bytes": .integer(kind.codeBytes),
      "scale_bytes": .integer(kind.scaleBytes), "error": kind.error.map { .real($0) } ?? .null,
      "rounding_error": kind.roundingError.map { .real($0) } ?? .null, "share": .real(kind.share),
      "bit_bytes": kind.bitBytes.map { .integer($0) } ?? .null, "bit_gain": kind.bitGain.map { .real($0) } ?? .null,
      "bit_worth": worth(kind).map { .real($0) } ?? .null,
    ]
  }
}

extension Findings.Warning {
  fileprivate var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["kind": .string(kind.rawValue), "tensor": .string(tensor)]
    if let expert { fields["expert"] = .integer(expert) }
    fields["text"] = .string(text)
    return .object(fields)
  }
}

extension Ledger.SizeSummary {
  fileprivate var json: JSONValue {
    [
      "name": .string(name), "quantized": .bool(isQuantized), "tensors": .integer(tensors),
      "source_bytes": .integer(sourceBytes), "stored_bytes": .integer(storedBytes), "code_bytes": .integer(codeBytes),
      "scale_bytes": .integer(scaleBytes), "outlier_bytes": .integer(outlierBytes),
    ]
  }
}

extension Ledger.BlockSummary {
  fileprivate var json: JSONValue {
    [
      "block": .integer(depth), "weights": .integer(weights), "stored_bytes": .integer(storedBytes),
      "bits_per_weight": .real(bitsPerWeight),
    ]
  }
}

extension Ledger.Entry {
  fileprivate var json: JSONValue {
    var fields = report.fields
    fields["block"] = depth.map { .integer($0) } ?? .null
    fields["kind"] = .string(kind)
    guard let profile else { return .object(fields) }
    fields["code_bytes"] = .integer(codeByteCount)
    fields["scale_bytes"] = .integer(profile.scaleByteCount)
    fields["outlier_bytes"] = .integer(profile.outlierByteCount)
    fields["peak"] = .real(profile.peak)
    fields["pq_index"] = .real(profile.sparsity)
    fields["weights"] = profile.weights.json
    if let entropy = profile.entropy {
      fields["codes"] = ["usage": .array(profile.codes.map { .integer($0) }), "entropy_bits": .real(entropy)]
    }
    if let scales = profile.scales { fields["log2_scales"] = scales.json }
    return .object(fields)
  }
}

extension TensorInspection.Histogram {
  fileprivate var json: JSONValue {
    ["low": .real(Double(low)), "high": .real(Double(high)), "counts": .array(counts.map { .integer($0) })]
  }
}

extension TensorReport {
  fileprivate var fields: OrderedDictionary<String, JSONValue> {
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
    return fields
  }
}

func decimalLogarithm(_ value: Double) -> Double { log10(value) }
