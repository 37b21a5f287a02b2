import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

/// A change of a manifest's text.
private struct Change {
  let from: String
  let to: String

  init(_ from: String, _ to: String) {
    self.from = from
    self.to = to
  }
}

@Suite struct PackedFormatTests {
  static var schemes: [WeightScheme] {
    get throws {
      var schemes: [WeightScheme] = []
      for bits in 2...8 {
        for granularity in [Granularity.tensor, .row, .group(24)] {
          schemes.append(try WeightScheme(method: .absmax, bits: bits, granularity: granularity))
          schemes.append(try WeightScheme(method: .zeroPoint, bits: bits, granularity: granularity, scaleType: .bf16))
        }
      }
      schemes.append(try WeightScheme(method: .llmInt8))
      schemes.append(try WeightScheme(method: .hqq, bits: 3, granularity: .group(24)))
      schemes.append(try WeightScheme(method: .nf4))
      schemes.append(try WeightScheme(method: .fp4, granularity: .group(32), scaleType: .f16))
      schemes.append(try WeightScheme(method: .nf4, granularity: .group(32), doubleQuantization: true))
      return schemes
    }
  }

  /// Members never overlap between tiles, and together fill every byte exactly once.
  @Test(arguments: try schemes)
  func tilesFillEveryByteOnce(scheme: WeightScheme) throws {
    var random = SplitMix64(seed: 1)
    for shape in [[300, 300], [7, 100], [3, 11], [1, 70_003], [600_000]] {
      let values = random.weights(shape.reduce(1, *))
      let outliers = scheme.method == .llmInt8 ? OutlierColumns(columns: [0, 4, 10], type: .bf16) : nil
      let quantizer = TileQuantizer(scheme: scheme, shape: shape, outliers: outliers)
      let tiling = try #require(Tiling(quantizer.grouping, quantizer.encoding))
      var facts = TensorFacts()
      for scan in quantizer.scans {
        facts = try quantizer.facts(from: [quantizer.scan(scan, values.span, first: 0, facts: facts)], after: facts)
      }
      let members = PackedFormat.members(of: "w", shape: shape, encoding: quantizer.encoding)
      var written: [PackedFormat.Role: [Int]] = [:]
      for member in members {
        written[member.role] = [Int](repeating: 0, count: member.specification.byteCount)
      }
      let packer = TilePacker(
        encoding: quantizer.encoding, grouping: quantizer.grouping, outlierColumns: outliers?.columns ?? [])
      var tile = QuantizedTile()
      var buffer: [UInt8] = []
      for number in 0..<tiling.tiles {
        let elements = tiling.elements(of: number)
        try quantizer.quantize(
          values.span.extracting(elements), first: elements.lowerBound, facts: facts, into: &tile)
        try packer.pack(tile, first: elements.lowerBound, scaleMean: facts.scaleMean, buffer: &buffer) {
          role, offset, _, count in
          for byte in offset..<(offset + count) { written[role]?[byte] += 1 }
        }
      }
      for (role, counts) in written { #expect(counts.allSatisfy { $0 == 1 }, "\(role) of \(shape)") }
    }
  }

  /// QLoRA, section 3: 4 + 8/64 + 32/(64·256) bits per weight, all members counted.
  @Test func nf4WithDoubleQuantizationCosts4Point127Bits() throws {
    let encoding = try WeightScheme(method: .nf4, doubleQuantization: true).encoding
    let members = PackedFormat.members(of: "w", shape: [4096, 4096], encoding: encoding)
    let bits = Double(members.reduce(0) { $0 + $1.specification.byteCount } * 8) / Double(4096 * 4096)
    #expect(abs(bits - 4.127) < 5e-4)
  }

  /// Our decoding of every encoding equals that of a reader written in another language from the specification alone.
  @Test func decodingEqualsThePythonReaders() throws {
    let packed = try PackedCheckpoint(Fixtures.path("packed"))
    let expected = try Checkpoint(Fixtures.path("packed-decoded.safetensors"))
    #expect(expected.tensors.count >= 7)
    var kinds: Set<WeightEncoding> = []
    for tensor in expected.tensors {
      let record = try #require(packed[tensor.name])
      if let encoding = record.encoding { kinds.insert(encoding) }
      var values: [Float] = []
      var workspace = PackedCheckpoint.Workspace()
      try packed.decode(record, 0..<record.elementCount, into: &values, using: &workspace)
      #expect(try allValues(tensor) == values, "\(tensor.name)")
      // Decoding by parts gives the same.
      var parts: [Float] = []
      for start in stride(from: 0, to: record.elementCount, by: 104) {
        var part: [Float] = []
        try packed.decode(record, start..<min(start + 104, record.elementCount), into: &part, using: &workspace)
        parts += part
      }
      #expect(parts == values, "\(tensor.name)")
    }
    #expect(kinds.count >= 7)
  }

  @Test func aManifestReadsBackAsItWasWritten() throws {
    let json = try readJSONObject(Fixtures.path("packed").appending(PackedManifest.fileName))
    #expect(try PackedManifest(json, file: "m").json == json)
  }

  /// Whatever is changed in a manifest, it is refused with an error that names the file, never a trap.
  @Test func manifestsThatContradictTheFilesAreRefused() throws {
    let source = Fixtures.path("packed")
    let folder = try TemporaryFolder()
    for name in ["config.json", "model.safetensors"] {
      try FileManager.default.copyItem(
        atPath: source.appending(name).string, toPath: folder.appending(name).string)
    }
    let text = try readJSONObject(source.appending(PackedManifest.fileName)).text()
    let changes = [
      Change(#""version":1,"#, #""version":3,"#),
      Change(#""format":"convert-model-packed""#, #""format":"something-else""#),
      Change(#""encoding":{"bits":3,"#, #""encoding":{"bits":9,"#),
      Change(#""encoding":{"bits":3,"#, #""encoding":{"bits":4,"#),
      Change(#""levels":"affine""#, #""levels":"other""#),
      Change(#""zero_point":"integer""#, #""zero_point":"none""#),
      Change(#""codebook":"nf4""#, #""codebook":"nf5""#),
      Change(#""sharing":"group","#, #""sharing":"row","#),
      Change(#""sharing":"group","group_size":48"#, #""sharing":"group","group_size":-1"#),
      Change(#""sharing":"group","group_size":48"#, #""sharing":"group","group_size":30"#),
      Change(#""scales":"nested""#, #""scales":"F32""#),
      Change(#""scale_block_size":256"#, #""scale_block_size":0"#),
      Change(#""scale_block_size":256"#, #""scale_block_size":252"#),
      Change(
        #""role":"data","tensor":"codebook.nf4","bytes":64"#,
        #""role":"data","tensor":"codebook.nf4","bytes":9223372036854775807"#),
      Change(#""role":"data","tensor":"codebook.nf4""#, #""role":"codes","tensor":"codebook.nf4""#),
      Change(#"codes","bytes":"#, #"codes","bytes":92233720368547"#),
      Change(#""file":"model.safetensors""#, #""file":"../model.safetensors""#),
      Change(#""role":"codes""#, #""role":"column_order""#),
      Change(#""bucket":"quantized""#, #""bucket":"lost""#),
      Change(#""bucket":"quantized""#, #""bucket":"kept""#),
      Change(#""dtype":"BF16""#, #""dtype":"I16""#),
      Change(#""dtype":"F32""#, #""dtype":"F99""#),
      Change(#""stored_bytes":"#, #""stored_bytes":1"#),
      Change(#","files":[{"name":"model.safetensors""#, #","files":[{"name":"other.safetensors""#),
      Change(#""tensors":{"#, #""tensors":3,"_":{"#),
    ]
    for change in changes {
      let range = try #require(text.range(of: change.from), "\(change)")
      try folder.write(
        Array(text.replacingCharacters(in: range, with: change.to).utf8), to: PackedManifest.fileName)
      #expect(throws: CheckpointError.self, "\(change)") { try PackedCheckpoint(folder.path) }
    }
    try folder.write(Array(text.utf8), to: PackedManifest.fileName)
    _ = try PackedCheckpoint(folder.path)
  }

  @Test func rowsTooLongForATileAreRefused() throws {
    let scheme = try WeightScheme(method: .absmax, granularity: .row)
    func tiling(_ shape: [Int]) -> Tiling? { Tiling(scheme.encoding.grouping(of: shape), scheme.encoding) }
    #expect(tiling([4096, 1 << 22]) == nil)
    #expect(tiling([4096, 1 << 21]) != nil)
    #expect(tiling([2, 4]) != nil)
    let wide = try WeightScheme(method: .absmax, granularity: .group(1 << 22))
    #expect(Tiling(wide.encoding.grouping(of: [1 << 40]), wide.encoding) == nil)
  }
}
