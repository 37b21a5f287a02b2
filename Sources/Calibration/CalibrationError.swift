import Checkpoints

/// Why text cannot serve for calibration: which file and line, what was found, what was expected.
package struct CalibrationError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    // The option
    case emptyName
    case weight(String)
    case duplicate
    // Reading
    case readFailed(String)
    case lineTooLong(limit: Int)
    case invalidUTF8(byte: Int)
    case invalidJSON(String)
    case unknownRecord(found: String)
    case field(String, found: String, expected: String)
    // Tokens
    case empty
    case tooFewTokens(found: Int, window: Int)
    case noDocuments(found: Int)
    case tokenOutOfRange(token: String, vocabulary: Int)
  }

  /// The file as the user named it, or the option's text.
  package let file: String
  /// Counted from 1, in files of JSON lines.
  package let line: Int?
  package let reason: Reason

  package init(file: String, line: Int? = nil, _ reason: Reason) {
    self.file = file
    self.line = line
    self.reason = reason
  }

  package var description: String {
    let place = line.map { "\(file.printable), line \($0): " } ?? "\(file.printable): "
    return place + explanation
  }

  private var explanation: String {
    switch reason {
    case .emptyName:
      "a file name is missing; expected PATH or PATH:WEIGHT, several separated by commas (a comma within a name is"
        + " written '\\,')"
    case .weight(let text): "the weight '\(text.printable)' must be a finite number greater than 0"
    case .duplicate: "is named twice; name it once, with the sum of the weights"
    case .readFailed(let why): "reading failed: \(why)"
    case .lineTooLong(let limit):
      "longer than \(limit) bytes; expected JSON lines, one document in each line"
    case .invalidUTF8(let byte):
      "is not text in UTF-8: byte \(byte) of the file (counted from 0) begins no valid sequence. Convert it first, for"
        + " example with iconv"
    case .invalidJSON(let what):
      "invalid JSON: \(what) of the line. Expected JSON lines: each line a JSON document of its own"
    case .unknownRecord(let found):
      "found \(found); expected an object with 'text' (a string), 'messages' (a list of objects with 'content') or"
        + " 'input_ids' or 'tokens' (a list of integers), or a list of integers"
    case .field(let name, let found, let expected): "'\(name)' must be \(expected), found \(found)"
    case .empty: "holds no text (empty); calibration needs some"
    case .tooFewTokens(let found, let window):
      "holds \(found) tokens, fewer than one window of \(window). Give more text or a shorter sequence length"
    case .noDocuments(let found):
      "none of its \(found) documents has 2 tokens or more, so that there is no window. Give longer documents, or pack"
        + " them"
    case .tokenOutOfRange(let token, let vocabulary):
      "token \(token.printable) is outside the model's vocabulary of \(vocabulary): the tokens are those of another"
        + " tokenizer"
    }
  }
}
