/// Sixteen rows of sixteen.
private struct Square {
  let a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p: Floats

  /// Rows r and r + 8 interleaved, for every r. Four times this is the transposition: each time the highest bit of an
  /// element's place becomes the lowest.
  @inline(__always)
  var interleaved: Square {
    Square(
      a: a.lowInterleaved(i), b: a.highInterleaved(i), c: b.lowInterleaved(j), d: b.highInterleaved(j),
      e: c.lowInterleaved(k), f: c.highInterleaved(k), g: d.lowInterleaved(l), h: d.highInterleaved(l),
      i: e.lowInterleaved(m), j: e.highInterleaved(m), k: f.lowInterleaved(n), l: f.highInterleaved(n),
      m: g.lowInterleaved(o), n: g.highInterleaved(o), o: h.lowInterleaved(p), p: h.highInterleaved(p))
  }
}

/// Sixteen columns of up to sixteen rows become sixteen rows of sixteen; what stands for rows that are not there is zero.
/// - Parameter rows: how many there are; none if negative.
@inline(never)
func transpose16(
  _ source: UnsafePointer<Float>, _ sourceStride: Int, rows: Int, into target: UnsafeMutablePointer<Float>,
  _ targetStride: Int
) {
  // Bounds: the caller's rows and columns; rows that are not there are not read.
  @inline(__always) func row(_ index: Int) -> Floats { index < rows ? source.lanes(index * sourceStride) : .zero }
  let x = Square(
    a: row(0), b: row(1), c: row(2), d: row(3), e: row(4), f: row(5), g: row(6), h: row(7), i: row(8), j: row(9),
    k: row(10), l: row(11), m: row(12), n: row(13), o: row(14), p: row(15)
  ).interleaved.interleaved.interleaved.interleaved
  @inline(__always) func store(_ lanes: Floats, _ index: Int) { target.store(lanes, at: index * targetStride) }
  store(x.a, 0)
  store(x.b, 1)
  store(x.c, 2)
  store(x.d, 3)
  store(x.e, 4)
  store(x.f, 5)
  store(x.g, 6)
  store(x.h, 7)
  store(x.i, 8)
  store(x.j, 9)
  store(x.k, 10)
  store(x.l, 11)
  store(x.m, 12)
  store(x.n, 13)
  store(x.o, 14)
  store(x.p, 15)
}
