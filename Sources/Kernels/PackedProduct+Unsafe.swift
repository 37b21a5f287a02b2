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
/// here, by the scheme of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): blocks of a and
/// b are copied into panels that lie in caches in the order of use, and a tile of c stays in registers while one panel of
/// each is gone through. Elsewhere BLAS's sgemm does it: it finds out at run time what a processor has.
///
/// An element of c is the sum over runs of 256 inner elements, each summed in order with one rounding a step; nothing else
/// decides about its bits, neither its place nor the vector length.
/// - Parameters:
///   - a: `[rows, inner]`.
///   - b: `[inner, columns]`.
///   - c: `[rows, columns]`, row-major with a stride.
///   - lowerOnly: whether only the elements up to c's diagonal are wanted; some beyond are written nonetheless.
func product(
  _ a: StridedMatrix, _ b: StridedMatrix, into c: UnsafeMutablePointer<Float>, _ stride: Int, rows: Int, columns: Int,
  inner: Int, alpha: Float = 1, adding: Bool = false, lowerOnly: Bool = false
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
        pack(
          b.from(row: first, column: firstColumn).transposed, count: width, depth: depth, width: Panel.columns,
          into: space.b)
        for firstRow in Swift.stride(from: 0, to: rows, by: Panel.rowBlock) {
          let height = min(Panel.rowBlock, rows - firstRow)
          if lowerOnly, firstColumn >= firstRow + height { continue }
          pack(
            a.from(row: firstRow, column: first), count: height, depth: depth, width: Panel.rows, into: space.a)
          multiplyPanels(
            space, into: c + firstRow * stride + firstColumn, stride, rows: height, columns: width, depth: depth,
            alpha: alpha, adding: adding || first > 0, diagonal: lowerOnly ? firstRow - firstColumn : .max / 2)
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

/// What makes products here, and so the last bits of sums: this module's own loops, or a family of OpenBLAS's.
package func linearAlgebraFamily() -> String {
  #if X86_64_V3 || X86_64_V4
    let own = "fused, "
  #else
    let own = ""
  #endif
  // Bounds: OpenBLAS's name ends with a zero and lives as long as the program.
  return own + (openblas_get_corename().map { String(cString: $0) } ?? "unknown")
}

#if X86_64_V3 || X86_64_V4
  /// The sizes of blocks. A tile of c takes 24 of 32 vector registers of 512 bits, or 12 of 16 of 256; a panel of b stays
  /// in the first level of cache, a block of a in the second.
  private enum Panel {
    #if X86_64_V4
      static let groupRows = 4
      static let columns = 32
      static let rowBlock = 240
    #else
      static let groupRows = 2
      static let columns = 16
      static let rowBlock = 120
    #endif
    static let rows = 3 * groupRows
    static let depth = 256
    static let columnBlock = 1024
  }

  /// Room for one block of each factor. Taken by a thread for one product; there are as many as threads were at it.
  private final class PackingSpace: Sendable {
    nonisolated(unsafe) let a: UnsafeMutablePointer<Float>
    nonisolated(unsafe) let b: UnsafeMutablePointer<Float>
    private static let free = Mutex<[PackingSpace]>([])

    private init() {
      // Bounds: whole panels of a block, and of a the lanes that its last column's vector writes past them.
      (a, b) = (
        Self.aligned(Panel.rowBlock * Panel.depth + 16), Self.aligned(Panel.columnBlock * Panel.depth)
      )
    }

    private static func aligned(_ count: Int) -> UnsafeMutablePointer<Float> {
      UnsafeMutableRawPointer.allocate(byteCount: count * MemoryLayout<Float>.stride, alignment: 4096)
        .bindMemory(to: Float.self, capacity: count)
    }

    deinit {
      a.deallocate()
      b.deallocate()
    }

    static func take() -> PackingSpace { free.withLock { $0.popLast() } ?? PackingSpace() }
    func giveBack() { Self.free.withLock { $0.append(self) } }
  }

  /// Copies rows into panels of `width` rows each, the elements of one column side by side; lanes past the last row are
  /// zero.
  /// - Parameter source: `[count, depth]`.
  @inline(__always)
  private func pack(
    _ source: StridedMatrix, count: Int, depth: Int, width: Int, into target: UnsafeMutablePointer<Float>
  ) {
    var target = target
    for first in Swift.stride(from: 0, to: count, by: width) {
      let rows = min(width, count - first)
      let panel = source.from(row: first, column: 0)
      // Bounds: rows and columns of the source; `width` lanes of every column of the panel, and where sixteen are written
      // at once, lanes of the next column, which come later, or the room past the last.
      if !panel.isTransposed {
        var column = 0
        while column &+ 16 <= depth {
          for lane in Swift.stride(from: 0, to: width, by: 16) {
            transpose16(
              panel.base + lane * panel.row + column, panel.row, rows: rows - lane,
              into: target + column * width + lane, width)
          }
          column &+= 16
        }
        while column < depth {
          for row in 0..<rows { target[column * width + row] = panel.base[row * panel.row + column] }
          for row in rows..<width { target[column * width + row] = 0 }
          column &+= 1
        }
      } else if rows == width {
        for column in 0..<depth {
          let (line, lanes) = (panel.base + column * panel.column, target + column * width)
          var lane = 0
          while lane &+ 16 <= width {
            lanes.store(line.lanes(lane, as: Floats.self), at: lane)
            lane &+= 16
          }
          if lane &+ 8 <= width {
            lanes.store(line.lanes(lane, as: SIMD8<Float>.self), at: lane)
            lane &+= 8
          }
          while lane < width {
            lanes[lane] = line[lane]
            lane &+= 1
          }
        }
      } else {
        for column in 0..<depth {
          let (line, lanes) = (panel.base + column * panel.column, target + column * width)
          for row in 0..<rows { lanes[row] = line[row] }
          for row in rows..<width { lanes[row] = 0 }
        }
      }
      target += width * depth
    }
  }

  /// c (+)= alpha·a·b for one block of each in panels.
  /// - Parameter diagonal: tiles whose first column is beyond their last row by more than this are left out.
  private func multiplyPanels(
    _ space: PackingSpace, into c: UnsafeMutablePointer<Float>, _ stride: Int, rows: Int, columns: Int, depth: Int,
    alpha: Float, adding: Bool, diagonal: Int
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: Panel.rows * Panel.columns) { edge in
      guard let edge = edge.baseAddress else { return }
      for column in Swift.stride(from: 0, to: columns, by: Panel.columns) {
        let width = min(Panel.columns, columns - column)
        for row in Swift.stride(from: 0, to: rows, by: Panel.rows) {
          let height = min(Panel.rows, rows - row)
          if column >= row + height + diagonal { continue }
          // Bounds: panels of the block; a tile of c that lies in it whole, else one of `edge`.
          let (a, b, tile) = (space.a + row * depth, space.b + column * depth, c + row * stride + column)
          if width == Panel.columns, height % Panel.groupRows == 0 {
            multiplyTile(a, b, into: tile, stride, rows: height, depth: depth, alpha: alpha, adding: adding)
          } else {
            multiplyTile(a, b, into: edge, Panel.columns, rows: height, depth: depth, alpha: alpha, adding: false)
            for row in 0..<height {
              let (line, sums) = (tile + row * stride, edge + row * Panel.columns)
              for lane in 0..<width { line[lane] = adding ? line[lane] + sums[lane] : sums[lane] }
            }
          }
        }
      }
    }
  }

  /// One tile of c: as many groups of rows as have one in use.
  @inline(__always)
  private func multiplyTile(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>, _ stride: Int, rows: Int,
    depth: Int, alpha: Float, adding: Bool
  ) {
    if rows > 2 * Panel.groupRows {
      multiplyThreeGroups(a, b, into: c, stride, depth: depth, alpha: alpha, adding: adding)
    } else if rows > Panel.groupRows {
      multiplyTwoGroups(a, b, into: c, stride, depth: depth, alpha: alpha, adding: adding)
    } else {
      multiplyOneGroup(a, b, into: c, stride, depth: depth, alpha: alpha, adding: adding)
    }
  }

  // Three functions rather than a loop over groups: their sums must be in registers. Bounds of each: `depth` columns of
  // both panels, and the rows of the groups in c.

  @inline(never)
  private func multiplyThreeGroups(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>, _ stride: Int,
    depth: Int, alpha: Float, adding: Bool
  ) {
    var (first, second, third) = (RowGroup(), RowGroup(), RowGroup())
    var (a, b, left) = (a, b, depth)
    while left > 0 {
      let lanes = ColumnLanes(b)
      first.add(a, lanes)
      second.add(a + Panel.groupRows, lanes)
      third.add(a + 2 * Panel.groupRows, lanes)
      a += Panel.rows
      b += Panel.columns
      left &-= 1
    }
    first.store(to: c, stride, alpha, adding)
    second.store(to: c + Panel.groupRows * stride, stride, alpha, adding)
    third.store(to: c + 2 * Panel.groupRows * stride, stride, alpha, adding)
  }

  @inline(never)
  private func multiplyTwoGroups(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>, _ stride: Int,
    depth: Int, alpha: Float, adding: Bool
  ) {
    var (first, second) = (RowGroup(), RowGroup())
    var (a, b, left) = (a, b, depth)
    while left > 0 {
      let lanes = ColumnLanes(b)
      first.add(a, lanes)
      second.add(a + Panel.groupRows, lanes)
      a += Panel.rows
      b += Panel.columns
      left &-= 1
    }
    first.store(to: c, stride, alpha, adding)
    second.store(to: c + Panel.groupRows * stride, stride, alpha, adding)
  }

  @inline(never)
  private func multiplyOneGroup(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>, _ stride: Int,
    depth: Int, alpha: Float, adding: Bool
  ) {
    var first = RowGroup()
    var (a, b, left) = (a, b, depth)
    while left > 0 {
      first.add(a, ColumnLanes(b))
      a += Panel.rows
      b += Panel.columns
      left &-= 1
    }
    first.store(to: c, stride, alpha, adding)
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
      mutating func add(_ a: UnsafePointer<Float>, _ b: ColumnLanes) {
        first.add(a[0], b)
        second.add(a[1], b)
        third.add(a[2], b)
        fourth.add(a[3], b)
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
      mutating func add(_ a: UnsafePointer<Float>, _ b: ColumnLanes) {
        first.add(a[0], b)
        second.add(a[1], b)
      }

      @inline(__always)
      func store(to c: UnsafeMutablePointer<Float>, _ stride: Int, _ alpha: Float, _ adding: Bool) {
        first.store(to: c, alpha, adding)
        second.store(to: c + stride, alpha, adding)
      }
    }
  #endif
#endif
