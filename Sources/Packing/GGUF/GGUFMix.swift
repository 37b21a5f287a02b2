import Kernels

/// Which type each tensor gets: the mixes that llama-quantize calls by these names. Tensors that errors hurt most, the
/// values of attention and the way down from the feed-forward layer, get more bits in some blocks.
package enum GGUFMix: String, CaseIterable, Hashable, Sendable {
  case f32 = "F32"
  case f16 = "F16"
  case bf16 = "BF16"
  case q80 = "Q8_0"
  case q6K = "Q6_K"
  case q5KM = "Q5_K_M"
  case q5KS = "Q5_K_S"
  case q51 = "Q5_1"
  case q50 = "Q5_0"
  case q4KM = "Q4_K_M"
  case q4KS = "Q4_K_S"
  case q41 = "Q4_1"
  case q40 = "Q4_0"
  case iq4NL = "IQ4_NL"
  case iq4XS = "IQ4_XS"
  case mxfp4 = "MXFP4"
  case q3KL = "Q3_K_L"
  case q3KM = "Q3_K_M"
  case q3KS = "Q3_K_S"
  case q2K = "Q2_K"

  /// The number of `general.file_type`.
  package var fileType: UInt32 { row.fileType }
  /// The type of most matrices.
  package var base: BlockType { row.base }

  private var row: (fileType: UInt32, base: BlockType) {
    switch self {
    case .f32: (0, .f32)
    case .f16: (1, .f16)
    case .q40: (2, .q40)
    case .q41: (3, .q41)
    case .q80: (7, .q80)
    case .q50: (8, .q50)
    case .q51: (9, .q51)
    case .q2K: (10, .q2K)
    case .q3KS: (11, .q3K)
    case .q3KM: (12, .q3K)
    case .q3KL: (13, .q3K)
    case .q4KS: (14, .q4K)
    case .q4KM: (15, .q4K)
    case .q5KS: (16, .q5K)
    case .q5KM: (17, .q5K)
    case .q6K: (18, .q6K)
    case .iq4NL: (25, .iq4NL)
    case .iq4XS: (30, .iq4XS)
    case .bf16: (32, .bf16)
    case .mxfp4: (38, .mxfp4)
    }
  }

  /// What the choice depends on besides the tensor.
  package struct Situation: Hashable, Sendable {
    package let blockCount: Int
    /// Query heads that share keys and values.
    package let headsPerKey: Int
    package let isTied: Bool
    package let hasImportance: Bool
    /// Of each mixture; 0 where there are none.
    package let expertCount: Int

    package init(blockCount: Int, headsPerKey: Int, isTied: Bool, hasImportance: Bool, expertCount: Int = 0) {
      self.blockCount = blockCount
      self.expertCount = expertCount
      self.headsPerKey = headsPerKey
      self.isTied = isTied
      self.hasImportance = hasImportance
    }
  }

  /// Positions, and what chooses experts.
  private static let plainParts: Set<String> = ["position_embd", "ffn_gate_inp", "ffn_gate_inp_shexp"]

  /// - Parameters:
  ///   - part: the tensor's name in GGUF without block and ending, such as `ffn_down`; nil for constants.
  ///   - isMatrix: whether it is the weight of a matrix; biases, norms and constants stay F32.
  package func type(
    of part: String, layer: Int?, shape: [Int], isMatrix: Bool, in situation: Situation
  ) -> BlockType {
    guard isMatrix, shape.count >= 2, !part.hasSuffix("norm"), !Self.plainParts.contains(part) else { return .f32 }
    guard !base.isPlain else { return base }
    return Self.fitting(chosen(part, layer ?? 0, situation), columns: shape[shape.count - 1])
  }

  private func chosen(_ part: String, _ layer: Int, _ situation: Situation) -> BlockType {
    if part == "output" || part == "token_embd" && situation.isTied {
      return self == .q80 || self == .mxfp4 ? .q80 : .q6K
    }
    if situation.expertCount > 0, self == .mxfp4 { return part.hasSuffix("_exps") ? .mxfp4 : .q80 }
    if situation.expertCount == Self.fewExperts, let type = besideFewExperts(part) { return type }
    let count = situation.blockCount
    let isFirst = layer < count / 8
    // The first and the last eighth, and every third between.
    let isFavoured = isFirst || layer >= 7 * count / 8 || (layer - count / 8) % 3 == 2
    let isValue = part == "attn_v" || part == "attn_qkv"
    let isDown = part.hasPrefix("ffn_down")
    let isOutput = part == "attn_output"
    switch self {
    case .q2K:
      if isValue { return situation.headsPerKey >= 4 ? .q4K : .q3K }
      return isDown || isOutput ? .q3K : .q2K
    case .q3KM:
      if isValue { return layer < 2 ? .q5K : .q4K }
      if isDown { return layer < count / 16 ? .q5K : .q4K }
      return isOutput ? .q4K : .q3K
    case .q3KL: return isValue || isDown || isOutput ? .q5K : .q3K
    case .q4KS: return isValue && layer < 4 || isDown && isFirst ? .q5K : .q4K
    case .q4KM: return (isValue || isDown) && isFavoured ? .q6K : .q4K
    case .q5KM: return (isValue || isDown) && isFavoured ? .q6K : .q5K
    case .iq4NL, .iq4XS:
      if isValue, situation.headsPerKey >= 4 { return .q5K }
      return isDown && isFirst && !situation.hasImportance ? .q5K : base
    case .q40: return isDown && isFirst && situation.hasImportance ? .q41 : .q40
    case .q50: return isDown && isFirst && situation.hasImportance ? .q51 : .q50
    case .mxfp4: return part == "token_embd" ? .q80 : .mxfp4
    default: return base
    }
  }

  /// Beside so many experts attention is a small part of the weights: llama-quantize gives it more bits.
  private static let fewExperts = 8

  private func besideFewExperts(_ part: String) -> BlockType? {
    switch part {
    case "attn_k", "attn_v": .q80
    case "attn_output":
      [.q2K, .q3KS, .q3KM, .iq4NL, .iq4XS, .q4KS, .q4KM].contains(self) ? .q5K : base
    default: nil
    }
  }

  /// The type itself where rows are whole blocks of it; else one with blocks of 32, else F16.
  package static func fitting(_ type: BlockType, columns: Int) -> BlockType {
    if columns % type.blockLength == 0 { return type }
    let fallback: BlockType =
      switch type {
      case .q2K, .q3K: .q40
      case .q4K: .q50
      case .q5K: .q51
      case .q6K: .q80
      case .iq4XS: .iq4NL
      default: .f16
      }
    return columns % fallback.blockLength == 0 ? fallback : .f16
  }
}
