import Checkpoints
import Kernels
import OrderedCollections
import Quantization

/// NF4 and FP4 as bitsandbytes serializes them.
///
///     m.weight                                  U8   [⌈n/2⌉, 1]      codes of the flattened weight, the first one high
///     m.weight.absmax                           F32  [⌈n/block⌉]     U8 with double quantization
///     m.weight.quant_map                        F32  [16]
///     m.weight.quant_state.bitsandbytes__nf4    U8   [length]        JSON
///     m.weight.nested_absmax                    F32  [⌈blocks/256⌉]  double quantization only, as the next
///     m.weight.nested_quant_map                 F32  [256]
///
/// W = map[code] · absmax, blocks running over the flattened weight. The JSON holds the mean of the scales, known only at
/// the end: the text is padded with blanks to the length it can have at most.
package struct BitsandbytesLayout: WeightLayout {
  package let codebook: NamedCodebook
  package private(set) var rows: Int
  package let columns: Int
  package let blockLength: Int
  /// Blocks of scales; nil without double quantization.
  package let nestedBlockLength: Int?
  /// Of the weight that a reader makes.
  package let type: ElementType
  /// Length of the stored JSON.
  private let stateLength: Int

  package init(
    _ codebook: NamedCodebook, rows: Int, columns: Int, blockLength: Int, isNested: Bool, type: ElementType
  ) {
    self.codebook = codebook
    self.rows = rows
    self.columns = columns
    self.blockLength = blockLength
    nestedBlockLength = isNested ? DoubleQuantization.blockSize : nil
    self.type = type
    let longest = Self.stateText(
      codebook, rows: rows, columns: columns, blockLength: blockLength, type: type,
      nested: isNested ? (DoubleQuantization.blockSize, -Double(Float.leastNormalMagnitude)) : nil)
    stateLength = longest.utf8.count
  }

  package var groupLength: Int { blockLength }
  private var count: Int { rows * columns }
  private var blocks: Int { (count + blockLength - 1) / blockLength }

  package var label: String {
    "bitsandbytes \(codebook.rawValue), blocks of \(blockLength)"
      + (nestedBlockLength == nil ? "" : ", double quantization")
  }

  private var stateSuffix: String { Self.statePrefix + codebook.rawValue }
  static let statePrefix = ".weight.quant_state.bitsandbytes__"

  package func members(of module: String) -> [TensorSpecification] {
    var members = [
      TensorSpecification(name: module + ".weight", type: .u8, shape: [(count + 1) / 2, 1]),
      TensorSpecification(
        name: module + ".weight.absmax", type: nestedBlockLength == nil ? .f32 : .u8, shape: [blocks]),
      TensorSpecification(name: module + ".weight.quant_map", type: .f32, shape: [16]),
      TensorSpecification(name: module + stateSuffix, type: .u8, shape: [stateLength]),
    ]
    if let nestedBlockLength {
      let count = (blocks + nestedBlockLength - 1) / nestedBlockLength
      members += [
        TensorSpecification(name: module + ".weight.nested_absmax", type: .f32, shape: [count]),
        TensorSpecification(name: module + ".weight.nested_quant_map", type: .f32, shape: [256]),
      ]
    }
    return members
  }

  /// Rows alone are whole blocks, of scales too.
  package func with(rows: Int) -> (any WeightLayout)? {
    guard rows == self.rows || rows * columns % (2 * blockLength * (nestedBlockLength ?? 1)) == 0 else { return nil }
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .nibbles }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    let map = elementBytes(codebook.codebook.levels, as: .f32)
    let nested = nestedBlockLength == nil ? nil : parameters.nested
    var state = Array(
      Self.stateText(
        codebook, rows: rows, columns: columns, blockLength: blockLength, type: type,
        nested: nested.map { (DoubleQuantization.blockSize, Double($0.offset)) }
      ).utf8)
    precondition(state.count <= stateLength)
    state.append(contentsOf: repeatElement(0x20, count: stateLength - state.count))
    guard let nested else {
      try RuntimeLayout.bitsandbytes.check(parameters.scales, as: .f32, module: module)
      return [elementBytes(parameters.scales, as: .f32), map, state]
    }
    return [
      nested.codes, map, state, elementBytes(nested.blockScales, as: .f32),
      elementBytes(DoubleQuantization.levels, as: .f32),
    ]
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let codes = codes(of: members[0])
    let levels = elementValues(members[2], as: .f32)
    var scales: [Float]
    var nested: CodedWeight.NestedScales?
    if let nestedBlockLength {
      let state = try State(module, codebook)
      let blockScales = elementValues(members[4], as: .f32)
      let map = elementValues(members[5], as: .f32)
      let offset = Float(state.nestedOffset ?? 0)
      scales = members[1].enumerated().map { map[Int($1)] * blockScales[$0 / nestedBlockLength] + offset }
      nested = CodedWeight.NestedScales(codes: members[1], blockScales: blockScales, offset: offset)
    } else {
      scales = elementValues(members[1], as: .f32)
    }
    return CodedWeight(
      rows: rows, columns: columns, bits: 4, decoding: .levels(levels), sharing: .block(blockLength), codes: codes,
      scales: scales, nested: nested)
  }

  private func codes(of bytes: [UInt8]) -> [UInt8] {
    var swapped = bytes
    var source = swapped.mutableSpan
    swapNibbles(&source)
    var codes = [UInt8](repeating: 0, count: count)
    var target = codes.mutableSpan
    unpackBits(swapped.span, bits: 4, into: &target)
    return codes
  }

  /// The layout of a module as its tensors show it.
  package init(_ module: StoredModule) throws(CheckpointError) {
    guard let codebook = [NamedCodebook.nf4, .fp4].first(where: { module[Self.statePrefix + $0.rawValue] != nil })
    else {
      throw module.fault(".weight.quant_state.bitsandbytes__nf4", "the tensor", "present, or …__fp4")
    }
    let state = try State(module, codebook)
    let packed = try module.require(".weight", rank: 2, [.u8])
    guard (state.rows * state.columns + 1) / 2 == packed.elementCount else {
      throw module.fault(
        ".weight", "shape",
        "two codes per byte of a weight [\(state.rows), \(state.columns)], not \(packed.shape)")
    }
    self.codebook = codebook
    rows = state.rows
    columns = state.columns
    blockLength = state.blockLength
    nestedBlockLength = state.nestedBlockLength
    type = state.type
    stateLength = module[Self.statePrefix + codebook.rawValue]?.elementCount ?? 0
  }

  // MARK: quant_state

  private static let typeNames: [ElementType: String] = [.f16: "float16", .bf16: "bfloat16", .f32: "float32"]

  private static func stateText(
    _ codebook: NamedCodebook, rows: Int, columns: Int, blockLength: Int, type: ElementType,
    nested: (blockLength: Int, offset: Double)?
  ) -> String {
    var fields: OrderedDictionary<String, JSONValue> = [
      "quant_type": .string(codebook.rawValue), "blocksize": .integer(blockLength),
      "dtype": .string(typeNames[type] ?? "float16"), "shape": [.integer(rows), .integer(columns)],
    ]
    if let nested {
      fields["nested_blocksize"] = .integer(nested.blockLength)
      fields["nested_dtype"] = "float32"
      fields["nested_offset"] = .real(nested.offset)
    }
    return JSONValue.object(fields).text()
  }

  /// What `quant_state` says.
  private struct State {
    let rows: Int
    let columns: Int
    let blockLength: Int
    let type: ElementType
    let nestedBlockLength: Int?
    let nestedOffset: Double?

    init(_ module: StoredModule, _ codebook: NamedCodebook) throws(CheckpointError) {
      let suffix = BitsandbytesLayout.statePrefix + codebook.rawValue
      let entry = try module.require(suffix, rank: 1, [.u8])
      guard entry.elementCount <= 1 << 16 else { throw module.fault(suffix, "quant_state", "at most 65536 bytes") }
      let document: JSONValue
      do {
        document = try JSONParser.parse(try module.bytes(suffix))
      } catch let error as CheckpointError {
        throw error
      } catch {
        throw module.fault(suffix, "quant_state", "JSON (\(error))")
      }
      let sizes = document["shape"]?.array?.compactMap(\.integer) ?? []
      guard sizes.count == 2, sizes.allSatisfy({ (1...(1 << 31)).contains($0) }),
        sizes[0].multipliedReportingOverflow(by: sizes[1]).partialValue < 1 << 48
      else { throw module.fault(suffix, "shape", "two positive sizes") }
      (rows, columns) = (sizes[0], sizes[1])
      guard let block = document["blocksize"]?.integer, (1...(1 << 20)).contains(block) else {
        throw module.fault(suffix, "blocksize", "a positive number")
      }
      blockLength = block
      let name = document["dtype"]?.string
      guard let type = BitsandbytesLayout.typeNames.first(where: { $0.value == name })?.key else {
        throw module.fault(suffix, "dtype", "float16, bfloat16 or float32")
      }
      self.type = type
      guard module[".weight.nested_absmax"] != nil else {
        (nestedBlockLength, nestedOffset) = (nil, nil)
        return
      }
      guard let nested = document["nested_blocksize"]?.integer, (1...(1 << 20)).contains(nested),
        let offset = document["nested_offset"]?.double, offset.isFinite
      else {
        throw module.fault(suffix, "nested_blocksize and nested_offset", "numbers, with nested_absmax beside")
      }
      (nestedBlockLength, nestedOffset) = (nested, offset)
    }
  }
}
