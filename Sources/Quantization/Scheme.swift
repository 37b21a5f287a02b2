import Kernels

/// How a weight is quantized: method, width, what shares a scale, and how scales are stored and chosen.
///
/// One validated value; a combination that makes no sense cannot be built.
package struct WeightScheme: Hashable, Sendable {
  package let method: Method
  /// Width of one code; 2 to 8, and 4 for the four-bit floats.
  package let bits: Int
  package let granularity: Granularity
  /// F32, F16 or BF16. Scales are rounded to it before codes are computed.
  package let scaleType: ElementType
  package let scaleSearch: ScaleSearch
  /// Store the scales of NF4 and FP4 in eight bits, in blocks of 256 (QLoRA, arXiv 2305.14314, section 3).
  package let doubleQuantization: Bool
  /// Codes around zero, without a stored zero point. Chosen for calibrated methods; the others are one or the other.
  package let isSymmetric: Bool
  /// Which columns form a group.
  package let groupOrder: GroupOrder

  /// What is left nil takes the method's usual value.
  package init(
    method: Method, bits: Int? = nil, granularity: Granularity? = nil, scaleType: ElementType? = nil,
    scaleSearch: ScaleSearch? = nil, doubleQuantization: Bool = false, isSymmetric: Bool? = nil,
    groupOrder: GroupOrder? = nil
  ) throws(SchemeError) {
    let symmetry = isSymmetric ?? method.isUsuallySymmetric
    let scaleSearch = scaleSearch ?? (method.isCalibrated ? (symmetry ? .signedMSE : .mse) : .none)
    let bits = bits ?? method.usualBits
    let granularity = granularity ?? method.usualGranularity(bits: bits)
    guard method.bitRange.contains(bits) else { throw .bits(bits, method: method) }
    if case .group(let size) = granularity {
      guard size > 0 else { throw .groupSize(size) }
      if method.isCodebook {
        guard (32...4096).contains(size), size & (size - 1) == 0 else { throw .blockSize(size, method: method) }
      }
    } else if method.isCodebook {
      throw .needsBlocks(method: method)
    }
    if method == .hqq || method.isCalibrated, granularity == .tensor { throw .needsGroups(method: method) }
    if method == .llmInt8, granularity != .row { throw .needsRows(method: method) }
    if method == .hqq, scaleSearch != .none { throw .searchNotUsed(method: method) }
    if doubleQuantization, !method.isCodebook { throw .doubleQuantization(method: method) }
    if doubleQuantization, scaleType != nil, scaleType != .f32 { throw .doubleQuantizationScaleType }
    let scaleType = scaleType ?? (method.isCodebook ? .f32 : .f16)
    guard [.f32, .f16, .bf16].contains(scaleType) else { throw .scaleType(scaleType) }
    self.method = method
    self.bits = bits
    self.granularity = granularity
    self.scaleType = scaleType
    self.scaleSearch = scaleSearch
    self.doubleQuantization = doubleQuantization
    self.groupOrder = groupOrder ?? .columns
    if self.groupOrder == .activation, method != .gptq { throw .groupOrder(method: method) }
    self.isSymmetric = method.isCalibrated ? symmetry : method.isUsuallySymmetric
    if scaleSearch == .signedMSE, !self.isSymmetric || granularity == .tensor { throw .signedSearch(method: method) }
    if let isSymmetric, isSymmetric != self.isSymmetric {
      throw .symmetry(method: method, symmetric: isSymmetric)
    }
  }

  /// The scheme without calibration whose codes and ranges have the same form: what a calibrated method starts from, and
  /// what a tensor gets that cannot be calibrated.
  package var rounding: WeightScheme {
    guard method.isCalibrated || method == .llmInt8 else { return self }
    return WeightScheme(self, method: isSymmetric ? .absmax : .zeroPoint, scaleSearch: scaleSearch)
  }

  /// The same without a search for ranges: what errors are compared with.
  package var plain: WeightScheme { WeightScheme(rounding, method: rounding.method, scaleSearch: .none) }

  private init(_ other: WeightScheme, method: Method, scaleSearch: ScaleSearch) {
    self.method = method
    bits = other.bits
    granularity = other.granularity
    scaleType = other.scaleType
    self.scaleSearch = scaleSearch
    doubleQuantization = other.doubleQuantization
    isSymmetric = other.isSymmetric
    groupOrder = .columns
  }

  /// How codes of this scheme turn back into weights.
  package var encoding: WeightEncoding {
    let levels: WeightEncoding.Levels =
      switch method {
      case .absmax, .llmInt8: .affine(.middle)
      case .gptq, .awq, .learned: .affine(isSymmetric ? .middle : .integer)
      case .zeroPoint: .affine(.integer)
      case .hqq: .affine(.float)
      case .nf4: .codebook(.nf4)
      case .fp4: .codebook(.fp4)
      }
    let sharing: WeightEncoding.Sharing =
      switch granularity {
      case .tensor: .tensor
      case .row: .row
      case .group(let size): method.isCodebook ? .block(size) : .group(size)
      }
    return WeightEncoding(
      bits: bits, levels: levels, sharing: sharing,
      scales: doubleQuantization ? .nested(blockSize: DoubleQuantization.blockSize) : .plain(scaleType),
      hasGroupIndex: groupOrder == .activation && granularity != .row)
  }

  /// True where the scale of a group follows from its largest magnitude, whatever its other values.
  var usesMagnitudesAlone: Bool { scaleSearch == .none && (rounding.method == .absmax || method.isCodebook) }
}

