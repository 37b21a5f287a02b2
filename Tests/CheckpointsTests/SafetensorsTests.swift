import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import SystemPackage
import TestSupport
import Testing

@Suite struct SafetensorsTests {
  struct Defect {
    let text: String
    let dataSize: Int
    let reason: CheckpointError.Reason
    let tensor: String?

    init(_ text: String, _ dataSize: Int, _ reason: CheckpointError.Reason, _ tensor: String?) {
      self.text = text
      self.dataSize = dataSize
      self.reason = reason
      self.tensor = tensor
    }
  }

  /// A header's defects, each with the error that names it.
  static let defects: [Defect] = [
    Defect("[]", 0, .headerStart(UInt8(ascii: "[")), nil),
    Defect(" {}", 0, .headerStart(0x20), nil),
    Defect(#"{"w":1}"#, 0, .field("the entry", expected: "an object"), "w"),
    Defect(#"{"w":{"shape":[1],"data_offsets":[0,4]}}"#, 4, .field("dtype", expected: "a string"), "w"),
    Defect(#"{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4, .unknownType("F33"), "w"),
    Defect(
      #"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4,
      .field("shape", expected: "a list of integers from 0 to 2^64 - 1"), "w"
    ),
    Defect(
      #"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4,
      .field("data_offsets", expected: "two integers from 0 to 2^64 - 1"), "w"
    ),
    Defect(
      #"{"w":{"dtype":"F32","shape":[9223372036854775808,9223372036854775808,0],"data_offsets":[0,0]}}"#, 0,
      .shapeOverflow([1 << 63, 1 << 63, 0]), "w"
    ),
    Defect(
      #"{"w":{"dtype":"F32","shape":[4611686018427387904,2,0],"data_offsets":[0,0]}}"#, 0,
      .shapeOverflow([1 << 62, 2, 0]), "w"),
    Defect(
      #"{"w":{"dtype":"F32","shape":[2305843009213693952,0],"data_offsets":[0,0]}}"#, 0,
      .shapeOverflow([1 << 61, 0]), "w"),
    Defect(#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2, .partialByte(bits: 12), "w"),
    Defect(
      #"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4,
      .sizeMismatch(type: "F32", shape: [2], expected: 8, found: 4), "w"
    ),
    Defect(#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, .reversedOffsets(begin: 4, end: 0), "w"),
    Defect(#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, .gap(from: 0, to: 4), "w"),
    Defect(
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
      8,
      .overlap(with: "a"), "b"
    ),
    Defect(#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 3, .dataTruncated(expected: 4, found: 3), nil),
    Defect(#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 9, .trailingData(bytes: 5), nil),
    Defect(#"{"__metadata__":{"a":1}}"#, 0, .metadata("the value of 'a' is not a string"), nil),
    Defect(#"{"__metadata__":[]}"#, 0, .metadata("it is not an object"), nil),
  ]

  @Test(arguments: defects.indices)
  func aDefectIsNamed(row: Int) {
    let defect = Self.defects[row]
    let error = #expect(throws: CheckpointError.self) {
      let text = Array(defect.text.utf8)
      _ = try SafetensorsHeader(text: text, fileSize: 8 + text.count + defect.dataSize, file: "f")
    }
    #expect(error == CheckpointError(file: "f", tensor: defect.tensor, defect.reason))
  }

  @Test func messagesNameFileTensorFoundExpectedAndRemedy() {
    let error = CheckpointError(
      file: "model.safetensors", tensor: "a\nb",
      .sizeMismatch(type: "F16", shape: [2, 3], expected: 12, found: 6))
    #expect(
      error.description
        == #"model.safetensors: tensor 'a\nb': size mismatch: F16 [2, 3] takes 12 bytes, its data_offsets span 6"#)
    #expect(
      CheckpointError(file: "f", .dataTruncated(expected: 8, found: 2)).description.contains("fetch it again"))
  }

  @Test func writingReadingAndWritingGivesTheSameBytes() throws {
    let folder = try TemporaryFolder()
    var random = SplitMix64(seed: 1)
    let tensors = ElementType.allCases.enumerated().map { index, type in
      let count = 8 * (index + 1)
      let bytes = (0..<(count * type.bitWidth / 8)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      return SampleTensor("t\(index)", [2, count / 2], type: type, bytes: bytes)
    }
    try SampleTensor.write(tensors, to: folder.appending("a.safetensors"))
    let file = try SafetensorsFile(folder.appending("a.safetensors"))
    #expect(file.header.dataStart % 8 == 0)
    #expect(file.header.metadata == ["format": "pt"])
    #expect(Set(file.header.tensors.map(\.type)) == Set(ElementType.allCases))
    // Falling alignment makes every tensor naturally aligned.
    for entry in file.header.tensors {
      #expect((entry.bytes.lowerBound - file.header.dataStart) % max(1, entry.type.bitWidth / 8) == 0)
    }
    let checkpoint = try Checkpoint(folder.path)
    let again = try checkpoint.tensors.map {
      SampleTensor($0.name, $0.entry.shape, type: $0.entry.type, bytes: try allBytes($0))
    }
    try SampleTensor.write(again, to: folder.appending("b.safetensors"))
    #expect(try readWhole(folder.appending("a.safetensors")) == readWhole(folder.appending("b.safetensors")))
  }

  @Test func rangesAreReadIntoAReusedBuffer() throws {
    let folder = try TemporaryFolder()
    let tensor = SampleTensor("w", [10], type: .u8, bytes: Array(0..<10))
    try SampleTensor.write([tensor], to: folder.appending("m.safetensors"))
    let found = try #require(try Checkpoint(folder.path)["w"])
    var buffer = [UInt8](repeating: 77, count: 6)
    try found.file.read(3..<7, of: found.entry, into: &buffer)
    #expect(buffer == [3, 4, 5, 6, 77, 77])
  }

  @Test func aFileThatShrinksWhileItIsReadIsAnError() throws {
    let folder = try TemporaryFolder()
    let path = folder.appending("m.safetensors")
    try SampleTensor.write([SampleTensor("w", [1000], type: .u8, bytes: [UInt8](repeating: 1, count: 1000))], to: path)
    let found = try #require(try Checkpoint(path)["w"])
    let writer = try FileDescriptor.open(path, .writeOnly)
    try writer.closeAfter { try writer.resize(to: Int64(found.entry.bytes.upperBound - 1)) }
    var buffer: [UInt8] = []
    let error = #expect(throws: CheckpointError.self) {
      try found.file.read(0..<1000, of: found.entry, into: &buffer)
    }
    #expect(error?.reason == .fileShrank(expected: 1000, found: 999))
    #expect(error?.tensor == "w")
  }
}
