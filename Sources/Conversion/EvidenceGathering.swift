import Calibration
import Checkpoints
import Models
import OrderedCollections
import SystemPackage

/// Runs a model over windows, and keeps what it learns of the inputs of layers in a file of evidence: block by block, so
/// that an interrupted run goes on after the last whole block.
package struct EvidenceGathering {
  private let calibration: BlockCalibration
  private let header: EvidenceHeader
  private let options: EvidenceOptions

  /// - Parameter header: of all inputs of the model, in its order.
  package init(_ calibration: BlockCalibration, _ header: EvidenceHeader) {
    self.calibration = calibration
    self.header = header
    options = EvidenceOptions(threshold: header.threshold, sumsHessians: header.hasHessians)
  }

  private enum Key {
    static let inputs = "inputs"
    static let input = "input"
    static let tokens = "tokens"
  }

  /// - Parameters:
  ///   - file: where the evidence is written; a file of the run.
  ///   - earlier: the journal's entries of an interrupted run that is taken up.
  ///   - onProgress: how far it is; false stops the work.
  ///   - onChecking: how far the check of earlier work is; false stops it as well.
  /// - Returns: the file, complete.
  package func run(
    into file: FilePath, of output: any ResumableOutput, goingOnFrom earlier: [JSONValue], workers: Int,
    onProgress: @escaping (WorkProgress) -> Bool,
    onChecking: @escaping @Sendable (ByteProgress) -> Bool = { _ in true }
  ) throws -> EvidenceFile {
    let writer = try EvidenceWriter(header, at: file, of: output.path)
    let found = earlier.flatMap { Self.inputs(of: $0) }
    let members = found.flatMap { input in
      writer.members(ofInput: input[Key.input]?.integer ?? -1).map { member in
        RecordedMember(
          tensor: "\(input[Key.input]?.integer ?? -1)", file: file, range: member.range,
          hash: input[FinishedWork.Key.hashes]?[member.name]?.string ?? "")
      }
    }
    let confirmed = try RecordedMember.confirmedTensors(members, workers: workers, onProgress: onChecking)
    let finished = BlockPass.observing.finished(earlier, in: output, workers: workers) { entry in
      Self.inputs(of: entry).allSatisfy {
        confirmed.contains("\($0[Key.input]?.integer ?? -1)")
      }
    }
    for input in finished.entries.flatMap({ Self.inputs(of: $0) }) {
      let hashes = input[FinishedWork.Key.hashes]?.object?.compactMapValues(\.string) ?? [:]
      writer.take(input: input[Key.input]?.integer ?? -1, tokens: input[Key.tokens]?.integer ?? 0, hashes: hashes)
    }
    var written: [JSONValue] = []
    let milestones = output.journal.map { journal in
      BlockPass.observing.milestones(of: output, journal, goingOnFrom: finished, workers: workers) {
        defer { written = [] }
        return [Key.inputs: .array(written)]
      }
    }
    try calibration.collect(options, onProgress: onProgress, milestones: milestones) { evidence in
      let input = try writer.write(evidence)
      written.append([
        Key.input: .integer(input.index), Key.tokens: .integer(evidence.tokens),
        FinishedWork.Key.hashes: .object(input.hashes.mapValues { .string($0) }),
      ])
    }
    try writer.finish()
    return try EvidenceFile(file)
  }

  /// What the entry of a block tells of its inputs.
  private static func inputs(of entry: JSONValue) -> [JSONValue] {
    entry[BlockPass.observing.rawValue] == nil ? [] : entry[Key.inputs]?.array ?? []
  }
}
