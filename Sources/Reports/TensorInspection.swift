import Checkpoints
import Foundation
import OrderedCollections

/// The values of one tensor, looked at one by one.
package struct TensorInspection: Sendable {
  /// Counts of values in equal intervals.
  package struct Histogram: Hashable, Sendable {
    package let low: Float
    package let high: Float
    package let counts: [Int]

    package init(low: Float, high: Float, counts: [Int]) {
      self.low = low
      self.high = high
      self.counts = counts
    }

    package func bounds(of bin: Int) -> (Float, Float) {
      let width = (high - low) / Float(counts.count)
      return (low + width * Float(bin), low + width * Float(bin + 1))
    }
  }

  /// What only a quantized tensor has.
  package struct Codes: Hashable, Sendable {
    /// How often each code occurs.
    package let usage: [Int]
    package let smallestScale: Float
    package let largestScale: Float
    package let zeroScales: Int
    package let groupCount: Int
    package let smallestZeroPoint: Float?
    package let largestZeroPoint: Float?
    /// Half the widest step of any group: no value within its group's range is further from its weight than this.
    package let largestHalfStep: Float

    package init(
      usage: [Int], smallestScale: Float, largestScale: Float, zeroScales: Int, groupCount: Int,
      smallestZeroPoint: Float?, largestZeroPoint: Float?, largestHalfStep: Float
    ) {
      self.usage = usage
      self.smallestScale = smallestScale
      self.largestScale = largestScale
      self.zeroScales = zeroScales
      self.groupCount = groupCount
      self.smallestZeroPoint = smallestZeroPoint
      self.largestZeroPoint = largestZeroPoint
      self.largestHalfStep = largestHalfStep
    }

    /// Shannon entropy of the codes, in bits per code.
    package var entropy: Double {
      let total = Double(max(usage.reduce(0, +), 1))
      return usage.reduce(0) { sum, count in
        count == 0 ? sum : sum - Double(count) / total * log2(Double(count) / total)
      }
    }

    package var unused: [Int] { usage.indices.filter { usage[$0] == 0 } }
  }

  package struct ErrorPlace: Hashable, Sendable {
    package let index: [Int]
    package let source: Float
    package let stored: Float

    package init(index: [Int], source: Float, stored: Float) {
      self.index = index
      self.source = source
      self.stored = stored
    }
  }

  package let tensor: Inspection.Tensor
  package let finiteCount: Int
  package let zeroCount: Int
  package let nanCount: Int
  package let infinityCount: Int
  package let mean: Double
  package let standardDeviation: Double
  package let histogram: Histogram
  package let codes: Codes?
  /// Largest errors first; nil where no source was given to compare with.
  package let largestErrors: [ErrorPlace]?

  package init(
    tensor: Inspection.Tensor, finiteCount: Int, zeroCount: Int, nanCount: Int, infinityCount: Int, mean: Double,
    standardDeviation: Double, histogram: Histogram, codes: Codes?, largestErrors: [ErrorPlace]?
  ) {
    self.tensor = tensor
    self.finiteCount = finiteCount
    self.zeroCount = zeroCount
    self.nanCount = nanCount
    self.infinityCount = infinityCount
    self.mean = mean
    self.standardDeviation = standardDeviation
    self.histogram = histogram
    self.codes = codes
    self.largestErrors = largestErrors
  }
}

// MARK: - Text

