import Checkpoints
import Kernels
import Quantization

/// The layouts of runtimes, each a way to lay a whole model's quantized weights down.
package enum RuntimeLayout: String, CaseIterable, Hashable, Sendable {
  case packQuantized = "pack-quantized"
  case intQuantized = "int-quantized"
  case floatQuantized = "float-quantized"
  case floatQuantizedWeights = "float-quantized-weight-only"
  case mxfp4 = "mxfp4-pack-quantized"
  case nvfp4 = "nvfp4-pack-quantized"
  case gptq
  case gptqV2 = "gptq_v2"
  case awq
  case bitsandbytes
  case mlx
  case mlxMXFP4 = "mlx-mxfp4"

  /// One line for help texts.
  package var summary: String {
    switch self {
    case .packQuantized: "compressed-tensors, integers without quantized activations (vLLM, transformers)"
    case .intQuantized: "compressed-tensors, int8 weights and activations (vLLM, transformers)"
    case .floatQuantized: "compressed-tensors, FP8 weights and activations (vLLM, transformers)"
    case .floatQuantizedWeights: "compressed-tensors, FP8 weights without quantized activations (vLLM, transformers)"
    case .mxfp4: "compressed-tensors, MXFP4 weights"
    case .nvfp4: "compressed-tensors, NVFP4 weights"
    case .gptq: "AutoGPTQ's, zero points stored less one (vLLM, transformers, GPTQModel)"
    case .gptqV2: "GPTQModel's, zero points as they are"
    case .awq: "AutoAWQ's gemm, 4 bits (vLLM, transformers, mlx-lm)"
    case .bitsandbytes: "NF4, FP4 and int8 of bitsandbytes (transformers)"
    case .mlx: "MLX's affine mode (mlx-lm)"
    case .mlxMXFP4: "MLX's mxfp4 mode (mlx-lm)"
    }
  }

  /// The value of `quant_method`, nil for MLX, which has none.
  package var quantMethod: String? {
    switch self {
    case .packQuantized, .intQuantized, .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4: "compressed-tensors"
    case .gptq, .gptqV2: "gptq"
    case .awq: "awq"
    case .bitsandbytes: "bitsandbytes"
    case .mlx, .mlxMXFP4: nil
    }
  }

  package var isMLX: Bool { self == .mlx || self == .mlxMXFP4 }

  /// `format` of compressed-tensors, which does not tell whether activations are quantized.
  package var format: String { self == .floatQuantizedWeights ? Self.floatQuantized.rawValue : rawValue }
}

/// What encodings a layout takes.
package struct LayoutRules: Hashable, Sendable {
  /// Widths of integer codes, by the kind of their zero points.
  package var widths: [WeightEncoding.ZeroPoint: Set<Int>] = [:]
  package var codebooks: Set<NamedCodebook> = []
  package var takesRows = true
  /// Sizes of groups; nil where any that divides the inputs will do.
  package var groupLengths: Set<Int>? = []
  package var scaleTypes: Set<ElementType> = ElementType.floats
  package var allowsNestedScales = false
  package var allowsNegativeScales = false
  /// Whether groups may follow the order of activations, with a group number stored for every input.
  package var allowsGroupIndex = false
  /// Whether weights of one model may have different schemes.
  package var allowsMixedSchemes = true
  /// What outputs and inputs of a layer must be multiples of.
  package var outputMultiple = 1
  package var inputMultiple = 1
  /// Whether weights are floats of the layout's own kind, for which there is no choice of scheme.
  package var isFloat = false
}

