/// What BERT's basic tokenizer does before it splits (Devlin et al. 2018, and its reference implementation).
struct BertNormalizer: Sendable {
  let cleansText: Bool
  let separatesChinese: Bool
  let stripsAccents: Bool
  let lowercases: Bool

  func apply(to text: inout NormalizedText) {
    if cleansText || separatesChinese {
      var result: [UInt8] = []
      result.reserveCapacity(text.bytes.count + text.bytes.count / 16)
      var index = 0
      while index < text.bytes.count {
        let byte = text.bytes[index]
        if byte >= 0x20, byte < 0x7f {
          result.append(byte)
          index += 1
          continue
        }
        let (value, length) = decodeScalar(text.bytes, index, text.bytes.count)
        if cleansText, Self.isDropped(value) {
          if index == 0 { text.keepsStart = false }
        } else if cleansText, ScalarClasses.of(value).meets(.space) {
          result.append(0x20)
        } else if separatesChinese, Self.isChinese(value) {
          result.append(0x20)
          result += text.bytes[index..<(index + length)]
          result.append(0x20)
        } else {
          result += text.bytes[index..<(index + length)]
        }
        index += length
      }
      text.bytes = result
    }
    if stripsAccents {
      if let decomposed = UnicodeNormalization.normalize(text.bytes, to: .nfd) { text.bytes = decomposed }
      Normalizer.remove(.nonspacingMark, from: &text)
    }
    if lowercases { Normalizer.lowercase(&text.bytes) }
  }

  private static func isDropped(_ value: UInt32) -> Bool {
    switch value {
    case 0x09, 0x0a, 0x0d: false
    case 0, 0xfffd: true
    default: ScalarClasses.of(value).meets(.other)
    }
  }

  private static func isChinese(_ value: UInt32) -> Bool {
    switch value {
    case 0x4e00...0x9fff, 0x3400...0x4dbf, 0x20000...0x2a6df, 0x2a700...0x2b73f, 0x2b740...0x2b81f, 0x2b920...0x2ceaf,
      0xf900...0xfaff, 0x2f800...0x2fa1f:
      true
    default: false
    }
  }
}
