import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Models
import SystemPackage
import Tokenizers

/// Reads the texts to calibrate on, or has the model write one, and cuts them to windows by the model's own tokenizer.
struct CalibrationText {
  let model: Model
  let options: CalibrationOptions
  let running: RunningArguments
  let memory: MemoryArguments
  let interruption: Interruption
  let display: ProgressDisplay

  /// Warns where there is less text than was asked for, or too little for the widest layer.
  func windows() throws -> CalibrationWindows {
    let tokenizer = try Tokenizer(folder: model.folder)
    let trained = try ModelConfiguration(
      model.configuration, file: model.folder.appending("config.json").string
    ).integerIfPresent("max_position_embeddings")
    let length = options.sequenceLength ?? min(2048, model.description.positionLimit ?? trained ?? 2048)
    let windowOptions = CalibrationWindows.Options(
      samples: options.samples, sequenceLength: length, layout: options.layout, heldOut: options.heldOut)
    let vocabulary = model.description.embedding.vocabulary
    let encode = { (text: String) in tokenizer.encode(text, addSpecialTokens: false) }
    let write = { (count: Int) in try selfWritten(count, length: length, tokenizer) }
    var windows: CalibrationWindows
    if let seed = options.seed {
      var generator = SeededGenerator(seed: seed)
      windows = try CalibrationWindows(
        options.sources, windowOptions, vocabulary: vocabulary, using: &generator, encode: encode, write: write)
    } else {
      windows = try CalibrationWindows(
        options.sources, windowOptions, vocabulary: vocabulary, encode: encode, write: write)
    }
    for source in windows.sources where source.isShort {
      printWarning(
        "\(source.name): gives \(source.samples) of \(source.requestedSamples) windows of \(length) tokens to calibrate"
          + " on, and \(source.heldOut) of \(source.requestedHeldOut) to hold out: give more text, or shorter windows")
    }
    let widest = model.description.blocks.flatMap(\.linears).map(\.inputs).max() ?? 0
    if windows.tokenCount < widest {
      printWarning(
        "\(windows.tokenCount) calibration tokens are fewer than the \(widest) inputs of the widest layer: its Hessian"
          + " is singular, and dampening decides; give more samples")
    }
    return windows
  }

  /// The windows, for an output. A text that the model writes itself is written once, however often a run is taken up;
  /// another text than that of the run that is taken up is refused.
  func windows(for output: any ResumableOutput, goingOnFrom earlier: [JSONValue]) throws -> CalibrationWindows {
    let isWritten = options.sources.contains(where: \.isSelfWritten)
    let found = try isWritten ? output.remembered("windows", among: earlier, find: windows) : windows()
    try output.confirm(found.tokens, among: earlier)
    return found
  }

  private func run(_ text: CalibrationWindows, memory: Int, spillFolder: FilePath) -> BlockCalibration {
    BlockCalibration(
      model, windows: text.windows.map { Array(text.tokens[$0]) }, heldOut: [],
      BlockCalibration.Options(workers: running.workers, memoryLimit: memory, spillFolder: spillFolder))
  }

  private static let stage = "observing"

  /// Runs the model over windows, for the statistics of every layer's inputs.
  /// - Parameter memory: bytes of activations that stay in memory; others go to the folder.
  func gather(_ text: CalibrationWindows, memory: Int, spillFolder: FilePath) throws -> Evidence {
    try run(text, memory: memory, spillFolder: spillFolder)
      .collect(EvidenceOptions(threshold: options.outlierThreshold)) { done in
        display.show(done, stage: Self.stage)
        return !interruption.isRequested
      }
  }

  /// The same into a file of evidence, which an interrupted run goes on with.
  /// - Parameters:
  ///   - file: a file of the run.
  ///   - model: what the file says of which model it is.
  func gather(
    _ text: CalibrationWindows, memory: Int, spillFolder: FilePath, into file: FilePath,
    for output: any ResumableOutput, goingOnFrom earlier: [JSONValue], model identity: String = "",
    sumsHessians: Bool = false
  ) throws -> EvidenceFile {
    let header = evidenceHeader(text, model: identity, sumsHessians: sumsHessians)
    return try EvidenceGathering(run(text, memory: memory, spillFolder: spillFolder), header).run(
      into: file, of: output, goingOnFrom: earlier, workers: running.workers,
      onProgress: { done in
        display.show(done, stage: Self.stage)
        return !interruption.isRequested
      },
      onChecking: { done in
        display.show(done)
        return !interruption.isRequested
      })
  }

  /// - Parameter identity: what the file says of which model it is.
  func evidenceHeader(_ text: CalibrationWindows, model identity: String, sumsHessians: Bool) -> EvidenceHeader {
    EvidenceHeader(
      model: identity, modelType: model.description.modelType, threshold: options.outlierThreshold,
      texts: [text.evidenceRecord], inputs: model.description.linearInputs, hasHessians: sumsHessians)
  }

  private func selfWritten(_ count: Int, length: Int, _ tokenizer: Tokenizer) throws -> [[Int32]] {
    let ends = try model.endTokens()
    let first = tokenizer.encode("", addSpecialTokens: true).first ?? ends.min()
    let text = SelfWrittenText(
      model, start: first.map { .token($0) } ?? .random, ends: ends, seed: options.seed ?? 0,
      memoryLimit: memory.limit / 2, workers: running.workers)
    return try text.windows(count, length: length) { share in
      display.show(share: share, stage: "writing a text")
      return !interruption.isRequested
    }
  }
}
