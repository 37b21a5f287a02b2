import Kernels

/// The input features of a layer whose weights stay in 16 bits: LLM.int8() (arXiv 2208.07339, section 3.2), decided before
/// the model is used, from what calibration has seen.
///
/// The paper splits each matrix product anew, by the features that reach 6.0 somewhere in the batch. Its section 4 finds
/// that they are nearly always the same ones, so that weights can be split once: a feature is an outlier where its
/// magnitude reaches the threshold in at least a share of the tokens.
package struct OutlierColumns: Hashable, Sendable {
  /// In rising order.
  package let columns: [Int32]
  /// F16 or BF16: how their weights are stored.
  package let type: ElementType

  /// The share of tokens in which an outlier feature reaches the threshold, unless another one is asked for: the paper's
  /// share of sequence positions (section 4).
  package static let usualShare = 0.06

  /// - Precondition: columns rise, the first is not negative; the type is F16 or BF16.
  package init(columns: [Int32], type: ElementType) {
    precondition(columns.first ?? 0 >= 0 && zip(columns, columns.dropFirst()).allSatisfy { $0 < $1 })
    precondition(type == .f16 || type == .bf16)
    self.columns = columns
    self.type = type
  }

  /// The outlier features of an input: those that reach its statistics' threshold in at least `share` of its tokens, and
  /// in one at least. None without tokens.
  package init(_ statistics: FeatureStatistics, share: Double, type: ElementType) {
    let least = max(1, (share * Double(statistics.tokens)).rounded(.up))
    let found = statistics.outlierTokens.enumerated().filter { Double($0.element) >= least }
    self.init(columns: found.map { Int32($0.offset) }, type: type)
  }

  /// How the weights of outlier columns are stored: as in the source if that has 16 bits, else like scales of 16 bits;
  /// F16 where there is no such hint, as it keeps three bits more.
  package static func type(source: ElementType, scaleType: ElementType) -> ElementType {
    if source == .f16 || source == .bf16 { return source }
    return scaleType == .bf16 ? .bf16 : .f16
  }

  func fits(columns count: Int) -> Bool { (columns.last ?? -1) < count }

  /// Takes the outliers out of whole rows, leaving zeros.
  /// - Parameters:
  ///   - first: the first value in the flattened tensor, for error messages.
  ///   - outliers: receives them row by row, rounded to their type.
  func split(
    _ values: inout [Float], rowLength: Int, first: Int, into outliers: inout [Float]
  ) throws(QuantizationError) {
    for row in stride(from: 0, to: values.count, by: rowLength) {
      for column in columns {
        let element = row + Int(column)
        let value = values[element]
        guard value.isFinite else { throw .notFinite(element: first + element, value: "\(value)") }
        let stored = rounded(value, to: type)
        guard stored.isFinite else { throw .outlierOverflow(element: first + element, value: value, type: type) }
        outliers.append(stored)
        values[element] = 0
      }
    }
  }
}
