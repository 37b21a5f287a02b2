import Checkpoints
import Conversion
import Evaluation
import Foundation
import Packing
import SystemPackage

/// A source that is quantized already, in any form that is read, unpacked beside the output for as long as it is
/// converted.
///
/// Its folder is named by the source's path, size and time of change: a conversion that was interrupted, and is taken up,
/// finds it again.
struct DecodedSource {
  let folder: FilePath

  /// Unpacks a source and says what is lost already; nil where it is of full precision.
  init?(
    _ source: FilePath, beside output: FilePath, workers: Int, _ progress: ProgressArguments
  ) throws {
    let isFile = GGUFFile.isGGUF(source)
    if !isFile, !PackedCheckpoint.isPacked(source) {
      guard try LayoutCheckpoint(Checkpoint(source)) != nil else { return nil }
    }
    if let note = try OpenedWeights(source).quantizationNote { printWarning("\(source.string.printable): \(note)") }
    let name = ".\(output.lastComponent?.string ?? "output").unpacked-\(Self.mark(of: source))"
    folder = output.removingLastComponent().appending(name)
    guard !FileManager.default.fileExists(atPath: folder.string) else { return }
    let interruption = Interruption()
    let display = ProgressDisplay(progress, verb: "Unpacking")
    defer { display.finish() }
    let target = try OutputFolder(folder, source: source, overwrite: false)
    let goOn: @Sendable (ByteProgress) -> Bool = { done in
      display.show(done)
      return !interruption.isRequested
    }
    if isFile {
      _ = try GGUFUnpacker(source, workers: workers).run(into: target, onProgress: goOn)
    } else {
      _ = try Unpacker(source, workers: workers).run(into: target, onProgress: goOn)
    }
  }

  private static func mark(of source: FilePath) -> String {
    let attributes = try? FileManager.default.attributesOfItem(atPath: source.string)
    let size = (attributes?[.size] as? NSNumber)?.intValue ?? 0
    let changed = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
    // FNV-1a: nothing depends on it but whether a folder is found again.
    let hash = "\(source.string)\n\(size)\n\(changed)".utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) {
      ($0 ^ UInt64($1)) &* 0x100_0000_01b3
    }
    return String(hash, radix: 16)
  }

  /// To be called at the end, of a conversion that was not interrupted.
  func remove() { try? FileManager.default.removeItem(atPath: folder.string) }
}

extension Error {
  /// Whether a conversion that ended with it, or another one, is to be gone on with.
  var leavesWork: Bool {
    if case .otherConversion? = self as? ConversionError { return true }
    return self is SuspendedConversion
  }
}
