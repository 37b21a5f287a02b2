import Checkpoints

/// A defect of a tokenizer file, or something in it that is not known here: which file, which key, what to do.
package struct TokenizerError: Error, Hashable, CustomStringConvertible {
  package enum Reason: Hashable, Sendable {
    case noTokenizer
    case notReadable(String)
    case invalidJSON(String)
    case invalidProtobuf(String)
    /// The value at `place` is missing or of the wrong kind.
    case expected(String)
    /// The file asks for something not implemented here; `known` lists what is.
    case unsupported(kind: String, name: String, known: [String])
    /// A regular expression, and the alternative of it that is no row of `SplitPattern.known`.
    case unknownExpression(String, part: String)
    case duplicateToken(String)
    case duplicateID(Int, String, String)
    case idOutOfRange(Int, limit: Int)
    case notInVocabulary(String)
    /// A template names a special token that its own list lacks.
    case notInTemplate(String)
    case wrongAddedID(String, found: Int, expected: Int)
    case invalidCharsmap(String)
    case growth(limit: Int)
  }

  /// The file as the user may find it.
  package let file: String
  /// The key inside the file, such as `model.merges`; empty for the file as a whole.
  package let place: String
  package let reason: Reason

  package init(file: String, place: String = "", _ reason: Reason) {
    self.file = file
    self.place = place
    self.reason = reason
  }

  /// True where the file is missing or unreadable, as opposed to malformed.
  package var isMissingInput: Bool {
    switch reason {
    case .noTokenizer, .notReadable: true
    default: false
    }
  }

  package var description: String {
    "\(file.printable): " + (place.isEmpty ? "" : "'\(place.printable)': ") + explanation
  }

  private var explanation: String {
    switch reason {
    case .noTokenizer:
      "the folder holds neither tokenizer.json nor tokenizer.model: fetch one of them with the model"
    case .notReadable(let why): "cannot be read: \(why)"
    case .invalidJSON(let what): "invalid JSON: \(what)"
    case .invalidProtobuf(let what): "not a SentencePiece model: \(what)"
    case .expected(let what): "must be \(what)"
    case .unsupported(let kind, let name, let known):
      "the \(kind) '\(name.printable)' is not supported"
        + (known.isEmpty ? "" : "; known are \(known.joined(separator: ", "))")
    case .unknownExpression(let expression, let part):
      "the regular expression '\(expression.printable)' is not supported"
        + (part == expression ? "" : ": its alternative '\(part.printable)' is not known")
    case .duplicateToken(let token): "the token '\(token.printable)' stands twice in the vocabulary (duplicate)"
    case .duplicateID(let id, let first, let second):
      "the tokens '\(first.printable)' and '\(second.printable)' have the same id \(id) (duplicate)"
    case .idOutOfRange(let id, let limit): "the id \(id) is out of range: ids are 0 to \(limit - 1)"
    case .notInVocabulary(let token): "the token '\(token.printable)' is not in the vocabulary"
    case .notInTemplate(let name): "the special token '\(name.printable)' is not in 'special_tokens'"
    case .wrongAddedID(let token, let found, let expected):
      "the added token '\(token.printable)' has id \(found), but the vocabulary gives it \(expected)"
    case .invalidCharsmap(let what): "the precompiled character map is damaged: \(what)"
    case .growth(let limit): "its steps can make a text more than \(limit) times as long, which no model needs"
    }
  }
}
