import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
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
        A page to look at, with the time and memory that the conversion took:
          convert-model SOURCE -o OUT -m gptq -b 3 -g 64 --report report.html
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

  @Option(help: "With --layout: how many devices vLLM is to split the layers over; what does not divide is refused.")
  var tensorParallel = 1

  @OptionGroup(title: "Choice of tensors") var choice: ChoiceArguments

  @OptionGroup(title: "Calibration") var calibration: CalibrationArguments

  @OptionGroup(title: "GGUF (an output named .gguf)") var gguf: GGUFArguments

  @Flag(help: "Replace OUTPUT if it is a model folder.")
  var overwrite = false

  @OptionGroup var resumption: ResumptionArguments
  @OptionGroup var recording: RecordingArguments

  @Flag(help: "Flush OUTPUT to the disk before it appears, so that it survives a power cut.")
  var durable = false

  @Flag(help: "Show the plan with the exact size of the output, and write nothing.")
  var dryRun = false

  @Option(
    name: .customLong("report"),
    help: ArgumentHelp(
      "Write a page with pictures to this file at the end, as `report --html` does, with this run's time and memory.",
      valueName: "file"))
  var page: String?

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  private var writesGGUF: Bool { layout == .gguf || gguf.isAsked(for: output) }

  func validate() throws {
    guard tensorParallel >= 1 else { throw ValidationError("--tensor-parallel \(tensorParallel): at least 1 device") }
    if tensorParallel > 1, layout?.runtime == nil {
      throw ValidationError("--tensor-parallel is for the layouts of vLLM: give --layout")
    }
    guard writesGGUF else {
      if gguf.imatrix != nil {
        throw ValidationError("--imatrix is for GGUF files; for a folder give --evidence, which 'calibrate' writes")
      }
      if page != nil, dryRun {
        throw ValidationError("--report needs an output to measure, which --dry-run does not write")
      }
      return
    }
    if page != nil {
      throw ValidationError(
        "--report is for packed folders and the layouts of runtimes, not for GGUF files, whose page"
          + " 'report OUT.gguf --against SOURCE --html FILE' writes")
    }
    if let layout, layout != .gguf {
      throw ValidationError(
        "--layout \(layout.rawValue) writes a folder, but \(output) or --type asks for a GGUF file: leave out one")
    }
    if let flag = calibration.learningFlags.first {
      throw ValidationError(
        "\(flag): rounding is learned for folders, not for the block types of GGUF files: give --calibration or --imatrix"
          + " instead, which weigh their errors, or write a folder")
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
        return try writeGGUF()
      }
      let begun = ContinuousClock.now
      let interruption = Interruption()
      if let page { try requireFolder(of: page) }
      let recipe = try makeRecipe()
      if recipe.runsModel, !dryRun { try memory.requireAddresses(workers: running.workers) }
      let isInTheWay =
        !overwrite && !resumption.resume && FileManager.default.fileExists(atPath: FilePath(output).string)
      let decoded =
        dryRun || isInTheWay
        ? nil
        : try DecodedSource(FilePath(source), beside: FilePath(output), workers: running.workers, progress)
      do {
        try write(recipe, from: decoded?.folder ?? FilePath(source), since: begun, interruption)
      } catch {
        // An interrupted run goes on from the same files.
        if !error.leavesWork { decoded?.remove() }
        throw error
      }
      decoded?.remove()
    }
  }

  /// Converts a source of full precision into a folder.
  /// - Parameter place: the source, or what it was unpacked to.
  private func write(
    _ wanted: Recipe, from place: FilePath, since begun: ContinuousClock.Instant, _ interruption: Interruption
  ) throws {
    var recipe = wanted
    let opened = try Checkpoint(place)
    let origin = place == FilePath(source) ? opened.folder : FilePath(source)
    // Runtimes ask for experts one by one.
    let checkpoint = recipe.layout == nil ? opened : opened.unfusingExperts
    if checkpoint.tensors.count != opened.tensors.count, calibration.evidence != nil {
      throw ValidationError(
        "--evidence knows the experts of \(source.printable) as they are stacked, but layouts have them one by"
          + " one: give --calibration")
    }
    let evidence = try calibration.evidence.map { try openEvidence($0, for: checkpoint) }
    recipe.calibration.evidence = evidence?.record
    if resumption.resume, try isComplete(recipe, checkpoint) {
      if page != nil {
        let display = ProgressDisplay(progress, verb: "Measuring")
        defer { display.finish() }
        _ = try measured(FilePath(output), checkpoint, nil, display, interruption)
      }
      if !running.json { print("\(output.printable): is complete already") }
      return
    }
    if resumption.resume, layout != nil, FileManager.default.fileExists(atPath: output) {
      printNote("--resume: the layout of a runtime does not tell by which recipe a folder was made")
    }
    // Claimed before long work, so that what stands in its way is known at once.
    let folder =
      dryRun
      ? nil
      : try OutputFolder(FilePath(output), source: origin, overwrite: overwrite, durable: durable)
    let earlier =
      try folder?.begin(
        ConversionIdentity(
          toolVersion: toolVersion, recipe: recipe.json, source: checkpoint,
          kernels: recipe.runsModel ? linearAlgebraFamily() : nil),
        restart: resumption.restart, recordingEvery: recording.interval) ?? []
    resumption.announce(folder?.finishedSteps ?? 0)
    do {
      try convert(checkpoint, recipe, evidence, into: folder, earlier, since: begun, interruption)
    } catch {
      throw folder?.leave(error) ?? error
    }
  }

  /// - Parameters:
  ///   - folder: nil: the plan is shown, and that is all.
  ///   - earlier: what an interrupted run has done.
  ///   - begun: when this run did.
  private func convert(
    _ checkpoint: Checkpoint, _ recipe: Recipe, _ evidence: (any StoredEvidence)?, into folder: OutputFolder?,
    _ earlier: [JSONValue], since begun: ContinuousClock.Instant, _ interruption: Interruption
  ) throws {
    let display = ProgressDisplay(progress, verb: "Converting")
    defer { display.finish() }
    let nonFinite =
      recipe.nonFinite == .keep
      ? try NonFiniteScan(checkpoint, recipe: recipe).run(workers: running.workers) { done in
        display.show(done)
        return !interruption.isRequested
      } : []
    var windows: CalibrationWindows?
    var statistics: [String: FeatureStatistics] = [:]
    if recipe.needsStatistics {
      if let evidence {
        statistics = try evidence.columnStatistics(workers: running.workers)
      } else {
        let model = try Plan.model(of: checkpoint, recipe)
        let observing = MemoryPlan(observing: model, recipe.calibration, workers: running.workers)
        let budget = try observing.activationBudget(within: memory.limit)
        try memory.requireAddresses(for: observing, workers: running.workers)
        let text = calibrationText(model, recipe.calibration, interruption, display)
        let found = try folder.map { try text.windows(for: $0, goingOnFrom: earlier) } ?? text.windows()
        if recipe.options.method == .llmInt8 { display.plan("calibrating", SplitSummary.plannedWork(of: model, found)) }
        // What methods that work tile by tile need to know of inputs.
        if let folder {
          statistics = try text.gather(
            found, memory: budget, spillFolder: memory.spillFolder(for: folder),
            into: folder.scratch.appending("evidence"),
            for: folder, goingOnFrom: earlier
          ).columnStatistics(workers: running.workers)
        } else {
          statistics = try text.gather(found, memory: budget, spillFolder: memory.spillFolder).columnStatistics
        }
        windows = found
      }
    }
    let plan = try Plan(
      converting: checkpoint, recipe: recipe, nonFinite: nonFinite, statistics: statistics, evidence: evidence)
    try plan.requireSplit(over: tensorParallel)
    if let evidence, let first = plan.withoutEvidence.first {
      printWarning(
        "\(evidence.place.printable): says nothing of \(plan.withoutEvidence.count) tensors, such as"
          + " '\(first.printable)': they are rounded to nearest")
    }
    let memoryPlan = MemoryPlan(plan, workers: running.workers)
    let summary = PlanSummary(plan, toolVersion: toolVersion, memory: memoryPlan)
    if dryRun {
      print(running.json ? summary.json.text(indent: 2) : summary.text)
      return
    }
    guard let folder else { return }
    let activationMemory = try memoryPlan.activationBudget(within: memory.limit)
    try memory.requireAddresses(for: memoryPlan, workers: running.workers)
    let started = ContinuousClock.now
    if windows == nil {
      windows = try plan.model.map {
        try calibrationText($0, recipe.calibration, interruption, display).windows(for: folder, goingOnFrom: earlier)
      }
    }
    let converter = Converter(
      plan: plan, toolVersion: toolVersion, workers: running.workers, windows: windows,
      resources: RunResources(activationMemory: activationMemory, spillFolder: memory.spillFolder(for: folder)))
    display.plan("writing", converter.writtenBytes())
    display.plan("comparing", ["decode": Measurement.quickBytes(of: checkpoint)])
    var splits: SplitSummary?
    let outcomes = try converter.run(
      into: folder, goingOnFrom: earlier,
      onCalibration: { done in
        display.show(done, stage: "calibrating")
        return !interruption.isRequested
      },
      onSplit: { splits = $0 },
      onProgress: { done in
        display.show(done)
        return !interruption.isRequested
      })
    let seconds = started.duration(to: .now).seconds
    let run = ConversionRecord.Run(seconds: begun.duration(to: .now).seconds, threads: running.workers)
    let report: ModelReport
    do {
      report = try measured(folder.path, checkpoint, run, display, interruption)
    } catch ConversionError.cancelled {
      display.finish()
      printNote("\(output): is complete; only its comparison with the source was stopped, which 'report' makes as well")
      throw Exit.interrupted
    }
    display.finish()
    print(
      running.json
        ? report.json(path: output, seconds: seconds).text(indent: 2)
        : report.shortText(path: output, seconds: seconds))
    let calibrated = CalibrationSummary(outcomes, windows: windows, evidence: evidence)
    if let calibrated, !running.json { print(calibrated.text) }
    if let splits, !running.json { print(splits.text) }
    if !running.json {
      print(memory.peakText(run.peakByteCount, of: memoryPlan))
    }
  }

  /// A sample of the output, or all of it where a page is asked for, which is then written.
  private func measured(
    _ folder: FilePath, _ source: Checkpoint, _ run: ConversionRecord.Run?, _ display: ProgressDisplay,
    _ interruption: Interruption
  ) throws -> ModelReport {
    guard let page else {
      return try Measurement(packed: folder, source: source)
        .run(sampling: .quick, workers: running.workers) { done in
          display.show(done)
          return !interruption.isRequested
        }
    }
    var report = try fullReport(
      of: folder, against: source, running: running, display: display, interruption: interruption)
    report.provenance?.run = run
    try writePage(report, of: output, to: page)
    return report
  }

  func calibrationText(
    _ model: Model, _ options: CalibrationOptions, _ interruption: Interruption, _ display: ProgressDisplay
  ) -> CalibrationText {
    CalibrationText(
      model: model, options: options, running: running, memory: memory, interruption: interruption, display: display)
  }

  /// Whether the output is there already, made by the same recipe from the same files.
  private func isComplete(_ recipe: Recipe, _ checkpoint: Checkpoint) throws -> Bool {
    guard FileManager.default.fileExists(atPath: FilePath(output).appending(PackedManifest.fileName).string) else {
      return false
    }
    let made = try PackedCheckpoint(FilePath(output)).manifest
    return made.toolVersion == toolVersion && made.recipe == recipe.json
      && made.sourceFiles.map(\.name) == checkpoint.files.map { $0.path.lastComponent?.string ?? "" }
      && made.sourceFiles.map(\.byteCount) == checkpoint.files.map(\.header.fileSize)
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
    if !recipe.needsLearning, let flag = calibration.learningFlags.first {
      throw ValidationError("\(flag) takes gradient steps of learned rounding: give -m learned, or leave it out")
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
