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
