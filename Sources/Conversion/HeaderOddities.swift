import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// What is odd about a checkpoint that can be read, as far as headers, configuration and the list of files tell.
struct HeaderOddities {
  private(set) var found: [Inspection.Oddity] = []

  /// - Parameters:
  ///   - listed: the tensors as they are listed.
  ///   - isFolder: whether a folder was named, as opposed to a file in one.
  init(
    _ decodable: DecodableCheckpoint, _ checkpoint: Checkpoint, _ listed: [Inspection.Tensor], isFolder: Bool
  ) {
    if isFolder {
      checkFiles(decodable, checkpoint)
      checkIndex(checkpoint)
      checkConfiguration(decodable, checkpoint)
    }
    let names = decodable.tensors.filter { $0.elementCount > 0 }.map(\.name)
    let blocks = BlockNames(names, numberOf: BlockNames.checkpoint)
    let stated = isFolder ? Self.statedBlocks(checkpoint.configuration) : nil
    found += blocks.oddities(stated: stated, key: "num_hidden_layers of config.json")
    checkCompanions(decodable)
    let empty = listed.filter { $0.shape.contains(0) }
    if let first = empty.first {
      add("\(Self.tensors(empty.count)) without elements, such as '\(first.name.printable)'")
    }
  }

  private mutating func add(_ text: String) { found.append(Inspection.Oddity(text)) }

  private static func tensors(_ count: Int) -> String { "\(count) tensor\(count == 1 ? "" : "s")" }

  private static func statedBlocks(_ configuration: JSONValue?) -> Int? {
    let text = configuration?["text_config"]
    return ["num_hidden_layers", "n_layer", "num_layers"].compactMap { key in
      (configuration?[key] ?? text?[key])?.integer
    }.first
  }

  // MARK: Files

  private mutating func checkFiles(_ decodable: DecodableCheckpoint, _ checkpoint: Checkpoint) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: checkpoint.folder.string).sorted()) ?? []
    let present = Set(names)
    let opened = Set(checkpoint.files.compactMap { $0.path.lastComponent?.string })
    for name in names where name.hasSuffix(".safetensors") && !opened.contains(name) {
      add("\(name.printable) is not among the files of the model: it is not read")
    }
    if opened == [Checkpoint.singleName], present.contains(Checkpoint.indexName) {
      add("\(Checkpoint.singleName) stands beside \(Checkpoint.indexName): as in transformers, the index is not read")
    }
    if !present.contains(SideFiles.configuration) {
      add("config.json is missing: no program can tell how to run it")
    }
    let tokenizers = ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json"]
    if tokenizers.allSatisfy({ !present.contains($0) }) { add("no tokenizer is beside the weights") }
    for name in names where name.hasSuffix(".incomplete") || name.hasSuffix(".part") || name.hasSuffix(".tmp") {
      add("\(name.printable) looks like a download that did not end")
    }
    if case .quantized(.packed(let packed)) = decodable {
      let absent = packed.manifest.copiedFiles.filter { !present.contains($0) }
      if !absent.isEmpty {
        add("files that the manifest names are missing: \(absent.map(\.printable).joined(separator: ", "))")
      }
    }
  }

  private mutating func checkIndex(_ checkpoint: Checkpoint) {
    let path = checkpoint.folder.appending(Checkpoint.indexName)
    guard let index = try? readJSONObject(path), let stated = index["metadata"]?["total_size"]?.integer else { return }
    let size = checkpoint.tensors.reduce(0) { $0 + $1.entry.bytes.count }
    if stated != size, checkpoint.files.count > 1 {
      add("\(Checkpoint.indexName): total_size is \(stated), but the tensors take \(size) bytes")
    }
  }

  // MARK: Configuration

  private mutating func checkConfiguration(_ decodable: DecodableCheckpoint, _ checkpoint: Checkpoint) {
    guard let configuration = checkpoint.configuration else { return }
    let quantization = LayoutFamily.quantization(checkpoint)
    switch decodable {
    case .quantized(.layout(let layout)) where quantization == nil:
      add(
        "the tensors are quantized as \(layout.family.name) writes them, but config.json says nothing of it: programs will"
          + " not load it")
    case .quantized(.layout): break
    case .dense where quantization != nil:
      let method = quantization?["quant_method"]?.string ?? "another program"
      add("config.json says that it is quantized by \(method.printable), but no tensor is of a layout known here")
    default: break
    }
    let names = Set(decodable.tensors.map(\.name))
    if configuration["tie_word_embeddings"]?.bool == true, names.contains("lm_head.weight") {
      add("config.json ties the output head to the embedding, but lm_head.weight is stored too")
    }
    if configuration["tie_word_embeddings"]?.bool == false, names.contains("model.embed_tokens.weight"),
      !names.contains(where: { $0.contains("lm_head") }),
      configuration["architectures"]?.array?.contains(where: { $0.string?.hasSuffix("ForCausalLM") == true }) ?? false
    {
      add("config.json says that the output head is not tied to the embedding, but there is no lm_head.weight")
    }
    guard case .dense(let dense) = decodable,
      let stated = (configuration["dtype"] ?? configuration["torch_dtype"])?.string
    else { return }
    let types = ["bfloat16": "BF16", "float16": "F16", "float32": "F32"]
    var bytes: [String: Int] = [:]
    for tensor in dense.tensors { bytes[tensor.entry.type.rawValue, default: 0] += tensor.entry.bytes.count }
    if let main = bytes.max(by: { ($0.value, $0.key) < ($1.value, $1.key) })?.key, let expected = types[stated],
      main != expected
    {
      add("config.json says \(stated.printable), but most weights are \(main)")
    }
  }

  // MARK: Companions

  /// Scales, zero points and the like whose weight is not there.
  private mutating func checkCompanions(_ decodable: DecodableCheckpoint) {
    guard case .quantized(.layout(let layout)) = decodable else { return }
    let orphans = layout.records.filter { $0.tensor != nil && layout.family.isCompanion($0.name) }
    if let first = orphans.first {
      add(
        "\(Self.tensors(orphans.count)) such as '\(first.name.printable)' belong\(orphans.count == 1 ? "s" : "") to a"
          + " quantized weight that is not there")
    }
  }
}

