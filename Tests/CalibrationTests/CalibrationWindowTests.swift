import Calibration
import Checkpoints
import SystemPackage
import TestSupport
import Testing

@Suite struct CalibrationWindowTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A file of documents of token ids.
  private func source(_ name: String, _ documents: [Range<Int32>], weight: Double = 1) throws -> CalibrationSource {
    let text = documents.map { "[" + $0.map(String.init).joined(separator: ",") + "]\n" }.joined()
    try folder.write(Array(text.utf8), to: name)
    return CalibrationSource(.file(folder.appending(name)), weight: weight)
  }

  private func text(_ name: String, _ content: String) throws -> CalibrationSource {
    try folder.write(Array(content.utf8), to: name)
    return CalibrationSource(.file(folder.appending(name)))
  }

  /// One token for each byte.
  private func encode(_ text: String) -> [Int32] { text.utf8.map(Int32.init) }

  private func windows(
    _ sources: [CalibrationSource], _ samples: Int, of length: Int, _ layout: CalibrationWindows.Layout = .packed,
    heldOut: Int = 0, seed: UInt64? = nil, vocabulary: Int = 100_000
  ) throws -> CalibrationWindows {
    let options = CalibrationWindows.Options(
      samples: samples, sequenceLength: length, layout: layout, heldOut: heldOut)
    guard let seed else {
      return try CalibrationWindows(sources, options, vocabulary: vocabulary, encode: encode)
    }
    var generator = SplitMix64(seed: seed)
    return try CalibrationWindows(sources, options, vocabulary: vocabulary, using: &generator, encode: encode)
  }

  private func calibrated(_ windows: CalibrationWindows) -> [[Int32]] {
    windows.windows.map { Array(windows.tokens[$0]) }
  }
  private func heldOut(_ windows: CalibrationWindows) -> [[Int32]] { windows.heldOut.map { Array(windows.tokens[$0]) } }

  @Test func packedWindowsAreTheFirstTokensInOrder() throws {
    let source = try source("a.jsonl", [0..<3, 3..<50, 50..<51, 51..<100])
    let found = try windows([source], 4, of: 16, heldOut: 2)
    #expect(found.tokens == Array(0..<96))
    #expect(found.windows == [0..<16, 16..<32, 32..<48, 48..<64])
    #expect(found.heldOut == [64..<80, 80..<96])
    #expect(found.tokenCount == 64 && !found.isShort)
  }

  /// What is left of a long text is not tokenized; where tokens have many bytes, more is.
  @Test(arguments: [1, 40]) func theBeginningOfALongTextIsEnough(bytesPerToken: Int) throws {
    let content = (0..<20_000).map { "line \($0)\n" }.joined()
    var seen = 0
    func encode(_ text: String) -> [Int32] {
      seen += text.utf8.count
      return text.utf8.enumerated().filter { $0.offset % bytesPerToken == 0 }.map { Int32($0.element) }
    }
    let found = try CalibrationWindows(
      [text("a.txt", content)], CalibrationWindows.Options(samples: 9, sequenceLength: 128), vocabulary: 256,
      encode: encode)
    #expect(seen < content.utf8.count && seen > 9 * 128 * bytesPerToken)
    #expect(found.tokens == Array(encode(content).prefix(9 * 128)))
    #expect(found.sources.map(\.bytes) == [content.utf8.count])
  }

  /// As the peers that the figures are compared with take them.
  @Test func aTextGivesItsFirstWindows() throws {
    let content = (0..<500).map { "line \($0)\n" }.joined()
    let found = try windows([text("a.txt", content)], 12, of: 256)
    #expect(found.tokens == Array(encode(content).prefix(12 * 256)))
    #expect(found.sources.map(\.bytes) == [content.utf8.count] && found.sources.map(\.documents) == [1])
  }

  @Test func paddedWindowsAreDocuments() throws {
    let source = try source("a.jsonl", [0..<3, 10..<11, 20..<40, 50..<52, 60..<63])
    let found = try windows([source], 3, of: 8, .padded, heldOut: 1)
    #expect(calibrated(found) == [[0, 1, 2], Array(20..<28), [50, 51]])
    #expect(heldOut(found) == [[60, 61, 62]])
    #expect(found.sources[0].dropped == 1 && found.sources[0].documents == 5 && found.tokenCount == 13)
  }

  @Test func aMixKeepsItsProportionsAndIsSpread() throws {
    let first = try source("a.jsonl", [0..<1000], weight: 0.7)
    let second = try source("b.jsonl", [1000..<2000], weight: 0.2)
    let third = try source("c.jsonl", [2000..<3000], weight: 0.1)
    let found = try windows([first, second, third], 20, of: 10, heldOut: 3)
    #expect(found.sources.map(\.samples) == [14, 4, 2] && found.sources.map(\.heldOut) == [2, 1, 0])
    #expect(abs(found.sources.map(\.share).reduce(0, +) - 1) < 1e-12)
    // Any ten windows in a row have about seven of the first source.
    let origins = calibrated(found).map { $0[0] / 1000 }
    for start in 0...10 { #expect((6...8).contains(origins[start..<(start + 10)].count(where: { $0 == 0 }))) }
    // Within a source the order is that of the text.
    #expect(calibrated(found).map { $0[0] }.filter { $0 < 1000 } == Array(stride(from: 0, to: 140, by: 10)))
    #expect(heldOut(found).map { $0[0] }.sorted() == [140, 150, 1040])
  }

  @Test func sharesAddUpWhateverTheWeights() throws {
    let weights: [[Double]] = [
      [1, 1, 1], [1e308, 1e308, 1e307], [1e-300, 1, 1e300], [0.1, 0.2, 0.7], [1e-308, 1e-308, 1e-308],
    ]
    for weights in weights {
      for samples in [1, 2, 7, 64] {
        let sources = try weights.enumerated().map { try source("\($0).jsonl", [0..<200], weight: $1) }
        let found = try windows(sources, samples, of: 2)
        #expect(found.sources.map(\.requestedSamples).reduce(0, +) == samples)
        #expect(found.windows.count == samples)
        for (source, weight) in zip(sources.indices, weights) {
          let exact = Double(samples) * found.sources[source].share
          #expect(abs(Double(found.sources[source].samples) - exact) < 1, "\(weight)")
        }
      }
    }
  }

  @Test func aSeedChoosesAndAlwaysTheSame() throws {
    let source = try source("a.jsonl", [0..<1000])
    let found = try windows([source], 20, of: 10, heldOut: 10, seed: 1)
    #expect(try windows([source], 20, of: 10, heldOut: 10, seed: 1) == found)
    #expect(try calibrated(windows([source], 20, of: 10, heldOut: 10, seed: 2)) != calibrated(found))
    #expect(try calibrated(windows([source], 20, of: 10)) != calibrated(found))
    let starts = calibrated(found).map { $0[0] }
    #expect(starts == starts.sorted() && Set(starts).count == 20 && starts.allSatisfy { $0 % 10 == 0 })
    // All windows are within reach: of 100, a fifth of 60 choices misses one with a chance of 1.5 in a million.
    let seen = try (0..<60).reduce(into: Set<Int32>()) { all, seed in
      all.formUnion(try calibrated(windows([source], 20, of: 10, seed: seed)).map { $0[0] })
    }
    #expect(seen.count == 100)
  }

  @Test(arguments: [nil, 7, 8] as [UInt64?], CalibrationWindows.Layout.allCases)
  func heldOutWindowsAreNeverCalibratedWith(seed: UInt64?, layout: CalibrationWindows.Layout) throws {
    let documents: [Range<Int32>] = (0..<60).map { (index: Int32) -> Range<Int32> in
      let start = index * 20
      return start..<(start + 3 + index % 17)
    }
    let sources = [
      try source("a.jsonl", Array(documents[..<40])), try source("b.jsonl", Array(documents[40...]), weight: 0.5),
    ]
    // The second and the third ask for more than there is.
    for (samples, kept) in [(12, 6), (50, 50), (1000, 10)] {
      let found = try windows(sources, samples, of: 8, layout, heldOut: kept, seed: seed)
      #expect(!found.windows.isEmpty && !found.heldOut.isEmpty)
      #expect(Set(calibrated(found).joined()).isDisjoint(with: heldOut(found).joined()))
      #expect((found.windows + found.heldOut).flatMap { $0 } == Array(found.tokens.indices))
      #expect(found.isShort == (samples != 12))
    }
  }

  @Test func shortTextsGiveWhatTheyHave() throws {
    let source = try source("a.jsonl", [0..<105])
    let found = try windows([source], 128, of: 10)
    #expect(found.windows.count == 10 && found.isShort && found.sources[0].requestedSamples == 128)
    // Both parts shrink alike.
    let divided = try windows([source], 90, of: 10, heldOut: 10)
    #expect(divided.windows.count == 9 && divided.heldOut.count == 1 && divided.isShort)
    #expect(divided.tokens == Array(0..<100))
    // But there is always something to calibrate with.
    let single = try windows([source], 1, of: 60, heldOut: 50)
    #expect(single.windows == [0..<60] && single.heldOut.isEmpty && single.isShort)
    #expect(try !windows([source], 10, of: 10).isShort)
    // Nobody steps in for a source that is too short.
    let other = try self.source("b.jsonl", [200..<400])
    let mix = try windows([source, other], 40, of: 10)
    #expect(mix.sources.map(\.samples) == [10, 20] && mix.windows.count == 30 && mix.isShort)
  }

  @Test func emptyAndTooShortTextsAreExplained() throws {
    func message(_ source: CalibrationSource, _ layout: CalibrationWindows.Layout = .packed) -> String? {
      let error = #expect(throws: CalibrationError.self) { try windows([source], 4, of: 256, layout) }
      return error?.description.split(separator: "/").last.map(String.init)
    }
    let empty = "holds no text (empty); calibration needs some"
    #expect(message(try text("a.txt", "")) == "a.txt: " + empty)
    #expect(message(try text("a.txt", "\n \n")) == "a.txt: " + empty)
    #expect(message(try text("a.jsonl", "")) == "a.jsonl: " + empty)
    #expect(message(try text("a.jsonl", "\n{\"text\": \"\"}\n[]\n"), .padded) == "a.jsonl: " + empty)
    #expect(
      message(try source("a.jsonl", [0..<200, 0..<55]))
        == "a.jsonl: holds 255 tokens, fewer than one window of 256. Give more text or a shorter sequence length")
    #expect(
      message(try source("a.jsonl", [0..<1, 2..<3]), .padded)
        == "a.jsonl: none of its 2 documents has 2 tokens or more, so that there is no window. Give longer documents,"
        + " or pack them")
  }

  @Test func tokensOfAnotherTokenizerAreRefused() throws {
    let wrong = #expect(throws: CalibrationError.self) {
      try windows([text("a.txt", String(repeating: "az", count: 99))], 1, of: 8, vocabulary: 122)
    }
    #expect(wrong?.reason == .tokenOutOfRange(token: "122", vocabulary: 122) && wrong?.line == nil)
    let line = #expect(throws: CalibrationError.self) {
      try windows([text("a.jsonl", "[1]\n{\"text\": \"é\"}")], 1, of: 2, vocabulary: 150)
    }
    #expect(line?.reason == .tokenOutOfRange(token: "195", vocabulary: 150) && line?.line == 2)
  }

  @Test func theIdentityIsThatOfTheTokens() throws {
    let first = try windows([source("a.jsonl", [0..<300])], 3, of: 100)
    let renamed = try windows([source("b.jsonl", [0..<120, 120..<310])], 3, of: 100, heldOut: 0)
    #expect(first.identity == renamed.identity && first.identity.count == 4 * (300 + 3))
    #expect(first.identity[0..<12] == [100, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    // Window lengths count, too.
    #expect(try windows([source("a.jsonl", [0..<300])], 6, of: 50).identity != first.identity)
    let record = try windows([source("a.jsonl", [0..<300])], 2, of: 100, heldOut: 1).record
    #expect(record["tokens"] == 200 && record["layout"] == "packed" && record["held_out_windows"] == 1)
    #expect(record["sources"]?.array?.first?["bytes"] == 1092)
  }

  @Test func theDefaultTextServes() throws {
    let found = try windows([CalibrationSource(.defaultText)], 128, of: 256, heldOut: 16)
    #expect(found.windows.count == 128 && found.heldOut.count == 16 && !found.isShort)
    let all = try windows([CalibrationSource(.defaultText)], 1000, of: 2048, .padded)
    #expect(all.windows.count == DefaultText.parts.count && all.sources[0].dropped == 0)
    #expect(all.sources[0].bytes == DefaultText.byteCount && all.sources[0].name == "default")
  }
}
