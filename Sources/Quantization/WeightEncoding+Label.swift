import Kernels

extension WeightEncoding {
  /// A few words for tables, such as `int4 g128 f16` or `nf4 b64 double`.
  package var label: String {
    let kind: String =
      switch levels {
      case .affine(.middle): "int\(bits)"
      case .affine(.integer): "uint\(bits)"
      case .affine(.float): "uint\(bits) float zero"
      case .codebook(let name): name.rawValue
      }
    let shared: String =
      switch sharing {
      case .tensor: "tensor"
      case .row: "row"
      case .group(let size): "g\(size)"
      case .block(let size): "b\(size)"
      }
    let stored: String =
      switch scales {
      case .plain(let type): type.rawValue.lowercased()
      case .nested: "double"
      }
    return "\(kind) \(shared) \(stored)"
  }
}