extension TensorInspection {
  package var text: String {
    var lines = [
      "\(tensor.name.printable): \(tensor.format) \(Figures.shape(tensor.shape)), \(tensor.byteCount) bytes, "
        + "\(Figures.fixed(tensor.bitsPerWeight, 3)) bits per weight",
      "Values: \(Figures.short(histogram.low)) to \(Figures.short(histogram.high)), mean "
        + "\(Figures.short(Float(mean))), standard deviation \(Figures.short(Float(standardDeviation))), "
        + "\(zeroCount) zeros" + (nanCount > 0 ? ", \(nanCount) NaN" : "")
        + (infinityCount > 0 ? ", \(infinityCount) infinite" : ""),
    ]
    if finiteCount > 0 {
      lines.append("")
      let labels = histogram.counts.indices.map { Figures.short(histogram.bounds(of: $0).0) }
      lines += Self.bars(labels, histogram.counts)
    }
    if let codes {
      let total = Double(max(codes.usage.reduce(0, +), 1))
      lines.append("")
      lines.append(
        "Codes: \(codes.usage.count - codes.unused.count) of \(codes.usage.count) used, entropy "
          + "\(Figures.fixed(codes.entropy, 3)) bits; lowest and highest code: "
          + "\(Figures.percent(Double(codes.usage.first ?? 0) / total)) and "
          + "\(Figures.percent(Double(codes.usage.last ?? 0) / total))")
      if codes.usage.count <= 32 { lines += Self.bars(codes.usage.indices.map { "\($0)" }, codes.usage) }
      lines.append("")
      lines.append(
        "Scales: \(codes.groupCount), \(Figures.short(codes.smallestScale)) to \(Figures.short(codes.largestScale))"
          + (codes.zeroScales > 0 ? ", \(codes.zeroScales) zero" : ""))
      if let smallest = codes.smallestZeroPoint, let largest = codes.largestZeroPoint {
        lines.append("Zero points: \(Figures.short(smallest)) to \(Figures.short(largest))")
      }
      if largestErrors == nil {
        lines.append(
          "Largest error of a value that was not clipped: \(Figures.short(codes.largestHalfStep)) (half the widest"
            + " step); with --against SOURCE the errors themselves are listed")
      }
    }
    if let largestErrors, !largestErrors.isEmpty {
      let columns = ["at", "source", "stored", "error"].map { TableColumn(title: $0, isNumber: $0 != "at") }
      let rows = largestErrors.map {
        [
          Figures.shape($0.index), Figures.short($0.source), Figures.short($0.stored),
          Figures.short($0.stored - $0.source),
        ]
      }
      lines.append("")
      lines.append("Largest errors\n" + table(columns, rows))
    }
    return lines.joined(separator: "\n")
  }

  /// Horizontal bars, the longest 50 characters.
  private static func bars(_ labels: [String], _ counts: [Int]) -> [String] {
    let widest = labels.map(\.count).max() ?? 0
    let most = counts.max() ?? 0
    return zip(labels, counts).map { label, count in
      let padding = String(repeating: " ", count: widest - label.count)
      let eighths = most > 0 ? Int((Double(count) / Double(most) * 400).rounded(.up)) : 0
      let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]
      return "  \(padding)\(label) \(String(repeating: "█", count: eighths / 8))\(partial) \(count)"
    }
  }
}

// MARK: - JSON

extension TensorInspection {
  package var json: JSONValue {
    var fields: JSONValue = [
      "name": .string(tensor.name),
      "format": .string(tensor.format),
      "shape": .array(tensor.shape.map { .integer($0) }),
      "bytes": .integer(tensor.byteCount),
      "bits_per_weight": .real(tensor.bitsPerWeight),
      "values": [
        "zero": .integer(zeroCount), "nan": .integer(nanCount), "infinite": .integer(infinityCount),
        "min": .real(Double(histogram.low)), "max": .real(Double(histogram.high)), "mean": .real(mean),
        "standard_deviation": .real(standardDeviation),
        "histogram": .array(histogram.counts.map { .integer($0) }),
      ],
    ]
    guard case .object(var members) = fields else { return fields }
    if let codes {
      members["codes"] = [
        "usage": .array(codes.usage.map { .integer($0) }), "entropy_bits": .real(codes.entropy),
        "unused": .array(codes.unused.map { .integer($0) }),
      ]
      members["scales"] = [
        "count": .integer(codes.groupCount), "min": .real(Double(codes.smallestScale)),
        "max": .real(Double(codes.largestScale)), "zero": .integer(codes.zeroScales),
      ]
      if let smallest = codes.smallestZeroPoint, let largest = codes.largestZeroPoint {
        members["zero_points"] = ["min": .real(Double(smallest)), "max": .real(Double(largest))]
      }
      members["largest_half_step"] = .real(Double(codes.largestHalfStep))
    }
    if let largestErrors {
      members["largest_errors"] = .array(
        largestErrors.map {
          [
            "index": .array($0.index.map { .integer($0) }), "source": .real(Double($0.source)),
            "stored": .real(Double($0.stored)),
          ]
        })
    }
    fields = .object(members)
    return fields
  }
}
