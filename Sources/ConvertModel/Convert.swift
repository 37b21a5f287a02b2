import ArgumentParser
import Checkpoints
import Conversion
import Foundation
import Reports
import SystemPackage

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
        The output head too, and one kind of layer in 8 bits:
          convert-model SOURCE -o OUT --include lm_head.weight \\
            --override '*.down_proj.weight: method=absmax, bits=8'
      """)

  @Argument(help: "A model folder, a .safetensors file, or a model.safetensors.index.json.")
  var source: String

  @Option(name: [.short, .customLong("output")], help: "The folder to write.")
  var output: String

  @OptionGroup(title: "Method") var scheme: SchemeArguments
  @OptionGroup(title: "Choice of tensors") var choice: ChoiceArguments

  @Flag(help: "Replace OUTPUT if it is a model folder.")
  var overwrite = false

  @Flag(help: "Flush OUTPUT to the disk before it appears, so that it survives a power cut.")
  var durable = false

  @Flag(help: "Show the plan with the exact size of the output, and write nothing.")
  var dryRun = false

  @OptionGroup(title: "Running") var running: RunningArguments

  func run() throws {
    try reportingErrors {
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
      try Converter(plan: plan, toolVersion: toolVersion, workers: running.workers).run(into: folder) { progress in
        display.show(progress)
        return !interruption.isRequested
      }
      display.finish()
      let seconds = started.duration(to: .now).seconds
      let report = try Measurement(packed: folder.path, source: checkpoint)
        .run(sampling: .quick, workers: running.workers) { _ in !interruption.isRequested }
      print(
        running.json
          ? report.json(path: output, seconds: seconds).text(indent: 2)
          : report.shortText(path: output, seconds: seconds))
    }
  }

  private func makeRecipe() throws -> Recipe {
    var recipe = Recipe()
    recipe.options = scheme.options
    recipe.include = choice.include
    recipe.exclude = choice.exclude
    recipe.overrides = choice.override
    recipe.nonFinite = choice.allowNonfinite
    do {
      _ = try recipe.options.scheme()
      for override in recipe.overrides { _ = try recipe.options.changed(by: override.options).scheme() }
    } catch {
      throw ValidationError("\(error)")
    }
    return recipe
  }
}
