import Kernels
import Models

/// Gathers the inputs of one projection for the tokens held out, group after group, into one matrix each.
final class HeldOutCollection {
  private let pool: MatrixPool
  private let own: Matrix?
  /// What the original model gives, or the aim.
  private let other: Matrix?
  private var bounds: [Int] = []
  private var count = 0

  /// - Parameters:
  ///   - tokens: how many will be added.
  ///   - otherWidth: columns of what is added beside the inputs; nil: nothing is.
  init(tokens: Int, width: Int, otherWidth: Int?, _ pool: MatrixPool) {
    self.pool = pool
    own = tokens > 0 ? pool.take(rows: tokens, columns: width) : nil
    other = tokens > 0 ? otherWidth.map { pool.take(rows: tokens, columns: $0) } : nil
  }

  /// - Parameter bounds: the first row of each window.
  func add(_ x: Matrix, _ other: Matrix?, bounds: [Int]) {
    guard let own else { return }
    self.bounds += bounds.map { $0 + count }
    let rows = count..<count + x.rows
    copyColumns(MatrixColumns(x, from: 0), into: Matrix(sharing: own, rows: rows), at: 0, count: x.rows)
    if let other, let all = self.other {
      copyColumns(MatrixColumns(other, from: 0), into: Matrix(sharing: all, rows: rows), at: 0, count: x.rows)
    }
    count += x.rows
  }

  /// Nil where no token reached the layers.
  /// - Parameter isAim: whether what was added beside the inputs is what outputs are to be.
  func inputs(isAim: Bool) -> HeldOutInputs? {
    guard let own, count > 0 else { return nil }
    return HeldOutInputs(
      inputs: own, originals: isAim ? nil : other, aim: isAim ? other : nil, bounds: bounds + [count])
  }

  func free() { pool.give([own, other].compactMap(\.self)) }
}
