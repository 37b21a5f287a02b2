import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Quantization
import SystemPackage
import TestSupport
import Testing

@Suite struct LayoutTests {
  // MARK: Words of the formats

  private func weight(_ codes: [UInt8], rows: Int, columns: Int, bits: Int, zeroPoints: [Float] = []) -> CodedWeight {
    CodedWeight(
      rows: rows, columns: columns, bits: bits, decoding: .zeroPoint, sharing: .columns(columns), codes: codes,
      scales: [Float](repeating: 1, count: rows), zeroPoints: zeroPoints)
  }

  private func words(_ bytes: [UInt8]) -> [UInt32] {
    stride(from: 0, to: bytes.count, by: 4).map { start in
      (0..<4).reduce(0) { $0 | UInt32(bytes[start + $1]) << UInt32($1 * 8) }
    }
  }

  /// The words of codes k mod 2^bits, and of symmetric zero points, of both versions.
  @Test(
    arguments: [
      (4, [0x7654_3210], [0x7777_7777], [0x8888_8888]), (2, [0xE4E4_E4E4], [0x5555_5555], [0xAAAA_AAAA]),
      (
        3, [0x88FA_C688, 0xC688_FAC6, 0xFAC6_88FA], [0xDB6D_B6DB, 0xB6DB_6DB6, 0x6DB6_DB6D],
        [0x2492_4924, 0x4924_9249, 0x9249_2492]
      ), (8, [0x0302_0100], [0x7F7F_7F7F], [0x8080_8080]),
    ] as [(Int, [UInt32], [UInt32], [UInt32])])
  func wordsOfGPTQ(bits: Int, codes: [UInt32], zerosV1: [UInt32], zerosV2: [UInt32]) throws {
    let column = (0..<32).map { UInt8($0 % min(1 << bits, 32)) }
    let source = weight([[UInt8]](repeating: column, count: 32).flatMap { $0 }, rows: 32, columns: 32, bits: bits)
    for (version, zeros) in [(GPTQLayout.Version.v1, zerosV1), (.v2, zerosV2)] {
      let layout = GPTQLayout(rows: 32, columns: 32, bits: bits, groupLength: 32, version: version)
      let members = try layout.pack(source, module: "m", workers: 1)
      // The words of one output stand in its column.
      let qweight = words(members[0])
      #expect((0..<codes.count).map { qweight[$0 * 32 + 7] } == codes)
      #expect(Array(words(members[1]).prefix(zeros.count)) == zeros)
    }
  }

  @Test func wordOfAWQ() throws {
    let layout = AWQLayout(rows: 8, columns: 32, groupLength: 32)
    let source = weight((0..<8).flatMap { [UInt8](repeating: $0, count: 32) }, rows: 8, columns: 32, bits: 4)
    #expect(words(try layout.pack(source, module: "m", workers: 1)[0]) == [UInt32](repeating: 0x7531_6420, count: 32))
  }

