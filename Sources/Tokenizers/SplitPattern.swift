/// A regular expression of a tokenizer.json, scanned by hand.
///
/// The expressions used for splitting text are alternatives between a few dozen parts: runs of a class of characters
/// with an optional character before them, English contractions, three treatments of white space. An expression is
/// known here if each of its alternatives is a row of `known`; the first alternative that matches wins, as in the
/// regular expression engine of the reference (backtracking, leftmost).
package struct SplitPattern: Sendable, Hashable {
  /// One alternative. All of them consume at least one scalar.
  enum Alternative: Sendable, Hashable {
    /// Exactly these bytes.
    case literal([UInt8])
    /// An apostrophe and one of s, t, m, d, re, ve, ll.
    case contraction(ignoringCase: Bool)
    case run(Run)
    /// `\s*[\r\n]+`: white space up to the last line end of the run.
    case spaceThroughNewline
    /// `\s+(?!\S)`: white space, without its last scalar where text follows.
    case spaceBeforeEnd
    /// `\s+$`: white space before the end of a line, which is where the engine of the reference has `$` match; with
    /// a possessive quantifier before the end of the text alone.
    case spaceAtEnd(possessive: Bool)
    /// The words of GPT-4o's pattern: letters that end in lower case, then perhaps a contraction.
    case casedWord(endsLower: Bool, contraction: Bool)
    /// An ASCII punctuation character and ASCII letters (DeepSeek).
    case punctuatedASCIIWord
  }

  /// A run of a class of scalars.
  struct Run: Sendable, Hashable {
    /// A scalar that may stand before the run: none, one of these classes, or (`except`) none of them.
    enum Lead: Sendable, Hashable { case none, blank, except(ScalarClasses) }
    var lead = Lead.none
    let classes: ScalarClasses
    /// True where the run is of scalars in none of the classes.
    var negated = false
    var minimum = 1
    var maximum = Int.max
    /// Bytes that may follow the run, any number of them.
    var tail: [UInt8] = []
  }

  let alternatives: [Alternative]

  private static func run(
    _ classes: ScalarClasses, negated: Bool = false, lead: Run.Lead = .none, _ minimum: Int = 1, _ maximum: Int = .max,
    tail: String = ""
  ) -> Alternative {
    .run(
      Run(
        lead: lead, classes: classes, negated: negated, minimum: minimum, maximum: maximum, tail: Array(tail.utf8)))
  }

  private static let unlettered = Run.Lead.except([.newline, .letter, .number])
  private static let spaceLetterNumber: ScalarClasses = [.space, .letter, .number]

  /// Every alternative known, as it is written.
  static let known: [String: Alternative] = [
    #"'s"#: .literal(Array("'s".utf8)), #"'t"#: .literal(Array("'t".utf8)), #"'re"#: .literal(Array("'re".utf8)),
    #"'ve"#: .literal(Array("'ve".utf8)), #"'m"#: .literal(Array("'m".utf8)), #"'ll"#: .literal(Array("'ll".utf8)),
    #"'d"#: .literal(Array("'d".utf8)),
    #"'(?:[sdmt]|ll|ve|re)"#: .contraction(ignoringCase: false),
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)"#: .contraction(ignoringCase: true),
    #"'(?i:[sdmt]|ll|ve|re)"#: .contraction(ignoringCase: true),
    // Letters
    #"\p{L}+"#: run(.letter), #"[\p{L}]+"#: run(.letter), #" ?\p{L}+"#: run(.letter, lead: .blank),
    #"[^\r\n\p{L}\p{N}]?\p{L}+"#: run(.letter, lead: unlettered),
    #"[^\r\n\p{L}\p{N}]?+\p{L}+"#: run(.letter, lead: unlettered),
    #"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"#: run([.letter, .mark], lead: unlettered),
    #"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"#:
      run([.letter, .mark], lead: .except([.newline, .letter, .punctuation, .symbol])),
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"#:
      .casedWord(endsLower: true, contraction: false),
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"#:
      .casedWord(endsLower: false, contraction: false),
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"#:
      .casedWord(endsLower: true, contraction: true),
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"#:
      .casedWord(endsLower: false, contraction: true),
    ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##: .punctuatedASCIIWord,
    #"[一-龥぀-ゟ゠-ヿ]+"#: run(.eastAsian),
    #"\w+"#: run([.expressionWord, .latinNumber]),
    // Numbers
    #"\p{N}"#: run(.number, 1, 1), #"[\p{N}]"#: run(.number, 1, 1), #"\p{N}+"#: run(.number),
    #" ?\p{N}+"#: run(.number, lead: .blank), #" ?\p{N}"#: run(.number, lead: .blank, 1, 1),
    #"\p{N}{1,3}"#: run(.number, 1, 3), #"\p{N}{1,2}"#: run(.number, 1, 2),
    #"[0-9]"#: run(.asciiDigit, 1, 1), #"[0-9]+"#: run(.asciiDigit), #"[0-9][0-9][0-9]"#: run(.asciiDigit, 3, 3),
    #"\d"#: run(.decimal, 1, 1), #"\d+"#: run(.decimal), #"\d{1,3}"#: run(.decimal, 1, 3),
    // Everything else that is seen
    #"[^\s\p{L}\p{N}]+"#: run(spaceLetterNumber, negated: true),
    #" ?[^\s\p{L}\p{N}]+"#: run(spaceLetterNumber, negated: true, lead: .blank),
    #" ?[^\s\p{L}\p{N}]+[\r\n]*"#: run(spaceLetterNumber, negated: true, lead: .blank, tail: "\r\n"),
    #" ?[^\s\p{L}\p{N}]++[\r\n]*"#: run(spaceLetterNumber, negated: true, lead: .blank, tail: "\r\n"),
    #" ?[^\s\p{L}\p{N}]+[\r\n/]*"#: run(spaceLetterNumber, negated: true, lead: .blank, tail: "\r\n/"),
    #" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"#:
      run([.space, .letter, .mark, .number], negated: true, lead: .blank, tail: "\r\n"),
    #" ?[\p{P}\p{S}]+[\r\n]*"#: run([.punctuation, .symbol], lead: .blank, tail: "\r\n"),
    #"[^\w\s]+"#: run([.expressionWord, .space], negated: true),
    // White space
    #"\s*[\r\n]+"#: .spaceThroughNewline, #"\s*[\r\n]"#: .spaceThroughNewline,
    #"\s+(?!\S)"#: .spaceBeforeEnd, #"\s+$"#: .spaceAtEnd(possessive: false),
    #"\s++$"#: .spaceAtEnd(possessive: true),
    #"\s+"#: run(.space), #"\s"#: run(.space, 1, 1), #"[\r\n]"#: run(.newline, 1, 1), #"[\r\n]+"#: run(.newline),
    #" {2,}"#: run(.blank, 2), #" +"#: run(.blank),
  ]

  /// The pattern of GPT-2, which a ByteLevel step stands for.
  package static let gpt2 = SplitPattern(alternatives: [
    .contraction(ignoringCase: false), run(.letter, lead: .blank), run(.number, lead: .blank),
    run(spaceLetterNumber, negated: true, lead: .blank), .spaceBeforeEnd, run(.space),
  ])
  /// Words and runs of other visible characters.
  static let words = SplitPattern(alternatives: [run(.word), run([.word, .space], negated: true)])

  init(alternatives: [Alternative]) { self.alternatives = alternatives }

  /// Bytes that a match has at least.
  var leastLength: Int {
    alternatives.map { if case .literal(let bytes) = $0 { max(1, bytes.count) } else { 1 } }.min() ?? 1
  }

  package init(literal: [UInt8]) { alternatives = literal.isEmpty ? [] : [.literal(literal)] }

  /// Nil, with the alternative that is not known, where the expression is not known.
  package static func parse(_ expression: String) -> (pattern: SplitPattern?, unknown: String) {
    var alternatives: [Alternative] = []
    for part in topLevelAlternatives(expression) {
      if let row = known[part] {
        alternatives.append(row)
      } else if !part.isEmpty, part.unicodeScalars.allSatisfy({ !#"\^$.|?*+()[]{}"#.unicodeScalars.contains($0) }) {
        alternatives.append(.literal(Array(part.utf8)))
      } else {
        return (nil, part)
      }
    }
    return (SplitPattern(alternatives: alternatives), "")
  }

  /// Cuts at the bars that are in no group and no bracket.
  private static func topLevelAlternatives(_ expression: String) -> [String] {
    var parts = [""]
    var depth = 0
    var inBrackets = false
    var escaped = false
    for scalar in expression.unicodeScalars {
      if !escaped, !inBrackets, depth == 0, scalar == "|" {
        parts.append("")
        continue
      }
      parts[parts.count - 1].unicodeScalars.append(scalar)
      if escaped {
        escaped = false
        continue
      }
      switch scalar {
      case "\\": escaped = true
      case "[": inBrackets = true
      case "]": inBrackets = false
      case "(": if !inBrackets { depth += 1 }
      case ")": if !inBrackets { depth -= 1 }
      default: break
      }
    }
    return parts
  }
}
