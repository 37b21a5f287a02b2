import Checkpoints
import Foundation
import OrderedCollections

/// What reading all values, codes and scales of a model showed, tensor by tensor.
package struct DeepInspection: Sendable {
  package struct Tensor: Sendable {
    package let inspection: TensorInspection
    /// What is odd about it, in words.
    package let findings: [String]

    package init(_ inspection: TensorInspection) {
      self.inspection = inspection
      findings = Self.findings(inspection)
    }

    /// Tensors with less than this many values for each code cannot be expected to use all codes.
    private static let valuesPerCode = 64

    private static func findings(_ found: TensorInspection) -> [String] {
      var texts: [String] = []
      if found.nanCount > 0 { texts.append("\(found.nanCount) values are NaN") }
      if found.infinityCount > 0 { texts.append("\(found.infinityCount) values are infinite") }
      if found.zeroCount == found.tensor.elementCount, found.zeroCount > 0 { texts.append("all values are 0") }
      guard let codes = found.codes else { return texts }
      if codes.nonFiniteScales > 0 { texts.append("\(codes.nonFiniteScales) scales are not finite") }
      if codes.zeroScales > 0 { texts.append("\(codes.zeroScales) of \(codes.groupCount) scales are 0") }
      if codes.zeroGroups > 0 { texts.append("\(codes.zeroGroups) of \(codes.groupCount) groups are all 0") }
      let total = codes.usage.reduce(0, +)
      // Symmetric schemes leave one code unused; a quarter is a width that is not needed.
      if codes.unused.count * 4 > codes.usage.count, total >= codes.usage.count * valuesPerCode {
        texts.append("\(codes.unused.count) of \(codes.usage.count) codes are not used")
      }
      // Twice what even use of all codes would give.
      if codes.saturation > max(0.05, 4 / Double(codes.usage.count)) {
        texts.append("\(Figures.percent(codes.saturation)) of the codes are the lowest or the highest")
      }
      return texts
    }
  }

  package let tensors: [Tensor]

  package init(_ inspections: [TensorInspection]) {
    tensors = inspections.map { Tensor($0) }
  }

  package var odd: [Tensor] { tensors.filter { !$0.findings.isEmpty } }

  private static let shownRows = 20

  package var text: String {
    let values = tensors.reduce(0) { $0 + $1.inspection.tensor.elementCount }
    let quantized = tensors.compactMap(\.inspection.codes)
    var lines = [
      "Read \(Figures.millions(values)) values of \(Figures.count(tensors.count, "tensor")): "
        + (odd.isEmpty
          ? "all finite, nothing odd" : "\(Figures.count(odd.count, "tensor")) with something odd")
    ]
    if !quantized.isEmpty {
      let total = Double(max(1, quantized.reduce(0) { $0 + $1.usage.reduce(0, +) }))
      let ends = quantized.reduce(0) { $0 + $1.saturation * Double($1.usage.reduce(0, +)) }
      let entropy = quantized.reduce(0) { $0 + $1.entropy * Double($1.usage.reduce(0, +)) }
      lines.append(
        "Codes: entropy \(Figures.fixed(entropy / total, 3)) bits on average, \(Figures.percent(ends / total)) at the"
          + " ends; scales \(Figures.short(quantized.map(\.smallestScale).min() ?? 0)) to"
          + " \(Figures.short(quantized.map(\.largestScale).max() ?? 0)), \(quantized.reduce(0) { $0 + $1.zeroScales })"
          + " of them 0")
    }
    for tensor in odd.prefix(Self.shownRows) {
      lines.append("  \(tensor.inspection.tensor.name.printable): " + tensor.findings.joined(separator: "; "))
    }
    if odd.count > Self.shownRows { lines.append("  … and \(odd.count - Self.shownRows) more; --json has all") }
    return lines.joined(separator: "\n")
  }

  package var json: JSONValue {
    .array(
      tensors.map { tensor in
        guard case .object(var members) = tensor.inspection.json else { return tensor.inspection.json }
        members["odd"] = .array(tensor.findings.map { .string($0) })
        return .object(members)
      })
  }
}
