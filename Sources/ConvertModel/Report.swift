import ArgumentParser
import Checkpoints
import Conversion
import Reports
import SystemPackage

struct Report: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure what a packed checkpoint lost, from the bytes on disk.",
    discussion: """
      Decodes every tensor of OUT and compares it with SOURCE: relative error, SQNR, cosine, the largest error and \
      where it is, sizes, bits per weight. Kept tensors are compared byte for byte; exit code 65 if one differs.

      EXAMPLES
        convert-model report OUT --against SOURCE
        convert-model report OUT --against SOURCE --json
      """)

  @Argument(help: "A folder written by convert-model.")
  var path: String

  @Option(help: ArgumentHelp("The checkpoint it was made from.", valueName: "source"))
  var against: String

  @OptionGroup(title: "Running") var running: RunningArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(verb: "Comparing")
      defer { display.finish() }
      let source = try Checkpoint(FilePath(against))
      let report = try Measurement(packed: FilePath(path), source: source)
        .run(sampling: .all, workers: running.workers) { progress in
          display.show(progress)
          return !interruption.isRequested
        }
      display.finish()
      print(running.json ? report.json(path: path).text(indent: 2) : report.text(path: path))
      if !report.altered.isEmpty { throw Exit.data }
    }
  }
}
