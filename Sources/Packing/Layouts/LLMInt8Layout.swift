import Checkpoints
import Kernels
import Quantization

/// LLM.int8() as bitsandbytes serializes it: rows of int8 with their largest magnitude.
///
///     m.weight         I8   [rows, columns]
///     m.SCB            F32  [rows]           127 times the scale
///     m.weight_format  U8   []               0: row-major
///
/// W = code · SCB · (1/127), in float32 in that order. Outliers are split off by the runtime, by its activations.
package struct LLMInt8Layout: WeightLayout {
  package private(set) var rows: Int
  package let columns: Int
  private let hasFormat: Bool

  package init(rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
    hasFormat = true
  }

  package var groupLength: Int { columns }
  package var label: String { "bitsandbytes int8, a scale per row" }

  package func members(of module: String) -> [TensorSpecification] {
    [
      TensorSpecification(name: module + ".weight", type: .i8, shape: [rows, columns]),
      TensorSpecification(name: module + ".SCB", type: .f32, shape: [rows]),
    ] + (hasFormat ? [TensorSpecification(name: module + ".weight_format", type: .u8, shape: [])] : [])
  }

  package func with(rows: Int) -> (any WeightLayout)? {
    var part = self
    part.rows = rows
    return part
  }

  package var placement: CodePlacement { .bytes(areSigned: true) }

  package func pack(_ parameters: WeightParameters, module: String) throws(LayoutError) -> [[UInt8]] {
    try RuntimeLayout.bitsandbytes.check(parameters.scales, as: .f32, module: module)
    let magnitudes = parameters.scales.map { parameters.factor == 1 ? $0 * 127 : $0 }
    return [elementBytes(magnitudes, as: .f32)] + (hasFormat ? [[0]] : [])
  }

  package func unpack(
    _ members: [[UInt8]], of module: StoredModule, workers: Int
  ) throws(CheckpointError) -> CodedWeight {
    if hasFormat, members[2] != [0] {
      throw module.fault(".weight_format", "weight_format", "0 (row-major), not \(members[2])")
    }
    var weight = CodedWeight(
      rows: rows, columns: columns, bits: 8, decoding: .zeroPoint, sharing: .columns(columns),
      codes: signsFlipped(members[0]), scales: elementValues(members[1], as: .f32))
    weight.factor = 1 / 127
    return weight
  }

  /// The layout of a module as its tensors show it.
  package init(_ module: StoredModule) throws(CheckpointError) {
    let weight = try module.require(".weight", rank: 2, [.i8])
    (rows, columns) = (weight.shape[0], weight.shape[1])
    hasFormat = module[".weight_format"] != nil
  }
}
