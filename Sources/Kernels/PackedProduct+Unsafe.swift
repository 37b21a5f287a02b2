import COpenBLAS
import Synchronization

/// Where the elements of a matrix of float32 lie: element (i, j) at `base + i · row + j · column`.
struct StridedMatrix {
  let base: UnsafePointer<Float>
  /// Between rows as they are stored.
  let stride: Int
  let isTransposed: Bool

  /// Row-major, with the distance between rows.
  @inline(__always)
  init(_ base: UnsafePointer<Float>, _ stride: Int, isTransposed: Bool = false) {
    (self.base, self.stride, self.isTransposed) = (base, stride, isTransposed)
  }

  @inline(__always) var transposed: StridedMatrix { StridedMatrix(base, stride, isTransposed: !isTransposed) }
  @inline(__always) var row: Int { isTransposed ? 1 : stride }
  @inline(__always) var column: Int { isTransposed ? stride : 1 }

  @inline(__always)
  func from(row i: Int, column j: Int) -> StridedMatrix {
    StridedMatrix(base + i * row + j * column, stride, isTransposed: isTransposed)
  }
}

/// c = alpha·a·b, or c + alpha·a·b, on the calling thread.
///
/// Where the target has fused multiplication and addition in wide registers (`X86_64_V3`, `X86_64_V4`), products are made
/// here, after Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): a tile of c stays in
/// registers while rows of a and columns of b are gone through. A block of b is copied into panels in the order of use,
/// which stay in the second level of cache; rows of a are read where they are and stay in the first, unless it is columns
/// that lie together. Elsewhere BLAS's sgemm does it: it finds out at run time what a processor has.
///
/// An element of c is the sum over runs of 384 inner elements, each summed in order with one rounding a step; nothing else
/// decides about its bits, neither its place nor the vector length.
/// - Parameters:
///   - a: `[rows, inner]`.
///   - b: `[inner, columns]`.
///   - c: `[rows, columns]`, row-major with a stride.
///   - diagonal: only elements up to row + `diagonal` are wanted of each row, if not nil; some beyond are written
///     nonetheless.
func product(
  _ a: StridedMatrix, _ b: StridedMatrix, into c: UnsafeMutablePointer<Float>, _ stride: Int, rows: Int, columns: Int,
  inner: Int, alpha: Float = 1, adding: Bool = false, lowerOnlyFrom diagonal: Int? = nil
) {
  #if X86_64_V3 || X86_64_V4
    guard inner > 0 else {
      if !adding { for row in 0..<rows { (c + row * stride).update(repeating: 0, count: columns) } }
      return
    }
    let space = PackingSpace.take()
    for firstColumn in Swift.stride(from: 0, to: columns, by: Panel.columnBlock) {
      let width = min(Panel.columnBlock, columns - firstColumn)
      for first in Swift.stride(from: 0, to: inner, by: Panel.depth) {
        let depth = min(Panel.depth, inner - first)
        packColumns(b.from(row: first, column: firstColumn), count: width, depth: depth, into: space.b)
        for row in Swift.stride(from: 0, to: rows, by: Panel.rows) {
          let height = min(Panel.rows, rows - row)
          let sums = TileSums(
            a: rowPanel(a.from(row: row, column: first), count: height, depth: depth, space: space.a), depth: depth,
            rows: height, alpha: alpha, adding: adding || first > 0)
          let end = diagonal.map { min(width, $0 + row + height - firstColumn) } ?? width
          // Bounds: panels of the block, and tiles of c that begin within it.
          for column in Swift.stride(from: 0, to: end, by: Panel.columns) {
            sums.store(
              b: space.b + column * depth, to: c + row * stride + firstColumn + column, stride,
              columns: min(Panel.columns, width - column), edge: space.edge)
          }
        }
      }
    }
    space.giveBack()
  #else
    setOneThread()
    cblas_sgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans, b.isTransposed ? CblasTrans : CblasNoTrans,
      Int32(rows), Int32(columns), Int32(inner), alpha, a.base, Int32(a.stride), b.base, Int32(b.stride),
      adding ? 1 : 0, c, Int32(stride))
  #endif
}