  @Test func wordsOfPackQuantized() throws {
    let layout = PackQuantizedLayout(
      rows: 1, columns: 32, bits: 5, groupLength: 32, isSymmetric: true, scaleType: .f32)
    let source = weight((0..<32).map { UInt8($0) }, rows: 1, columns: 32, bits: 5)
    #expect(
      words(try layout.pack(source, module: "m", workers: 1)[0])
        == [0x8A41_8820, 0xC5A9_2839, 0xCA30_7B9A, 0x38BD_AB49, 0xFFBB_CDEB])
  }

  // MARK: Laws

  /// unpack(pack(weight)) is the weight: shapes that fill words and those that do not, all widths.
  @Test(arguments: [1, 3])
  func packingLosesNothing(workers: Int) throws {
    var random = SplitMix64(seed: 60)
    for (rows, columns) in [(32, 64), (96, 160), (64, 32)] {
      for bits in [2, 3, 4, 5, 6, 8] {
        let codes = (0..<(rows * columns)).map { _ in UInt8(truncatingIfNeeded: random.next()) & UInt8((1 << bits) - 1)
        }
        let groups = rows * columns / 32
        let source = CodedWeight(
          rows: rows, columns: columns, bits: bits, decoding: .zeroPoint, sharing: .columns(32), codes: codes,
          scales: (0..<groups).map { Float($0 % 7 + 1) / 64 },
          zeroPoints: (0..<groups).map { Float(1 + $0 % ((1 << bits) - 1)) })
        var layouts: [any WeightLayout] = [
          PackQuantizedLayout(
            rows: rows, columns: columns, bits: bits, groupLength: 32, isSymmetric: false, scaleType: .f16)
        ]
        if GPTQLayout.widths.contains(bits) {
          layouts.append(GPTQLayout(rows: rows, columns: columns, bits: bits, groupLength: 32, version: .v1))
          layouts.append(GPTQLayout(rows: rows, columns: columns, bits: bits, groupLength: 32, version: .v2))
        }
        if bits == 4 { layouts.append(AWQLayout(rows: rows, columns: columns, groupLength: 32)) }
        for layout in layouts {
          let members = try layout.pack(source, module: "m", workers: workers)
          let back = try layout.unpack(
            members, of: StoredModule(name: "m", tensors: [:], folder: "f"), workers: workers)
          #expect(back == source, "\(layout.label)")
        }
        let mlx = MLXLayout(
          mode: .affine, rows: rows, columns: columns, bits: bits, groupLength: 32, scaleType: .f32)
        let back = try mlx.unpack(
          mlx.pack(source, module: "m", workers: workers), of: StoredModule(name: "m", tensors: [:], folder: "f"),
          workers: workers)
        #expect(back.codes == codes && back.scales == source.scales)
      }
    }
  }

  /// The order of columns of activation order goes through the file.
  @Test func keepsTheGroupIndex() throws {
    var random = SplitMix64(seed: 61)
    var source = CodedWeight(
      rows: 32, columns: 64, bits: 4, decoding: .zeroPoint, sharing: .columns(32),
      codes: (0..<2048).map { _ in UInt8(truncatingIfNeeded: random.next()) & 15 },
      scales: (0..<64).map { Float($0 + 1) }, zeroPoints: [Float](repeating: 8, count: 64))
    source.groupIndex = (0..<64).map { Int32($0 % 2) }
    let layout = GPTQLayout(rows: 32, columns: 64, bits: 4, groupLength: 32, version: .v1)
    let back = try layout.unpack(
      layout.pack(source, module: "m", workers: 2), of: StoredModule(name: "m", tensors: [:], folder: "f"), workers: 1)
    #expect(back == source)
  }

  /// Version 1 has no zero point 0: it becomes 1, with the same values but for the highest code.
  @Test func raisesZeroPointsOfVersionOne() throws {
    let codes: [UInt8] = (0..<32).map { UInt8($0 % 16) }
    let source = weight(
      [[UInt8]](repeating: codes, count: 32).flatMap { $0 }, rows: 32, columns: 32, bits: 4,
      zeroPoints: [0] + [Float](repeating: 5, count: 31))
    let layout = GPTQLayout(rows: 32, columns: 32, bits: 4, groupLength: 32, version: .v1)
    let back = try layout.unpack(
      layout.pack(source, module: "m", workers: 1), of: StoredModule(name: "m", tensors: [:], folder: "f"), workers: 1)
    var values: [Float] = []
    back.decode(0..<1024, into: &values)
    for column in 0..<32 {
      #expect(values[column] == Float(min(codes[column], 14)))
      #expect(values[32 + column] == Float(codes[column]) - 5)
    }
  }

  @Test func scalesOfZeroBecomeOne() throws {
    var source = weight([UInt8](repeating: 3, count: 1024), rows: 32, columns: 32, bits: 4)
    source.scales[4] = 0
    let layout = PackQuantizedLayout(
      rows: 32, columns: 32, bits: 4, groupLength: 32, isSymmetric: true, scaleType: .f32)
    let changed = try layout.unpack(
      layout.pack(source, module: "m", workers: 1), of: StoredModule(name: "m", tensors: [:], folder: "f"), workers: 1)
    var (before, after): ([Float], [Float]) = ([], [])
    source.decode(0..<1024, into: &before)
    changed.decode(0..<1024, into: &after)
    #expect(changed.scales[4] == 1 && changed.codes[4 * 32] == 8)
    #expect(before == after)
  }

  // MARK: What fits where

  private func encoding(
    _ method: Quantization.Method, bits: Int? = nil, _ granularity: Granularity? = nil, scaleType: ElementType? = nil,
    nested: Bool = false
  ) throws -> WeightEncoding {
    try WeightScheme(
      method: method, bits: bits, granularity: granularity, scaleType: scaleType, doubleQuantization: nested
    ).encoding
  }

  @Test func tableOfLayouts() throws {
    let rows: [(WeightEncoding, Set<RuntimeLayout>)] = [
      (try encoding(.absmax, bits: 4, .group(128)), [.packQuantized, .gptq, .gptqV2, .awq, .mlx]),
      (try encoding(.zeroPoint, bits: 4, .group(128)), [.packQuantized, .gptq, .gptqV2, .awq, .mlx]),
      (try encoding(.absmax, bits: 8, .row), [.packQuantized, .intQuantized, .gptq, .gptqV2, .bitsandbytes]),
      (try encoding(.zeroPoint, bits: 8, .row), [.packQuantized, .gptq, .gptqV2]),
      (try encoding(.absmax, bits: 3, .group(64)), [.gptq, .gptqV2, .mlx]),
      (try encoding(.zeroPoint, bits: 5, .group(64)), [.mlx]),
      (try encoding(.absmax, bits: 7, .group(64)), []),
      (try encoding(.absmax, bits: 4, .group(48)), [.packQuantized]),
      (try encoding(.absmax, bits: 4, .group(128), scaleType: .bf16), [.packQuantized, .mlx]),
      (try encoding(.absmax, bits: 8, .tensor), []),
      (try encoding(.hqq), [.mlx]),
      (try encoding(.nf4), [.bitsandbytes]),
      (try encoding(.fp4, nested: true), [.bitsandbytes]),
      (try encoding(.nf4, scaleType: .f16), [.bitsandbytes]),
    ]
    for (encoding, layouts) in rows { #expect(Set(RuntimeLayout.holding(encoding)) == layouts, "\(encoding)") }
  }

  private func refusal(
    _ layout: RuntimeLayout, _ encoding: WeightEncoding, shape: [Int] = [64, 128]
  ) -> LayoutError? {
    do throws(LayoutError) {
      _ = try layout.weightLayout(of: "m", shape: shape, encoding: encoding, type: .bf16, description: "this")
      return nil
    } catch {
      return error
    }
  }

  @Test func refusalsNameTheWayOut() throws {
    let four = try encoding(.absmax, bits: 4, .group(64))
    #expect(refusal(.awq, four) == nil)
    let hqq = try #require(refusal(.gptq, try encoding(.hqq)))
    #expect(hqq.description.contains("integers with zero points of 2, 3, 4, 8 bits"))
    #expect(hqq.description.hasSuffix("layouts that take it: mlx"))
    let seven = try #require(refusal(.mlx, try encoding(.absmax, bits: 7, .group(64))))
    #expect(seven.description.hasSuffix("no layout of a runtime takes it: leave out --layout"))
    let group = try #require(refusal(.awq, four, shape: [64, 96]))
    #expect(group.description.contains("groups of 64 do not divide the 96 inputs of 'm'; take --group-size 32,"))
    let outputs = try #require(refusal(.gptq, four, shape: [72, 128]))
    #expect(outputs.description.contains("'m' has 72 outputs, which must be a multiple of 32"))
    let inputs = try #require(refusal(.gptqV2, try encoding(.absmax, bits: 4, .row), shape: [64, 40]))
    #expect(inputs.description.contains("40 inputs"))
    let stack = try #require(refusal(.mlx, four, shape: [4, 64, 128]))
    #expect(stack.description.contains("[4, 64, 128] stacks the weights of experts"))
  }

  @Test func negativeScalesAreForMLXAlone() throws {
    var source = weight([UInt8](repeating: 3, count: 1024), rows: 32, columns: 32, bits: 4)
    source.scales[9] = -0.5
    let layouts: [any WeightLayout] = [
      GPTQLayout(rows: 32, columns: 32, bits: 4, groupLength: 32, version: .v1),
      AWQLayout(rows: 32, columns: 32, groupLength: 32),
      PackQuantizedLayout(rows: 32, columns: 32, bits: 4, groupLength: 32, isSymmetric: true, scaleType: .f16),
    ]
    for layout in layouts {
      #expect {
        _ = try layout.pack(source, module: "m", workers: 1)
      } throws: { error in
        "\(error)".contains("'m' has negative scales") && "\(error)".contains("--scale-search mse")
      }
    }
    let mlx = MLXLayout(mode: .affine, rows: 32, columns: 32, bits: 4, groupLength: 32, scaleType: .f16)
    #expect(try mlx.pack(source, module: "m", workers: 1).count == 3)
    #expect(RuntimeLayout.allCases.filter(\.rules.allowsNegativeScales) == [.mlx])
  }

  @Test func scalesBeyondHalfPrecision() throws {
    var source = weight([UInt8](repeating: 3, count: 1024), rows: 32, columns: 32, bits: 4)
    source.scales[9] = 1e6
    let layout = AWQLayout(rows: 32, columns: 32, groupLength: 32)
    #expect(throws: LayoutError.scaleOverflow(.awq, module: "m", scale: 1e6)) {
      try layout.pack(source, module: "m", workers: 1)
    }
  }

  // MARK: Layers together

  @Test func fusedLayersShareASchemeOrAreRefused() throws {
    try FusedLayers.check([
      "a.q_proj": "4 bits", "a.k_proj": "4 bits", "a.v_proj": "4 bits", "b.gate_proj": nil, "b.up_proj": nil,
    ])
    #expect(throws: LayoutError.fusedSchemes(modules: ["a.q_proj", "a.v_proj"], found: ["4 bits", "8 bits"])) {
      try FusedLayers.check(["a.q_proj": "4 bits", "a.v_proj": "8 bits"])
    }
    #expect {
      try FusedLayers.check(["b.gate_proj": "4 bits", "b.up_proj": nil])
    } throws: {
      "\($0)".contains("'b.gate_proj', 'b.up_proj' are fused") && "\($0)".contains("4 bits, not quantized")
    }
  }

  @Test func splitsNeedWholeGroups() throws {
    try FusedLayers.checkSplit("a.down_proj", rows: 4096, columns: 11264, groupLength: 128, parts: 8)
    #expect(
      throws: LayoutError.tensorParallel(module: "a.down_proj", name: "inputs", size: 14784, group: 128, parts: 2)
    ) {
      try FusedLayers.checkSplit("a.down_proj", rows: 4096, columns: 14784, groupLength: 128, parts: 2)
    }
    try FusedLayers.checkSplit("a.q_proj", rows: 128, columns: 100, groupLength: 64, parts: 4)
    // What would divide is named.
    func message(_ module: String, rows: Int, columns: Int, group: Int, parts: Int) -> String {
      do {
        try FusedLayers.checkSplit(module, rows: rows, columns: columns, groupLength: group, parts: parts)
        return ""
      } catch {
        return "\(error.halves.problem) | \(error.halves.remedy)"
      }
    }
    #expect(
      message("a.down_proj", rows: 64, columns: 768, group: 128, parts: 4)
        == "'a.down_proj': 768 inputs cannot be split over 4 devices in multiples of 128 | take 2 devices, or groups of 64 or 32 or 16"
    )
    #expect(
      message("a.q_proj", rows: 96, columns: 64, group: 32, parts: 2)
        == "'a.q_proj': 96 outputs cannot be split over 2 devices in multiples of 32 | take one device")
    #expect(
      message("a.o_proj", rows: 64, columns: 96, group: 96, parts: 2)
        == "'a.o_proj': 96 inputs cannot be split over 2 devices in multiples of 32 | take one device")
  }

  @Test func oneSchemeForTheWholeModel() throws {
    let four = try encoding(.absmax, bits: 4, .group(64))
    let other = try encoding(.absmax, bits: 4, .group(32))
    let modules = [
      LayoutConfiguration.Module(name: "a", encoding: four, columns: 64),
      LayoutConfiguration.Module(name: "b", encoding: four, columns: 64),
      LayoutConfiguration.Module(name: "c", encoding: other, columns: 64),
    ]
    #expect(throws: LayoutError.mixedSchemes(.awq, modules: ["c"])) {
      _ = try LayoutConfiguration(layout: .awq, modules: modules, unquantized: [], type: .bf16, toolVersion: "1")
    }
    let mixed = try LayoutConfiguration(
      layout: .mlx, modules: modules, unquantized: ["lm_head"], type: .bf16, toolVersion: "1")
    let object = mixed.keys["quantization"]
    #expect(object?["group_size"] == 64 && object?["c"]?["group_size"] == 32 && object?["lm_head"] == false)
    let groups = try LayoutConfiguration(
      layout: .packQuantized, modules: modules, unquantized: ["lm_head"], type: .bf16, toolVersion: "1")
    let tensors = groups.keys["quantization_config"]
    #expect(tensors?["config_groups"]?["group_1"]?["targets"] == ["c"] && tensors?["ignore"] == ["lm_head"])
  }

  /// A layer left in float inside a block is declared to every reader of GPTQ files.
  @Test func declaresLayersLeftAlone() throws {
    let four = try encoding(.zeroPoint, bits: 4, .group(64))
    let modules = [LayoutConfiguration.Module(name: "model.layers.0.q_proj", encoding: four, columns: 64)]
    let made = try LayoutConfiguration(
      layout: .gptqV2, modules: modules, unquantized: ["model.layers.0.down_proj", "lm_head"], type: .bf16,
      toolVersion: "1")
    let object = made.keys["quantization_config"]
    #expect(object == made.files["quantize_config.json"])
    #expect(object?["checkpoint_format"] == "gptq_v2" && object?["sym"] == false)
    #expect(object?["dynamic"]?["-:^model\\.layers\\.0\\.down_proj$"] == .object([:]))
    #expect(object?["modules_in_block_to_quantize"] == [["model.layers.0.q_proj"]])
  }
}
