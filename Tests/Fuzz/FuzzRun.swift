import Calibration
import Checkpoints
import Conversion
import Foundation
import Models
import Packing
import SystemPackage
import Tokenizers

/// Gives inputs to a target and judges what comes of them.
struct FuzzRun: Sendable {
  private let body: FuzzTarget.Body

  init(_ target: FuzzTarget, in folder: FilePath) throws {
    try FileManager.default.createDirectory(atPath: folder.string, withIntermediateDirectories: true)
    body = try target.make(folder)
  }

  /// Ends the program where an error is none that the command turns into a line and an exit code.
  /// - Returns: the error, if the input was refused.
  @discardableResult
  func callAsFunction(_ input: [UInt8]) -> (any Error)? {
    do {
      try body(input)
      return nil
    } catch {
      let text = "\(error)"
      guard Self.isReported(error) else { fatalError("the command does not know \(type(of: error)): \(text)") }
      guard text.utf8.count < 1 << 16 else { fatalError("an error of \(text.utf8.count) bytes") }
      return error
    }
  }

  private static func isReported(_ error: any Error) -> Bool {
    switch error {
    case is CheckpointError, is ConversionError, is ModelError, is GGUFError, is CalibrationError, is EvidenceError,
      is EvidenceFileError, is TokenizerError, is RecipeError, is JSONError:
      true
    default: false
    }
  }
}
