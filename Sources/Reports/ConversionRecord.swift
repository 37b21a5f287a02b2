import Checkpoints
import OrderedCollections

/// How an output was made, as its files and the run that wrote it tell.
package struct ConversionRecord: Hashable, Sendable {
  package enum Side: String, Hashable, Sendable {
    case source
    case output
  }

  /// A file with weights, or one that says what they are.
  package struct File: Hashable, Sendable {
    package let side: Side
    package let name: String
    package let byteCount: Int
    /// Of all its bytes, in lower-case hexadecimal; nil where it was not read whole.
    package let sha256: String?

    package init(side: Side, name: String, byteCount: Int, sha256: String?) {
      self.side = side
      self.name = name
      self.byteCount = byteCount
      self.sha256 = sha256
    }
  }

  /// What only the run knows: nothing of it is in the output, whose bytes are the same on every run.
  package struct Run: Hashable, Sendable {
    package let seconds: Double
    /// Largest resident memory of the process so far, in bytes.
    package let peakByteCount: Int
    package let threads: Int
    package let machine: Machine

    package init(seconds: Double, peakByteCount: Int, threads: Int, machine: Machine) {
      self.seconds = seconds
      self.peakByteCount = peakByteCount
      self.threads = threads
      self.machine = machine
    }
  }

  package struct Machine: Hashable, Sendable {
    package let processor: String
    package let cores: Int
    package let memoryByteCount: Int
    package let system: String

    package init(processor: String, cores: Int, memoryByteCount: Int, system: String) {
      self.processor = processor
      self.cores = cores
      self.memoryByteCount = memoryByteCount
      self.system = system
    }
  }

  /// The program that wrote the output, and its version; nil where the files do not tell.
  package let producer: String?
  /// The program that measured it.
  package let reporter: String
  /// The layout of the output, in words.
  package let form: String
  /// The options of the conversion, as the manifest has them; null where there is none.
  package let recipe: JSONValue
  /// The windows that were calibrated on, as the calibration report has them; null where there were none.
  package let windows: JSONValue
  /// What is recorded of evidence that was gathered before; null where there was none.
  package let evidence: JSONValue
  package let files: [File]
  /// Nil where the report was made later.
  package var run: Run?

  package init(
    producer: String?, reporter: String, form: String, recipe: JSONValue, windows: JSONValue, evidence: JSONValue,
    files: [File], run: Run? = nil
  ) {
    self.producer = producer
    self.reporter = reporter
    self.form = form
    self.recipe = recipe
    self.windows = windows
    self.evidence = evidence
    self.files = files
    self.run = run
  }
}

extension ConversionRecord {
  /// Method, bits and groups in a few words; nil where the files do not tell.
  var method: String? {
    guard let method = recipe["method"]?.string else { return nil }
    var words = [method.printable]
    if let bits = recipe["bits"]?.integer { words.append(Figures.count(bits, "bit")) }
    if let size = recipe["group_size"]?.integer { words.append("groups of \(size)") }
    if let size = recipe["group_size"]?.string { words.append("a scale per \(size.printable)") }
    return words.joined(separator: ", ")
  }

  /// Everything but the files, as names and values, in groups.
  var tables: [(title: String, rows: [(name: String, value: String)])] {
    var made = [(name: "form", value: form)]
    if let producer { made.append(("written by", producer)) }
    made.append(("measured by", reporter))
    var tables = [(title: "Versions", rows: made)]
    if let run {
      tables.append(
        (
          "Run",
          [
            ("time", "\(Figures.fixed(run.seconds, 2)) s"), ("peak memory", Figures.bytes(run.peakByteCount)),
            ("threads", "\(run.threads)"),
            ("processor", "\(run.machine.processor.printable), \(Figures.count(run.machine.cores, "core"))"),
            ("memory", Figures.bytes(run.machine.memoryByteCount)), ("system", run.machine.system.printable),
          ]
        ))
    }
    for (title, value) in [("Recipe", recipe), ("Calibrated on", windows), ("Evidence", evidence)] {
      let rows = Self.flattened(value, prefix: "")
      if !rows.isEmpty { tables.append((title, rows)) }
    }
    return tables
  }

  /// Members of objects, one a row, their names joined.
  private static func flattened(_ value: JSONValue, prefix: String) -> [(name: String, value: String)] {
    guard let members = value.object else { return [] }
    return members.flatMap { key, value -> [(name: String, value: String)] in
      let name = prefix + key.printable.replacing("_", with: " ")
      switch value {
      case .object: return flattened(value, prefix: name + " ")
      case .array(let items) where items.contains(where: { $0.object != nil }):
        return items.enumerated().flatMap { index, item in
          flattened(item, prefix: items.count > 1 ? "\(name) \(index + 1) " : name + " ")
        }
      case .array(let items) where items.isEmpty: return []
      case .null: return []
      case .string(let text): return [(name, text.printable)]
      case .bool(let flag): return [(name, flag ? "yes" : "no")]
      default: return [(name, value.text())]
      }
    }
  }

  var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = [
      "form": .string(form), "producer": producer.map { .string($0) } ?? .null, "reporter": .string(reporter),
      "recipe": recipe, "windows": windows, "evidence": evidence,
      "files": .array(
        files.map { file in
          [
            "side": .string(file.side.rawValue), "name": .string(file.name), "bytes": .integer(file.byteCount),
            "sha256": file.sha256.map { .string($0) } ?? .null,
          ]
        }),
    ]
    if let run {
      fields["run"] = [
        "seconds": .real(run.seconds), "peak_bytes": .integer(run.peakByteCount), "threads": .integer(run.threads),
        "machine": [
          "processor": .string(run.machine.processor), "cores": .integer(run.machine.cores),
          "memory_bytes": .integer(run.machine.memoryByteCount), "system": .string(run.machine.system),
        ],
      ]
    }
    return .object(fields)
  }
}