/// The methods.
package enum Method: String, CaseIterable, Hashable, Sendable {
  case absmax
  case zeroPoint = "zero-point"
  case nf4
  case fp4
  case hqq
  case gptq
  case awq
  case learned
  case llmInt8 = "llm-int8"

  /// Whether the method looks at the inputs of layers, so that the model must be run.
  package var isCalibrated: Bool { self == .gptq || self == .awq || self == .learned }

  /// Whether its codes are integers whose inputs may be scaled first.
  package var takesScaledInputs: Bool { isCalibrated || self == .absmax || self == .zeroPoint }

  var isUsuallySymmetric: Bool { self == .gptq || self == .learned || self == .absmax || self == .llmInt8 }

  /// Whether the method needs statistics of the inputs of each layer, from which outlier features are told.
  package var needsStatistics: Bool { self == .llmInt8 }

  package var isCodebook: Bool { self == .nf4 || self == .fp4 }

  /// One line for help texts and reports.
  package var summary: String {
    switch self {
    case .absmax: "symmetric integers, scaled by the largest magnitude"
    case .zeroPoint: "asymmetric integers, scaled by the range, with an integer zero point"
    case .nf4: "4-bit NormalFloat (QLoRA)"
    case .fp4: "4-bit float (bitsandbytes' table)"
    case .gptq:
      "integers chosen column by column so that later ones make up for the errors of earlier ones; runs the model"
    case .learned:
      "GPTQ gone on from by what gradients say of the predictions, so that rows make up for each other; runs the model"
    case .awq:
      "integers rounded to nearest after large inputs were scaled to count more, in clipped ranges; runs the model"
    case .llmInt8:
      "LLM.int8(): 8-bit rows by absmax, with the columns of outlier input features kept in 16 bits; runs the model"
    case .hqq: "half-quadratic quantization: asymmetric, zero points fitted to an lp norm (p < 1) of the error"
    }
  }

  var usualBits: Int { self == .absmax || self == .zeroPoint || self == .llmInt8 ? 8 : 4 }
  var bitRange: ClosedRange<Int> { isCodebook ? 4...4 : self == .llmInt8 ? 8...8 : 2...8 }

  /// Eight bits afford a scale per row; fewer need groups, of the sizes that peers use.
  func usualGranularity(bits: Int) -> Granularity {
    switch self {
    case .nf4, .fp4, .hqq: .group(64)
    case .absmax, .zeroPoint, .gptq, .awq, .learned, .llmInt8: bits == 8 ? .row : .group(128)
    }
  }
}

