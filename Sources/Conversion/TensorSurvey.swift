import Checkpoints
import Kernels
import Quantization
import Reports

/// Goes through the values of one tensor twice: for their range and moments, then for the histogram and the errors.
struct TensorSurvey {
  /// Codes of the elements; scales and zero points of groups from `firstGroup` on, theirs among them.
  typealias Parts = (codes: [UInt8], scales: [Float], zeroPoints: [Float], firstGroup: Int)

  private static let binCount = 24
  private static let partLength = 1 << 18
  private static let errorCount = 10

  private let tensor: Inspection.Tensor
  private let encoding: WeightEncoding?
  private let shape: [Int]
  private var low = Float.infinity
  private var high = -Float.infinity
  private var (finite, zeros, nans, infinities) = (0, 0, 0, 0)
  private var (sum, squares) = (0.0, 0.0)
  private var bins: [Int]
  private var usage: [Int]
  private var (smallestScale, largestScale) = (Float.infinity, -Float.infinity)
  private var (zeroScales, groups) = (0, 0)
  private var (smallestZeroPoint, largestZeroPoint) = (Float.infinity, -Float.infinity)
  private var errors: [(element: Int, source: Float, stored: Float)]?

  init(_ tensor: Inspection.Tensor, encoding: WeightEncoding?, shape: [Int]) {
    self.tensor = tensor
    self.encoding = encoding
    self.shape = shape
    bins = [Int](repeating: 0, count: Self.binCount)
    usage = [Int](repeating: 0, count: encoding.map { Int($0.highestCode) + 1 } ?? 0)
  }

  /// - Parameter read: gives the values of a run of elements, and their codes where they have any.
  mutating func run(
    type: ElementType, original: CheckpointTensor?, read: (Range<Int>, inout [Float]) throws -> Parts?
  ) throws {
    let parts = stride(from: 0, to: tensor.elementCount, by: Self.partLength).map {
      $0..<min($0 + Self.partLength, tensor.elementCount)
    }
    var values: [Float] = []
    for part in parts {
      let codes = try read(part, &values)
      addMoments(values)
      if let codes { addCodes(codes, part) }
    }
    var bytes: [UInt8] = []
    var source: [Float] = []
    if original != nil { errors = [] }
    for part in parts {
      _ = try read(part, &values)
      addBins(values)
      if let original {
        guard original.entry.shape == shape else {
          throw ConversionError.differentTensor(
            tensor.name, packed: "\(type.rawValue) \(shape)",
            source: "\(original.entry.type.rawValue) \(original.entry.shape)")
        }
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

  private mutating func addCodes(_ parts: Parts, _ elements: Range<Int>) {
    guard let encoding else { return }
    for code in parts.codes { usage[Int(code)] += 1 }
    let grouping = encoding.grouping(of: shape)
    let first = parts.firstGroup
    for (offset, scale) in parts.scales.enumerated() {
      // A group that began in an earlier part has been counted there.
      guard grouping.elements(of: first + offset).lowerBound >= elements.lowerBound else { continue }
      groups += 1
      smallestScale = min(smallestScale, scale)
      largestScale = max(largestScale, scale)
      if scale == 0 { zeroScales += 1 }
      if offset < parts.zeroPoints.count {
        smallestZeroPoint = min(smallestZeroPoint, parts.zeroPoints[offset])
        largestZeroPoint = max(largestZeroPoint, parts.zeroPoints[offset])
      }
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
            index: position(of: $0.element, in: shape), source: $0.source, stored: $0.stored)
        }
      })
  }

  private var codes: TensorInspection.Codes? {
    guard let encoding else { return nil }
    let hasZeroPoints = smallestZeroPoint <= largestZeroPoint
    return TensorInspection.Codes(
      usage: usage, smallestScale: smallestScale, largestScale: largestScale, zeroScales: zeroScales,
      groupCount: groups, smallestZeroPoint: hasZeroPoints ? smallestZeroPoint : nil,
      largestZeroPoint: hasZeroPoints ? largestZeroPoint : nil, largestHalfStep: encoding.widestStep * largestScale / 2)
  }
}

extension WeightEncoding {
  /// The widest distance between neighbouring levels, in units of the scale.
  fileprivate var widestStep: Float {
    switch levels {
    case .affine: return 1
    case .codebook(let name):
      let sorted = name.codebook.levels.sorted()
      return zip(sorted, sorted.dropFirst()).map { $1 - $0 }.max() ?? 0
    }
  }
}
