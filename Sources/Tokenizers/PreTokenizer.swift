import Checkpoints

/// The text between added tokens, cut into the pieces that the model tokenizes one by one.
struct Pieces {
  var bytes: [UInt8]
  var ranges: [Range<Int>]
  /// True while the first piece begins where the whole input begins.
  var startsAtStart: Bool

  init(_ text: NormalizedText) {
    bytes = text.bytes
    ranges = text.bytes.isEmpty ? [] : [0..<text.bytes.count]
    startsAtStart = text.keepsStart
  }

  /// Cuts every piece at the matches of `pattern`.
  mutating func split(_ pattern: SplitPattern, _ behavior: SplitBehavior, invert: Bool = false) {
    var cut: [Range<Int>] = []
    cut.reserveCapacity(max(ranges.count, bytes.count / 4))
    if behavior == .isolated {
      for range in ranges { pattern.forEachSpan(bytes, range) { span, _ in cut.append(span) } }
    } else if behavior == .removed {
      for range in ranges {
        pattern.forEachSpan(bytes, range) { span, isMatch in if isMatch == invert { cut.append(span) } }
      }
    } else {
      var spans: [(Range<Int>, Bool)] = []
      for range in ranges {
        spans.removeAll(keepingCapacity: true)
        pattern.forEachSpan(bytes, range) { span, isMatch in spans.append((span, isMatch != invert)) }
        behavior.merge(spans, into: &cut)
      }
    }
    if let first = ranges.first, cut.first?.lowerBound != first.lowerBound { startsAtStart = false }
    ranges = cut
  }

  /// Rewrites every piece; `body` appends the new bytes of one.
  mutating func rewrite(_ body: (_ bytes: [UInt8], _ piece: Range<Int>, _ index: Int, _ output: inout [UInt8]) -> Void)
  {
    var output: [UInt8] = []
    output.reserveCapacity(bytes.count + bytes.count / 4 + 16)
    for index in ranges.indices {
      let start = output.count
      body(bytes, ranges[index], index, &output)
      ranges[index] = start..<output.count
    }
    bytes = output
  }
}

/// What becomes of the matches of a splitting pattern; names as in tokenizer.json.
enum SplitBehavior: String, Sendable, CaseIterable {
  case removed = "Removed"
  case isolated = "Isolated"
  case mergedWithPrevious = "MergedWithPrevious"
  case mergedWithNext = "MergedWithNext"
  case contiguous = "Contiguous"

  /// For the three that join spans: a match joins a neighbour unless the span before it (after it) is a match too.
  func merge(_ spans: [(Range<Int>, Bool)], into output: inout [Range<Int>]) {
    let start = output.count
    var wasMatch = false
    if self == .mergedWithNext {
      for (span, isMatch) in spans.reversed() {
        if isMatch, !wasMatch, output.count > start {
          output[output.count - 1] = span.lowerBound..<output[output.count - 1].upperBound
        } else {
          output.append(span)
        }
        wasMatch = isMatch
      }
      output[start...].reverse()
      return
    }
    for (span, isMatch) in spans {
      let joins = self == .contiguous ? isMatch == wasMatch : isMatch && !wasMatch
      if joins, output.count > start {
        output[output.count - 1] = output[output.count - 1].lowerBound..<span.upperBound
      } else {
        output.append(span)
      }
      wasMatch = isMatch
    }
  }
}

