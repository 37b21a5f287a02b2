import Checkpoints
import Quantization

/// What runtimes require of several layers together.
package enum FusedLayers {
  /// The last parts of the names of linear layers that vLLM fuses into one, which then has one scheme.
  package static let families: [[String]] = [
    ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"], ["query", "key", "value"], ["w1", "w3"],
  ]

  /// - Parameter schemes: of each module, in words; nil for one that is not quantized.
  /// - Throws: the first family whose members differ.
  package static func check(_ schemes: [String: String?]) throws(LayoutError) {
    for module in schemes.keys.sorted() {
      guard let dot = module.lastIndex(of: "."),
        let family = families.first(where: { $0[0] == module[module.index(after: dot)...] })
      else { continue }
      let siblings = family.map { module[...dot] + $0 }.filter { schemes[$0] != nil }
      let found = siblings.map { (schemes[$0] ?? nil) ?? "not quantized" }
      if Set(found).count > 1 { throw .fusedSchemes(modules: siblings, found: found) }
    }
  }

  /// Whether vLLM can split attention over devices: by whole heads; fewer key heads than devices are copied.
  /// - Parameter configuration: config.json.
  package static func checkHeads(_ configuration: JSONValue?, parts: Int) throws(LayoutError) {
    let heads = (configuration?["num_attention_heads"] ?? configuration?["n_head"])?.integer
    guard parts > 1, let heads, heads > 0 else { return }
    if heads % parts != 0 { throw .heads(count: heads, parts: parts) }
    let keyHeads = configuration?["num_key_value_heads"]?.integer ?? heads
    if keyHeads > 0, max(keyHeads, parts) % min(keyHeads, parts) != 0 { throw .heads(count: keyHeads, parts: parts) }
  }

  /// Layers whose inputs are split over devices; the others' outputs are.
  private static let splitByInputs = ["o_proj", "down_proj", "out_proj", "fc2", "w2", "dense", "c_proj"]

  /// Whether vLLM can split a layer over devices: each gets whole groups and whole words.
  package static func checkSplit(
    _ module: String, rows: Int, columns: Int, groupLength: Int, parts: Int
  ) throws(LayoutError) {
    guard parts > 1 else { return }
    let last = module.split(separator: ".").last.map(String.init) ?? module
    let isSplitByInputs = splitByInputs.contains(last)
    let group = isSplitByInputs && groupLength < columns ? groupLength : nil
    let size = isSplitByInputs ? columns : rows
    if size % (parts * (group ?? 32)) != 0 {
      throw .tensorParallel(
        module: module, name: isSplitByInputs ? "inputs" : "outputs", size: size, group: group, parts: parts)
    }
  }
}