/// The names of tensors, by block.
struct BlockNames {
  /// For each block the names within it.
  private var blocks: [Int: Set<String>] = [:]

  /// Splits a name of a checkpoint at its first number, that of the block; nil where it has none.
  static func checkpoint(_ name: String) -> (block: Int, part: String)? {
    let parts = name.split(separator: ".")
    guard let index = parts.firstIndex(where: { Int($0) != nil }), index > 0, index + 1 < parts.count,
      ["layers", "layer", "h", "blocks", "block"].contains(parts[index - 1]), let block = Int(parts[index])
    else { return nil }
    let stack = parts[..<index].joined(separator: ".")
    return (block, stack + "|" + parts[(index + 1)...].joined(separator: "."))
  }

  /// The same of a GGUF file.
  static func gguf(_ name: String) -> (block: Int, part: String)? {
    let parts = name.split(separator: ".", maxSplits: 2)
    guard parts.count == 3, parts[0] == "blk", let block = Int(parts[1]), block >= 0 else { return nil }
    return (block, String(parts[2]))
  }

  init(_ names: [String], numberOf place: (String) -> (block: Int, part: String)?) {
    // Models of several parts, such as an encoder and a decoder, have blocks of the same number: the largest stack counts.
    var stacks: [String: [Int: Set<String>]] = [:]
    for name in names {
      guard let (block, part) = place(name), (0..<1 << 20).contains(block) else { continue }
      let halves = part.split(separator: "|", maxSplits: 1)
      let stack = halves.count == 2 ? String(halves[0]) : ""
      stacks[stack, default: [:]][block, default: []].insert(String(halves.last ?? ""))
    }
    blocks = stacks.max { ($0.value.count, $1.key) < ($1.value.count, $0.key) }?.value ?? [:]
  }

  /// - Parameters:
  ///   - stated: the number of blocks that the configuration tells.
  ///   - key: where it tells it.
  func oddities(stated: Int?, key: String) -> [Inspection.Oddity] {
    guard let last = blocks.keys.max() else { return [] }
    var oddities: [Inspection.Oddity] = []
    let absent = (0...last).filter { blocks[$0] == nil }
    if !absent.isEmpty {
      let few = absent.prefix(5).map(String.init).joined(separator: ", ")
      oddities.append(
        Inspection.Oddity("blocks are missing: \(few)\(absent.count > 5 ? ", … (\(absent.count))" : "") of \(last + 1)")
      )
    }
    if let stated, stated != last + 1 {
      oddities.append(Inspection.Oddity("\(key) is \(stated), but the tensors are those of \(last + 1) blocks"))
    }
    // A block that has less than one of the usual kinds, and nothing of its own, lacks something.
    var kinds: OrderedDictionary<Set<String>, Int> = [:]
    for block in blocks.keys.sorted() { kinds[blocks[block] ?? [], default: 0] += 1 }
    for block in blocks.keys.sorted() {
      guard let own = blocks[block], let count = kinds[own] else { continue }
      let fuller = kinds.filter { $0.value > count && own.isStrictSubset(of: $0.key) }
      guard let whole = fuller.elements.max(by: { $0.value < $1.value })?.key else { continue }
      let lacking = whole.subtracting(own).sorted()
      let few = lacking.prefix(3).map(\.printable).joined(separator: ", ")
      oddities.append(
        Inspection.Oddity(
          "block \(block) lacks what others have: \(few)\(lacking.count > 3 ? ", … (\(lacking.count))" : "")"))
    }
    return oddities
  }
}
