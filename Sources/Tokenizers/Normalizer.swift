import Checkpoints

/// Text on its way through the normalizer.
package struct NormalizedText {
  var bytes: [UInt8]
  /// True while the first scalar stems from the first scalar of the whole input: Metaspace's "first" asks for it.
  var keepsStart: Bool

  package init(bytes: [UInt8], keepsStart: Bool) {
    self.bytes = bytes
    self.keepsStart = keepsStart
  }
}

/// One step of the `normalizer` of a tokenizer.json, applied to the text before it is split.
indirect enum Normalizer: Sendable {
  case sequence([Normalizer])
  case unicode(UnicodeNormalization.Form)
  case lowercase
  case stripAccents
  case strip(left: Bool, right: Bool)
  case prepend([UInt8])
  case replace(SplitPattern, with: [UInt8])
  case bert(BertNormalizer)
  case nmt
  case precompiled(PrecompiledCharsmap)
  case byteLevel

  static let known = [
    "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
    "Replace", "Sequence", "Strip", "StripAccents",
  ]

  init?(_ value: JSONValue?, at place: String, of document: TokenizerDocument) throws(TokenizerError) {
    guard let fields = try document.fields(value, at: place) else { return nil }
    switch try fields.type() {
    case "Sequence": self = .sequence(try fields.steps("normalizers", Normalizer.init))
    case "NFC": self = .unicode(.nfc)
    case "NFD": self = .unicode(.nfd)
    case "NFKC": self = .unicode(.nfkc)
    case "NFKD": self = .unicode(.nfkd)
    case "Lowercase": self = .lowercase
    case "StripAccents": self = .stripAccents
    case "Strip":
      self = .strip(
        left: try fields.flag("strip_left", default: true), right: try fields.flag("strip_right", default: true))
    case "Prepend": self = .prepend(Array(try fields.string("prepend").utf8))
    case "Replace":
      self = .replace(try fields.pattern("pattern"), with: Array(try fields.string("content").utf8))
    case "BertNormalizer":
      let lowercase = try fields.flag("lowercase", default: true)
      self = .bert(
        BertNormalizer(
          cleansText: try fields.flag("clean_text", default: true),
          separatesChinese: try fields.flag("handle_chinese_chars", default: true),
          stripsAccents: try fields.optionalFlag("strip_accents") ?? lowercase, lowercases: lowercase))
    case "Nmt": self = .nmt
    case "Precompiled":
      let text = try fields.string("precompiled_charsmap")
      guard let blob = Base64.decode(text) else {
        throw fields.error("precompiled_charsmap", .invalidCharsmap("it is not base64"))
      }
      do {
        self = .precompiled(try PrecompiledCharsmap(blob))
      } catch {
        throw fields.error("precompiled_charsmap", .invalidCharsmap(error.what))
      }
    case "ByteLevel": self = .byteLevel
    case let name:
      throw fields.error("type", .unsupported(kind: "normalizer", name: name, known: Self.known))
    }
  }

  /// How many times as long the steps can make a text, about.
  var growth: Double {
    switch self {
    case .sequence(let steps): steps.reduce(1) { $0 * $1.growth }
    // The Arabic ligature U+FDFA stands for 18 letters, 11 times its bytes.
    case .unicode(.nfkc), .unicode(.nfkd): 11
    case .unicode, .bert: 3
    case .lowercase, .byteLevel: 2
    case .stripAccents, .strip, .nmt: 1
    // Each stretch between added tokens is a text of its own.
    case .prepend(let prefix): 1 + Double(prefix.count)
    case .replace(let pattern, let replacement): max(1, Double(replacement.count) / Double(pattern.leastLength))
    case .precompiled(let charsmap): Double(charsmap.longestReplacement)
    }
  }

  /// More than any normalizer in use needs: steps that each double the text would otherwise make a short file use up
  /// all memory.
  static let growthLimit = 4096.0

  func apply(to text: inout NormalizedText) {
    switch self {
    case .sequence(let steps): for step in steps { step.apply(to: &text) }
    case .unicode(let form):
      if let result = UnicodeNormalization.normalize(text.bytes, to: form) { text.bytes = result }
    case .lowercase: Self.lowercase(&text.bytes)
    case .stripAccents: Self.remove(.mark, from: &text)
    case .strip(let left, let right): Self.strip(&text, left: left, right: right)
    case .prepend(let prefix): if !text.bytes.isEmpty { text.bytes = prefix + text.bytes }
    case .replace(let pattern, let replacement): text.bytes = pattern.replacing(text.bytes, with: replacement)
    case .bert(let bert): bert.apply(to: &text)
    case .nmt: Self.nmt(&text)
    case .precompiled(let charsmap): text.bytes = charsmap.normalizeByGrapheme(text.bytes)
    case .byteLevel: text.bytes = ByteAlphabet.encode(text.bytes[...])
    }
  }

  /// Scalar by scalar, with the full mappings of the standard library and no context (no final sigma).
  static func lowercase(_ bytes: inout [UInt8]) {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      if byte < 0x80 {
        result.append((0x41...0x5a).contains(byte) ? byte | 0x20 : byte)
        index += 1
        continue
      }
      let (value, length) = decodeScalar(bytes, index, bytes.count)
      if let scalar = Unicode.Scalar(value), scalar.properties.changesWhenLowercased {
        result += scalar.properties.lowercaseMapping.utf8
      } else {
        result += bytes[index..<(index + length)]
      }
      index += length
    }
    bytes = result
  }

  /// Removes the scalars of these classes.
  static func remove(_ classes: ScalarClasses, from text: inout NormalizedText) {
    guard text.bytes.contains(where: { $0 >= 0x80 }) else { return }
    filter(&text) { !ScalarClasses.of($0).meets(classes) }
  }

  /// Keeps the scalars of which `body` says so.
  static func filter(_ text: inout NormalizedText, _ body: (UInt32) -> Bool) {
    var result: [UInt8] = []
    result.reserveCapacity(text.bytes.count)
    var index = 0
    while index < text.bytes.count {
      let (value, length) = decodeScalar(text.bytes, index, text.bytes.count)
      if body(value) {
        result += text.bytes[index..<(index + length)]
      } else if index == 0 {
        text.keepsStart = false
      }
      index += length
    }
    text.bytes = result
  }

  private static func strip(_ text: inout NormalizedText, left: Bool, right: Bool) {
    var start = 0
    var end = text.bytes.count
    while left, start < end {
      let (value, length) = decodeScalar(text.bytes, start, end)
      guard ScalarClasses.of(value).meets(.space) else { break }
      start += length
    }
    while right, end > start {
      let (value, length) = decodeScalarBefore(text.bytes, end, start)
      guard ScalarClasses.of(value).meets(.space) else { break }
      end -= length
    }
    guard start > 0 || end < text.bytes.count else { return }
    if start > 0 { text.keepsStart = false }
    text.bytes = Array(text.bytes[start..<end])
  }

  /// The rules of the Neural Machine Translation normalizer: some controls vanish, odd white space becomes a blank.
  private static func nmt(_ text: inout NormalizedText) {
    filter(&text) { value in
      switch value {
      case 0x01...0x08, 0x0b, 0x0e...0x1f, 0x7f, 0x8f, 0x9f: false
      default: true
      }
    }
    var result: [UInt8] = []
    result.reserveCapacity(text.bytes.count)
    var index = 0
    while index < text.bytes.count {
      let (value, length) = decodeScalar(text.bytes, index, text.bytes.count)
      switch value {
      case 0x09, 0x0a, 0x0c, 0x0d, 0x1680, 0x200b...0x200f, 0x2028, 0x2029, 0x2581, 0xfeff, 0xfffd: result.append(0x20)
      default: result += text.bytes[index..<(index + length)]
      }
      index += length
    }
    text.bytes = result
  }
}
