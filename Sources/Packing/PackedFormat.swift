import Checkpoints
import Kernels
import Quantization

/// Our own layout on the safetensors container; `Docs/PackedFormat.md` is its specification.
///
/// A quantized tensor `t` becomes members named `t.<role>`; a kept tensor keeps its name and its bytes.
///
///     t.codes         U8       dense stream of codes, LSB first, over the row-major flattened tensor
///     t.scales        F32/16   one per group, [rows, groups per row]
///     t.zero_points   U8       integer zero points, a dense stream like the codes, one per group
///                     F32/16   real zero points, [rows, groups per row]
///     t.scale_codes   U8       double quantization: one code per group
///     t.block_scales  F32      one per 256 scale codes
///     t.scale_offset  F32      [1], the mean that was subtracted
///     t.outlier_columns  I32   [m], columns that are stored beside the codes
///     t.outlier_weights  F16/BF16  [rows, m], their weights
package enum PackedFormat {
  package static let name = "convert-model-packed"
  /// The newest; folders without what it added are of version 1.
  package static let version = 2

  package enum Role: String, CaseIterable, Hashable, Sendable {
    case codes
    case scales
    case zeroPoints = "zero_points"
    case scaleCodes = "scale_codes"
    case blockScales = "block_scales"
    case scaleOffset = "scale_offset"
    case outlierColumns = "outlier_columns"
    case outlierWeights = "outlier_weights"
    case groupIndex = "group_index"
    /// The bytes of a kept tensor, under its own name.
    case data
  }

  package struct Member: Hashable, Sendable {
    package let role: Role
    package let specification: TensorSpecification

    package init(role: Role, specification: TensorSpecification) {
      self.role = role
      self.specification = specification
    }
  }

  /// The members of a quantized tensor.
  package static func members(of name: String, shape: [Int], encoding: WeightEncoding) -> [Member] {
    let grouping = encoding.grouping(of: shape)
    let groups = grouping.groupCount
    let perGroup = [grouping.rows, grouping.groupsPerRow]
    func member(_ role: Role, _ type: ElementType, _ shape: [Int]) -> Member {
      Member(role: role, specification: TensorSpecification(name: "\(name).\(role.rawValue)", type: type, shape: shape))
    }
    var members = [member(.codes, .u8, [packedByteCount(codes: grouping.count, bits: encoding.bits)])]
    switch encoding.scales {
    case .plain(let type):
      members.append(member(.scales, type, perGroup))
      switch encoding.levels {
      case .affine(.integer):
        members.append(member(.zeroPoints, .u8, [packedByteCount(codes: groups, bits: encoding.bits)]))
      case .affine(.float): members.append(member(.zeroPoints, type, perGroup))
      case .affine(.middle), .codebook: break
      }
    case .nested(let blockSize):
      members.append(member(.scaleCodes, .u8, perGroup))
      members.append(member(.blockScales, .f32, [(groups + blockSize - 1) / blockSize]))
      members.append(member(.scaleOffset, .f32, [1]))
    }
    if encoding.hasGroupIndex {
      members.append(member(.groupIndex, .i32, Array(shape.dropLast(2)) + [shape.last ?? 1]))
    }
    if let outliers = encoding.outliers {
      let width = shape.last ?? 1
      members.append(member(.outlierColumns, .i32, [outliers.count]))
      members.append(member(.outlierWeights, outliers.type, [grouping.count / width, outliers.count]))
    }
    return members
  }

  /// The codebooks that decoding needs; each is stored once, in the first file.
  package static func codebooks(of encoding: WeightEncoding) -> [NamedCodebook] {
    var names: [NamedCodebook] = []
    if case .codebook(let name) = encoding.levels { names.append(name) }
    if case .nested = encoding.scales { names.append(.dynamic8) }
    return names
  }

  package static func specification(of codebook: NamedCodebook) -> TensorSpecification {
    TensorSpecification(name: "codebook.\(codebook.rawValue)", type: .f32, shape: [codebook.codebook.levels.count])
  }
}
