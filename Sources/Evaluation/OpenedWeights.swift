import Checkpoints
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

  package init(_ path: FilePath) throws {
    if GGUFFile.isGGUF(path) {
      let opened = try GGUFSource(GGUFFile(path))
      (source, configuration) = (opened, opened.configuration)
      folder = path.removingLastComponent()
      files = [path]
    } else if PackedCheckpoint.isPacked(path) {
      let packed = try PackedCheckpoint(path)
      (source, configuration) = (PackedSource(packed), packed.checkpoint.configuration)
      folder = packed.checkpoint.folder
      files = packed.checkpoint.files.map(\.path)
    } else {
      let checkpoint = try Checkpoint(path)
      let layout = try LayoutCheckpoint(checkpoint)
      source = layout.map { LayoutSource($0) } ?? checkpoint
      configuration = checkpoint.configuration
      folder = checkpoint.folder
      files = checkpoint.files.map(\.path)
    }
  }
}
