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
        let missing = (windowLimit - windows.count).multipliedReportingOverflow(by: length)
        let wanted = options.layout == .padded ? length : missing.overflow ? .max : missing.partialValue
        found = try Self.beginning(of: text, tokens: wanted, encode: encode)
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

  /// Bytes of a token, more than which most texts do not have; where there are more, more is read.
  private static let bytesPerToken = 6
  /// Tokens before a cut that may differ from those of the whole text: tokenizers look a few characters ahead.
  private static let uncertain = 256

  /// The first tokens of a text, as many as are wanted or all: long texts are cut after a line, and the rest is not
  /// tokenized.
  private static func beginning(
    of text: String, tokens wanted: Int, encode: (String) throws -> [Int32]
  ) throws -> [Int32] {
    let bytes = text.utf8
    var limit = wanted < bytes.count / bytesPerToken ? (wanted + uncertain) * bytesPerToken : bytes.count
    while limit < bytes.count {
      let end = bytes.index(bytes.startIndex, offsetBy: limit)
      if let line = bytes[..<end].lastIndex(of: UInt8(ascii: "\n")) {
        let found = try encode(String(decoding: bytes[...line], as: UTF8.self))
        if found.count >= wanted + uncertain { return Array(found.dropLast(uncertain)) }
      }
      limit *= 2
    }
    return try encode(text)
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
