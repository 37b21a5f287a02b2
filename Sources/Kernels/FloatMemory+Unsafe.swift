import Foundation

/// Zeros for a matrix, which cost nothing until they are written.
///
/// Much memory comes from the system by itself, aligned for pages of 2 MB and marked for them: a matrix of 100 MB is then
/// handed out in 50 steps instead of 26,000, and a product's rows lie in few pages.
struct FloatMemory {
  let base: UnsafeMutablePointer<Float>
  /// What is to be unmapped; zero for memory of the allocator.
  private let mappedByteCount: Int

  private static let largePage = 2 << 20

  init(count: Int) {
    let byteCount = max(1, count) * MemoryLayout<Float>.stride
    if byteCount >= 2 * Self.largePage, let mapped = Self.map(byteCount) {
      (base, mappedByteCount) = mapped
      return
    }
    guard let memory = calloc(byteCount, 1) else { preconditionFailure("no memory for \(count) floats") }
    // Bounds: as many bytes as were asked for.
    base = memory.bindMemory(to: Float.self, capacity: max(1, count))
    mappedByteCount = 0
  }

  func free() {
    if mappedByteCount > 0 { munmap(base, mappedByteCount) } else { Foundation.free(base) }
  }

  /// - Returns: nil where the system gives none.
  private static func map(_ byteCount: Int) -> (UnsafeMutablePointer<Float>, Int)? {
    let page = Int(getpagesize())
    let size = (byteCount + page - 1) / page * page
    // Room to begin at a multiple of the large page; what is before and after is given back.
    let whole = size + largePage
    guard let start = mmap(nil, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), start != MAP_FAILED
    else { return nil }
    // Bounds: 0 ≤ before < largePage, so that `size` bytes from there on are within the mapping.
    let before = (largePage - Int(bitPattern: start) % largePage) % largePage
    if before > 0 { munmap(start, before) }
    munmap(start + before + size, largePage - before)
    let base = start + before
    #if os(Linux)
      madvise(base, size, MADV_HUGEPAGE)
    #endif
    return (base.bindMemory(to: Float.self, capacity: size / MemoryLayout<Float>.stride), size)
  }
}
