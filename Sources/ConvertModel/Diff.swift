import ArgumentParser
import Checkpoints
import Conversion
import Reports
import SystemPackage

struct Diff: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compare two models on disk, tensor by tensor, in any layouts.",
    discussion: """
      A and B are folders or files, dense or quantized, in any layout that is read here, GGUF among them; names are \
      matched. Tells which tensors were added, removed or stored otherwise, and how far the values are apart. With \
      --against, both are compared with the model that they were made from, to see which is nearer to it.

      EXAMPLES
        What did a second conversion change?
          convert-model diff OUT-1 OUT-2
        Which of two quantizations lost less?
          convert-model diff OUT-gptq OUT-awq --against SOURCE
        Does a GGUF file hold the same weights as the checkpoint?
          convert-model diff MODEL MODEL.gguf
        In a script: are the values the same, however stored?
          convert-model diff A B --ignore-format --json > difference.json || echo "they differ"

      EXIT CODES
         0  the same: every tensor of one is in the other, in the same form with the same values
         1  they differ
        64 and above: trouble, as for other commands
      """)

  @Argument(help: ArgumentHelp("A model folder, a .safetensors file, an index, or a .gguf file.", valueName: "a"))
  var first: String

  @Argument(help: ArgumentHelp("Another one.", valueName: "b"))
  var second: String

  @Option(help: ArgumentHelp("The model that both were made from: tells which is nearer to it.", valueName: "source"))
  var against: String?

  @Flag(help: "List every tensor, not the twenty that differ most.")
  var all = false

  @Flag(help: "Equal values count as the same, in whatever type or scheme they are stored.")
  var ignoreFormat = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Comparing")
      defer { display.finish() }
      let report = try Difference(FilePath(first), FilePath(second), source: against.map { FilePath($0) })
        .run(workers: running.workers) { progress in
          display.show(progress)
          return !interruption.isRequested
        }
      display.finish()
      print(running.json ? report.json(ignoringFormat: ignoreFormat).text(indent: 2) : report.text(all: all))
      if !report.isSame(ignoringFormat: ignoreFormat) { throw Exit.different }
    }
  }
}