extension RuntimeLayout {
  /// The table of which encoding fits which layout.
  package var rules: LayoutRules {
    var rules = LayoutRules()
    switch self {
    case .packQuantized:
      rules.widths = [.middle: [2, 4, 8], .integer: [2, 4, 8]]
      rules.groupLengths = nil
    case .intQuantized: rules.widths = [.middle: [8]]
    case .floatQuantized, .floatQuantizedWeights: rules.isFloat = true
    case .mxfp4, .mlxMXFP4, .nvfp4:
      rules.isFloat = true
      rules.inputMultiple = self == .nvfp4 ? 16 : 32
    case .gptq, .gptqV2:
      rules.widths = [.middle: GPTQLayout.widths, .integer: GPTQLayout.widths]
      rules.groupLengths = [16, 32, 64, 128, 256, 512, 1024]
      rules.scaleTypes = [.f16]
      (rules.outputMultiple, rules.inputMultiple) = (32, 32)
      rules.allowsGroupIndex = true
    case .awq:
      rules.widths = [.middle: [4], .integer: [4]]
      rules.takesRows = false
      rules.groupLengths = [32, 64, 128]
      rules.scaleTypes = [.f16]
      rules.allowsMixedSchemes = false
      rules.outputMultiple = 8
    case .bitsandbytes:
      rules.widths = [.middle: [8]]
      rules.codebooks = [.nf4, .fp4]
      rules.groupLengths = [32, 64, 128, 256, 512, 1024, 2048, 4096]
      rules.allowsNestedScales = true
      rules.allowsMixedSchemes = false
    case .mlx:
      rules.widths = [.middle: MLXLayout.widths, .integer: MLXLayout.widths, .float: MLXLayout.widths]
      rules.takesRows = false
      rules.groupLengths = Set(MLXLayout.groupLengths)
      rules.allowsNegativeScales = true
    }
    return rules
  }

  /// What the layout takes, in words.
  package var takes: String {
    let rules = rules
    if rules.isFloat { return "floats of its own kind: give it alone, without --method" }
    func numbers(_ values: Set<Int>) -> String { values.sorted().map(String.init).joined(separator: ", ") }
    var parts: [String] = []
    let kinds: [(WeightEncoding.ZeroPoint, String)] = [
      (.middle, "symmetric integers"), (.integer, "integers with zero points"),
      (.float, "integers with real zero points"),
    ]
    for (kind, name) in kinds {
      if let widths = rules.widths[kind] { parts.append("\(name) of \(numbers(widths)) bits") }
    }
    if !rules.codebooks.isEmpty {
      parts.append(rules.codebooks.map(\.rawValue).sorted().joined(separator: " and "))
    }
    var sharing: [String] = []
    if rules.takesRows { sharing.append("a scale per row") }
    if let lengths = rules.groupLengths {
      if !lengths.isEmpty { sharing.append("groups of \(numbers(lengths))") }
    } else {
      sharing.append("groups of any size that divides the inputs")
    }
    let types = rules.scaleTypes.map(\.rawValue).sorted().joined(separator: ", ")
    return "\(parts.joined(separator: ", ")), with \(sharing.joined(separator: " or ")), scales in \(types)"
  }

  /// Whether weights of this encoding have a place in the layout, whatever their shape.
  package func holds(_ encoding: WeightEncoding) -> Bool {
    let rules = rules
    guard encoding.outliers == nil, rules.allowsGroupIndex || !encoding.hasGroupIndex else { return false }
    switch encoding.levels {
    case .affine(let zeroPoint):
      guard rules.widths[zeroPoint]?.contains(encoding.bits) ?? false else { return false }
    case .codebook(let book): guard rules.codebooks.contains(book) else { return false }
    }
    switch encoding.sharing {
    case .tensor: return false
    case .row:
      // The blocks of bitsandbytes' codebooks are no rows, its int8 rows no groups.
      guard rules.takesRows, encoding.isAffine else { return false }
    case .group(let size):
      guard encoding.isAffine, self != .bitsandbytes, rules.groupLengths?.contains(size) ?? true else { return false }
    case .block(let size): guard rules.groupLengths?.contains(size) ?? true else { return false }
    }
    switch encoding.scales {
    case .plain(let type): return rules.scaleTypes.contains(type)
    case .nested(let size): return rules.allowsNestedScales && size == DoubleQuantization.blockSize
    }
  }

  /// The layouts that hold an encoding.
  package static func holding(_ encoding: WeightEncoding) -> [RuntimeLayout] {
    allCases.filter { $0.holds(encoding) }
  }

