import Checkpoints
import Testing

@Suite struct JSONTests {
  private func parse(_ text: String) throws(JSONError) -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

  @Test(arguments: [
    "null", "true", "false", "0", "-1", "1e-05", "18446744073709551615", "123456789012345678901234567890", "\"\"",
    #""a\"b\\c\n""#, "[]", "[1, 2]", "{}", #"{"b":1,"a":[{"c":null}]}"#, #"{"é":"重み🧊"}"#,
  ])
  func textsComeBackAsTheyWere(text: String) throws {
    let value = try parse(text)
    #expect(try parse(value.text()) == value)
    #expect(try parse(value.text(indent: 2)) == value)
    #expect(value.text() == text.replacing(", ", with: ","))
  }

  @Test func numbersKeepTheirText() throws {
    let value = try parse(#"{"rms_norm_eps": 1e-05, "rope_theta": 10000.0}"#)
    #expect(value.text(indent: 2) == "{\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0\n}")
    #expect(value["rms_norm_eps"]?.double == 1e-5)
    #expect(try parse("18446744073709551615").unsigned == .max)
    #expect(try parse("-1").unsigned == nil)
    #expect(try parse("2.0").unsigned == nil)
  }

  @Test func escapesAreRead() throws {
    #expect(try parse(#""\u00e9\ud83e\uddca\/\b\f\t""#).string == "é🧊/\u{8}\u{c}\t")
  }

  struct Defect {
    let text: String
    let reason: JSONError.Reason
    let offset: Int

    init(_ text: String, _ reason: JSONError.Reason, _ offset: Int) {
      self.text = text
      self.reason = reason
      self.offset = offset
    }
  }

  static let defects: [Defect] = [
    Defect("", .truncated, 0),
    Defect("[1", .truncated, 2),
    Defect(#"{"a":1"#, .truncated, 6),
    Defect(#""ab"#, .truncated, 3),
    Defect("[1,]", .unexpected(UInt8(ascii: "]"), expected: "a value"), 3),
    Defect(#"{"a" 1}"#, .unexpected(UInt8(ascii: "1"), expected: "':'"), 5),
    Defect(#"{a:1}"#, .unexpected(UInt8(ascii: "a"), expected: "a key in quotes"), 1),
    Defect("01", .invalidNumber, 0),
    Defect("1.", .invalidNumber, 0),
    Defect("-", .invalidNumber, 0),
    Defect("1e", .invalidNumber, 0),
    Defect(#""\x""#, .invalidEscape, 1),
    Defect(#""\u12g4""#, .invalidEscape, 1),
    Defect(#""\ud800""#, .loneSurrogate, 1),
    Defect(#""\udc00""#, .loneSurrogate, 1),
    Defect("\"\u{1}\"", .controlCharacter(1), 1),
    Defect(#"{"a":1,"a":2}"#, .duplicateKey("a"), 7),
    Defect(#"{"w":1,"\u0077":2}"#, .duplicateKey("w"), 7),
    Defect("{} x", .trailingBytes, 3),
    Defect("NaN", .unexpected(UInt8(ascii: "N"), expected: "a value"), 0),
  ]

  @Test(arguments: defects.indices)
  func defectsAreNamed(row: Int) {
    let defect = Self.defects[row]
    let error = #expect(throws: JSONError.self) { try parse(defect.text) }
    #expect(error?.reason == defect.reason)
    #expect(error?.offset == defect.offset)
    #expect(error?.description.hasSuffix("at byte \(defect.offset)") == true)
  }

  @Test func bytesThatAreNotUTF8AreRefused() {
    let error = #expect(throws: JSONError.self) { try JSONParser.parse([0x22, 0xff, 0xfe, 0x22]) }
    #expect(error?.reason == .invalidUTF8)
  }

  @Test func nestingIsLimited() throws {
    let deepest = JSONParser.depthLimit
    _ = try parse(String(repeating: "[", count: deepest) + String(repeating: "]", count: deepest))
    let error = #expect(throws: JSONError.self) { try parse(String(repeating: "[", count: 100_000)) }
    #expect(error?.reason == .tooDeep(limit: deepest))
  }
}
