import Checkpoints

/// One step of the `decoder` of a tokenizer.json: from tokens to text. Each maps a list of byte strings to another; the
/// last list is joined.
indirect enum TokenDecoder: Sendable {
  case sequence([TokenDecoder])
  case byteLevel
  case metaspace(replacement: [UInt8], prepends: Bool)
  case wordPiece(prefix: [UInt8], cleansUp: Bool)
  case byteFallback
  case fuse
  case strip([UInt8], start: Int, stop: Int)
  case replace(SplitPattern, with: [UInt8])
  case wordSuffix([UInt8])

  static let known = [
    "BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece",
  ]

  init?(_ value: JSONValue?, at place: String, of document: TokenizerDocument) throws(TokenizerError) {
    guard let fields = try document.fields(value, at: place) else { return nil }
    switch try fields.type() {
    case "Sequence": self = .sequence(try fields.steps("decoders", TokenDecoder.init))
    case "ByteLevel": self = .byteLevel
    case "Metaspace":
      let metaspace = try Metaspace(fields)
      self = .metaspace(replacement: metaspace.replacement, prepends: metaspace.scheme != .never)
    case "WordPiece":
      self = .wordPiece(
        prefix: Array((try fields.optionalString("prefix") ?? "##").utf8),
        cleansUp: try fields.flag("cleanup", default: true))
    case "ByteFallback": self = .byteFallback
    case "Fuse": self = .fuse
    case "Strip":
      self = .strip(
        try fields.scalar("content"), start: try fields.count("start"), stop: try fields.count("stop"))
    case "Replace":
      self = .replace(try fields.pattern("pattern"), with: Array(try fields.string("content").utf8))
    case "BPEDecoder": self = .wordSuffix(Array((try fields.optionalString("suffix") ?? "</w>").utf8))
    case let name:
      throw fields.error("type", .unsupported(kind: "decoder", name: name, known: Self.known))
    }
  }

  /// How many times as long the steps can make a text, beside what they add to each token.
  var growth: Double {
    switch self {
    case .sequence(let steps): steps.reduce(1) { $0 * $1.growth }
    case .replace(let pattern, let replacement): max(1, Double(replacement.count) / Double(pattern.leastLength))
    default: 1
    }
  }

  func apply(to tokens: [[UInt8]]) -> [[UInt8]] {
    switch self {
    case .sequence(let steps): return steps.reduce(tokens) { $1.apply(to: $0) }
    case .byteLevel:
      let bytes = tokens.flatMap { ByteAlphabet.decode($0) ?? $0 }
      return [repaired(bytes)]
    case .metaspace(let replacement, let prepends):
      return tokens.enumerated().map { index, token in
        SplitPattern(literal: replacement).replacing(token, with: index == 0 && prepends ? [] : [0x20])
      }
    case .wordPiece(let prefix, let cleansUp):
      return tokens.enumerated().map { index, token in
        var text = token
        if index > 0 {
          text = !prefix.isEmpty && token.starts(with: prefix) ? Array(token.dropFirst(prefix.count)) : [0x20] + token
        }
        return cleansUp ? Self.cleanUp(text) : text
      }
    case .byteFallback: return Self.joinBytes(tokens)
    case .fuse: return [Array(tokens.joined())]
    case .strip(let content, let start, let stop):
      return tokens.map { Self.strip($0, content, start, stop) }
    case .replace(let pattern, let replacement):
      return tokens.map { pattern.replacing($0, with: replacement) }
    case .wordSuffix(let suffix):
      return tokens.enumerated().map { index, token in
        SplitPattern(literal: suffix).replacing(token, with: index == tokens.count - 1 ? [] : [0x20])
      }
    }
  }

  /// The bytes a token stands for where this step turns tokens into bytes; else nil.
  func rawBytes(of token: [UInt8]) -> [UInt8]? {
    switch self {
    case .sequence(let steps): steps.lazy.compactMap { $0.rawBytes(of: token) }.first
    case .byteLevel: ByteAlphabet.decode(token)
    case .byteFallback: Self.byteValue(token).map { [$0] }
    default: nil
    }
  }

  /// English typography as BERT's detokenizer restores it, in this order.
  private static let typography: [(SplitPattern, [UInt8])] = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
  ].map { (SplitPattern(literal: Array($0.0.utf8)), Array($0.1.utf8)) }

  private static func cleanUp(_ text: [UInt8]) -> [UInt8] {
    guard text.contains(0x20) else { return text }
    return typography.reduce(text) { $1.0.replacing($0, with: $1.1) }
  }

  private static func strip(_ token: [UInt8], _ content: [UInt8], _ start: Int, _ stop: Int) -> [UInt8] {
    var text = token[...]
    var count = 0
    while count < start, text.starts(with: content) {
      text = text.dropFirst(content.count)
      count += 1
    }
    count = 0
    while count < stop, text.count >= content.count, text.suffix(content.count).elementsEqual(content) {
      text = text.dropLast(content.count)
      count += 1
    }
    return Array(text)
  }

  /// Runs of `<0x..>` tokens as the text their bytes are; where they are none, one replacement character a byte.
  private static func joinBytes(_ tokens: [[UInt8]]) -> [[UInt8]] {
    var result: [[UInt8]] = []
    var run: [UInt8] = []
    func flush() {
      guard !run.isEmpty else { return }
      if String(validating: run, as: UTF8.self) != nil {
        result.append(run)
      } else {
        result += repeatElement(Array("\u{fffd}".utf8), count: run.count)
      }
      run = []
    }
    for token in tokens {
      if let byte = byteValue(token) {
        run.append(byte)
      } else {
        flush()
        result.append(token)
      }
    }
    flush()
    return result
  }

  /// The byte of a token such as `<0x0A>`.
  static func byteValue(_ token: [UInt8]) -> UInt8? {
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else { return nil }
    // No sign, which numbers may have.
    guard let high = digit(token[3]), let low = digit(token[4]) else { return nil }
    return high << 4 | low
  }

  private static func digit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    default: nil
    }
  }
}

/// The bytes with what is not UTF-8 replaced by U+FFFD, one for each maximal part of a character.
func repaired(_ bytes: [UInt8]) -> [UInt8] {
  bytes.allSatisfy { $0 < 0x80 } ? bytes : Array(String(decoding: bytes, as: UTF8.self).utf8)
}
