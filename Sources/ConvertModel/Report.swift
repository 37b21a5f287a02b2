import ArgumentParser
import Checkpoints
import Conversion
import Foundation
import Reports
import SystemPackage

struct Report: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure what a quantized checkpoint lost, from the bytes on disk.",
    discussion: """
      Decodes every tensor of OUT and compares it with SOURCE: relative error, SQNR, cosine, the largest error and \
      where it is, sizes, bits per weight; weights, codes and scales; what calibration measured of outputs and inputs. \
      Kept tensors are compared byte for byte; exit code 65 if one differs. Text, JSON and page have the same values. OUT \
      may be of any layout that is read here, whoever wrote it, GGUF among them.

      EXAMPLES
        convert-model report OUT --against SOURCE
        convert-model report OUT --against SOURCE --json
        convert-model report MODEL-Q4_K_M.gguf --against SOURCE
      A page to look at, with the perplexity measured before:
        convert-model evaluate OUT --against SOURCE --text TEXT --json > evaluation.json
        convert-model report OUT --against SOURCE --html report.html --evaluation evaluation.json
      """)

  @Argument(help: "A folder written by convert-model, one in the layout of a runtime, or a .gguf file.")
  var path: String

  @Option(help: ArgumentHelp("The checkpoint it was made from.", valueName: "source"))
  var against: String

  @Option(
    help: ArgumentHelp(
      "Write a page with pictures to this file: it needs no network and no other file.", valueName: "file"))
  var html: String?

  @Option(help: ArgumentHelp("What `evaluate --json` printed, to be shown in the report.", valueName: "file"))
  var evaluation: String?

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Comparing")
      defer { display.finish() }
      if let html { try requireFolder(of: html) }
      let evaluated = try evaluation.map(readEvaluation)
      let source = try Checkpoint(FilePath(against))
      var report = try fullReport(
        of: FilePath(path), against: source, running: running, display: display, interruption: interruption)
      report.evaluation = evaluated
      if let html { try writePage(report, of: path, to: html) }
      print(running.json ? report.json(path: path).text(indent: 2) : report.text(path: path))
      if !report.altered.isEmpty { throw Exit.data }
    }
  }

  private func readEvaluation(_ file: String) throws -> EvaluationFigures {
    guard let figures = EvaluationFigures(try readJSONObject(FilePath(file))) else {
      throw InputError(file, "is not what `convert-model evaluate --json` prints")
    }
    return figures
  }
}

/// Everything that can be measured of an output beside its source.
func fullReport(
  of path: FilePath, against source: Checkpoint, running: RunningArguments, display: ProgressDisplay,
  interruption: Interruption
) throws -> ModelReport {
  var report = try Measurement(packed: path, source: source).run(sampling: .all, workers: running.workers) { progress in
    display.show(progress)
    return !interruption.isRequested
  }
  display.finish()
  let calibration = try CalibrationReport(beside: path)
  report.calibration = calibration
  report.profiles = try TensorProfiling(packed: path, source: source).run(workers: running.workers) {
    !interruption.isRequested
  }
  report.provenance = try ConversionRecord(
    of: path, source: source, calibration: calibration, reporter: "convert-model \(toolVersion)",
    workers: running.workers
  ) { !interruption.isRequested }
  return report
}

/// Refuses, before long work, a page that could not be written after it.
func requireFolder(of file: String) throws(ConversionError) {
  let parent = FilePath(file).removingLastComponent()
  let folder = parent.isEmpty ? "." : parent.string
  var isDirectory: ObjCBool = false
  guard FileManager.default.fileExists(atPath: folder, isDirectory: &isDirectory), isDirectory.boolValue else {
    throw .cannotCreate(file, "there is no folder \(folder.printable)")
  }
  guard FileManager.default.isWritableFile(atPath: folder) else {
    throw .cannotCreate(file, "the folder \(folder.printable) cannot be written to")
  }
}

/// Writes the page of an output.
func writePage(_ report: ModelReport, of path: String, to file: String) throws {
  let page = ReportPage(title: FilePath(path).lastComponent?.string ?? path, report: report)
  try writeFile(Data(page.html().utf8), to: file)
}
