import ArgumentParser
import Checkpoints
import Conversion
import Foundation
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
      A page to look at, with the perplexity measured before:
        convert-model evaluate OUT --against SOURCE --text TEXT --json > evaluation.json
        convert-model report OUT --against SOURCE --html report.html --evaluation evaluation.json
      """)

  @Argument(help: "A folder written by convert-model.")
  var path: String

  @Option(help: ArgumentHelp("The checkpoint it was made from.", valueName: "source"))
  var against: String

  @Option(
    help: ArgumentHelp(
      "Write a page with pictures to this file: it needs no network and no other file.", valueName: "file"))
  var html: String?

  @Option(help: ArgumentHelp("What `evaluate --json` printed, to be shown on the page.", valueName: "file"))
  var evaluation: String?

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func validate() throws {
    if evaluation != nil, html == nil { throw ValidationError("--evaluation goes with --html") }
  }

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Comparing")
      defer { display.finish() }
      let source = try Checkpoint(FilePath(against))
      var report = try Measurement(packed: FilePath(path), source: source)
        .run(sampling: .all, workers: running.workers) { progress in
          display.show(progress)
          return !interruption.isRequested
        }
      display.finish()
      report.calibration = try CalibrationReport(beside: FilePath(path))
      if let html {
        let evaluated = try evaluation.map { try readJSONObject(FilePath($0)) }
        let profiles = try TensorProfiling(packed: FilePath(path), source: source).run(workers: running.workers) {
          !interruption.isRequested
        }
        let page = try ReportPage(FilePath(path), report: report, profiles: profiles, evaluation: evaluated)
        try writeFile(Data(page.html().utf8), to: html)
      }
      print(running.json ? report.json(path: path).text(indent: 2) : report.text(path: path))
      if !report.altered.isEmpty { throw Exit.data }
    }
  }
}
