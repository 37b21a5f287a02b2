import ArgumentParser
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

/// Output as a GGUF file, for llama.cpp and its kin.
struct GGUFArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The types of a GGUF file's weights, as llama.cpp names its mixes. (default: Q4_K_M)", valueName: "mix"))
  var type: GGUFMix?

  @Option(
    help: ArgumentHelp(
      "How much the columns of weights matter: an imatrix file, of llama.cpp's or of 'calibrate --imatrix'."
        + " --evidence and --calibration say it, too.", valueName: "file"))
  var imatrix: String?

  @Flag(help: "Leave the tokenizer out of the GGUF file.")
  var noTokenizer = false

  /// Whether an output is to be a GGUF file.
  func isAsked(for output: String) -> Bool { type != nil || output.lowercased().hasSuffix(".gguf") }

  /// Plans and writes the file.
  /// - Parameter gathered: importances of another origin than a file of `--imatrix`, with its name.
  func run(
    source: String, output: String, gathered: (matrix: ImportanceMatrix, name: String)?, overwrite: Bool, durable: Bool,
    resumption: ResumptionArguments, dryRun: Bool, running: RunningArguments, progress: ProgressArguments
  ) throws {
    let opened = try OpenedWeights(FilePath(source))
    var options = GGUFConversion.Options(mix: type ?? .q4KM)
    options.writesTokenizer = !noTokenizer
    if let imatrix {
      options.importance = try ImportanceMatrix(FilePath(imatrix))
      options.importanceFile = FilePath(imatrix).lastComponent?.string
    } else if let gathered {
      (options.importance, options.importanceFile) = (gathered.matrix, gathered.name)
    }
    if let note = opened.quantizationNote { printWarning("\(source): \(note)") }
    let conversion = try GGUFConversion(
      opened.source, configuration: opened.configuration, folder: opened.folder, options)
    if let warning = conversion.warning { printWarning("\(source): \(warning)") }
    if dryRun {
      print(
        running.json
          ? conversion.summary.json(path: output, seconds: nil).text(indent: 2)
          : conversion.summary.text(path: output, seconds: nil, isPlan: true))
      return
    }
    let interruption = Interruption()
    let display = ProgressDisplay(progress, verb: "Converting")
    defer { display.finish() }
    let file = try OutputFile(
      FilePath(output), source: FilePath(source), overwrite: overwrite, durable: durable)
    let identity = try ConversionIdentity(
      toolVersion: toolVersion, recipe: conversion.recipe, files: opened.files + (imatrix.map { [FilePath($0)] } ?? []))
    let earlier = try file.begin(identity, restart: resumption.restart)
    resumption.announce(file.finishedSteps)
    let started = ContinuousClock.now
    try conversion.run(into: file, goingOnFrom: earlier, workers: running.workers) { progress in
      display.show(progress)
      return !interruption.isRequested
    }
    display.finish()
    let seconds = started.duration(to: .now).seconds
    print(
      running.json
        ? conversion.summary.json(path: output, seconds: seconds).text(indent: 2)
        : conversion.summary.text(path: output, seconds: seconds, isPlan: false))
  }
}

extension GGUFMix: ExpressibleByArgument {
  public init?(argument: String) {
    guard let mix = Self.allCases.first(where: { $0.rawValue.lowercased() == argument.lowercased() }) else {
      return nil
    }
    self = mix
  }
}

/// The tokenizer of a model, from the folder or the GGUF file that it was read from, or from a folder that was named.
func tokenizer(of model: Model, named folder: String?) throws -> Tokenizer {
  if let folder { return try Tokenizer(folder: FilePath(folder)) }
  if let source = model.source as? GGUFSource { return try GGUFTokenizer.tokenizer(of: source.file) }
  return try Tokenizer(folder: model.folder)
}
