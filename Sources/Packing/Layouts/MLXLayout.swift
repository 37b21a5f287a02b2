import Checkpoints
import Kernels
import Quantization

/// The quantized modules of MLX: linear layers and embeddings.
///
///     m.weight  U32  [rows, columns·bits/32]  each row an LSB-first stream of codes
///     m.scales  F*   [rows, groups]           affine; U8 in the float modes: E8M0, or E4M3 of nvfp4
///     m.biases  F*   [rows, groups]           affine only
///
/// Affine: W = scale · code + bias, with scales of either sign. mxfp4: E2M1 · 2^(e − 127), groups of 32. mxfp8: E4M3, the
/// same. nvfp4: E2M1 · E4M3, groups of 16.
package struct MLXLayout: WeightLayout {
  package enum Mode: String, CaseIterable, Hashable, Sendable {
    case affine
    case mxfp4
    case mxfp8
    case nvfp4
  }

  package let mode: Mode
  package private(set) var rows: Int
  package let columns: Int
  package let bits: Int
  package let groupLength: Int
  package let scaleType: ElementType

  package static let widths: Set<Int> = [2, 3, 4, 5, 6, 8]
  package static let groupLengths = [32, 64, 128]

  /// - Parameter scaleType: of affine scales.
  package init(mode: Mode, rows: Int, columns: Int, bits: Int, groupLength: Int, scaleType: ElementType) {
    self.mode = mode
    self.rows = rows
    self.columns = columns
    self.bits = bits
    self.groupLength = groupLength
    switch mode {
    case .affine: self.scaleType = scaleType
    case .mxfp4, .mxfp8: self.scaleType = .f8E8M0
    case .nvfp4: self.scaleType = .f8E4M3
    }
  }

  package var label: String { "mlx \(mode.rawValue) \(bits) bits, groups of \(groupLength)" }

  package func members(of module: String) -> [TensorSpecification] {
    let groups = columns / groupLength
    var members = [
      TensorSpecification(name: module + ".weight", type: .u32, shape: [rows, columns * bits / 32]),
      TensorSpecification(
        name: module + ".scales", type: mode == .affine ? scaleType : .u8, shape: [rows, groups]),
    ]
    if mode == .affine {
      members.append(TensorSpecification(name: module + ".biases", type: scaleType, shape: [rows, groups]))
    }
    return members
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .rows(bits: bits) }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    let scales = parameters.scales
    guard mode == .affine else {
      return [try smallFloatCodes(scales, as: scaleType, layout: .mlxMXFP4, module: module)]
    }
    let offsets =
      parameters.areOffsets
      ? parameters.zeroPoints
      : scales.indices.map { -scales[$0] * parameters.zeroPoint(ofGroup: $0, bits: bits) }
    try RuntimeLayout.mlx.check(scales, as: scaleType, module: module)
    try RuntimeLayout.mlx.check(offsets, as: scaleType, module: module)
    return [elementBytes(scales, as: scaleType), elementBytes(offsets, as: scaleType)]
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let levels: ElementType? =
      switch mode {
      case .affine: nil
      case .mxfp4, .nvfp4: .f4
      case .mxfp8: .f8E4M3
      }
    return CodedWeight(
      rows: rows, columns: columns, bits: bits,
      decoding: levels.map { .levels(SmallFloat($0)?.values ?? []) } ?? .offset, sharing: .columns(groupLength),
      codes: unpackedRows(members[0], rows: rows, columns: columns, bits: bits, workers: workers),
      scales: elementValues(members[1], as: scaleType),
      zeroPoints: mode == .affine ? elementValues(members[2], as: scaleType) : [])
  }

  /// The layout of a module as its tensors show it.
  /// - Parameter configuration: `quantization`, whose key of the module's name, if it is an object, counts first.
  package init(_ module: StoredModule, _ configuration: JSONValue?) throws(CheckpointError) {
    let weight = try module.require(".weight", rank: 2, [.u32])
    let scales = try module.require(".scales", rank: 2, ElementType.floats.union([.u8]))
    let own = configuration?[module.name].flatMap { $0.object == nil ? nil : $0 } ?? configuration
    let groups = scales.shape[1]
    let mode: Mode
    if scales.type == .u8 {
      let stated = (own?["mode"] ?? configuration?["mode"])?.string
      guard let named = Mode(rawValue: stated ?? Mode.mxfp4.rawValue), named != .affine else {
        throw module.fault(".scales", "dtype", "F32, F16 or BF16 in mode '\(stated ?? "")'")
      }
      mode = named
    } else {
      mode = .affine
    }
    let lengths: [Int]
    switch mode {
    case .affine:
      let stated = (own?["group_size"] ?? configuration?["group_size"])?.integer
      lengths = (stated.map { [$0] } ?? []) + [64, 32, 128]
    case .mxfp4, .mxfp8: lengths = [32]
    case .nvfp4: lengths = [16]
    }
    let statedBits = mode == .affine ? (own?["bits"] ?? configuration?["bits"])?.integer : mode == .mxfp8 ? 8 : 4
    let pairs = lengths.filter { (1...4096).contains($0) }.compactMap { length -> (length: Int, bits: Int)? in
      let (bits, remainder) = (weight.shape[1] * 32).quotientAndRemainder(dividingBy: groups * length)
      return remainder == 0 && Self.widths.contains(bits) ? (length, bits) : nil
    }
    // Without a statement that fits, shapes tell bits and groups only if one pair of them is possible.
    let only = Set(pairs.map(\.length)).count == 1 ? pairs.first : nil
    guard let found = pairs.first(where: { $0.bits == statedBits }) ?? only else {
      throw module.fault(
        ".weight", "shape",
        "[outputs, inputs·bits/32] for \(groups) groups of the size in config.json, not \(weight.shape)")
    }
    self.init(
      mode: mode, rows: weight.shape[0], columns: groups * found.length, bits: found.bits, groupLength: found.length,
      scaleType: scales.type)
  }
}
