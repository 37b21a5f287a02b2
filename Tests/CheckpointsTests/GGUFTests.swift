import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import SystemPackage
import TestSupport
import Testing

@Suite struct GGUFTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func open(_ bytes: [UInt8]) throws -> GGUFFile {
    try folder.write(bytes, to: "file.gguf")
    return try GGUFFile(folder.appending("file.gguf"))
  }

  // MARK: A file by hand

  private static func little(_ value: some FixedWidthInteger) -> [UInt8] {
    (0..<(value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }

  private static func text(_ text: String) -> [UInt8] { little(UInt64(text.utf8.count)) + Array(text.utf8) }

  private static func key(_ name: String, _ type: UInt32, _ value: [UInt8]) -> [UInt8] {
    text(name) + little(type) + value
  }

  private static func tensor(
    _ name: String, _ dimensions: [UInt64], type: UInt32 = 0, offset: UInt64 = 0
  ) -> [UInt8] {
    text(name) + little(UInt32(dimensions.count)) + dimensions.flatMap { little($0) } + little(type) + little(offset)
  }

  private static func file(
    version: UInt32 = 3, keys: [[UInt8]] = [], tensors: [[UInt8]] = [], tensorCount: UInt64? = nil,
    keyCount: UInt64? = nil, data: Int = 32
  ) -> [UInt8] {
    var bytes = Array("GGUF".utf8) + little(version)
    bytes += little(tensorCount ?? UInt64(tensors.count)) + little(keyCount ?? UInt64(keys.count))
    bytes += keys.joined()
    bytes += tensors.joined()
    bytes += [UInt8](repeating: 0, count: (32 - bytes.count % 32) % 32 + data)
    return bytes
  }

  @Test func whatIsWrittenIsReadBack() throws {
    let metadata: GGUFMetadata = [
      "a": .uint8(200), "b": .int8(-3), "c": .uint16(60_000), "d": .int16(-30_000), "e": .uint32(4_000_000_000),
      "f": .int32(-2_000_000_000), "g": .float32(1.5), "h": .bool(true), "i": .string("naïve ✓"),
      "j": .strings(["x", "", "▁y"]), "k": .uint64(.max), "l": .int64(.min), "m": .float64(-0.1),
      "n": .integers([1, -1]), "o": .floats([0.25]), "p": .booleans([true, false]),
    ]
    let specifications = [
      GGUFSpecification(name: "one", type: .f32, shape: [3, 5]),
      GGUFSpecification(name: "two", type: .q4K, shape: [2, 256]),
      GGUFSpecification(name: "three", type: .f16, shape: [7]),
    ]
    let layout = GGUFLayout(specifications, metadata: metadata)
    let file = try open(layout.head + [UInt8](repeating: 9, count: layout.fileSize - layout.head.count))
    #expect(file.header.metadata == metadata && file.header.version == 3)
    #expect(file.header.tensors.map(\.name) == ["one", "two", "three"])
    #expect(file.header.tensors.map(\.shape) == [[3, 5], [2, 256], [7]])
    #expect(file.header.tensors.map(\.bytes.count) == [60, 288, 14])
    #expect(file.header.tensors.map(\.bytes.lowerBound) == Array(layout.offsets.values))
    #expect(layout.offsets.values.allSatisfy { $0 % 32 == 0 } && layout.fileSize % 32 == 0)
    var bytes: [UInt8] = []
    try file.read(2..<14, of: file.header.tensors[2], into: &bytes)
    #expect(bytes[..<12].allSatisfy { $0 == 9 })
  }

  @Test func versionTwoIsRead() throws {
    let file = try open(Self.file(version: 2, keys: [Self.key("k", 4, Self.little(UInt32(7)))]))
    #expect(file.header.version == 2 && file.header.metadata["k"]?.integer == 7)
  }

  static let defects: [(name: String, bytes: [UInt8], message: String)] = {
    let name64 = String(repeating: "n", count: 64)
    let good = tensor("t", [8])
    return [
      ("empty", [], "does not begin with 'GGUF'"),
      ("other mark", Array("GGML".utf8) + little(UInt32(3)), "does not begin with 'GGUF'"),
      ("mark only", Array("GGUF".utf8), "ends within the version"),
      ("big-endian", Array("GGUF".utf8) + [0, 0, 0, 3], "big-endian"),
      ("version 1", file(version: 1), "is GGUF version 1"),
      ("version 4", file(version: 4), "is GGUF version 4"),
      ("version 0", file(version: 0), "is GGUF version 0"),
      ("counts cut off", Array(file().prefix(20)), "ends within the number of metadata keys"),
      ("too many tensors", file(tensorCount: .max), "claims 18446744073709551615 tensors"),
      ("too many keys", file(keyCount: 1 << 40), "claims 1099511627776 metadata keys"),
      ("long key", file(keys: [little(UInt64.max) + [0, 0, 0, 0, 0, 0]]), "ends within a metadata key"),
      ("empty key", file(keys: [key("", 4, little(UInt32(1)))]), "a metadata key is empty"),
      (
        "key in Latin-1", file(keys: [little(UInt64(1)) + [0xe9] + little(UInt32(4)) + little(UInt32(1))]),
        "a metadata key is not text"
      ),
      ("key twice", file(keys: [key("k", 4, little(UInt32(1))), key("k", 4, little(UInt32(1)))]), "'k' occurs twice"),
      ("unknown value type", file(keys: [key("k", 13, little(UInt32(1)))]), "unknown value type 13"),
      ("boolean of two", file(keys: [key("k", 7, [2])]), "holds a boolean that is 2"),
      ("array of arrays", file(keys: [key("k", 9, little(UInt32(9)) + little(UInt64(1)))]), "an array of arrays"),
      (
        "long array", file(keys: [key("k", 9, little(UInt32(0)) + little(UInt64.max))]),
        "claims 18446744073709551615 elements"
      ),
      ("array of unknown", file(keys: [key("k", 9, little(UInt32(77)) + little(UInt64(1)))]), "unknown value type 77"),
      ("long string", file(keys: [key("k", 8, little(UInt64(1) << 62))]), "ends within metadata key 'k'"),
      // Their low 32 bits are lengths that the file has (CVE-2025-49847).
      (
        "key of 2^32", file(keys: [little(UInt64(1 << 32 + 1)) + Array("k".utf8) + little(UInt32(0)) + [7]]),
        "a metadata key"
      ),
      ("string of 2^32", file(keys: [key("k", 8, little(UInt64(1 << 32 + 1)) + Array("v".utf8))]), "metadata key 'k'"),
      (
        "token of 2^32",
        file(keys: [key("k", 9, little(UInt32(8)) + little(UInt64(1)) + little(UInt64(1 << 32 + 1)) + Array("t".utf8))]
        ),
        "metadata key 'k'"
      ),
      (
        "list of 2^32", file(keys: [key("k", 9, little(UInt32(0)) + little(UInt64(1 << 32 + 1)) + [7])]),
        "claims 4294967297 elements"
      ),
      (
        "name of 2^32", file(tensors: [little(UInt64(1 << 32 + 1)) + Array("t".utf8) + good.dropFirst(9)]),
        "the name of a tensor"
      ),
      ("alignment 0", file(keys: [key("general.alignment", 4, little(UInt32(0)))]), "'general.alignment' is 0"),
      ("alignment 24", file(keys: [key("general.alignment", 4, little(UInt32(24)))]), "'general.alignment' is 24"),
      (
        "alignment a string", file(keys: [key("general.alignment", 8, text("32"))]),
        "'general.alignment' is of type string"
      ),
      (
        "name in Latin-1", file(tensors: [little(UInt64(1)) + [0xe9] + good.dropFirst(9)]),
        "name of a tensor is not text"
      ),
      ("long name", file(tensors: [tensor(name64, [8])]), "has 64 bytes, the limit is 63"),
      ("name twice", file(tensors: [good, tensor("t", [8], offset: 32)], data: 64), "two tensors have this name"),
      ("no dimensions", file(tensors: [tensor("t", []) + little(UInt64(0))]), "has 0 dimensions"),
      ("five dimensions", file(tensors: [tensor("t", [1, 1, 1, 1, 1])]), "has 5 dimensions"),
      ("overflow", file(tensors: [tensor("t", [1 << 40, 1 << 40])]), "overflow"),
      ("overflow beside zero", file(tensors: [tensor("t", [0, 1 << 40, 1 << 40])]), "overflow"),
      ("one huge dimension", file(tensors: [tensor("t", [.max])]), "overflow"),
      // Each size within the limit, their sum beyond 2^63 (CVE-2025-53630, CVE-2026-27940).
      (
        "two huge tensors", file(tensors: [tensor("t", [1 << 55], type: 24), tensor("u", [1 << 55], type: 24)]),
        "truncated"
      ),
      ("size that wraps", file(tensors: [tensor("t", [1152, 4_398_046_511_105])]), "truncated"),
      ("tensors that wrap", file(tensorCount: 0x1d1d_1d1d_1d1d_1d1d), "tensors"),
      (
        "alignment of another type", file(keys: [key("general.alignment", 5, little(UInt32(32)))]),
        "'general.alignment' is"
      ),
      (
        "alignment of 2 GB", file(keys: [key("general.alignment", 4, little(UInt32(1) << 31))]),
        "'general.alignment' is"
      ),
      (
        "long list of strings", file(keys: [key("k", 9, little(UInt32(8)) + little(UInt64(1) << 60))]), "elements in"
      ),
      ("boolean list of two", file(keys: [key("k", 9, little(UInt32(7)) + little(UInt64(2)) + [1, 2])]), "that is 2"),
      ("unknown type", file(tensors: [tensor("t", [8], type: 99)]), "unknown type number 99"),
      ("removed type", file(tensors: [tensor("t", [32], type: 4)]), "unknown type number 4"),
      ("part of a block", file(tensors: [tensor("t", [48], type: 2)]), "no whole number of Q4_0 blocks of 32"),
      ("gap", file(tensors: [good, tensor("u", [8], offset: 64)], data: 128), "begin at 64, expected 32"),
      ("overlap", file(tensors: [good, tensor("u", [8], offset: 0)], data: 128), "begin at 0, expected 32"),
      ("truncated data", file(tensors: [tensor("t", [100])], data: 32), "the tensors take 400 bytes, the file has 32"),
      ("no data", Array(file(tensors: [good], data: 0)), "the tensors take 32 bytes, the file has 0"),
      ("huge tensor", file(tensors: [tensor("t", [1 << 50])]), "truncated"),
    ]
  }()

  @Test(arguments: defects.indices) func eachDefectHasItsMessage(_ index: Int) throws {
    let (name, bytes, message) = Self.defects[index]
    let error = #expect(throws: CheckpointError.self, "\(name)") { try open(bytes) }
    let text = error?.description ?? ""
    #expect(text.contains(message), "\(name): \(text)")
    #expect(text.contains("file.gguf") && !text.contains("\n"))
  }

  @Test func noPrefixAndNoChangedByteTraps() throws {
    let whole = Self.file(
      keys: [
        Self.key("k", 9, Self.little(UInt32(8)) + Self.little(UInt64(2)) + Self.text("a") + Self.text("b")),
        Self.key("n", 10, Self.little(UInt64(5))),
      ], tensors: [Self.tensor("t", [8, 2], offset: 0)], data: 64)
    for count in 0..<whole.count { _ = try? open(Array(whole[..<count])) }
    var generator = SplitMix64(seed: 11)
    for _ in 0..<1500 {
      var changed = whole
      for _ in 0..<(1 + Int(generator.next() % 3)) {
        changed[Int(generator.next() % UInt64(whole.count - 64))] = UInt8(truncatingIfNeeded: generator.next())
      }
      _ = try? open(changed)
    }
    #expect(throws: Never.self) { try open(whole) }
  }
}
