import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Models
import Reports
import SystemPackage
import Tokenizers

struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Convert a checkpoint (the default: `convert` may be left out).",
    discussion: """
      Reads SOURCE tensor by tensor, quantizes the weights of its linear layers, and writes a packed folder with the \
      tokenizer and the other files beside. Embeddings, the output head, norms, biases and routers are kept bit for \
      bit; --include quantizes what a pattern matches as well. The folder appears complete or not at all.

      EXAMPLES
        4-bit NormalFloat in blocks of 64, scales in 8 bits:
          convert-model SOURCE -o OUT --double-quantization
        8 bits, a scale per row:
          convert-model SOURCE -o OUT --method absmax
        3 bits, clipped ranges:
          convert-model SOURCE -o OUT -m zero-point -b 3 --scale-search mse
        3 bits by GPTQ, calibrated on a text of your own:
          convert-model SOURCE -o OUT -m gptq -b 3 -g 64 --calibration text.txt
        The output head too, and one kind of layer in 8 bits:
          convert-model SOURCE -o OUT --include lm_head.weight \\
            --override '*.down_proj.weight: method=absmax, bits=8'
        A file for llama.cpp:
          convert-model SOURCE -o OUT.gguf --type Q4_K_M
      """)

  @Argument(help: "A model folder, a .safetensors file, or a model.safetensors.index.json.")
  var source: String

  @Option(name: [.short, .customLong("output")], help: "The folder to write.")
  var output: String

  @OptionGroup(title: "Method") var scheme: SchemeArguments
  @OptionGroup(title: "Choice of tensors") var choice: ChoiceArguments

  @OptionGroup(title: "Calibration (gptq)") var calibration: CalibrationArguments

  @OptionGroup(title: "GGUF (an output named .gguf)") var gguf: GGUFArguments

  @Flag(help: "Replace OUTPUT if it is a model folder.")
  var overwrite = false

  @Flag(help: "Flush OUTPUT to the disk before it appears, so that it survives a power cut.")
  var durable = false

  @Flag(help: "Show the plan with the exact size of the output, and write nothing.")
  var dryRun = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  func run() throws {
    try reportingErrors {
      if gguf.isAsked(for: output) {
        return try gguf.run(
          source: source, output: output, overwrite: overwrite, durable: durable, dryRun: dryRun, running: running)
      }
      let recipe = try makeRecipe()
      let checkpoint = try Checkpoint(FilePath(source))
      let interruption = Interruption()
      let display = ProgressDisplay(verb: "Converting")
      defer { display.finish() }
      let nonFinite =
        recipe.nonFinite == .keep
        ? try NonFiniteScan(checkpoint, recipe: recipe).run(workers: running.workers) { _ in !interruption.isRequested }
        : []
      let plan = try Plan(converting: checkpoint, recipe: recipe, nonFinite: nonFinite)
      let summary = PlanSummary(plan, toolVersion: toolVersion)
      if dryRun {
        print(running.json ? summary.json.text(indent: 2) : summary.text)
        return
      }
      let folder = try OutputFolder(FilePath(output), source: checkpoint.folder, overwrite: overwrite, durable: durable)
      let started = ContinuousClock.now
      let windows = try plan.model.map { try calibrationWindows($0, recipe.calibration) }
      let calibrating = ProgressDisplay(verb: "Calibrating")
      let converter = Converter(
        plan: plan, toolVersion: toolVersion, workers: running.workers, windows: windows,
        resources: RunResources(memoryLimit: memory.limit, spillFolder: memory.spillFolder))
      let outcomes = try converter.run(
        into: folder,
        onCalibration: { share in
          calibrating.show(share: share, of: windows?.tokenCount ?? 0, "tokens")
          return !interruption.isRequested
        },
        onProgress: { progress in
          calibrating.finish()
          display.show(progress)
          return !interruption.isRequested
        })
      calibrating.finish()
      display.finish()
      let seconds = started.duration(to: .now).seconds
      let report = try Measurement(packed: folder.path, source: checkpoint)
        .run(sampling: .quick, workers: running.workers) { _ in !interruption.isRequested }
      print(
        running.json
          ? report.json(path: output, seconds: seconds).text(indent: 2)
          : report.shortText(path: output, seconds: seconds))
      if let windows, !running.json { print(CalibrationSummary(outcomes, windows: windows).text) }
    }
  }

  /// The windows of the calibration text, cut by the model's own tokenizer.
  private func calibrationWindows(_ model: Model, _ options: CalibrationOptions) throws -> CalibrationWindows {
    let tokenizer = try Tokenizer(folder: model.folder)
    let trained = try ModelConfiguration(
      model.configuration, file: model.folder.appending("config.json").string
    ).integerIfPresent("max_position_embeddings")
    let length = options.sequenceLength ?? min(2048, model.description.positionLimit ?? trained ?? 2048)
    let windowOptions = CalibrationWindows.Options(
      samples: options.samples, sequenceLength: length, layout: options.layout, heldOut: options.heldOut)
    let vocabulary = model.description.embedding.vocabulary
    let encode = { (text: String) in tokenizer.encode(text, addSpecialTokens: false) }
    var windows: CalibrationWindows
    if let seed = options.seed {
      var generator = SeededGenerator(seed: seed)
      windows = try CalibrationWindows(
        options.sources, windowOptions, vocabulary: vocabulary, using: &generator, encode: encode)
    } else {
      windows = try CalibrationWindows(options.sources, windowOptions, vocabulary: vocabulary, encode: encode)
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

  private func makeRecipe() throws -> Recipe {
    var recipe = Recipe()
    recipe.options = scheme.options
    recipe.include = choice.include
    recipe.exclude = choice.exclude
    recipe.overrides = choice.override
    recipe.nonFinite = choice.allowNonfinite
    recipe.calibration = try calibration.options()
    do {
      _ = try recipe.options.scheme()
      for override in recipe.overrides { _ = try recipe.options.changed(by: override.options).scheme() }
    } catch {
      throw ValidationError("\(error)")
    }
    return recipe
  }
}
