import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Models
import Packing
import Quantization
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
        8 bits, with outlier features in 16, for a model that is run with 8-bit inputs:
          convert-model SOURCE -o OUT -m llm-int8 --calibration text.txt
        3 bits by GPTQ, calibrated on a text of your own:
          convert-model SOURCE -o OUT -m gptq -b 3 -g 64 --calibration text.txt
        4 bits, scales chosen by which inputs matter:
          convert-model SOURCE -o OUT -m absmax -b 4 --calibration text.txt
        From evidence that `calibrate` wrote, without running the model:
          convert-model SOURCE -o OUT -m gptq -b 4 --evidence evidence.safetensors
        4 bits by AWQ; 8-bit weights behind inputs smoothed for 8-bit activations:
          convert-model SOURCE -o OUT -m awq --calibration text.txt
          convert-model SOURCE -o OUT -m absmax --scaling smooth --calibration text.txt
        The output head too, and one kind of layer in 8 bits:
          convert-model SOURCE -o OUT --include lm_head.weight \\
            --override '*.down_proj.weight: method=absmax, bits=8'
        A file for llama.cpp; the same by what a text says of the importance of columns:
          convert-model SOURCE -o OUT.gguf --type Q4_K_M
          convert-model SOURCE -o OUT.gguf --type Q4_K_M --calibration text.txt
      """)

  @Argument(help: "A model folder, a .safetensors file, or a model.safetensors.index.json.")
  var source: String

  @Option(name: [.short, .customLong("output")], help: "The folder to write.")
  var output: String

  @OptionGroup(title: "Method") var scheme: SchemeArguments

  @Option(
    help: ArgumentHelp(
      "Write the layout of a runtime instead of the packed format.",
      discussion: OutputLayout.allCases.map { "\($0.rawValue): \($0.summary)" }.joined(separator: "\n"),
      valueName: "layout"))
  var layout: OutputLayout?

  @OptionGroup(title: "Choice of tensors") var choice: ChoiceArguments

  @OptionGroup(title: "Calibration") var calibration: CalibrationArguments

  @OptionGroup(title: "GGUF (an output named .gguf)") var gguf: GGUFArguments

  @Flag(help: "Replace OUTPUT if it is a model folder.")
  var overwrite = false

  @Flag(help: "Flush OUTPUT to the disk before it appears, so that it survives a power cut.")
  var durable = false

  @Flag(help: "Show the plan with the exact size of the output, and write nothing.")
  var dryRun = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  private var writesGGUF: Bool { layout == .gguf || gguf.isAsked(for: output) }

  func validate() throws {
    guard writesGGUF else {
      if gguf.imatrix != nil {
        throw ValidationError("--imatrix is for GGUF files; for a folder give --evidence, which 'calibrate' writes")
      }
      return
    }
    if let layout, layout != .gguf {
      throw ValidationError(
        "--layout \(layout.rawValue) writes a folder, but \(output) or --type asks for a GGUF file: leave out one")
    }
    if scheme.options != SchemeOptions() || !choice.include.isEmpty || !choice.exclude.isEmpty
      || !choice.override.isEmpty || calibration.scaling != nil
    {
      throw ValidationError(
        "methods, bits, groups, scalings and choices of tensors are for folders: the weights of a GGUF file get their"
          + " types by --type, such as Q4_K_M")
    }
    if [gguf.imatrix, calibration.evidence, calibration.text.calibration].count(where: { $0 != nil }) > 1 {
      throw ValidationError("--imatrix, --evidence and --calibration: give one of them")
    }
  }

  func run() throws {
    try reportingErrors {
      if writesGGUF {
        return try gguf.run(
          source: source, output: output, gathered: try gatherImportance(), overwrite: overwrite, durable: durable,
          dryRun: dryRun, running: running)
      }
      var recipe = try makeRecipe()
      let checkpoint = try Checkpoint(FilePath(source))
      let evidence = try calibration.evidence.map { try openEvidence($0, for: checkpoint) }
      recipe.calibration.evidence = evidence?.record
      let interruption = Interruption()
      let display = ProgressDisplay(verb: "Converting")
      defer { display.finish() }
      let nonFinite =
        recipe.nonFinite == .keep
        ? try NonFiniteScan(checkpoint, recipe: recipe).run(workers: running.workers) { _ in !interruption.isRequested }
        : []
      let calibrating = ProgressDisplay(verb: "Calibrating")
      defer { calibrating.finish() }
      var windows: CalibrationWindows?
      var statistics: [String: FeatureStatistics] = [:]
      if recipe.needsStatistics {
        if let evidence {
          statistics = try evidence.columnStatistics(workers: running.workers)
        } else {
          let model = try Plan.model(of: checkpoint, recipe)
          let text = calibrationText(model, recipe, interruption)
          let cut = try text.windows()
          // What methods that work tile by tile need to know of inputs.
          statistics = try text.gather(cut) { share in
            calibrating.show(share: share, of: cut.tokenCount, "tokens")
            return !interruption.isRequested
          }.columnStatistics
          windows = cut
        }
        calibrating.finish()
      }
      let plan = try Plan(
        converting: checkpoint, recipe: recipe, nonFinite: nonFinite, statistics: statistics, evidence: evidence)
      if let evidence, let first = plan.withoutEvidence.first {
        printWarning(
          "\(evidence.place.printable): says nothing of \(plan.withoutEvidence.count) tensors, such as"
            + " '\(first.printable)': they are rounded to nearest")
      }
      let summary = PlanSummary(plan, toolVersion: toolVersion)
      if dryRun {
        print(running.json ? summary.json.text(indent: 2) : summary.text)
        return
      }
      let folder = try OutputFolder(FilePath(output), source: checkpoint.folder, overwrite: overwrite, durable: durable)
      let started = ContinuousClock.now
      if windows == nil { windows = try plan.model.map { try calibrationText($0, recipe, interruption).windows() } }
      let converter = Converter(
        plan: plan, toolVersion: toolVersion, workers: running.workers, windows: windows,
        resources: RunResources(memoryLimit: memory.limit, spillFolder: memory.spillFolder))
      let tokenCount = windows?.tokenCount ?? 0
      var splits: SplitSummary?
      let outcomes = try converter.run(
        into: folder,
        onCalibration: { share in
          calibrating.show(share: share, of: tokenCount, "tokens")
          return !interruption.isRequested
        },
        onSplit: { splits = $0 },
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
      let calibrated = CalibrationSummary(outcomes, windows: windows, evidence: evidence)
      if let calibrated, !running.json { print(calibrated.text) }
      if let splits, !running.json { print(splits.text) }
    }
  }

  private func calibrationText(
    _ model: Model, _ recipe: Recipe, _ interruption: Interruption
  ) -> CalibrationText {
    CalibrationText(
      model: model, options: recipe.calibration, running: running, memory: memory, interruption: interruption)
  }

  /// How much the columns of weights matter, by evidence or by a text; nil where neither is given.
  private func gatherImportance() throws -> (ImportanceMatrix, String)? {
    if let path = calibration.evidence {
      let checkpoint = try Checkpoint(FilePath(source))
      let evidence = try openEvidence(path, for: checkpoint)
      let inputs = try evidence.inputs.indices.map {
        try evidence.evidence(ofInput: $0, withHessian: false, workers: running.workers)
      }
      let name = FilePath(path).lastComponent?.string ?? path
      return (
        try ImportanceMatrix(inputs, of: checkpoint, configuration: checkpoint.configuration, datasets: [name]), name
      )
    }
    guard let texts = calibration.text.calibration else { return nil }
    let opened = try OpenedWeights(FilePath(source))
    let model = try Model(opened.source, configuration: opened.configuration)
    let interruption = Interruption()
    let display = ProgressDisplay(verb: "Calibrating")
    defer { display.finish() }
    var options = CalibrationOptions()
    try calibration.text.set(&options)
    options.heldOut = 0
    let text = CalibrationText(
      model: model, options: options, running: running, memory: memory, interruption: interruption)
    let windows = try text.windows()
    let evidence = try text.gather(windows) { share in
      display.show(share: share, of: windows.tokenCount, "tokens")
      return !interruption.isRequested
    }
    var matrix = try ImportanceMatrix(
      evidence.inputs, of: opened.source, configuration: opened.configuration, datasets: [texts])
    matrix.chunkCount = windows.windows.count
    return (matrix, texts)
  }

  private func makeRecipe() throws -> Recipe {
    var recipe = Recipe()
    recipe.options = scheme.options
    recipe.layout = layout?.runtime
    recipe.include = choice.include
    recipe.exclude = choice.exclude
    recipe.overrides = choice.override
    recipe.nonFinite = choice.allowNonfinite
    recipe.calibration = try calibration.options()
    if recipe.needsLearning, recipe.calibration.usesOriginalInputs {
      throw ValidationError(
        "--parallel-evidence: learned goes on from the inputs that quantized layers give; leave it out")
    }
    recipe.scaling = calibration.scalingRecipe
    if calibration.scaling == ScalingChoice.none, recipe.inputScaling != nil {
      throw ValidationError("--scaling none: awq is a scaling; take zero-point or absmax for plain rounding")
    }
    do {
      _ = try recipe.options.fitted(to: recipe.layout).scheme()
      for override in recipe.overrides {
        _ = try recipe.options.changed(by: override.options).fitted(to: recipe.layout).scheme()
      }
      if calibration.text.calibration != nil || calibration.evidence != nil { try recipe.weighScales() }
    } catch {
      throw ValidationError("\(error)")
    }
    return recipe
  }
}

/// What is written instead of our own format: a folder in a runtime's layout, or a GGUF file.
enum OutputLayout: ExpressibleByArgument, Hashable {
  case runtime(RuntimeLayout)
  case gguf

  static let allCases = RuntimeLayout.allCases.map { OutputLayout.runtime($0) } + [.gguf]

  init?(argument: String) {
    guard let found = Self.allCases.first(where: { $0.rawValue == argument }) else { return nil }
    self = found
  }

  static var allValueStrings: [String] { allCases.map(\.rawValue) }

  var runtime: RuntimeLayout? { if case .runtime(let layout) = self { layout } else { nil } }
  var rawValue: String { runtime?.rawValue ?? "gguf" }
  var summary: String { runtime?.summary ?? "a file for llama.cpp, whatever OUTPUT is named; --type chooses its types" }
}