#if X86_64_V3 || X86_64_V4
  /// The sizes of blocks. A tile of c takes 24 of 32 vector registers of 512 bits, or 12 of 16 of 256.
  private enum Panel {
    #if X86_64_V4
      static let groupRows = 4
      static let columns = 32
      typealias Rows = SIMD16<Float>
    #else
      static let groupRows = 2
      static let columns = 16
      typealias Rows = SIMD8<Float>
    #endif
    static let rows = 3 * groupRows
    static let depth = 384
    static let columnBlock = 256
  }

  /// Room for a block of b, rows of a and a tile of c. Taken by a thread for one product; there are as many as threads
  /// were at it.
  private final class PackingSpace: Sendable {
    nonisolated(unsafe) let a: UnsafeMutablePointer<Float>
    nonisolated(unsafe) let b: UnsafeMutablePointer<Float>
    nonisolated(unsafe) let edge: UnsafeMutablePointer<Float>
    private static let free = Mutex<[PackingSpace]>([])

    private init() {
      // Bounds: whole panels of all.
      let counts = (Panel.rows * Panel.depth, Panel.columnBlock * Panel.depth, Panel.rows * Panel.columns)
      b = UnsafeMutableRawPointer.allocate(
        byteCount: (counts.0 + counts.1 + counts.2) * MemoryLayout<Float>.stride, alignment: 4096
      ).bindMemory(to: Float.self, capacity: counts.0 + counts.1 + counts.2)
      a = b + counts.1
      edge = a + counts.0
    }

    deinit { b.deallocate() }

    static func take() -> PackingSpace { free.withLock { $0.popLast() } ?? PackingSpace() }
    func giveBack() { Self.free.withLock { $0.append(self) } }
  }

  /// Copies columns of b into panels, the elements of one inner index side by side; lanes past the last column are zero.
  /// - Parameter b: `[depth, count]`.
  private func packColumns(_ b: StridedMatrix, count: Int, depth: Int, into target: UnsafeMutablePointer<Float>) {
    let width = Panel.columns
    var start = 0
    if !b.isTransposed {
      // Row by row as they lie in memory, each into all whole panels.
      start = count / width * width
      for index in 0..<depth {
        let source = b.base + index * b.stride
        var first = 0
        while first < start {
          let panel = target + first * depth + index * width
          for lane in Swift.stride(from: 0, to: width, by: 16) {
            panel.store(source.lanes(first + lane, as: Floats.self), at: lane)
          }
          first &+= width
        }
      }
    }
    for first in Swift.stride(from: start, to: count, by: width) {
      let columns = min(width, count - first)
      // Bounds: columns of b; the panel, which begins `first · depth` on.
      let panel = target + first * depth
      let source = b.from(row: 0, column: first)
      var index = 0
      if b.isTransposed {
        while index &+ 16 <= depth {
          for lane in Swift.stride(from: 0, to: width, by: 16) {
            transpose16(
              source.base + lane * b.stride + index, b.stride, rows: columns - lane,
              into: panel + index * width + lane, width)
          }
          index &+= 16
        }
      }
      while index < depth {
        for lane in 0..<columns { panel[index * width + lane] = source.base[index * source.row + lane * source.column] }
        for lane in columns..<width { panel[index * width + lane] = 0 }
        index &+= 1
      }
    }
  }

  /// Rows of a for one tile: as they are, where the elements of a row lie together and no group of rows is cut; else
  /// copied, with zeros for rows that are not there.
  /// - Parameter a: `[count, depth]`.
  private func rowPanel(_ a: StridedMatrix, count: Int, depth: Int, space: UnsafeMutablePointer<Float>) -> RowPanel {
    if !a.isTransposed, count % Panel.groupRows == 0 { return RowPanel(base: a.base, row: a.stride, step: 1) }
    let width = Panel.rows
    // Bounds: rows of a, and a whole panel of the space.
    var index = 0
    if a.isTransposed, count == width {
      // Lanes past the tile's rows are read from this line or the next, and written over by the next; the last has none.
      while index &+ 1 < depth {
        (space + index * width).store((a.base + index * a.column).lanes(0, as: Panel.Rows.self), at: 0)
        index &+= 1
      }
    }
    while index < depth {
      let (source, target) = (a.base + index * a.column, space + index * width)
      for lane in 0..<width { target[lane] = lane < count ? source[lane * a.row] : 0 }
      index &+= 1
    }
    return RowPanel(base: UnsafePointer(space), row: 1, step: width)
  }

  /// Where the element of a row and an inner index is: at `base + row index · row + inner index · step`.
  private struct RowPanel {
    let base: UnsafePointer<Float>
    let row: Int
    let step: Int
  }

  /// Makes tiles of c from the same rows of a.
  private struct TileSums {
    let a: RowPanel
    let depth: Int
    let rows: Int
    let alpha: Float
    let adding: Bool

    init(a: RowPanel, depth: Int, rows: Int, alpha: Float, adding: Bool) {
      (self.a, self.depth, self.rows, self.alpha, self.adding) = (a, depth, rows, alpha, adding)
    }

    @inline(__always)
    func store(
      b: UnsafePointer<Float>, to c: UnsafeMutablePointer<Float>, _ stride: Int, columns: Int,
      edge: UnsafeMutablePointer<Float>
    ) {
      if columns == Panel.columns, rows % Panel.groupRows == 0 { return storeWhole(b: b, to: c, stride, adding) }
      storeWhole(b: b, to: edge, Panel.columns, false)
      // Bounds: the part of the tile that c has.
      for row in 0..<rows {
        let (line, sums) = (c + row * stride, edge + row * Panel.columns)
        for lane in 0..<columns { line[lane] = adding ? line[lane] + sums[lane] : sums[lane] }
      }
    }

    // Three functions for as many groups of rows rather than a loop: their sums must be in registers. Bounds of each:
    // `depth` elements of the rows and of the panel, and the rows of the groups in c.

    @inline(__always)
    private func storeWhole(
      b: UnsafePointer<Float>, to c: UnsafeMutablePointer<Float>, _ stride: Int, _ adding: Bool
    ) {
      if rows > 2 * Panel.groupRows {
        storeThreeGroups(b, c, stride, adding)
      } else if rows > Panel.groupRows {
        storeTwoGroups(b, c, stride, adding)
      } else {
        storeOneGroup(b, c, stride, adding)
      }
    }

    @inline(never)
    private func storeThreeGroups(
      _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>, _ stride: Int, _ adding: Bool
    ) {
      var (first, second, third) = (RowGroup(), RowGroup(), RowGroup())
      var (x, b, left) = (a.base, b, depth)
      let (y, z) = (Panel.groupRows * a.row, 2 * Panel.groupRows * a.row)
      while left > 0 {
        let lanes = ColumnLanes(b)
        first.add(x, a.row, lanes)
        second.add(x + y, a.row, lanes)
        third.add(x + z, a.row, lanes)
        x += a.step
        b += Panel.columns
        left &-= 1
      }
      first.store(to: c, stride, alpha, adding)
      second.store(to: c + Panel.groupRows * stride, stride, alpha, adding)
      third.store(to: c + 2 * Panel.groupRows * stride, stride, alpha, adding)
    }

    @inline(never)
    private func storeTwoGroups(
      _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>, _ stride: Int, _ adding: Bool
    ) {
      var (first, second) = (RowGroup(), RowGroup())
      var (x, b, left) = (a.base, b, depth)
      let y = Panel.groupRows * a.row
      while left > 0 {
        let lanes = ColumnLanes(b)
        first.add(x, a.row, lanes)
        second.add(x + y, a.row, lanes)
        x += a.step
        b += Panel.columns
        left &-= 1
      }
      first.store(to: c, stride, alpha, adding)
      second.store(to: c + Panel.groupRows * stride, stride, alpha, adding)
    }

    @inline(never)
    private func storeOneGroup(
      _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>, _ stride: Int, _ adding: Bool
    ) {
      var first = RowGroup()
      var (x, b, left) = (a.base, b, depth)
      while left > 0 {
        first.add(x, a.row, ColumnLanes(b))
        x += a.step
        b += Panel.columns
        left &-= 1
      }
      first.store(to: c, stride, alpha, adding)
    }
  }

  #if X86_64_V4
    /// The lanes of b at one inner element.
    private struct ColumnLanes {
      let low: Floats
      let high: Floats

      @inline(__always)
      init(_ b: UnsafePointer<Float>) { (low, high) = (b.lanes(0), b.lanes(16)) }
    }

    /// The sums of one row of a tile.
    private struct RowSums {
      var low = Floats.zero
      var high = Floats.zero

      @inline(__always)
      mutating func add(_ a: Float, _ b: ColumnLanes) {
        let factor = Floats(repeating: a)
        low.addProduct(factor, b.low)
        high.addProduct(factor, b.high)
      }

      @inline(__always)
      func store(to c: UnsafeMutablePointer<Float>, _ alpha: Float, _ adding: Bool) {
        if adding {
          c.store(c.lanes(0) + alpha * low, at: 0)
          c.store(c.lanes(16) + alpha * high, at: 16)
        } else {
          c.store(alpha * low, at: 0)
          c.store(alpha * high, at: 16)
        }
      }
    }

    /// The sums of rows that are begun and ended together.
    private struct RowGroup {
      private var first = RowSums()
      private var second = RowSums()
      private var third = RowSums()
      private var fourth = RowSums()

      @inline(__always)
      mutating func add(_ a: UnsafePointer<Float>, _ row: Int, _ b: ColumnLanes) {
        first.add(a[0], b)
        second.add(a[row], b)
        third.add(a[2 * row], b)
        fourth.add(a[3 * row], b)
      }

      @inline(__always)
      func store(to c: UnsafeMutablePointer<Float>, _ stride: Int, _ alpha: Float, _ adding: Bool) {
        first.store(to: c, alpha, adding)
        second.store(to: c + stride, alpha, adding)
        third.store(to: c + 2 * stride, alpha, adding)
        fourth.store(to: c + 3 * stride, alpha, adding)
      }
    }
  #else
    private struct ColumnLanes {
      let lanes: Floats

      @inline(__always)
      init(_ b: UnsafePointer<Float>) { lanes = b.lanes(0) }
    }

    private struct RowSums {
      var lanes = Floats.zero

      @inline(__always)
      mutating func add(_ a: Float, _ b: ColumnLanes) { lanes.addProduct(Floats(repeating: a), b.lanes) }

      @inline(__always)
      func store(to c: UnsafeMutablePointer<Float>, _ alpha: Float, _ adding: Bool) {
        c.store(adding ? c.lanes(0) + alpha * lanes : alpha * lanes, at: 0)
      }
    }

    private struct RowGroup {
      private var first = RowSums()
      private var second = RowSums()

      @inline(__always)
      mutating func add(_ a: UnsafePointer<Float>, _ row: Int, _ b: ColumnLanes) {
        first.add(a[0], b)
        second.add(a[row], b)
      }

      @inline(__always)
      func store(to c: UnsafeMutablePointer<Float>, _ stride: Int, _ alpha: Float, _ adding: Bool) {
        first.store(to: c, alpha, adding)
        second.store(to: c + stride, alpha, adding)
      }
    }
  #endif
#endif
