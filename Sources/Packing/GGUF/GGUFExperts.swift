import Checkpoints
import OrderedCollections

/// How an architecture names the experts of its mixtures. GGUF stacks each matrix of all experts of a block in one tensor
/// `[experts, outputs, inputs]`; checkpoints have them one by one or, of newer writers, stacked with gate and up in one.
struct GGUFExperts: Sendable {
  /// What precedes the number of an expert in the names of a block, the usual one first.
  let bases: [String]
  /// Names of an expert's matrices, of the checkpoint and of GGUF.
  let matrices: OrderedDictionary<String, String>

  /// Tensors that stack the experts, after a base, with the parts in GGUF that their rows become, in order.
  static let stacked: OrderedDictionary<String, [String]> = [
    "gate_up_proj": ["ffn_gate_exps", "ffn_up_exps"], "down_proj": ["ffn_down_exps"],
  ]

  static let mixtral = GGUFExperts(
    bases: ["block_sparse_moe.experts.", "mlp.experts."],
    matrices: ["w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"])
  static let qwen = GGUFExperts(
    bases: ["mlp.experts."],
    matrices: ["gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"])
}

/// A key of config.json whose value runtimes of GGUF files take for granted.
struct GGUFAssumption: Sendable {
  let key: String
  let value: JSONValue
  /// What an absent key means, as transformers fills it in.
  let fallback: JSONValue
}

extension GGUFArchitecture {
  /// Where rows of a checkpoint's tensor go in one that stacks experts.
  package struct ExpertPlace: Hashable, Sendable {
    package let name: String
    package let layer: Int
    package let part: String
    package let rank: Int
    /// nil: the tensor stacks all experts.
    package let expert: Int?
    /// Which part of each matrix's rows it is, of how many.
    package let share: Int
    package let shares: Int
  }

  /// The places of a tensor of experts, in the order of its rows; none for other tensors.
  package func expertPlaces(of tensor: String, prefix: String) -> [ExpertPlace] {
    guard let experts, tensor.hasPrefix(prefix + blocks) else { return [] }
    let numbered = tensor.dropFirst(prefix.count + blocks.count)
    guard let end = numbered.firstIndex(of: "."), let layer = Self.number(numbered[..<end]) else { return [] }
    let rest = numbered[numbered.index(after: end)...]
    guard let base = experts.bases.first(where: { rest.hasPrefix($0) }) else { return [] }
    let own = rest.dropFirst(base.count)
    func place(_ part: String, _ expert: Int?, _ share: Int, _ shares: Int) -> ExpertPlace {
      let rank = (layer + 1) * 1000 + 2 * (inner.count + (experts.matrices.values.firstIndex(of: part) ?? 0))
      return ExpertPlace(
        name: "blk.\(layer).\(part).weight", layer: layer, part: part, rank: rank, expert: expert, share: share,
        shares: shares)
    }
    if let parts = GGUFExperts.stacked[String(own)] {
      return parts.indices.map { place(parts[$0], nil, $0, parts.count) }
    }
    let words = own.split(separator: ".", omittingEmptySubsequences: false)
    guard words.count == 3, words[2] == "weight", let expert = Self.number(words[0]),
      let part = experts.matrices[String(words[1])]
    else { return [] }
    return [place(part, expert, 0, 1)]
  }

  /// What identifies a tensor of a checkpoint by its place in a GGUF file; nil where it has none, or several.
  package func identity(of tensor: String, prefix: String) -> String? {
    if let place = place(of: tensor, prefix: prefix) { return place.name }
    let places = expertPlaces(of: tensor, prefix: prefix)
    guard places.count == 1, let expert = places[0].expert else { return nil }
    return "\(places[0].name) \(expert)"
  }

  /// The checkpoint's name of an expert's matrix in a tensor of a GGUF file; nil where that stacks no experts.
  package func expertSource(of name: String) -> (place: Place, source: @Sendable (_ expert: Int) -> String)? {
    guard let experts, let base = experts.bases.first else { return nil }
    let words = name.split(separator: ".", omittingEmptySubsequences: false)
    guard words.count == 4, words[0] == "blk", let layer = Self.number(words[1]), words[3] == "weight",
      let index = experts.matrices.values.firstIndex(where: { $0 == words[2] }),
      name == "blk.\(layer).\(words[2]).weight"
    else { return nil }
    let stem = "\(prefixes.first ?? "")\(blocks)\(layer).\(base)"
    let matrix = experts.matrices.keys[index]
    let place = Place(name: name, layer: layer, part: String(words[2]), isTransposed: false, rank: 0)
    return (place, { "\(stem)\($0).\(matrix).weight" })
  }

  private static func number(_ text: some StringProtocol) -> Int? {
    Int(text).flatMap { (0..<1 << 20).contains($0) ? $0 : nil }
  }
}
