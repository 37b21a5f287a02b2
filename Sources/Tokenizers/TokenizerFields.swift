import Checkpoints
import OrderedCollections

/// The members of one object of a tokenizer.json, read with errors that name the key.
struct TokenizerFields {
  let document: TokenizerDocument
  let place: String
  let members: OrderedDictionary<String, JSONValue>

  func error(_ key: String, _ reason: TokenizerError.Reason) -> TokenizerError {
    document.error(place.isEmpty ? key : "\(place).\(key)", reason)
  }

  /// The members that each kind of object may have, by its type.
  private static let known: [String: [String]] = [
    "AddedToken": ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"],
    // Models
    "BPE": [
      "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
      "ignore_merges", "vocab", "merges",
    ],
    "Unigram": ["unk_id", "vocab", "byte_fallback"],
    // A decoder too
    "WordPiece": ["unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab", "prefix", "cleanup"],
    "WordLevel": ["unk_token", "vocab"],
    // Steps; some names are of several kinds
    "Sequence": ["normalizers", "pretokenizers", "processors", "decoders"],
    "NFC": [], "NFD": [], "NFKC": [], "NFKD": [], "Lowercase": [], "StripAccents": [], "Nmt": [],
    "Strip": ["strip_left", "strip_right", "content", "start", "stop"],
    "Prepend": ["prepend"], "Replace": ["pattern", "content"], "Precompiled": ["precompiled_charsmap"],
    "BertNormalizer": ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"],
    "ByteLevel": ["add_prefix_space", "trim_offsets", "use_regex"],
    "Metaspace": ["replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"],
    "Split": ["pattern", "behavior", "invert"], "Punctuation": ["behavior"], "Digits": ["individual_digits"],
    "CharDelimiterSplit": ["delimiter"], "BertPreTokenizer": [], "Whitespace": [], "WhitespaceSplit": [],
    "TemplateProcessing": ["single", "pair", "special_tokens"], "BertProcessing": ["sep", "cls"],
    "RobertaProcessing": ["sep", "cls", "trim_offsets", "add_prefix_space"],
    "ByteFallback": [], "Fuse": [], "BPEDecoder": ["suffix"],
  ]

  /// The name of the step; its members must be known for that name.
  func type() throws(TokenizerError) -> String {
    let name = try string("type")
    try allowMembers(of: name)
    return name
  }

  func allowMembers(of name: String) throws(TokenizerError) {
    guard let known = Self.known[name] else { return }
    for key in members.keys where key != "type" && !known.contains(key) && !isAbsent(key) {
      throw error(key, .unsupported(kind: "key", name: key, known: known))
    }
  }

  func string(_ key: String) throws(TokenizerError) -> String {
    guard let text = members[key]?.string else { throw error(key, .expected("a string")) }
    return text
  }

  func optionalString(_ key: String) throws(TokenizerError) -> String? {
    if isAbsent(key) { return nil }
    return try string(key)
  }

  func isAbsent(_ key: String) -> Bool { members[key] == nil || members[key] == .null }

  func optionalFlag(_ key: String) throws(TokenizerError) -> Bool? {
    if isAbsent(key) { return nil }
    guard let flag = members[key]?.bool else { throw error(key, .expected("true or false")) }
    return flag
  }

  func flag(_ key: String, default absent: Bool) throws(TokenizerError) -> Bool { try optionalFlag(key) ?? absent }

  /// A whole number that is not negative.
  func count(_ key: String) throws(TokenizerError) -> Int {
    guard let number = members[key]?.integer, number >= 0 else {
      throw error(key, .expected("a whole number, not negative"))
    }
    return number
  }

  /// A string of one scalar, as UTF-8.
  func scalar(_ key: String) throws(TokenizerError) -> [UInt8] {
    let text = try string(key)
    guard text.unicodeScalars.count == 1 else { throw error(key, .expected("a string of one character")) }
    return Array(text.utf8)
  }

  func items(_ key: String) throws(TokenizerError) -> [JSONValue] {
    guard let items = members[key]?.array else { throw error(key, .expected("an array")) }
    return items
  }

  /// The objects of an array, as steps of one kind.
  func steps<Step>(
    _ key: String, _ make: (JSONValue?, String, TokenizerDocument) throws(TokenizerError) -> Step?
  ) throws(TokenizerError) -> [Step] {
    var steps: [Step] = []
    for (index, item) in try items(key).enumerated() {
      guard let step = try make(item, "\(place).\(key)[\(index)]", document) else {
        throw error("\(key)[\(index)]", .expected("an object"))
      }
      steps.append(step)
    }
    return steps
  }

  /// `{"String": …}`, taken literally, or `{"Regex": …}`, which must be a known expression.
  func pattern(_ key: String) throws(TokenizerError) -> SplitPattern {
    guard let pattern = members[key]?.object, pattern.count == 1 else {
      throw error(key, .expected("an object with 'String' or 'Regex'"))
    }
    if let literal = pattern["String"]?.string { return SplitPattern(literal: Array(literal.utf8)) }
    guard let expression = pattern["Regex"]?.string else {
      throw error(key, .expected("an object with 'String' or 'Regex'"))
    }
    let (parsed, unknown) = SplitPattern.parse(expression)
    if let parsed { return parsed }
    throw error(key, .unknownExpression(expression, part: unknown))
  }
}

extension TokenizerDocument {
  /// The members of an optional step; nil for null or nothing.
  func fields(_ value: JSONValue?, at place: String) throws(TokenizerError) -> TokenizerFields? {
    switch value {
    case nil, .null?: return nil
    case .object(let members)?: return TokenizerFields(document: self, place: place, members: members)
    default: throw error(place, .expected("an object or null"))
    }
  }
}
