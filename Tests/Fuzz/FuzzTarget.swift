import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import Packing
import Reports
import SystemPackage
import Tokenizers

/// A reader of files that come from strangers, to be given any bytes. It may refuse them with an error of ours; it may
/// not trap, hang, take much more memory than they have bytes, or say something that is not one plain line.
struct FuzzTarget: Sendable {
  typealias Body = @Sendable (_ input: [UInt8]) throws -> Void

  let name: String
  /// Makes the target in an empty folder of its own.
  let make: @Sendable (_ folder: FilePath) throws -> Body

  static let all: [FuzzTarget] = [
    FuzzTarget(name: "json") { _ in
      { input in
        let value = try JSONParser.parse(input)
        for indent in [nil, 2] {
          let again = try JSONParser.parse(Array(value.text(indent: indent).utf8))
          guard again == value else { fatalError("what was written does not read back: \(value.text())") }
        }
      }
    },
    // The header's text alone, so that a change of its length does not need another length before it.
    FuzzTarget(name: "safetensors-header") { _ in
      { input in
        do {
          _ = try SafetensorsHeader(text: input, fileSize: 8 + input.count, file: "header")
        } catch let error as CheckpointError {
          guard case .dataTruncated(let expected, _) = error.reason else { throw error }
          _ = try SafetensorsHeader(text: input, fileSize: 8 + input.count + expected, file: "header")
        }
      }
    },
    FuzzTarget(name: "safetensors") { folder in
      let path = folder.appending("model.safetensors")
      return { input in
        try write(input, path)
        let checkpoint = try Checkpoint(path)
        var bytes: [UInt8] = []
        for tensor in checkpoint.tensors {
          try tensor.file.read(0..<tensor.entry.bytes.count, of: tensor.entry, into: &bytes)
        }
        try inspect(path)
      }
    },
    FuzzTarget(name: "index") { folder in
      for name in ["a", "b"] {
        let header = #"{"\#(name).weight":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#
        let bytes = [UInt8(header.utf8.count), 0, 0, 0, 0, 0, 0, 0] + Array(header.utf8) + [1, 2]
        try write(bytes, folder.appending("\(name).safetensors"))
      }
      let path = folder.appending(Checkpoint.indexName)
      return { input in
        try write(input, path)
        _ = try Checkpoint(folder)
      }
    },
    // The first byte chooses the model that the configuration comes to.
    FuzzTarget(name: "config") { _ in
      let root = fixtures.appending("architectures")
      let models = try folders(in: root).map { (try Checkpoint(root.appending($0)), $0) }
      return { input in
        guard let choice = input.first else { return }
        let (checkpoint, name) = models[Int(choice) % models.count]
        let document = try JSONParser.parse(Array(input.dropFirst()))
        var failure: (any Error)?
        do { _ = try GGUFModel(configuration: document, file: name) } catch { failure = error }
        try run(Model(checkpoint, configuration: document))
        if let failure { throw failure }
      }
    },
    // The first byte chooses the folder.
    FuzzTarget(name: "layout") { folder in
      let root = fixtures.appending("layouts")
      let names = try folders(in: root)
      for name in names {
        let own = folder.appending(name)
        try FileManager.default.createDirectory(atPath: own.string, withIntermediateDirectories: true)
        let weights = "model.safetensors"
        try write(readWhole(root.appending(name).appending(weights)), own.appending(weights))
      }
      return { input in
        guard let choice = input.first else { return }
        let path = folder.appending(names[Int(choice) % names.count])
        try write(Array(input.dropFirst()), path.appending("config.json"))
        for runtime in Runtime.allCases {
          for finding in try RuntimeCheck(path, runtime: runtime, parts: 2).findings() {
            _ = (finding.problem + finding.remedy).printable
          }
        }
        guard let layout = try LayoutCheckpoint(Checkpoint(path)) else { return }
        for record in layout.records { _ = try layout.weight(record) }
      }
    },
    // The first byte chooses the layout whose description the weights come to.
    FuzzTarget(name: "layout-weights") { folder in
      let root = fixtures.appending("layouts")
      let names = try folders(in: root)
      for name in names {
        let own = folder.appending(name)
        try FileManager.default.createDirectory(atPath: own.string, withIntermediateDirectories: true)
        let source = root.appending(name).appending("config.json")
        if FileManager.default.fileExists(atPath: source.string) {
          try write(readWhole(source), own.appending("config.json"))
        }
      }
      return { input in
        guard let choice = input.first else { return }
        let path = folder.appending(names[Int(choice) % names.count])
        try write(Array(input.dropFirst()), path.appending("model.safetensors"))
        guard let layout = try LayoutCheckpoint(Checkpoint(path)) else { return }
        for record in layout.records { _ = try layout.weight(record) }
      }
    },
    FuzzTarget(name: "tokenizer-json") { _ in { input in use(try Tokenizer(json: input)) } },
    FuzzTarget(name: "tokenizer-model") { _ in { input in use(try Tokenizer(sentencePiece: input)) } },
    FuzzTarget(name: "gguf") { folder in
      let path = folder.appending("model.gguf")
      return { input in
        try write(input, path)
        let file = try GGUFFile(path)
        var failure: (any Error)?
        do { use(try GGUFTokenizer.tokenizer(of: file)) } catch { failure = error }
        try inspect(path)
        _ = try Inspector(path).depth(workers: 1) { _ in true }
        let source = try GGUFSource(file)
        var reader = source.makeReader()
        var values: [Float] = []
        for name in source.tensorNames {
          let count = source.shape(of: name)?.reduce(1, *) ?? 0
          try reader.read(name, 0..<count, into: &values)
        }
        try run(Model(source, configuration: source.configuration))
        if let failure { throw failure }
      }
    },
    FuzzTarget(name: "imatrix") { folder in
      let path = folder.appending("imatrix")
      return { input in
        try write(input, path)
        let matrix = try ImportanceMatrix(path)
        _ = matrix.file(tokens: 10, chunkSize: 5)
      }
    },
    FuzzTarget(name: "manifest") { folder in
      for name in ["model.safetensors", "config.json"] {
        try write(readWhole(fixtures.appending("packed").appending(name)), folder.appending(name))
      }
      return { input in
        try write(input, folder.appending(PackedManifest.fileName))
        try decode(folder)
      }
    },
    FuzzTarget(name: "packed-weights") { folder in
      for name in [PackedManifest.fileName, "config.json"] {
        try write(readWhole(fixtures.appending("packed").appending(name)), folder.appending(name))
      }
      return { input in
        try write(input, folder.appending("model.safetensors"))
        try decode(folder)
      }
    },
    FuzzTarget(name: "evidence") { folder in
      let path = folder.appending("evidence.safetensors")
      let source = try Checkpoint(fixtures.appending("architectures/llama-tied"))
      return { input in
        try write(input, path)
        let evidence = try openEvidence(path.string, for: source)
        for index in evidence.inputs.indices {
          _ = try evidence.evidence(ofInput: index, withHessian: evidence.hasHessians, workers: 1)
        }
      }
    },
    FuzzTarget(name: "text-lines") { folder in
      let path = folder.appending("text.jsonl")
      return { input in
        try write(input, path)
        _ = try CalibrationSource(.file(path)).read(vocabulary: 512) { _, _ in true }
      }
    },
    FuzzTarget(name: "calibration-report") { folder in
      let path = folder.appending("calibration_report.json")
      return { input in
        try write(input, path)
        _ = try CalibrationReport(beside: folder)
      }
    },
  ]

