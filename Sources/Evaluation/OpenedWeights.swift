import Checkpoints
import Kernels
import Models
import Packing
import SystemPackage

/// The weights of a folder or file of any kind that is read, with its configuration.
package struct OpenedWeights: Sendable {
  package let source: any WeightSource
  /// The files with the weights.
  package let files: [FilePath]
  /// config.json, nil where there is none.
  package let configuration: JSONValue?
  /// Where the tokenizer and other files are.
  package let folder: FilePath
  /// What is lost already, where the weights are not those of full precision; nil where they are.
  package let quantizationNote: String?

  private static func note(_ quantized: Int, of all: Int, _ kind: String) -> String? {
    quantized == 0
      ? nil
      : "\(quantized) of \(all) tensors are quantized already (\(kind)): what is written is made of their decoded values,"
        + " and has the errors of both"
  }

  package init(_ path: FilePath) throws {
    if GGUFFile.isGGUF(path) {
      let opened = try GGUFSource(GGUFFile(path))
      (source, configuration) = (opened, opened.configuration)
      folder = path.removingLastComponent()
      files = [path]
      let tensors = opened.file.header.tensors
      quantizationNote = Self.note(tensors.count { !$0.type.isPlain }, of: tensors.count, "GGUF")
    } else if PackedCheckpoint.isPacked(path) {
      let packed = try PackedCheckpoint(path)
      (source, configuration) = (PackedSource(packed), packed.checkpoint.configuration)
      folder = packed.checkpoint.folder
      files = packed.checkpoint.files.map(\.path)
      let records = packed.manifest.records
      quantizationNote = Self.note(records.count { $0.encoding != nil }, of: records.count, "by convert-model")
    } else {
      let checkpoint = try Checkpoint(path)
      let layout = try LayoutCheckpoint(checkpoint)
      source = layout.map { LayoutSource($0) } ?? checkpoint
      configuration = checkpoint.configuration
      folder = checkpoint.folder
      files = checkpoint.files.map(\.path)
      quantizationNote = layout.flatMap { layout in
        Self.note(layout.records.count { $0.label != nil }, of: layout.records.count, layout.family.name)
      }
    }
  }
}