/// What shares one scale.
package enum Granularity: Hashable, Sendable {
  case tensor
  /// One output feature: a run as long as the last dimension.
  case row
  /// This many consecutive input columns of a row, the last group of a row shorter if need be. For the four-bit floats:
  /// a block of the flattened tensor.
  case group(Int)
}

/// Which columns form a group.
package enum GroupOrder: String, CaseIterable, Hashable, Sendable {
  /// Runs of neighbouring columns.
  case columns
  /// Runs in the order in which GPTQ quantizes: columns with inputs of like size share a scale, and ranges come from the
  /// corrected weights. The group of each column is stored (`desc_act` with `g_idx` elsewhere).
  case activation
}

/// How the range of a group is chosen.
package enum ScaleSearch: String, CaseIterable, Hashable, Sendable {
  /// From the smallest and largest value.
  case none
  /// The clipped range with the least squared error; never worse than `none`.
  case mse
  /// The same, and scales may be negative: symmetric codes have one step more on the side below zero, which a negative
  /// scale gives to the larger weights.
  case signedMSE = "mse-signed"
}

/// A scheme that cannot be.
package enum SchemeError: Error, Hashable, CustomStringConvertible {
  case bits(Int, method: Method)
  case groupSize(Int)
  case blockSize(Int, method: Method)
  case needsBlocks(method: Method)
  case needsGroups(method: Method)
  case needsRows(method: Method)
  case searchNotUsed(method: Method)
  case symmetry(method: Method, symmetric: Bool)
  case signedSearch(method: Method)
  case groupOrder(method: Method)
  case doubleQuantization(method: Method)
  case doubleQuantizationScaleType
  case scaleType(ElementType)
  case layoutHasNoScheme(Method, String)

  package var description: String {
    switch self {
    case .bits(let bits, let method):
      method.bitRange.count == 1
        ? "\(method.rawValue) has \(method.usualBits) bits, not \(bits)"
        : "\(bits) bits: \(method.rawValue) takes \(method.bitRange.lowerBound) to \(method.bitRange.upperBound)"
    case .groupSize(let size): "group size \(size): it must be positive, or 'row' or 'tensor'"
    case .blockSize(let size, let method):
      "block size \(size): \(method.rawValue) takes a power of two from 32 to 4096 (usually 64)"
    case .needsBlocks(let method):
      "\(method.rawValue) works on blocks of the flattened tensor: give a group size from 32 to 4096 (usually 64)"
    case .needsGroups(let method): "\(method.rawValue) needs a group size or 'row', not one scale for the tensor"
    case .needsRows(let method): "\(method.rawValue) has one scale per row: leave out the group size"
    case .searchNotUsed(let method): "\(method.rawValue) chooses its own ranges: leave out the scale search"
    case .signedSearch(let method):
      "scale search mse-signed is for symmetric codes (absmax, gptq, awq, learned) in rows or groups, not for this"
        + " \(method.rawValue); take mse"
    case .symmetry(let method, let symmetric):
      "\(method.rawValue) is not \(symmetric ? "symmetric" : "asymmetric"); absmax is symmetric; zero-point is not; gptq,"
        + " awq and learned can be either"
    case .groupOrder(let method):
      "groups in activation order are gptq's; \(method.rawValue) has groups of neighbouring columns"
    case .doubleQuantization(let method):
      "double quantization is for nf4 and fp4, whose scales are 32-bit; \(method.rawValue) can store 16-bit ones"
        + " (scale type f16 or bf16)"
    case .doubleQuantizationScaleType: "double quantization stores scales in 8 bits: leave out the scale type"
    case .layoutHasNoScheme(let method, let layout):
      "layout \(layout) stores floats of its own kind: leave out the method \(method.rawValue), or take another layout"
    case .scaleType(let type): "scale type \(type.rawValue): it must be F32, F16 or BF16"
    }
  }
}
