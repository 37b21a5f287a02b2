extension Array where Element: ExpressibleByIntegerLiteral {
  /// Makes the array exactly this long, reusing its storage.
  package mutating func resize(to count: Int) {
    if self.count > count {
      removeLast(self.count - count)
    } else {
      append(contentsOf: repeatElement(0, count: count - self.count))
    }
  }
}
