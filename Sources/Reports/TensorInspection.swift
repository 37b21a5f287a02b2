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
    /// The codes of the lowest and of the highest level.
    package let ends: [Int]
    package let nonFiniteScales: Int
    /// Groups whose values are all 0.
    package let zeroGroups: Int
    /// Of log₂ of the magnitudes of scales that are finite and not 0; nil where there are none.
    package let scaleHistogram: Histogram?

    package init(
      usage: [Int], smallestScale: Float, largestScale: Float, zeroScales: Int, groupCount: Int,
      smallestZeroPoint: Float?, largestZeroPoint: Float?, largestHalfStep: Float, nonFiniteScales: Int = 0,
      zeroGroups: Int = 0, scaleHistogram: Histogram? = nil, ends: [Int]? = nil
    ) {
      self.ends = ends ?? [0, usage.count - 1]
      self.nonFiniteScales = nonFiniteScales
      self.zeroGroups = zeroGroups
      self.scaleHistogram = scaleHistogram
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

    /// Share of the weights whose code stands for the lowest or the highest level.
    package var saturation: Double {
      Double(ends.reduce(0) { $0 + usage[$1] }) / Double(max(usage.reduce(0, +), 1))
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

  /// Some of the values themselves.
  package struct Excerpt: Hashable, Sendable {
    /// One range for each dimension.
    package let ranges: [Range<Int>]
    /// Row by row along the last dimension.
    package let values: [Float]
    /// As many, or none.
    package let codes: [Int]
    /// Those of the source, as many, or none.
    package let source: [Float]

    package init(ranges: [Range<Int>], values: [Float], codes: [Int], source: [Float]) {
      self.ranges = ranges
      self.values = values
      self.codes = codes
      self.source = source
    }

    var columns: Int { ranges.last?.count ?? 1 }
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
  package var excerpt: Excerpt?

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
