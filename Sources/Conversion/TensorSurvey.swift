import Checkpoints
import Foundation
import Kernels
import Quantization
import Reports

/// How the codes of a tensor are grouped, and how far apart their levels are.
struct CodeForm: Sendable {
  let codeCount: Int
  let rowLength: Int
  let groupLength: Int
  /// Whether the groups of a row are runs of columns.
  let hasRuns: Bool
  /// The widest distance between neighbouring levels, in units of the scale.
  let widestStep: Float
  /// The codes of the lowest and the highest level.
  let ends: [Int]

  init(_ encoding: WeightEncoding, shape: [Int]) {
    let grouping = encoding.grouping(of: shape)
    (rowLength, groupLength) = (grouping.rowLength, grouping.groupLength)
    codeCount = Int(encoding.highestCode) + 1
    hasRuns = !encoding.hasGroupIndex
    if case .codebook(let name) = encoding.levels {
      (widestStep, ends) = Self.facts(name.codebook.levels)
    } else {
      (widestStep, ends) = (1, [0, codeCount - 1])
    }
  }

  /// Of the blocks of a GGUF type; nil for plain numbers.
  init?(_ type: BlockType, columns: Int) {
    guard let groups = type.groups else { return nil }
    (rowLength, groupLength) = (max(1, columns), groups.length)
    (codeCount, hasRuns) = (groups.levels.count, true)
    (widestStep, ends) = Self.facts(groups.levels)
  }

  init(_ weight: CodedWeight) {
    groupLength = min(weight.groupLength, max(1, weight.rows * weight.columns))
    if case .block = weight.sharing {
      rowLength = max(1, weight.rows * weight.columns)
    } else {
      rowLength = max(1, weight.columns)
    }
    codeCount = 1 << weight.bits
    hasRuns = weight.groupIndex == nil
    if case .levels(let levels) = weight.decoding {
      (widestStep, ends) = Self.facts(levels)
    } else {
      (widestStep, ends) = (1, [0, codeCount - 1])
    }
  }

  private static func facts(_ levels: [Float]) -> (Float, [Int]) {
    let codes = levels.indices.filter { levels[$0].isFinite }.sorted { levels[$0] < levels[$1] }
    let widest = zip(codes, codes.dropFirst()).map { levels[$1] - levels[$0] }.max() ?? 0
    return (widest, [codes.first ?? 0, codes.last ?? 0])
  }

  private var groupsPerRow: Int { (rowLength + groupLength - 1) / groupLength }

  func group(of element: Int) -> Int { element / rowLength * groupsPerRow + element % rowLength / groupLength }

  func elements(of group: Int) -> Range<Int> {
    let row = group / groupsPerRow
    let start = row * rowLength + group % groupsPerRow * groupLength
    return start..<min(start + groupLength, (row + 1) * rowLength)
  }
}

/// Codes of a run of elements; scales and zero points of groups from `firstGroup` on, theirs among them.
struct CodeParts {
  var codes: [UInt8]
  var scales: [Float]
  var zeroPoints: [Float]
  var firstGroup: Int
}

/// Goes through the values of one tensor: for their range, moments and codes, and a second time, where it is asked for,
/// for the histogram and the errors.
struct TensorSurvey {
  private static let binCount = 24
  private static let scaleBinCount = 16
  private static let partLength = 1 << 18
  private static let errorCount = 10

  private let tensor: Inspection.Tensor
  private let form: CodeForm?
  /// The shape of what is read.
  private let shape: [Int]
  private let isTransposed: Bool
  private var low = Float.infinity
  private var high = -Float.infinity
  private var (finite, zeros, nans, infinities) = (0, 0, 0, 0)
  private var (sum, squares) = (0.0, 0.0)
  private var bins: [Int] = []
  private var usage: [Int]
  private var scales: [Float] = []
  private var (zeroGroups, isZeroSoFar) = (0, true)
  private var (smallestZeroPoint, largestZeroPoint) = (Float.infinity, -Float.infinity)
  private var errors: [(element: Int, source: Float, stored: Float)]?

  /// - Parameter isTransposed: whether what is read is the tensor's transpose.
  init(_ tensor: Inspection.Tensor, form: CodeForm?, isTransposed: Bool = false) {
    self.tensor = tensor
    self.isTransposed = isTransposed
    shape = isTransposed ? exchangingLastTwo(tensor.shape) : tensor.shape
    self.form = form
    usage = [Int](repeating: 0, count: form?.codeCount ?? 0)
  }

  /// - Parameters:
  ///   - original: the source, whose values are to be compared.
  ///   - isWhole: whether histogram and errors are wanted.
  ///   - read: gives the values of a run of elements, and their codes where they have any.
  mutating func run(
    original: CheckpointTensor?, isWhole: Bool = true,
    read: (Range<Int>, inout [Float]) throws -> CodeParts?
  ) throws {
    let parts = stride(from: 0, to: tensor.elementCount, by: Self.partLength).map {
      $0..<min($0 + Self.partLength, tensor.elementCount)
    }
    if let original, original.entry.shape != shape {
      throw ConversionError.differentTensor(
        tensor.name, packed: "\(tensor.format) \(tensor.shape)",
        source: "\(original.entry.type.rawValue) \(original.stored.entry.shape)")
    }
    var values: [Float] = []
    for part in parts {
      let codes = try read(part, &values)
      addMoments(values)
      if let codes { addCodes(codes, values, part) }
    }
    guard isWhole else { return }
    bins = [Int](repeating: 0, count: Self.binCount)
    var bytes: [UInt8] = []
    var source: [Float] = []
    if original != nil { errors = [] }
    for part in parts {
      _ = try read(part, &values)
      addBins(values)
      if let original {
        _ = try readValues(original, part, bytes: &bytes, values: &source)
        addErrors(source, values, first: part.lowerBound)
      }
    }
  }

