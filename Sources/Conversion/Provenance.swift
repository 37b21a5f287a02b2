import Checkpoints
import OrderedCollections
import Packing
import Reports
import SystemPackage

/// Which tool made a model, and with which settings, as far as its files tell.
struct Provenance {
  let rows: [(name: String, value: String)]

  init(_ checkpoint: DecodableCheckpoint) {
    switch checkpoint {
    case .dense(let dense): rows = Self.source(dense)
    case .quantized(.packed(let packed)):
      var rows = [(name: "Written by", value: "convert-model \(packed.manifest.toolVersion.printable)")]
      rows.append(("Recipe", Self.words(packed.manifest.recipe)))
      let calibration = try? readJSONObject(packed.checkpoint.folder.appending(CalibrationSummary.fileName))
      if let windows = calibration?["windows"], windows != .null { rows.append(("Calibrated on", Self.words(windows))) }
      if let evidence = calibration?["evidence"], evidence != .null {
        rows.append(("Calibrated by", Self.words(evidence)))
      }
      self.rows = rows
    case .quantized(.layout(let layout)):
      let configuration = LayoutFamily.quantization(layout.checkpoint)
      var rows = Self.tool(configuration, layout.checkpoint).map { [(name: "Written by", value: $0)] } ?? []
      if let configuration { rows.append(("Recipe", Self.recipe(configuration))) }
      if let version = layout.checkpoint.configuration?["transformers_version"]?.string {
        // Of the model that was quantized, most often.
        rows.append(("Configuration", "of transformers \(version.printable)"))
      }
      self.rows = rows
    case .gguf(let file, _): rows = Self.rows(file.header.metadata)
    }
  }

  /// What says how a checkpoint of full precision came about.
  private static func source(_ checkpoint: Checkpoint) -> [(name: String, value: String)] {
    var parts: [String] = []
    if let version = checkpoint.configuration?["transformers_version"]?.string {
      parts.append("transformers \(version.printable)")
    }
    let formats = Set(checkpoint.files.compactMap { $0.header.metadata["format"] }).sorted()
    if !formats.isEmpty { parts.append("tensors marked \(formats.map(\.printable).joined(separator: ", "))") }
    return parts.isEmpty ? [] : [("Written by", parts.joined(separator: "; "))]
  }

  /// The program that quantized a folder in the layout of a runtime; nil where nothing names it.
  private static func tool(_ configuration: JSONValue?, _ checkpoint: Checkpoint) -> String? {
    var names: OrderedSet<String> = []
    let meta = configuration?["meta"]
    // GPTQModel writes its name and version as a list, or as text.
    for value in (meta?["quantizer"]?.array ?? [meta?["quantizer"]].compactMap(\.self)) + [configuration?["quantizer"]]
    {
      if let text = value?.string { names.append(text.printable) }
    }
    for (key, name) in [
      ("autoround_version", "AutoRound"), ("compression_version", "compressed-tensors"), ("version", ""),
      ("producer", ""), ("quant_library", ""),
    ] {
      guard let text = (configuration?[key] ?? configuration?["meta"]?[key])?.string else { continue }
      let method = configuration?["quant_method"]?.string
      // AWQ's version is that of its layout.
      if key == "version" {
        if method == "compressed-tensors" { names.append("compressed-tensors \(text.printable)") }
        continue
      }
      names.append(name.isEmpty ? text.printable : "\(name) \(text.printable)")
    }
    if checkpoint.files.contains(where: { $0.header.metadata["format"] == "mlx" }) { names.append("MLX") }
    if let producer = checkpoint.files.compactMap({ $0.header.metadata["producer"] }).first {
      names.append(producer.printable)
    }
    return names.isEmpty ? nil : names.joined(separator: "; ")
  }

  /// Settings in words; the groups of compressed-tensors in a few each.
  private static func recipe(_ configuration: JSONValue) -> String {
    guard var members = configuration.object else { return "" }
    var texts: [String] = []
    for (name, group) in members["config_groups"]?.object ?? [:] {
      guard let weights = group["weights"], weights.object != nil else { continue }
      let targets = (group["targets"]?.array ?? []).compactMap(\.string)
      let few = targets.prefix(3).map(\.printable).joined(separator: ", ") + (targets.count > 3 ? ", …" : "")
      texts.append("\(name.printable) (\(few)): \(words(weights))")
      if let inputs = group["input_activations"], inputs.object != nil {
        texts[texts.count - 1] += "; inputs \(words(inputs))"
      }
    }
    for key in ["config_groups", "meta"] { members[key] = nil }
    return ([words(.object(members))] + texts).filter { !$0.isEmpty }.joined(separator: "; ")
  }

  /// Keys and values on one line; what is null, false or empty is left out, long lists are counted.
  static func words(_ value: JSONValue) -> String {
    guard let members = value.object else { return short(value) ?? "" }
    return members.compactMap { key, value -> String? in
      let name = key.replacing("_", with: " ").printable
      switch value {
      case .null, .bool(false): return nil
      case .bool(true): return name
      case .object(let inner) where inner.isEmpty: return nil
      case .object: return "\(name) (\(words(value)))"
      default: return short(value).map { "\(name) \($0)" }
      }
    }.joined(separator: ", ")
  }

  private static func short(_ value: JSONValue) -> String? {
    switch value {
    case .array(let items) where items.isEmpty: return nil
    case .array(let items):
      let few = items.prefix(3).compactMap { item in item.object != nil ? "(\(words(item)))" : short(item) }
      return few.joined(separator: ", ") + (items.count > 3 ? ", … (\(items.count))" : "")
    case .string(let text): return text.count > 60 ? text.prefix(60).description.printable + "…" : text.printable
    case .number(let text): return text
    case .bool(let flag): return "\(flag)"
    case .null, .object: return nil
    }
  }

  // MARK: GGUF

  private static func rows(_ metadata: GGUFMetadata) -> [(name: String, value: String)] {
    var rows: [(name: String, value: String)] = []
    let made = ["general.name", "general.quantized_by", "general.source.url", "general.repo_url", "general.license"]
    let texts = made.compactMap { key in
      metadata[key]?.string.map { "\(key.dropFirst("general.".count).replacing("_", with: " ")) \($0.printable)" }
    }
    if !texts.isEmpty { rows.append(("Made from", texts.joined(separator: ", "))) }
    if let number = metadata["general.file_type"]?.integer {
      let mix = GGUFMix.allCases.first { Int($0.fileType) == number }
      rows.append(("Recipe", mix.map { "mix \($0.rawValue)" } ?? "file type \(number)"))
    }
    let matrix = metadata.filter { $0.key.hasPrefix("quantize.imatrix.") }.compactMap { key, value in
      (value.string?.printable ?? value.integer.map { "\($0)" }).map {
        "\(key.dropFirst("quantize.imatrix.".count).replacing("_", with: " ")) \($0)"
      }
    }
    if !matrix.isEmpty { rows.append(("Weighed by imatrix", matrix.joined(separator: ", "))) }
    return rows
  }
}
