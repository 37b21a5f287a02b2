import Kernels
import Synchronization

/// Matrices between uses. Blocks have the same shapes, and memory that was touched once is cheap to use again.
package final class MatrixPool: Sendable {
  private let free = Mutex<[Matrix]>([])

  package init() {}

  /// A matrix with at least these rows, of which as many are in use; its values are whatever they were.
  package func take(rows: Int, columns: Int) -> Matrix {
    let found: Matrix? = free.withLock { free in
      let fitting = free.indices.filter { free[$0].columns == columns && free[$0].rowCapacity >= rows }
      return fitting.min { free[$0].rowCapacity < free[$1].rowCapacity }.map { free.remove(at: $0) }
    }
    let matrix = found ?? Matrix(rows: rows, columns: columns)
    matrix.use(rows: rows)
    return matrix
  }

  package func give(_ matrices: Matrix...) { free.withLock { $0 += matrices } }

  /// Frees what is not in use.
  package func clear() { free.withLock { $0 = [] } }

  package func give(_ matrices: [Matrix]) { free.withLock { $0 += matrices } }
}
