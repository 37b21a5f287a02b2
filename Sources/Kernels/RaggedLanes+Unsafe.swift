extension UnsafePointer where Pointee == Float {
  /// Sixteen lanes from element `index` on; those from `end` on hold a filling and are not read.
  @inline(__always)
  func lanes(_ index: Int, of end: Int, filling: Float = 0) -> Floats {
    // Bounds: no element from `end` on is touched, which the caller keeps within the allocation.
    if index &+ 16 <= end { return lanes(index) }
    var result = Floats(repeating: filling)
    for lane in 0..<max(0, end &- index) { result[lane] = self[index &+ lane] }
    return result
  }
}

extension UnsafeMutablePointer where Pointee == Float {
  @inline(__always)
  func lanes(_ index: Int, of end: Int, filling: Float = 0) -> Floats {
    UnsafePointer(self).lanes(index, of: end, filling: filling)
  }

  /// Stores those lanes that lie before `end`.
  @inline(__always)
  func store(_ value: Floats, at index: Int, of end: Int) {
    // Bounds: as in `lanes`.
    if index &+ 16 <= end { return store(value, at: index) }
    for lane in 0..<max(0, end &- index) { self[index &+ lane] = value[lane] }
  }
}
