import Kernels

extension WeightEncoding {
  /// A few words for tables, such as `int4 g128 f16` `nf4 b64 double`, or `int8 row f16 + 4 columns bf16`.
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
      case .group(let size): "g\(size)" + (hasGroupIndex ? " indexed" : "")
      case .block(let size): "b\(size)"
      }
    let stored: String =
      switch scales {
      case .plain(let type): type.rawValue.lowercased()
      case .nested: "double"
      }
    let split = outliers.map { " + \($0.count) columns \($0.type.rawValue.lowercased())" } ?? ""
    return "\(kind) \(shared) \(stored)\(split)"
  }
}