/// One step of the `pre_tokenizer` of a tokenizer.json.
indirect enum PreTokenizer: Sendable {
  case sequence([PreTokenizer])
  case split(SplitPattern, SplitBehavior, invert: Bool)
  case byteLevel(addsPrefixSpace: Bool, usesPattern: Bool)
  case metaspace(Metaspace)
  /// White space removed, then punctuation set apart.
  case bert

  static let known = [
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence", "Split",
    "Whitespace", "WhitespaceSplit",
  ]

  private static func single(_ classes: ScalarClasses) -> SplitPattern {
    SplitPattern(alternatives: [.run(.init(classes: classes, maximum: 1))])
  }

  private static let space = single(.space)
  private static let punctuation = single(.bertPunctuation)

  init?(_ value: JSONValue?, at place: String, of document: TokenizerDocument) throws(TokenizerError) {
    guard let fields = try document.fields(value, at: place) else { return nil }
    switch try fields.type() {
    case "Sequence": self = .sequence(try fields.steps("pretokenizers", PreTokenizer.init))
    case "Split":
      self = .split(
        try fields.pattern("pattern"), try Self.behavior(fields, default: nil),
        invert: try fields.flag("invert", default: false))
    case "ByteLevel":
      self = .byteLevel(
        addsPrefixSpace: try fields.flag("add_prefix_space", default: true),
        usesPattern: try fields.flag("use_regex", default: true))
    case "Metaspace": self = .metaspace(try Metaspace(fields))
    case "BertPreTokenizer": self = .bert
    case "Whitespace": self = .split(.words, .removed, invert: true)
    case "WhitespaceSplit": self = .split(Self.space, .removed, invert: false)
    case "CharDelimiterSplit":
      self = .split(SplitPattern(literal: try fields.scalar("delimiter")), .removed, invert: false)
    case "Punctuation":
      self = .split(Self.punctuation, try Self.behavior(fields, default: .isolated), invert: false)
    case "Digits":
      let each = try fields.flag("individual_digits", default: false)
      self = .split(Self.single(.number), each ? .isolated : .contiguous, invert: false)
    case let name:
      throw fields.error("type", .unsupported(kind: "pre-tokenizer", name: name, known: Self.known))
    }
  }

  private static func behavior(
    _ fields: TokenizerFields, default absent: SplitBehavior?
  ) throws(TokenizerError) -> SplitBehavior {
    if let absent, fields.isAbsent("behavior") { return absent }
    let name = try fields.string("behavior")
    guard let behavior = SplitBehavior(rawValue: name) else {
      throw fields.error(
        "behavior",
        .unsupported(kind: "split behavior", name: name, known: SplitBehavior.allCases.map(\.rawValue)))
    }
    return behavior
  }

  func apply(to pieces: inout Pieces) {
    switch self {
    case .sequence(let steps): for step in steps { step.apply(to: &pieces) }
    case .split(let pattern, let behavior, let invert): pieces.split(pattern, behavior, invert: invert)
    case .byteLevel(let addsPrefixSpace, let usesPattern):
      if addsPrefixSpace {
        pieces.rewrite { bytes, piece, _, output in
          if bytes[piece.lowerBound] != 0x20 { output.append(0x20) }
          output += bytes[piece]
        }
      }
      if usesPattern { pieces.split(.gpt2, .isolated) }
      pieces.rewrite { bytes, piece, _, output in
        for index in piece { ByteAlphabet.append(bytes[index], to: &output) }
      }
    case .metaspace(let metaspace): metaspace.apply(to: &pieces)
    case .bert:
      pieces.split(Self.space, .removed)
      pieces.split(Self.punctuation, .isolated)
    }
  }
}

/// Blanks written as a visible character, and pieces that begin with it (SentencePiece's convention, as
/// `tokenizers` has it). Blanks only: tabs and line ends are characters like any other.
struct Metaspace: Sendable {
  enum PrependScheme: String, Sendable { case first, never, always }

  let replacement: [UInt8]
  let scheme: PrependScheme
  let splits: Bool
  private let pattern: SplitPattern

  /// Reads both generations of the format: `prepend_scheme` and `split`, and before it `add_prefix_space`.
  init(_ fields: TokenizerFields) throws(TokenizerError) {
    replacement = try fields.scalar("replacement")
    let addsPrefixSpace = try fields.flag("add_prefix_space", default: true)
    if let name = try fields.optionalString("prepend_scheme") {
      guard let scheme = PrependScheme(rawValue: name) else {
        throw fields.error(
          "prepend_scheme", .unsupported(kind: "prepend scheme", name: name, known: ["always", "first", "never"]))
      }
      if !fields.isAbsent("add_prefix_space"), !addsPrefixSpace, scheme != .never {
        throw fields.error("add_prefix_space", .expected("true where the prepend scheme is '\(name)'"))
      }
      self.scheme = scheme
    } else {
      scheme = addsPrefixSpace ? .always : .never
    }
    splits = try fields.flag("split", default: true)
    pattern = SplitPattern(literal: replacement)
  }

  func apply(to pieces: inout Pieces) {
    let startsAtStart = pieces.startsAtStart
    pieces.rewrite { bytes, piece, index, output in
      let prepends = scheme == .always || (scheme == .first && index == 0 && startsAtStart)
      if prepends, bytes[piece.lowerBound] != 0x20, !bytes[piece].starts(with: replacement) { output += replacement }
      for index in piece {
        if bytes[index] == 0x20 { output += replacement } else { output.append(bytes[index]) }
      }
    }
    if splits { pieces.split(pattern, .mergedWithNext) }
  }
}
