import Checkpoints

/// A source's tokens, and the windows that they are cut into.
struct TokenStream {
  private(set) var tokens: [Int32] = []
  private(set) var windows: [Range<Int>] = []
  private(set) var bytes = 0
  private(set) var documents = 0
  private(set) var dropped = 0

  /// - Parameter windowLimit: windows that are enough; what comes after them is not read.
  /// - Parameter write: has the model write so many windows as are enough.
  /// - Throws: for a source without text, and for tokens outside the vocabulary.
  init(
    _ source: CalibrationSource, _ options: CalibrationWindows.Options, windowLimit: Int, vocabulary: Int,
    encode: (String) throws -> [Int32], write: () throws -> [[Int32]]
  ) throws {
    let length = options.sequenceLength
    bytes = try source.read(vocabulary: vocabulary, write: write) { document, line in
      documents += 1
      let found: [Int32]
      switch document {
      case .tokens(let ids): found = ids
      case .text(let text):
        found = try encode(text)
        // Ids of the file itself were checked when they were read.
        if let wrong = found.first(where: { $0 < 0 || Int($0) >= vocabulary }) {
          throw CalibrationError(
            file: source.name, line: line, .tokenOutOfRange(token: "\(wrong)", vocabulary: vocabulary))
        }
      }
      let start = tokens.count
      switch options.layout {
      case .packed:
        tokens += found
        var next = windows.last?.upperBound ?? 0
        while tokens.count - next >= length, windows.count < windowLimit {
          windows.append(next..<(next + length))
          next += length
        }
      case .padded where found.count < 2: dropped += 1
      case .padded:
        tokens += found.prefix(length)
        if windows.count < windowLimit { windows.append(start..<tokens.count) }
      }
      return windows.count < windowLimit
    }
    guard documents > 0 else { throw CalibrationError(file: source.name, .empty) }
  }

  /// Why there is no window.
  func noWindow(_ source: CalibrationSource, _ options: CalibrationWindows.Options) -> CalibrationError {
    switch options.layout {
    case .packed:
      CalibrationError(file: source.name, .tooFewTokens(found: tokens.count, window: options.sequenceLength))
    case .padded: CalibrationError(file: source.name, .noDocuments(found: documents))
    }
  }
}
