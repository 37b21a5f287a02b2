import Conversion
import Crypto
import Dispatch
import Kernels
import Synchronization
import TestSupport
import Testing

@Suite struct HashingTests {
  private static func expected(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  /// Parts in any order, by any number of threads, have the hash of the whole.
  @Test(arguments: [1, 2, 4])
  func theOrderOfThePartsDoesNotMatter(workers: Int) throws {
    var random = SplitMix64(seed: 1)
    let bytes = (0..<10_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    let parts = stride(from: 0, to: bytes.count, by: 77).map { $0..<min($0 + 77, bytes.count) }
    for order in [parts, parts.reversed(), parts.shuffled(using: &random)] {
      let hash = WrittenHash(byteCount: bytes.count)
      let endings = Mutex(0)
      try runParallel(count: order.count, workers: workers, makeState: { 0 }) { item, _ in
        let part = order[item]
        let isLast = hash.add(Array(bytes[part]), part.count, at: part.lowerBound) { range, buffer in
          buffer.replaceSubrange(0..<range.count, with: bytes[range])
        }
        if isLast { endings.withLock { $0 += 1 } }
      }
      #expect(endings.withLock { $0 } == 1)
      #expect(hash.value() == Self.expected(bytes))
    }
    #expect(WrittenHash(byteCount: 0).value() == Self.expected([]))
  }
}
