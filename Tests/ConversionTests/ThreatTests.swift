import Checkpoints
import Conversion
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// Rows of `Docs/Threats.md` that are about what files mean, not about their form.
@Suite struct ThreatTests {
  let folder: TemporaryFolder
  let tiny = Fixtures.path("tiny-llama")

  init() throws { folder = try TemporaryFolder() }

  private func copy(_ source: FilePath, to name: String) throws -> FilePath {
    let path = folder.appending(name)
    try FileManager.default.copyItem(atPath: source.string, toPath: path.string)
    return path
  }

  private func write(_ text: String, to path: FilePath) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path.string))
  }

  private func ids(_ tokenizer: Tokenizer, _ text: String) -> [Int32] {
    tokenizer.encode(text, addSpecialTokens: true)
  }

  private func text(_ tokenizer: Tokenizer, _ ids: [Int32]) -> String {
    tokenizer.decode(ids, skipSpecialTokens: true)
  }

  // MARK: Checkpoints

  /// A dtype of the same width, in the header of an output: no hash of bytes tells, the manifest does.
  @Test(arguments: ["model.norm.weight", "model.layers.0.self_attn.k_proj.weight.scales"])
  func anExchangedTypeIsRefused(name: String) throws {
    let output = folder.appending("out")
    _ = try convert(tiny, to: output) { $0.options.method = .absmax }
    let tensor = try #require(try Checkpoint(output)[name])
    let (file, type) = (tensor.file.path, tensor.entry.type)
    let other: ElementType = type == .f32 ? .i32 : .i16
    var bytes = try readWhole(file)
    let entry = Array("\"\(name)\":{\"dtype\":".utf8)
    let start = try #require(bytes.indices.first { bytes[$0...].starts(with: entry) }) + entry.count
    let (own, new) = (Array("\"\(type.rawValue)\"".utf8), Array("\"\(other.rawValue)\"".utf8))
    #expect(bytes[start...].starts(with: own))
    // As long as before: blanks may stand between the parts of JSON.
    let blanks = [UInt8](repeating: 0x20, count: own.count - new.count)
    bytes.replaceSubrange(start..<start + own.count, with: new + blanks)
    try FileManager.default.removeItem(atPath: file.string)
    try Data(bytes).write(to: URL(fileURLWithPath: file.string))
    #expect(try Checkpoint(output)[name]?.entry.type == other)
    let error = #expect(throws: CheckpointError.self) { try Verification(output, workers: 1) }
    #expect(error?.description.contains("dtype and shape") == true, "\(error?.description ?? "")")
  }

  /// Links are followed, and what they lead to is copied: the output has none, and nothing outside is changed.
  @Test func linksOutOfTheFolderAreFollowedAndNotWrittenThrough() throws {
    let elsewhere = try copy(tiny, to: "elsewhere")
    let linked = folder.appending("linked")
    try FileManager.default.createDirectory(atPath: linked.string, withIntermediateDirectories: true)
    for name in try FileManager.default.contentsOfDirectory(atPath: elsewhere.string) {
      try FileManager.default.createSymbolicLink(
        atPath: linked.appending(name).string, withDestinationPath: "../elsewhere/\(name)")
    }
    try FileManager.default.createSymbolicLink(
      atPath: linked.appending("leads-nowhere.json").string, withDestinationPath: "/no/such/file")
    let before = try contents(elsewhere)
    _ = try convert(tiny, to: folder.appending("a"))
    let plan = try convert(linked, to: folder.appending("b"))
    #expect(try contents(folder.appending("a")) == contents(folder.appending("b")))
    #expect(try contents(elsewhere) == before)
    #expect(plan.sideFiles.left.contains { $0.name == "leads-nowhere.json" && $0.reason == "cannot be read" })
    for name in try FileManager.default.contentsOfDirectory(atPath: folder.appending("b").string) {
      let attributes = try FileManager.default.attributesOfItem(atPath: folder.appending("b").appending(name).string)
      #expect(attributes[.type] as? FileAttributeType == .typeRegular, "\(name)")
    }
  }

  // MARK: Templates

  /// Templates that would run code if they were rendered (CVE-2024-34359), and some that no parser takes.
  static let templates = [
    "{{ ''.__class__.__mro__[1].__subclasses__()[140].__init__.__globals__['system']('touch pwned') }}",
    "{% for x in range(10**12) %}{{ x }}{% endfor %}", "{% if %}{{ unclosed", "\u{1b}[2J{# {{ #}",
    String(repeating: "{{ ", count: 10_000),
  ]

  /// They are text like any other: in the folder byte for byte, in a GGUF file string for string, and no tokenizer, model or
  /// check is other for them.
  @Test(arguments: templates.indices) func templatesAreCopiedAndNotRead(index: Int) throws {
    let template = Self.templates[index]
    let source = try copy(tiny, to: "source")
    let settings = source.appending("tokenizer_config.json")
    var fields = (try? readJSONObject(settings).object) ?? [:]
    fields["chat_template"] = .string(template)
    try? FileManager.default.removeItem(atPath: settings.string)
    try write(JSONValue.object(fields).text(), to: settings)
    try write(template, to: source.appending("chat_template.jinja"))
    let output = folder.appending("out")
    _ = try convert(source, to: output)
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
      #expect(try readWhole(output.appending(name)) == readWhole(source.appending(name)))
    }
    let words = "Once upon a time {{ ''.__class__ }}"
    #expect(try ids(Tokenizer(folder: output), words) == ids(Tokenizer(folder: tiny), words))

    let file = folder.appending("out.gguf")
    let opened = try Checkpoint(source)
    let conversion = try GGUFConversion(
      opened, configuration: opened.configuration, folder: source, GGUFConversion.Options(mix: .q80))
    try conversion.run(into: try OutputFile(file, source: source, overwrite: false), workers: 2) { _ in true }
    let written = try GGUFFile(file)
    #expect(written.header.metadata["tokenizer.chat_template"]?.string == template)
    #expect(try ids(GGUFTokenizer.tokenizer(of: written), words) == ids(Tokenizer(folder: tiny), words))
    let inspection = try Inspector(file).inspection().text()
    #expect(!inspection.contains("\u{1b}"))
    #expect(!FileManager.default.fileExists(atPath: "pwned"))
  }

  // MARK: Tokenizers of GGUF files

  private static let pieces = [
    "<unk>", "<s>", "</s>", "<0x61>", "<0x0A>", "\u{2581}", "a", "b", "ab", "\u{2581}a",
  ]

  /// A file with a tokenizer of ten pieces and no weights to speak of.
  private func file(_ change: (inout GGUFMetadata) -> Void) throws -> GGUFFile {
    var metadata: GGUFMetadata = [
      "general.architecture": .string("llama"), "tokenizer.ggml.model": .string("llama"),
      "tokenizer.ggml.tokens": .strings(Self.pieces),
      "tokenizer.ggml.scores": .floats([0, 0, 0, 0, 0, -1, -2, -3, -4, -5]),
      "tokenizer.ggml.token_type": .integers([2, 3, 3, 6, 6, 1, 1, 1, 1, 1]),
      "tokenizer.ggml.bos_token_id": .uint32(1), "tokenizer.ggml.eos_token_id": .uint32(2),
    ]
    change(&metadata)
    let layout = GGUFLayout([GGUFSpecification(name: "t", type: .f32, shape: [8])], metadata: metadata)
    let path = folder.appending("\(UUID().uuidString).gguf")
    let bytes = layout.head + [UInt8](repeating: 0, count: layout.fileSize - layout.head.count)
    try Data(bytes).write(to: URL(fileURLWithPath: path.string))
    return try GGUFFile(path)
  }

  private func tokenizer(_ change: (inout GGUFMetadata) -> Void) throws -> Tokenizer {
    try GGUFTokenizer.tokenizer(of: file(change))
  }

  /// GHSA-g4cc-763q-h9h6: no id reaches a table that does not have it.
  @Test(arguments: [
    GGUFValue.uint32(10), .uint32(.max), .int32(-1), .int32(.min), .uint64(.max), .int64(.min), .uint64(1 << 32 + 1),
    .string("1"), .float32(1),
  ])
  func idsBeyondTheVocabularyAreNoTokens(id: GGUFValue) throws {
    #expect(try ids(tokenizer { _ in }, "ab").first == 1)
    let found = try tokenizer { metadata in
      for name in ["bos", "eos", "unknown", "padding", "seperator"] {
        metadata["tokenizer.ggml.\(name)_token_id"] = id
      }
      metadata["tokenizer.ggml.add_eos_token"] = .bool(true)
    }
    let tokens = ids(found, "ab")
    #expect(!tokens.isEmpty && tokens.allSatisfy { (5..<10).contains($0) }, "\(tokens)")
    #expect(text(found, tokens + [10, -1, .max, .min]) == "ab")
  }

  /// Lists know the type of their elements, whatever type is usual.
  @Test func scoresAndTypesOfAnyWidthMeanTheSame() throws {
    let usual = try tokenizer { _ in }
    let texts = ["ab a\n", "bab", "a b\u{e9}"]
    let types: [Int] = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1]
    let scores: [Int] = [0, 0, 0, 0, 0, -1, -2, -3, -4, -5]
    func list(_ values: [Int], _ type: GGUFValueType) throws -> GGUFValue {
      // Written as a file has it: the type, the count, the elements.
      var bytes = [UInt8]()
      for value in values {
        let word: UInt64 =
          switch type {
          case .float32: UInt64(Float(value).bitPattern)
          case .float64: Double(value).bitPattern
          default: UInt64(bitPattern: Int64(value))
          }
        let width = [.uint8, .int8].contains(type) ? 1 : [.uint16, .int16].contains(type) ? 2 : 4
        for byte in 0..<([.uint64, .int64, .float64].contains(type) ? 8 : width) {
          bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * byte)))
        }
      }
      return try Self.array(type, bytes: bytes, count: values.count, in: folder)
    }
    for type: GGUFValueType in [.float32, .float64, .int8, .int16, .int32, .int64] {
      let found = try tokenizer { metadata in metadata["tokenizer.ggml.scores"] = try? list(scores, type) }
      #expect(texts.map { ids(found, $0) } == texts.map { ids(usual, $0) }, "\(type)")
    }
    for type: GGUFValueType in [.uint8, .int8, .uint16, .int16, .uint32, .int64, .uint64] {
      let found = try tokenizer { metadata in metadata["tokenizer.ggml.token_type"] = try? list(types, type) }
      #expect(texts.map { ids(found, $0) } == texts.map { ids(usual, $0) }, "\(type)")
    }
    // What cannot be such a list is refused by its key.
    for (key, value) in [
      ("scores", GGUFValue.strings(Self.pieces)), ("scores", .floats([1])), ("scores", .float32(1)),
      ("scores", .floats([0, 0, 0, 0, 0, .infinity, 0, 0, 0, 0])), ("token_type", .integers([1])),
      ("tokens", .floats([0, 0])), ("tokens", .string("a")),
    ] {
      let error = #expect(throws: (any Error).self) { try tokenizer { $0["tokenizer.ggml.\(key)"] = value } }
      let message = error.map { "\($0)" } ?? ""
      #expect(message.contains(key) || message.contains("finite score"), "\(key): \(message)")
    }
    let merges = #expect(throws: (any Error).self) {
      try tokenizer { metadata in
        metadata["tokenizer.ggml.model"] = .string("gpt2")
        metadata["tokenizer.ggml.merges"] = .integers([1, 2])
      }
    }
    #expect(merges.map { "\($0)" }?.contains("merges") == true)
  }

  /// A list read from a file, with elements of any type.
  private static func array(
    _ type: GGUFValueType, bytes: [UInt8], count: Int, in folder: TemporaryFolder
  ) throws -> GGUFValue {
    func little(_ value: some FixedWidthInteger) -> [UInt8] {
      (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
    var file = Array("GGUF".utf8) + little(UInt32(3)) + little(UInt64(0)) + little(UInt64(1))
    file += little(UInt64(1)) + Array("k".utf8) + little(UInt32(9)) + little(type.rawValue)
    file += little(UInt64(count)) + bytes
    file += [UInt8](repeating: 0, count: (32 - file.count % 32) % 32)
    let path = folder.appending("\(UUID().uuidString).gguf")
    try Data(file).write(to: URL(fileURLWithPath: path.string))
    return try #require(try GGUFFile(path).header.metadata["k"])
  }

  /// Byte tokens are two hexadecimal digits; others of that type are text.
  @Test(arguments: ["<0x-1>", "<0x+1>", "<0x-0>", "<0x100>", "<0x1>", "<0x>", "<0xgg>", "<0x 1>", "0x61", "<0x61", "x"])
  func whatIsNoByteIsText(piece: String) throws {
    let found = try tokenizer { metadata in
      metadata["tokenizer.ggml.tokens"] = .strings(Self.pieces.prefix(3) + [piece] + Self.pieces.dropFirst(4))
    }
    #expect(text(found, [6, 3, 7]) == "a\(piece)b")
    // The byte that it does not stand for is unknown, the other one is found.
    #expect(ids(found, "a\nb").contains(4))
    #expect(try text(tokenizer { _ in }, [6, 3, 7]) == "aab")
  }
}