  /// Files that targets read beside their input take no more bytes than this.
  static let besides = 1 << 20
}

// MARK: - What is done with what was read

private func write(_ bytes: [UInt8], _ path: FilePath) throws {
  let file = try FileDescriptor.open(
    path, .writeOnly, options: [.create, .truncate], permissions: [.ownerReadWrite, .groupRead, .otherRead])
  try file.closeAfter { _ = try file.writeAll(bytes) }
}

private let fixtures = FilePath(#filePath).removingLastComponent().removingLastComponent().removingLastComponent()
  .appending("Fixtures")

/// The folders in a folder that hold weights, by name.
private func folders(in path: FilePath) throws -> [String] {
  try FileManager.default.contentsOfDirectory(atPath: path.string).sorted().filter {
    FileManager.default.fileExists(atPath: path.appending($0).appending("model.safetensors").string)
  }
}

/// What `inspect` prints of a stranger's file must leave the terminal alone.
private func inspect(_ path: FilePath) throws {
  let inspection = try Inspector(path).inspection()
  for line in inspection.text(all: true).split(separator: "\n") where !isPlain(line) {
    fatalError("control characters: \(line.debugDescription)")
  }
  _ = inspection.json.text(indent: 2)
}

private func isPlain(_ text: Substring) -> Bool {
  text.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control }
}

private func use(_ tokenizer: Tokenizer) {
  let text = "The quick brown fox's 3 jumps:\n\t<s> caf\u{e9} e\u{301} \u{4f60}\u{597d} \u{1f600} \u{0} </s>  12345"
  let ids = tokenizer.encode(text, addSpecialTokens: true)
  _ = tokenizer.decode(ids, skipSpecialTokens: false)
  _ = tokenizer.decode([-1, 0, 1, 2, 1 << 20] + ids.reversed(), skipSpecialTokens: true)
}

/// A step of the model, if it can be run and has few weights.
private func run(_ model: Model) throws {
  guard model.description.blocks.reduce(0, { $0 + $1.weightCount }) < 1 << 20, model.description.head.linear != nil
  else { return }
  _ = try Generation(model, capacity: 4, memoryLimit: 1 << 24, workers: 1).append([0, 1, 0])
}

/// Every element of every tensor of a packed folder.
private func decode(_ folder: FilePath) throws {
  let packed = try PackedCheckpoint(folder)
  try inspect(folder)
  _ = try DecodedCheck(folder, workers: 1).run { _ in true }
  var workspace = PackedCheckpoint.Workspace()
  var values: [Float] = []
  for record in packed.manifest.records where record.type != .c64 {
    try packed.decode(record, 0..<record.elementCount, into: &values, using: &workspace)
  }
}
