/// A text's tokens cut into windows that the model sees one by one.
package struct TextWindows: Hashable, Sendable {
  package struct Window: Hashable, Sendable {
    package let tokens: Range<Int>
    /// The first token whose prediction counts; never the window's first, which nothing precedes.
    package let firstPredicted: Int
  }

  package let tokens: [Int32]
  package let length: Int
  package let stride: Int
  package let windows: [Window]

  /// - Parameters:
  ///   - tokens: of the text; tokens that do not fill a last window are left out.
  ///   - length: tokens of a window.
  ///   - stride: tokens from one window's start to the next one's. Where it is less than the length, each window after
  ///     the first counts only the tokens that the one before it did not have.
  package init(_ tokens: [Int32], length: Int, stride: Int) {
    precondition(length >= 2 && stride >= 1 && stride <= length)
    self.tokens = tokens
    self.length = length
    self.stride = stride
    windows = Swift.stride(from: 0, through: tokens.count - length, by: stride).map { start in
      let isLater = start > 0 && stride < length
      return Window(
        tokens: start..<(start + length), firstPredicted: isLater ? start + length - stride : start + 1)
    }
  }

  package var predictedCount: Int { windows.reduce(0) { $0 + $1.tokens.upperBound - $1.firstPredicted } }
}
