import Checkpoints
import Foundation
import OrderedCollections

extension TensorInspection {
  /// - Parameter plain: bars of ASCII characters instead of blocks.
  package func text(plain: Bool = false) -> String {
    var lines = [
      "\(tensor.name.printable): \(tensor.format) \(Figures.shape(tensor.shape)), \(tensor.byteCount) bytes, "
        + "\(Figures.fixed(tensor.bitsPerWeight, 3)) bits per weight",
      "Values: \(Figures.short(histogram.low)) to \(Figures.short(histogram.high)), mean "
        + "\(Figures.short(Float(mean))), standard deviation \(Figures.short(Float(standardDeviation))), "
        + "\(zeroCount) zeros" + (nanCount > 0 ? ", \(nanCount) NaN" : "")
        + (infinityCount > 0 ? ", \(infinityCount) infinite" : ""),
    ]
    if let excerpt { return (lines + ["", Self.text(of: excerpt)]).joined(separator: "\n") }
    if finiteCount > 0 {
      lines.append("")
      let labels = histogram.counts.indices.map { Figures.short(histogram.bounds(of: $0).0) }
      lines += Self.bars(labels, histogram.counts, plain: plain)
    }
    if let codes { lines += text(of: codes, plain: plain) }
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

  private func text(of codes: Codes, plain: Bool) -> [String] {
    let total = Double(max(codes.usage.reduce(0, +), 1))
    var lines = [
      "",
      "Codes: \(codes.usage.count - codes.unused.count) of \(codes.usage.count) used, entropy "
        + "\(Figures.fixed(codes.entropy, 3)) bits; lowest and highest level: "
        + codes.ends.map { Figures.percent(Double(codes.usage[$0]) / total) }.joined(separator: " and "),
    ]
    // Of 8-bit codes eight to a bar.
    let step = max(1, codes.usage.count / 32)
    let starts = Array(stride(from: 0, to: codes.usage.count, by: step))
    lines += Self.bars(
      starts.map { step > 1 ? "\($0)-\(min($0 + step, codes.usage.count) - 1)" : "\($0)" },
      starts.map { codes.usage[$0..<min($0 + step, codes.usage.count)].reduce(0, +) }, plain: plain)
    lines.append("")
    lines.append(
      "Scales: \(codes.groupCount), \(Figures.short(codes.smallestScale)) to \(Figures.short(codes.largestScale))"
        + (codes.zeroScales > 0 ? ", \(codes.zeroScales) zero" : "")
        + (codes.nonFiniteScales > 0 ? ", \(codes.nonFiniteScales) not finite" : "")
        + (codes.zeroGroups > 0 ? "; \(codes.zeroGroups) groups are all 0" : ""))
    if let histogram = codes.scaleHistogram, histogram.high > histogram.low {
      let labels = histogram.counts.indices.map { Figures.short(exp2(histogram.bounds(of: $0).0)) }
      lines += Self.bars(labels, histogram.counts, plain: plain)
    }
    if let smallest = codes.smallestZeroPoint, let largest = codes.largestZeroPoint {
      lines.append("Zero points: \(Figures.short(smallest)) to \(Figures.short(largest))")
    }
    if largestErrors == nil {
      lines.append(
        "Largest error of a value that was not clipped: \(Figures.short(codes.largestHalfStep)) (half the widest"
          + " step); with --against SOURCE the errors themselves are listed")
    }
    return lines
  }

  private static func text(of excerpt: Excerpt) -> String {
    let (leading, last) = (excerpt.ranges.dropLast(), excerpt.ranges.last ?? 0..<1)
    // The index of each row: all dimensions but the last.
    var indices: [[Int]] = [[]]
    for range in leading { indices = indices.flatMap { index in range.map { index + [$0] } } }
    let columns =
      [TableColumn(title: leading.isEmpty ? "" : "row")] + last.map { TableColumn(title: "\($0)", isNumber: true) }
    var rows: [[String]] = []
    for (row, index) in indices.enumerated() {
      let places = row * last.count..<(row + 1) * last.count
      let name = index.map(String.init).joined(separator: ", ")
      rows.append([name] + places.map { Figures.short(excerpt.values[$0]) })
      if !excerpt.codes.isEmpty { rows.append(["  codes"] + places.map { "\(excerpt.codes[$0])" }) }
      if !excerpt.source.isEmpty { rows.append(["  source"] + places.map { Figures.short(excerpt.source[$0]) }) }
    }
    return table(columns, rows)
  }

  /// Horizontal bars, the longest 50 characters.
  private static func bars(_ labels: [String], _ counts: [Int], plain: Bool) -> [String] {
    let widest = labels.map(\.count).max() ?? 0
    let most = counts.max() ?? 0
    return zip(labels, counts).map { label, count in
      let padding = String(repeating: " ", count: widest - label.count)
      let eighths = most > 0 ? Int((Double(count) / Double(most) * 400).rounded(.up)) : 0
      guard !plain else {
        return "  \(padding)\(label) \(String(repeating: "#", count: (eighths + 7) / 8)) \(count)"
      }
      let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]
      return "  \(padding)\(label) \(String(repeating: "█", count: eighths / 8))\(partial) \(count)"
    }
  }
}

// MARK: - JSON

extension TensorInspection {
  package var json: JSONValue {
    let fields: JSONValue = [
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
    if let codes { members.merge(Self.fields(codes)) { $1 } }
    if let largestErrors {
      members["largest_errors"] = .array(
        largestErrors.map {
          [
            "index": .array($0.index.map { .integer($0) }), "source": .real(Double($0.source)),
            "stored": .real(Double($0.stored)),
          ]
        })
    }
    if let excerpt {
      var fields: OrderedDictionary<String, JSONValue> = [
        "ranges": .array(excerpt.ranges.map { .array([.integer($0.lowerBound), .integer($0.upperBound)]) }),
        "values": .array(excerpt.values.map { .real(Double($0)) }),
      ]
      if !excerpt.codes.isEmpty { fields["codes"] = .array(excerpt.codes.map { .integer($0) }) }
      if !excerpt.source.isEmpty { fields["source"] = .array(excerpt.source.map { .real(Double($0)) }) }
      members["excerpt"] = .object(fields)
    }
    return .object(members)
  }

  private static func fields(_ codes: Codes) -> OrderedDictionary<String, JSONValue> {
    var members: OrderedDictionary<String, JSONValue> = [
      "codes": [
        "usage": .array(codes.usage.map { .integer($0) }), "entropy_bits": .real(codes.entropy),
        "unused": .array(codes.unused.map { .integer($0) }), "at_the_ends": .real(codes.saturation),
      ]
    ]
    var scales: OrderedDictionary<String, JSONValue> = [
      "count": .integer(codes.groupCount), "min": .real(Double(codes.smallestScale)),
      "max": .real(Double(codes.largestScale)), "zero": .integer(codes.zeroScales),
      "not_finite": .integer(codes.nonFiniteScales), "zero_groups": .integer(codes.zeroGroups),
    ]
    if let histogram = codes.scaleHistogram {
      scales["log2_min"] = .real(Double(histogram.low))
      scales["log2_max"] = .real(Double(histogram.high))
      scales["log2_histogram"] = .array(histogram.counts.map { .integer($0) })
    }
    members["scales"] = .object(scales)
    if let smallest = codes.smallestZeroPoint, let largest = codes.largestZeroPoint {
      members["zero_points"] = ["min": .real(Double(smallest)), "max": .real(Double(largest))]
    }
    members["largest_half_step"] = .real(Double(codes.largestHalfStep))
    return members
  }
}
