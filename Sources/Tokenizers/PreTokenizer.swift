import Checkpoints

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
