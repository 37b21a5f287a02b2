import Checkpoints
import Kernels
import Quantization

/// "mxfp4-pack-quantized" and "nvfp4-pack-quantized" of compressed-tensors: E2M1 codes, two per byte, the first in the
/// low nibble.
///
///     m.weight_packed        U8       [rows, columns/2]
///     m.weight_scale         U8       [rows, columns/32]  MXFP4: E8M0, a power of two
///                            F8_E4M3  [rows, columns/16]  NVFP4
///     m.weight_global_scale  F32      [1]                 NVFP4: what block scales were multiplied by
///
/// W = E2M1 · 2^(e − 127), or E2M1 · (block scale / global scale) (OCP Microscaling specification 1.0; NVFP4 as
/// compressed-tensors stores it).
package struct FourBitFloatLayout: WeightLayout {
  package enum Kind: Hashable, Sendable {
    case mxfp4
    case nvfp4
  }

  package let kind: Kind
  package private(set) var rows: Int
  package let columns: Int

  package init(_ kind: Kind, rows: Int, columns: Int) {
    self.kind = kind
    self.rows = rows
    self.columns = columns
  }

  package var groupLength: Int { kind == .mxfp4 ? 32 : 16 }
  private var layout: RuntimeLayout { kind == .mxfp4 ? .mxfp4 : .nvfp4 }
  private var scaleType: ElementType { kind == .mxfp4 ? .f8E8M0 : .f8E4M3 }

  package var label: String { "\(layout.rawValue) 4 bits, groups of \(groupLength)" }

  package func members(of module: String) -> [TensorSpecification] {
    var members = [
      TensorSpecification(name: module + ".weight_packed", type: .u8, shape: [rows, columns / 2]),
      TensorSpecification(
        name: module + ".weight_scale", type: kind == .mxfp4 ? .u8 : .f8E4M3, shape: [rows, columns / groupLength]),
    ]
    if kind == .nvfp4 {
      members.append(TensorSpecification(name: module + ".weight_global_scale", type: .f32, shape: [1]))
    }
    return members
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  /// A row is a whole number of words: sixteen inputs share a scale.
  package var placement: CodePlacement { .rows(bits: 4) }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    let scales = try smallFloatCodes(parameters.scales, as: scaleType, layout: layout, module: module)
    return [scales] + (kind == .nvfp4 ? [elementBytes([parameters.divisor], as: .f32)] : [])
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    let codes = unpackedRows(members[0], rows: rows, columns: columns, bits: 4, workers: workers)
    var weight = CodedWeight(
      rows: rows, columns: columns, bits: 4, decoding: .levels(SmallFloat(.f4)?.values ?? []),
      sharing: .columns(groupLength), codes: codes, scales: elementValues(members[1], as: scaleType))
    if kind == .nvfp4 {
      weight.divisor = elementValues(members[2], as: .f32)[0]
      guard weight.divisor.isFinite, weight.divisor > 0 else {
        throw module.fault(".weight_global_scale", "its value", "positive and finite, not \(weight.divisor)")
      }
    }
    return weight
  }

  /// The layout of a module as its tensors show it.
  package init(_ module: StoredModule) throws(CheckpointError) {
    let packed = try module.require(".weight_packed", rank: 2, [.u8])
    let scales = try module.require(".weight_scale", rank: 2, [.u8, .f8E4M3])
    let kind: Kind = scales.type == .u8 ? .mxfp4 : .nvfp4
    let columns = packed.shape[1] * 2
    guard columns % (kind == .mxfp4 ? 32 : 16) == 0 else {
      throw module.fault(".weight_packed", "shape", "two codes per byte in whole groups, not \(packed.shape)")
    }
    self.init(kind, rows: packed.shape[0], columns: columns)
  }
}

/// The codes of scales that are values of a small float.
func smallFloatCodes(
  _ scales: [Float], as type: ElementType, layout: RuntimeLayout, module: String
) throws(LayoutError) -> [UInt8] {
  let values = SmallFloat(type)?.values ?? []
  var codes: [Float: UInt8] = [:]
  for (code, value) in values.enumerated().reversed() where value.isFinite { codes[value] = UInt8(code) }
  var result: [UInt8] = []
  result.reserveCapacity(scales.count)
  for scale in scales {
    guard let code = codes[scale] else { throw .scaleOverflow(layout, module: module, scale: scale) }
    result.append(code)
  }
  return result
}
