import Checkpoints
import SystemPackage
import TestSupport
import Testing
import Tokenizers

/// A megabyte of English a second on one core, at least; the best of five runs, as other work may go on beside.
@Suite(.serialized) struct SpeedTests {
  @Test(arguments: GoldenTests.kinds) func megabytesPerSecond(kind: String) throws {
    let tokenizer = try Tokenizer(folder: Fixtures.path("tokenizers").appending(kind))
    let part = try readWhole(Fixtures.path("text/tiny-eval.txt"))
    let text = [[UInt8]](repeating: part, count: 1_000_000 / part.count + 1).flatMap { $0 }
    var best = Duration.seconds(1_000)
    for _ in 0..<5 {
      best = min(
        best, ContinuousClock().measure { #expect(!tokenizer.encode(utf8: text, addSpecialTokens: false).isEmpty) })
    }
    let rate = Double(text.count) / 1e6 / (best / .seconds(1))
    print("\(kind): \(Int(rate.rounded())) MB/s")
    #expect(rate > 0.3)
  }
}
