import Checkpoints
import Foundation
import OrderedCollections
import Packing
import SystemPackage

/// The files of a model folder that are not weights: tokenizer, generation settings, licence. They are copied; weights in
/// other formats and descriptions of the old weights are not.
package struct SideFiles: Sendable {
  package struct File: Hashable, Sendable {
    /// Relative to the folder.
    package let name: String
    package let byteCount: Int
  }

  package let folder: FilePath
  package let copied: [File]
  /// Present in the source but not copied, with the reason.
  package let left: [(name: String, reason: String)]

  /// Endings of files that hold weights in some format, or describe them.
  private static let weightEndings = [
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".ggml",
    ".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".npz", ".ot", ".mlmodel", ".pdparams",
  ]
  private static let staleNames = [
    "quantize_config.json", "quant_config.json", "hf_quant_config.json", PackedManifest.fileName,
  ]
  /// `config.json` is written anew, not copied.
  static let configuration = "config.json"

  package init(of checkpoint: Checkpoint) throws(CheckpointError) {
    folder = checkpoint.folder
    let opened = Set(checkpoint.files.compactMap { $0.path.lastComponent?.string })
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: folder.string).sorted()
    } catch {
      throw CheckpointError(file: folder.string, .notReadable(error.localizedDescription))
    }
    var copied: [File] = []
    var left: [(String, String)] = []
    for name in names where name != Self.configuration {
      guard let status = try? Stat(folder.appending(name)) else {
        left.append((name, "cannot be read"))
        continue
      }
      if opened.contains(name) || Self.weightEndings.contains(where: { name.hasSuffix($0) }) {
        left.append((name, "weights"))
      } else if Self.staleNames.contains(name) {
        left.append((name, "describes another quantization"))
      } else if status.type == .directory {
        left.append((name, "a folder"))
      } else if status.type != .regular || name.hasPrefix(".") {
        left.append((name, "not an ordinary file"))
      } else {
        copied.append(File(name: name, byteCount: Int(status.size)))
      }
    }
    self.copied = copied
    self.left = left
  }

  /// Copies the files; symbolic links are followed.
  func copy(to target: FilePath) throws(ConversionError) {
    for file in copied {
      do {
        let source = URL(fileURLWithPath: folder.appending(file.name).string).resolvingSymlinksInPath()
        // Of an interrupted run.
        try? FileManager.default.removeItem(atPath: target.appending(file.name).string)
        try FileManager.default.copyItem(atPath: source.path, toPath: target.appending(file.name).string)
      } catch {
        throw .writeFailed(target.appending(file.name).string, error.localizedDescription)
      }
    }
  }
}
