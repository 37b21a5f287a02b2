import Kernels

/// GPTQ (Frantar et al., arXiv 2210.17323): quantizes the columns of a weight one after the other and lets the columns
/// that are still open make up for the error of those that are not, by the Hessian H of the layer's inputs.
///
/// The paper changes open columns by its equation 2, with rows of the Cholesky factor of H⁻¹ (its step 3). The same
/// follows from a factor of H itself (LDLQ of QuIP, arXiv 2307.13304, theorem 6; arXiv 2507.18553), and so it is computed
/// here, with no inverse: H = R·Rᵀ, R upper triangular,
///
///     x[j] = w[j] + (1 / R[j][j]) · Σ (w[k] − ŵ[k]) · R[k][j]        over k < j; ŵ[j] is x[j] rounded
///
/// The sums over earlier columns are matrix products of halves of the columns (the lazy batches of its step 2). Rows do
/// not depend on each other, and run in parallel by tiles of fixed size: the same codes for any number of workers.
///
/// See Docs/GPTQ.md for choices and edge cases.
package struct GPTQ: Hashable, Sendable {
  /// In which order columns are quantized.
  package enum ColumnOrder: String, CaseIterable, Hashable, Sendable {
    case natural
    /// By falling diagonal of H: the columns with the largest inputs first, while most others can still make up for them.
    case activation
  }

  /// What the range of a group is computed from.
  package enum GroupRanges: String, CaseIterable, Hashable, Sendable {
    /// The weights as given, runs of neighbouring columns.
    case original
    /// The corrected weights at the group's turn, groups being runs in the order of quantization. With `activation` order
    /// that scatters groups over the columns, and a reader needs `groupIndex`.
    case corrected

    package init(_ order: GroupOrder) { self = order == .activation ? .corrected : .original }
  }

  package let scheme: WeightScheme
  package let order: ColumnOrder
  package let groupRanges: GroupRanges
  /// What is added to the diagonal of H, as a share of its mean over columns that are not dead.
  package let dampening: Double
  /// Columns that are quantized before products take over. Changes codes in the last bits of sums only.
  package let columnBlock: Int
  /// Sweeps of coordinate descent over codes and scales that follow; 0: GPTQ as published. Not done where groups are
  /// scattered over the columns.
  package let sweeps: Int

  /// Dampening is raised tenfold up to this share when the factorization fails.
  package static let largestDampening = 1.0
  /// Rows that are worked on together: few enough that a small weight, too, keeps several threads busy.
  static func rowTile(rows: Int) -> Int { min(256, max(64, (rows / 8 + 15) / 16 * 16)) }

  /// - Parameter scheme: absmax or zero points, by groups or rows; `ScaleSearch.mse` searches ranges.
  package init(
    scheme: WeightScheme, order: ColumnOrder = .activation, groupRanges: GroupRanges = .original,
    dampening: Double = 0.01, columnBlock: Int = 128, sweeps: Int = 0
  ) throws(GPTQError) {
    guard scheme.method == .absmax || scheme.method == .zeroPoint else { throw .method(scheme.method) }
    guard scheme.granularity != .tensor else { throw .granularity }
    guard dampening > 0, dampening <= Self.largestDampening else { throw .dampening(dampening) }
    guard (1...4096).contains(columnBlock) else { throw .columnBlock(columnBlock) }
    self.scheme = scheme
    self.order = order
    self.groupRanges = groupRanges
    self.dampening = dampening
    self.columnBlock = columnBlock
    self.sweeps = sweeps
  }

  /// What came of one weight.
  package struct Result: Sendable {
    package let weight: AffineWeight
    /// The share that was added to the diagonal in the end; nil after a fallback.
    package let dampening: Double?
    /// Columns whose inputs were zero for all tokens. Their weights became zero, except after a fallback.
    package let deadColumns: [Int]
    /// Why the weight was rounded to nearest instead.
    package let fallback: Fallback?
    /// Mean squared change of the layer's output over the tokens of the Hessian, summed over outputs, with the
    /// dampening's share (dampening · mean diagonal · ‖ΔW‖²); nil after a fallback.
    package let loss: Double?
  }

  package enum Fallback: Hashable, Sendable, CustomStringConvertible {
    case noEvidence
    case notPositiveDefinite(column: Int)
    case diverged

    package var description: String {
      switch self {
      case .noEvidence: "no token of the calibration text gave this layer an input other than zero"
      case .notPositiveDefinite(let column):
        "the Hessian is not positive definite (input feature \(column)) even with dampening \(GPTQ.largestDampening)"
      case .diverged: "weights or their corrections are too large for sums in float32"
      }
    }
  }

  /// Quantizes a weight.
  /// - Parameters:
  ///   - weight: `[outputs, inputs]`.
  ///   - hessian: of the layer's inputs.
  ///   - asymmetry: for calibration against the inputs x̃ that the unquantized model would give (GPTAQ).
  ///   - weighsRanges: a search for ranges weighs each column's squared error by its E[x²].
  /// - Throws: where the weight is not finite or a scale beyond its type. Evidence that cannot be used is no error: see
  ///   `Result.fallback`.
  package func quantize(
    _ weight: Matrix, hessian: Hessian, asymmetry: Asymmetry? = nil, weighsRanges: Bool = false, workers: Int
  ) throws -> Result {
    precondition(hessian.dimension == weight.columns && asymmetry.map { $0.sum.columns == weight.columns } ?? true)
    let diagonal = hessian.diagonal
    let dead = diagonal.indices.filter { diagonal[$0] == 0 }
    let live = diagonal.count - dead.count
    let mean = diagonal.reduce(0) { $0 + Double($1) } / Double(max(1, live))
    guard live > 0, mean.isNormal else {
      return try roundedToNearest(weight, importance: nil, dead: dead, because: .noEvidence, workers: workers)
    }
    let importance = weighsRanges ? diagonal.map { Float(Double($0) / mean) } : nil
    let problem = Problem(self, diagonal: diagonal, importance: importance)
    var share = dampening
    while true {
      let factor = dampedLowerTriangle(
        of: hessian.sum, order: problem.columnAt, factor: 1 / mean, damping: share, workers: workers)
      guard let column = factorCholesky(factor, workers: workers) else {
        let shifts = asymmetry?.shifts(order: problem.columnAt, scale: 1 / mean, factor: factor, workers: workers)
        var (quantized, loss) = try problem.solve(weight, factor: factor, shifts: shifts, workers: workers)
        guard loss.isFinite else {
          return try roundedToNearest(weight, importance: importance, dead: dead, because: .diverged, workers: workers)
        }
        if sweeps > 0, quantized.groupIndex == nil, asymmetry == nil {
          let descent = CoordinateDescent(sweeps: sweeps, scaleType: scheme.scaleType)
          let h = damped(hessian.sum, factor: 1 / mean, damping: share, workers: workers)
          loss = descent.improve(&quantized, towards: weight, h: h, dead: dead, workers: workers)
        }
        return Result(
          weight: quantized, dampening: share, deadColumns: dead, fallback: nil,
          loss: loss * mean / Double(max(1, hessian.tokens)))
      }
      guard share * 10 <= Self.largestDampening * (1 + 1e-9) else {
        return try roundedToNearest(
          weight, importance: importance, dead: dead,
          because: .notPositiveDefinite(column: Int(problem.columnAt[column])), workers: workers)
      }
      share *= 10
    }
  }

  /// The fallback: every weight to the nearest code of its group's range.
  private func roundedToNearest(
    _ weight: Matrix, importance: [Float]?, dead: [Int], because reason: Fallback, workers: Int
  ) throws -> Result {
    let quantized = try AffineWeight(roundingToNearest: weight, scheme, importance: importance, workers: workers)
    return Result(weight: quantized, dampening: nil, deadColumns: dead, fallback: reason, loss: nil)
  }
}

/// Options that cannot be.
package enum GPTQError: Error, Hashable, Sendable, CustomStringConvertible {
  case method(Method)
  case granularity
  case dampening(Double)
  case columnBlock(Int)

  package var description: String {
    switch self {
    case .method(let method): "GPTQ rounds to integers: absmax or zero-point, not \(method.rawValue)"
    case .granularity: "GPTQ needs a group size or 'row', not one scale for the tensor"
    case .dampening(let share):
      "dampening \(share): it must be above 0 and at most \(GPTQ.largestDampening), a share of the mean diagonal"
    case .columnBlock(let size): "column block \(size): it must be 1 to 4096"
    }
  }
}