  /// How a weight of this shape and encoding is laid down.
  /// - Parameters:
  ///   - type: of the weight in the source, which readers decode to.
  ///   - description: the encoding in words, for errors.
  /// - Throws: what the layout cannot hold, with the alternatives.
  package func weightLayout(
    of module: String, shape: [Int], encoding: WeightEncoding, type: ElementType, description: String
  ) throws(LayoutError) -> any WeightLayout {
    guard shape.count == 2 else { throw .notAMatrix(self, tensor: module, shape: shape) }
    guard holds(encoding) else {
      throw .encoding(
        self, module: module, found: description, takes: takes, alternatives: Self.holding(encoding))
    }
    let (rows, columns) = (shape[0], shape[1])
    try checkMultiples(of: module, rows: rows, columns: columns)
    var length = columns
    if case .group(let size) = encoding.sharing {
      length = size
      guard columns % size == 0 else {
        let fitting = [32, 64, 128].filter { columns % $0 == 0 && rules.groupLengths?.contains($0) ?? true }
        throw .groupDoesNotDivide(self, module: module, columns: columns, group: size, fitting: fitting)
      }
    }
    let isSymmetric = encoding.levels == .affine(.middle)
    let scaleType: ElementType = if case .plain(let type) = encoding.scales { type } else { .f32 }
    switch self {
    case .packQuantized:
      return PackQuantizedLayout(
        rows: rows, columns: columns, bits: encoding.bits, groupLength: length, isSymmetric: isSymmetric,
        scaleType: scaleType)
    case .intQuantized:
      return NaiveQuantizedLayout(rows: rows, columns: columns, codeType: .i8, scaleType: scaleType)
    case .gptq, .gptqV2:
      return GPTQLayout(
        rows: rows, columns: columns, bits: encoding.bits, groupLength: length, version: self == .gptq ? .v1 : .v2)
    case .awq: return AWQLayout(rows: rows, columns: columns, groupLength: length)
    case .bitsandbytes:
      guard case .codebook(let book) = encoding.levels, case .block(let block) = encoding.sharing else {
        return LLMInt8Layout(rows: rows, columns: columns)
      }
      let isNested = if case .nested = encoding.scales { true } else { false }
      return BitsandbytesLayout(
        book, rows: rows, columns: columns, blockLength: block, isNested: isNested,
        type: ElementType.floats.contains(type) ? type : .f32)
    case .mlx:
      return MLXLayout(
        mode: .affine, rows: rows, columns: columns, bits: encoding.bits, groupLength: length, scaleType: scaleType)
    case .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4, .mlxMXFP4:
      return try floatLayout(of: module, shape: shape)
    }
  }

  /// How a weight of this shape is laid down in a layout of floats.
  package func floatLayout(of module: String, shape: [Int]) throws(LayoutError) -> any WeightLayout {
    guard shape.count == 2 else { throw .notAMatrix(self, tensor: module, shape: shape) }
    try checkMultiples(of: module, rows: shape[0], columns: shape[1])
    return switch self {
    case .mxfp4: FourBitFloatLayout(.mxfp4, rows: shape[0], columns: shape[1])
    case .nvfp4: FourBitFloatLayout(.nvfp4, rows: shape[0], columns: shape[1])
    case .mlxMXFP4:
      MLXLayout(mode: .mxfp4, rows: shape[0], columns: shape[1], bits: 4, groupLength: 32, scaleType: .f8E8M0)
    default:
      NaiveQuantizedLayout(rows: shape[0], columns: shape[1], codeType: .f8E4M3, scaleType: .f32)
    }
  }

  private func checkMultiples(of module: String, rows: Int, columns: Int) throws(LayoutError) {
    let rules = rules
    if rows % rules.outputMultiple != 0 {
      throw .dimension(self, module: module, name: "outputs", size: rows, multiple: rules.outputMultiple)
    }
    if columns % rules.inputMultiple != 0 {
      throw .dimension(self, module: module, name: "inputs", size: columns, multiple: rules.inputMultiple)
    }
  }
}

extension WeightEncoding {
  fileprivate var isAffine: Bool { if case .affine = levels { true } else { false } }
}
