import Calibration
import Checkpoints
import SystemPackage
import TestSupport
import Testing

@Suite struct CalibrationSourceTests {
  struct Case {
    let option: String
    let names: [String]
    let weights: [Double]

    init(_ option: String, _ names: [String], _ weights: [Double]) {
      self.option = option
      self.names = names
      self.weights = weights
    }
  }

  static let cases: [Case] = [
    Case("a.txt", ["a.txt"], [1]),
    Case("a.txt:0.7,b.jsonl:0.3", ["a.txt", "b.jsonl"], [0.7, 0.3]),
    Case("a.txt,b.txt:3", ["a.txt", "b.txt"], [1, 3]),
    Case("a:1e-3,b:+2.5", ["a", "b"], [0.001, 2.5]),
    Case("C:notes.txt:2", ["C:notes.txt"], [2]),
    Case("12:30/a.txt", ["12:30/a.txt"], [1]),
    Case("a:nan,b:inf,c:0x1p2,d:", ["a:nan", "b:inf", "c:0x1p2", "d:"], [1, 1, 1, 1]),
    Case(#"a\,b.txt:2,part\:2"#, ["a,b.txt", "part:2"], [2, 1]),
    Case(#"a\b\:1:4"#, [#"a\b:1"#], [4]),
    Case("default:2,./default", ["default", "./default"], [2, 1]),
    Case("日本.txt:1e-9", ["日本.txt"], [1e-9]),
  ]

  @Test(arguments: cases) func optionsAreRead(_ item: Case) throws {
    let sources = try CalibrationSource.parse(item.option)
    #expect(sources.map(\.name) == item.names)
    #expect(sources.map(\.weight) == item.weights)
  }

  @Test func theWordDefaultIsTheDefaultText() throws {
    let sources = try CalibrationSource.parse("default,./default")
    #expect(sources.map(\.origin) == [.defaultText, .file("./default")])
  }

  struct Defect {
    let option: String
    let message: String

    init(_ option: String, _ message: String) {
      self.option = option
      self.message = message
    }
  }

  private static let missing =
    ": a file name is missing; expected PATH or PATH:WEIGHT, several separated by commas (a comma within a name is"
    + " written '\\,')"
  static let defects: [Defect] = [
    Defect("", missing),
    Defect(":3", ":3" + missing),
    Defect("a,,b", "a,,b" + missing),
    Defect("a,", "a," + missing),
    Defect("a:0", "a:0: the weight '0' must be a finite number greater than 0"),
    Defect("a,b:-1", "a,b:-1: the weight '-1' must be a finite number greater than 0"),
    Defect("a:1e999", "a:1e999: the weight '1e999' must be a finite number greater than 0"),
    Defect("a.txt,./a.txt", "./a.txt: is named twice; name it once, with the sum of the weights"),
    Defect("a,b,a:2", "a: is named twice; name it once, with the sum of the weights"),
    Defect("default,default", "default: is named twice; name it once, with the sum of the weights"),
  ]

  @Test(arguments: defects) func wrongOptionsAreExplained(_ defect: Defect) {
    let error = #expect(throws: CalibrationError.self) { try CalibrationSource.parse(defect.option) }
    #expect(error?.description == defect.message)
  }
}

/// Reads the documents of a file with these bytes.
private func documents(
  _ bytes: [UInt8], _ name: String, vocabulary: Int = 100, limit: Int = .max
) throws -> (documents: [CalibrationDocument], lines: [Int?], bytes: Int) {
  let folder = try TemporaryFolder()
  try folder.write(bytes, to: name)
  var found: [CalibrationDocument] = []
  var lines: [Int?] = []
  let size = try CalibrationSource(.file(folder.appending(name))).read(vocabulary: vocabulary) { document, line in
    found.append(document)
    lines.append(line)
    return found.count < limit
  }
  return (found, lines, size)
}

@Suite struct CalibrationDocumentTests {
  @Test func aTextFileIsOneDocument() throws {
    let text = "One.\n\nTwo — drei\r\n四\n"
    let read = try documents(Array(text.utf8), "a.txt")
    #expect(read.documents == [.text(text)] && read.bytes == text.utf8.count)
    #expect(try documents(Array(("\u{feff}" + text).utf8), "A").documents == [.text(text)])
    #expect(try documents([], "a.txt").documents.isEmpty)
    #expect(try documents(Array(" \n\t\u{a0}".utf8), "a.md").documents.isEmpty)
  }

  static let jsonLines = #"""
    {"text": "Eins\nzwei", "id": 7}

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}, {"content": "Ho"}]}
    {"input_ids": [1, 2, 99], "attention_mask": [1, 1, 1]}
    {"tokens": [5], "input_ids": [4]}
      [7, 8]
    {"text": "  "}
    {"messages": []}
    []
    {"tokens": [3], "text": "wins"}
    """#

  static let expected: [CalibrationDocument] = [
    .text("Eins\nzwei"), .text("Hi\nHo"), .tokens([1, 2, 99]), .tokens([4]), .tokens([7, 8]), .text("wins"),
  ]

  @Test(arguments: ["a.jsonl", "a.json", "a.NDJSON"]) func jsonLinesAreReadByLine(name: String) throws {
    let read = try documents(Array(Self.jsonLines.utf8), name)
    #expect(read.documents == Self.expected && read.lines == [1, 3, 4, 5, 6, 10])
    #expect(read.bytes == Self.jsonLines.utf8.count)
  }

  @Test func lineEndsAndMarksDoNotMatter() throws {
    let text =
      "\u{feff}"
      + Self.jsonLines.split(separator: "\n", omittingEmptySubsequences: false)
      .joined(separator: "\r\n") + "\r\n"
    #expect(try documents(Array(text.utf8), "a.jsonl").documents == Self.expected)
  }

  @Test func linesAreFoundAcrossTheBuffersEnd() throws {
    // Lines of many lengths around the size of the parts that are read, 1 MiB.
    let lengths = [1 << 19, (1 << 19) - 13, 5, (1 << 20) - 11, 3 << 20, 0, 1]
    let texts = lengths.map { String(repeating: "x", count: $0 + 1) }
    let file = texts.map { #"{"text":"\#($0)"}"# + "\n" }.joined()
    #expect(try documents(Array(file.utf8), "a.jsonl").documents == texts.map { .text($0) })
    #expect(try documents(Array(file.utf8.dropLast()), "a.jsonl").documents == texts.map { .text($0) })
  }

  @Test func nothingIsReadAfterTheLastDocumentTaken() throws {
    let file = Array("[1]\n[2]\nnonsense\n".utf8)
    #expect(try documents(file, "a.jsonl", limit: 2).documents == [.tokens([1]), .tokens([2])])
    #expect(throws: CalibrationError.self) { try documents(file, "a.jsonl", limit: 3) }
  }

  struct Defect {
    let line: String
    let message: String

    init(_ line: String, _ message: String) {
      self.line = line
      self.message = message
    }
  }

  private static let expectedRecord =
    "; expected an object with 'text' (a string), 'messages' (a list of objects with 'content') or 'input_ids' or"
    + " 'tokens' (a list of integers), or a list of integers"
  private static let foreign = " is outside the model's vocabulary of 100: the tokens are those of another tokenizer"

  static let defects: [Defect] = [
    Defect(#"{"content": "a", "id": 1}"#, "found an object with 'content', 'id'" + expectedRecord),
    Defect("{}", "found an empty object" + expectedRecord),
    Defect("17", "found the number 17" + expectedRecord),
    Defect(#""just a string""#, "found a string" + expectedRecord),
    Defect("null", "found null" + expectedRecord),
    Defect(#"{"text": 3}"#, "'text' must be a string, found the number 3"),
    Defect(#"{"text": ["a"]}"#, "'text' must be a string, found a list"),
    Defect(#"{"messages": "hi"}"#, "'messages' must be a list of objects, found a string"),
    Defect(#"{"messages": [true]}"#, "'messages' must be a list of objects, found true"),
    Defect(#"{"messages": [{"role": "user"}]}"#, "'content' must be in every message, found no such key"),
    Defect(#"{"messages": [{"content": {}}]}"#, "'content' must be a string, found an empty object"),
    Defect(#"{"input_ids": 3}"#, "'input_ids' must be a list of integers, found the number 3"),
    Defect(#"{"tokens": [1, 2.5]}"#, "'tokens' must be a list of integers, found the number 2.5"),
    Defect(#"[1, "2"]"#, "'the list' must be a list of integers, found a string"),
    Defect("[1, 100]", "token 100" + foreign),
    Defect("[-1]", "token -1" + foreign),
    Defect("[4294967297]", "token 4294967297" + foreign),
    Defect("[99999999999999999999]", "'the list' must be a list of integers, found the number 99999999999999999999"),
    Defect(
      #"{"text": "a""#,
      "invalid JSON: the text ends inside a value (truncated), at byte 12 of the line. Expected JSON lines: each line"
        + " a JSON document of its own"),
  ]

  @Test(arguments: defects) func wrongLinesAreExplained(_ defect: Defect) {
    let error = #expect(throws: CalibrationError.self) {
      try documents(Array("[1]\n\n\(defect.line)\n[2]".utf8), "a.jsonl")
    }
    #expect(error?.line == 3)
    #expect(error?.description.hasSuffix("a.jsonl, line 3: " + defect.message) == true)
  }

  @Test func invalidTextIsShownByItsByte() {
    let explanation =
      " of the file (counted from 0) begins no valid sequence. Convert it first, for example with iconv"
    let text = #expect(throws: CalibrationError.self) { try documents(Array("äb".utf8) + [0xfc, 0x20], "a.txt") }
    #expect(text?.description.hasSuffix("a.txt: is not text in UTF-8: byte 3" + explanation) == true)
    // A sequence that the end of the file cuts off begins at byte 1.
    let cut = #expect(throws: CalibrationError.self) { try documents([0x61, 0xe2, 0x82], "a.txt") }
    #expect(cut?.reason == .invalidUTF8(byte: 1))
    let line = #expect(throws: CalibrationError.self) {
      try documents(Array("[1]\n{\"text\": \"é".utf8) + [0xff] + Array("\"}".utf8), "a.jsonl")
    }
    #expect(line?.description.hasSuffix("a.jsonl, line 2: is not text in UTF-8: byte 16" + explanation) == true)
  }

  @Test func missingFilesAndFoldersAreRefused() throws {
    let folder = try TemporaryFolder()
    func error(_ path: FilePath) -> CheckpointError? {
      #expect(throws: CheckpointError.self) {
        try CalibrationSource(.file(path)).read(vocabulary: 1) { _, _ in true }
      }
    }
    #expect(error(folder.appending("none.jsonl"))?.reason == .notFound)
    #expect(error(folder.appending("none.txt"))?.reason == .notFound)
    #expect(error(folder.path)?.reason == .isDirectory)
  }

  @Test func oversizedFilesAreRefused() throws {
    let folder = try TemporaryFolder()
    func make(_ name: String, size: Int) throws -> CalibrationSource {
      try folder.write([], to: name)
      let path = folder.appending(name)
      let file = try FileDescriptor.open(path, .writeOnly)
      // Without any data on the disk.
      try file.closeAfter { try file.resize(to: Int64(size)) }
      return CalibrationSource(.file(path))
    }
    let line = try make("a.jsonl", size: (1 << 26) + 1)
    let tooLong = #expect(throws: CalibrationError.self) { try line.read(vocabulary: 1) { _, _ in true } }
    #expect(
      tooLong?.description.hasSuffix(
        "a.jsonl, line 1: longer than 67108864 bytes; expected JSON lines, one document in each line") == true)
    let text = try make("a.txt", size: CalibrationSource.textLimit + 1)
    let tooLarge = #expect(throws: CheckpointError.self) { try text.read(vocabulary: 1) { _, _ in true } }
    #expect(tooLarge?.reason == .notReadable("1073741825 bytes, more than the limit of 1073741824"))
  }

  /// Whatever the bytes: a document, nothing, or an error, never a trap.
  @Test func damagedLinesNeverTrap() throws {
    var generator = SplitMix64(seed: 5)
    let start = Array(Self.jsonLines.utf8)
    var failures = 0
    for _ in 0..<300 {
      var bytes = start
      for _ in 0..<3 {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[place] = UInt8.random(in: 0...255, using: &generator)
      }
      do { _ = try documents(bytes, "a.jsonl") } catch is CalibrationError { failures += 1 }
    }
    #expect(failures > 100)
  }
}