  private mutating func addMoments(_ values: [Float]) {
    for value in values {
      if value.isNaN {
        nans += 1
      } else if value.isInfinite {
        infinities += 1
      } else {
        finite += 1
        if value == 0 { zeros += 1 }
        low = min(low, value)
        high = max(high, value)
        sum += Double(value)
        squares += Double(value) * Double(value)
      }
    }
  }

  private mutating func addCodes(_ parts: CodeParts, _ values: [Float], _ elements: Range<Int>) {
    guard let form else { return }
    for code in parts.codes where Int(code) < usage.count { usage[Int(code)] += 1 }
    for (offset, scale) in parts.scales.enumerated() {
      // A group that began in an earlier part has been counted there.
      guard form.elements(of: parts.firstGroup + offset).lowerBound >= elements.lowerBound else { continue }
      scales.append(scale)
      // A block of equal values may have an offset and no scale.
      if offset < parts.zeroPoints.count, parts.zeroPoints[offset].isFinite {
        smallestZeroPoint = min(smallestZeroPoint, parts.zeroPoints[offset])
        largestZeroPoint = max(largestZeroPoint, parts.zeroPoints[offset])
      }
    }
    guard form.hasRuns, !elements.isEmpty else { return }
    for group in form.group(of: elements.lowerBound)...form.group(of: elements.upperBound - 1) {
      let members = form.elements(of: group)
      if members.lowerBound >= elements.lowerBound { isZeroSoFar = true }
      let run = members.clamped(to: elements)
      if isZeroSoFar {
        isZeroSoFar = (run.lowerBound - elements.lowerBound..<run.upperBound - elements.lowerBound).allSatisfy {
          values[$0] == 0
        }
      }
      if members.upperBound <= elements.upperBound, isZeroSoFar { zeroGroups += 1 }
    }
  }

  private mutating func addBins(_ values: [Float]) {
    let width = Double(high) - Double(low)
    for value in values where value.isFinite {
      let position = width > 0 ? (Double(value) - Double(low)) / width * Double(Self.binCount) : 0
      bins[min(Int(position), Self.binCount - 1)] += 1
    }
  }

  private mutating func addErrors(_ source: [Float], _ stored: [Float], first: Int) {
    var worst = errors ?? []
    var least = worst.count == Self.errorCount ? worst.last.map { abs($0.source - $0.stored) } ?? 0 : 0
    for index in source.indices {
      let error = abs(source[index] - stored[index])
      guard error > least else { continue }
      let place = worst.firstIndex { abs($0.source - $0.stored) < error } ?? worst.count
      worst.insert((first + index, source[index], stored[index]), at: place)
      if worst.count > Self.errorCount { worst.removeLast() }
      if worst.count == Self.errorCount { least = worst.last.map { abs($0.source - $0.stored) } ?? 0 }
    }
    errors = worst
  }

  func result() -> TensorInspection {
    let mean = finite > 0 ? sum / Double(finite) : 0
    let variance = finite > 0 ? max(0, squares / Double(finite) - mean * mean) : 0
    return TensorInspection(
      tensor: tensor, finiteCount: finite, zeroCount: zeros, nanCount: nans, infinityCount: infinities, mean: mean,
      standardDeviation: variance.squareRoot(),
      histogram: TensorInspection.Histogram(low: finite > 0 ? low : 0, high: finite > 0 ? high : 0, counts: bins),
      codes: codes,
      largestErrors: errors.map { places in
        places.map {
          TensorInspection.ErrorPlace(
            index: index(of: $0.element), source: $0.source, stored: $0.stored)
        }
      })
  }

  private func index(of element: Int) -> [Int] {
    let index = position(of: element, in: shape)
    return isTransposed ? exchangingLastTwo(index) : index
  }

  private var codes: TensorInspection.Codes? {
    guard let form else { return nil }
    let hasZeroPoints = smallestZeroPoint <= largestZeroPoint
    let finite = scales.filter(\.isFinite)
    let largest = finite.max() ?? 0
    return TensorInspection.Codes(
      usage: usage, smallestScale: finite.min() ?? 0, largestScale: largest, zeroScales: scales.count { $0 == 0 },
      groupCount: scales.count, smallestZeroPoint: hasZeroPoints ? smallestZeroPoint : nil,
      largestZeroPoint: hasZeroPoints ? largestZeroPoint : nil,
      largestHalfStep: form.widestStep * (finite.map { abs($0) }.max() ?? 0) / 2,
      nonFiniteScales: scales.count - finite.count, zeroGroups: zeroGroups, scaleHistogram: scaleHistogram,
      ends: form.ends)
  }

  private var scaleHistogram: TensorInspection.Histogram? {
    let values = scales.filter { $0 != 0 && $0.isFinite }.map { log2(abs($0)) }
    guard let low = values.min(), let high = values.max() else { return nil }
    var counts = [Int](repeating: 0, count: Self.scaleBinCount)
    for value in values {
      let position = high > low ? Double(value - low) / Double(high - low) * Double(Self.scaleBinCount) : 0
      counts[min(Int(position), Self.scaleBinCount - 1)] += 1
    }
    return TensorInspection.Histogram(low: low, high: high, counts: counts)
  }
}
