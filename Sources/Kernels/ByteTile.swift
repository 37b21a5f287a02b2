/// Sixteen rows of sixteen bytes.
struct ByteTile {
  private var rows = InlineArray<16, SIMD2<UInt64>>(repeating: SIMD2())

  subscript(row: Int) -> SIMD16<UInt8> {
    @inline(__always) get { unsafeBitCast(rows[row], to: SIMD16<UInt8>.self) }
    @inline(__always) set { rows[row] = unsafeBitCast(newValue, to: SIMD2<UInt64>.self) }
  }

  /// Swaps the corners of ever smaller squares: of eight rows and columns, of four, of two, of one.
  @inline(__always)
  mutating func transpose() {
    for row in 0..<8 {
      let (a, b) = (rows[row], rows[row &+ 8])
      (rows[row], rows[row &+ 8]) = (SIMD2(a.x, b.x), SIMD2(a.y, b.y))
    }
    swapCorners(4, 32, 0x0000_0000_ffff_ffff)
    swapCorners(2, 16, 0x0000_ffff_0000_ffff)
    swapCorners(1, 8, 0x00ff_00ff_00ff_00ff)
  }

  @inline(__always)
  private mutating func swapCorners(_ distance: Int, _ bits: UInt64, _ mask: UInt64) {
    for row in 0..<16 where row & distance == 0 {
      let (a, b) = (rows[row], rows[row &+ distance])
      rows[row] = (a & mask) | ((b & mask) &<< bits)
      rows[row &+ distance] = ((a &>> bits) & mask) | (b & ~SIMD2(repeating: mask))
    }
  }
}
