import Checkpoints
import Conversion
import Foundation
import Kernels
import Quantization
import Reports
import SystemPackage
import TestSupport
import Testing

@Suite struct InspectorTests {
  @Test func everyTensorIsListedWithItsCost() throws {
    let folder = try TemporaryFolder()
    let tiny = Fixtures.path("tiny-llama")
    _ = try convert(tiny, to: folder.appending("out")) { $0.options.doubleQuantization = true }
    let plain = try Inspector(tiny).inspection()
    let packed = try Inspector(folder.appending("out")).inspection()
    #expect(plain.weightCount == 648_064)
    #expect(packed.weightCount == plain.weightCount)
    #expect(plain.byteCount == 2 * plain.weightCount)
    #expect(packed.sourceByteCount == plain.byteCount)
    let checkpoint = try Checkpoint(folder.appending("out"))
    #expect(packed.byteCount == checkpoint.tensors.reduce(0) { $0 + $1.entry.bytes.count })
    let linear = try #require(packed.tensors.first { $0.name == "model.layers.0.mlp.up_proj.weight" })
    #expect(abs(linear.bitsPerWeight - 4.127) < 0.01)
    #expect(packed.roleTotals.reduce(0) { $0 + $1.byteCount } == packed.byteCount)
    #expect(packed.memoryByPrecision.map(\.byteCount) == [4, 2, 1].map { $0 * 648_064 } + [324_032])
    for inspection in [plain, packed] {
      #expect(inspection.text().contains("model.layers.0-2.mlp.up_proj.weight"))
      #expect(inspection.text(all: true).contains("model.layers.0.mlp.up_proj.weight"))
      #expect(inspection.oddities.isEmpty && !inspection.isDefective)
      #expect(try JSONParser.parse(Array(inspection.json.text().utf8)) == inspection.json)
    }
  }

  @Test func valuesOfATensorAreDescribed() throws {
    let folder = try TemporaryFolder()
    let path = folder.appending("m.safetensors")
    var values = [Float](repeating: 0, count: 256)
    for index in 0..<128 { values[index] = Float(index - 64) / 64 }
    values[200] = .nan
    values[201] = .infinity
    try SampleTensor.write([SampleTensor("w.weight", [2, 128], values)], to: path)
    let found = try Inspector(path).tensor("w.weight", against: nil)
    #expect((found.nanCount, found.infinityCount, found.finiteCount) == (1, 1, 254))
    #expect(found.zeroCount == 1 + 126)
    #expect((found.histogram.low, found.histogram.high) == (-1, 63 / 64))
    #expect(found.histogram.counts.reduce(0, +) == 254)
    #expect(found.codes == nil && found.largestErrors == nil)
    let missing = #expect(throws: ConversionError.self) { try Inspector(path).tensor("weight", against: nil) }
    #expect(missing?.description.contains("did you mean 'w.weight'") == true)
  }

  @Test func codesAndErrorsOfAPackedTensorAreCounted() throws {
    let folder = try TemporaryFolder()
    var random = SplitMix64(seed: 1)
    let values = random.weights(64 * 64)
    let source = folder.appending("m.safetensors")
    try SampleTensor.write([SampleTensor("w.weight", [64, 64], values)], to: source)
    _ = try convert(source, to: folder.appending("out")) {
      $0.options.method = .zeroPoint
      $0.options.bits = 3
    }
    let name = "w.weight"
    let found = try Inspector(folder.appending("out")).tensor(name, against: try Checkpoint(source))
    let codes = try #require(found.codes)
    #expect(codes.usage.reduce(0, +) == 4096 && codes.usage.count == 8)
    #expect(codes.entropy > 2 && codes.entropy <= 3)
    #expect(codes.groupCount == 64)
    #expect(codes.smallestZeroPoint != nil)
    let errors = try #require(found.largestErrors)
    #expect(errors.count == 10)
    let tensor = try #require(try report(folder.appending("out"), against: source).tensors.first)
    #expect(errors[0].index == tensor.largestErrorIndex)
    #expect(abs(errors[0].source - errors[0].stored) == tensor.distortion?.largestError)
    #expect(found.text().contains("Largest errors") && found.text().contains("█"))
  }

  @Test func complexNumbersAreListedButNotLookedInto() throws {
    let folder = try TemporaryFolder()
    let path = folder.appending("m.safetensors")
    let complex = SampleTensor("c", [2], type: .c64, bytes: [UInt8](repeating: 0, count: 16))
    try SampleTensor.write([complex, SampleTensor("w.weight", [1, 4], [1, 2, 3, 4])], to: path)
    _ = try convert(path, to: folder.appending("out")) { $0.options.method = .absmax }
    for place in [path, folder.appending("out")] {
      #expect(try Inspector(place).inspection().tensors.contains { $0.name == "c" })
      let error = #expect(throws: CheckpointError.self) { try Inspector(place).tensor("c", against: nil) }
      #expect(error?.reason == .unreadableType(.c64))
    }
  }

  @Test func whatIsNotKnownIsStillListed() throws {
    let folder = try TemporaryFolder()
    try folder.write(Array("GGUF1234".utf8), to: "model.gguf")
    try folder.write(Array("PK\u{3}\u{4}....".utf8), to: "pytorch_model.bin")
    let damaged = #expect(throws: CheckpointError.self) { try Inspector(folder.appending("model.gguf")) }
    #expect(damaged?.description.contains("is GGUF version") ?? false)
    let whole = try Inspector(folder.path).inspection()
    #expect(whole.files.map(\.name) == ["model.gguf", "pytorch_model.bin"])
    #expect(whole.text().contains("model.gguf"))
    // Tensors packed by other programs are listed as they are stored.
    let path = folder.appending("model.safetensors")
    try SampleTensor.write(
      [SampleTensor("q.qweight", [4, 4], type: .i32, bytes: [UInt8](repeating: 0, count: 64))], to: path)
    let lone = try Inspector(path).inspection()
    #expect(lone.tensors.map(\.format) == ["I32"])
    #expect(lone.oddities.count == 1 && lone.oddities[0].text.contains("q.qzeros"))
  }
}
