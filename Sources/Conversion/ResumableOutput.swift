import Algorithms
import Checkpoints
import Crypto
import Foundation
import SystemPackage

/// An output that is written beside its place until it is complete, and whose run can be taken up: a folder or a file.
package protocol ResumableOutput: AnyObject, Sendable {
  var path: FilePath { get }
  var staging: Staging { get }
  /// Nil where the run cannot be taken up.
  var journal: Journal? { get }
}

extension ResumableOutput {
  /// What the run, and those before it, have done: tensors and blocks.
  package var finishedSteps: Int { journal?.stepCount ?? 0 }

  /// For files of the run that are no part of the output.
  package var scratch: FilePath { staging.folder }

  /// A file of the run that is no part of the output.
  func temporary(_ name: String) -> FilePath { staging.folder.appending(name) }

  /// A value that takes long to find: one that an interrupted run has found is taken from there.
  package func remembered<Value: Codable>(
    _ name: String, among earlier: [JSONValue], find: () throws -> Value
  ) throws -> Value {
    let path = temporary(name)
    var buffer: [UInt8] = []
    for entry in earlier where entry["remembered"]?.string == name {
      guard let size = try? Stat(path).size, let hash = entry["hash"]?.string,
        sha256(ofFile: path, 0..<Int(size), using: &buffer) == hash,
        let data = FileManager.default.contents(atPath: path.string),
        let value = try? JSONDecoder().decode(Value.self, from: data)
      else { continue }
      return value
    }
    let value = try find()
    guard let journal else { return value }
    let data = try JSONEncoder().encode(value)
    do {
      try data.write(to: URL(fileURLWithPath: path.string))
    } catch {
      throw ConversionError.writeFailed(path.string, Staging.explanation(error))
    }
    try journal.append([
      "remembered": .string(name), "hash": .string(hexadecimal(SHA256.hash(data: data))),
    ])
    return value
  }

  /// Records what the run's input is, and refuses to go on with one of another.
  package func confirm(_ tokens: [Int32], among earlier: [JSONValue]) throws(ConversionError) {
    let hash = ConversionIdentity.hash(tokens)
    guard let found = earlier.firstNonNil({ $0[Journal.Fact.tokens]?.string }) else {
      try journal?.append([Journal.Fact.tokens: .string(hash)])
      return
    }
    guard found == hash else {
      throw .otherConversion(
        path.string, kept: staging.folder.string,
        differences: ["calibration tokens: SHA-256 \(found), now \(hash): the text, or the tokenizer, has changed"])
    }
  }

  /// Leaves a run after an error: what is done is kept where it can be gone on with and doing it again could end better,
  /// and removed otherwise.
  /// - Returns: the error, with what was kept.
  package func leave(_ error: any Error) -> any Error { staging.leave(error, journal: journal) }
}
