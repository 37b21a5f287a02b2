extension Array where Element: ExpressibleByIntegerLiteral {
  /// Makes the array exactly this long, reusing its storage. Inlinable: unspecialized, it would cost more than a copy.
  @inlinable
  package mutating func resize(to count: Int) {
    if self.count > count {
      removeLast(self.count - count)
    } else if self.count < count {
      append(contentsOf: [Element](repeating: 0, count: count - self.count))
    }
  }
}
