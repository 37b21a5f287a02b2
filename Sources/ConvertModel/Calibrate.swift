import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Foundation
import Kernels
import Models
import OrderedCollections
import Packing
import Reports
import SystemPackage

struct Calibrate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a model over a text once, and keep what is learned of every layer's inputs for later conversions.",
    discussion: """
      Writes a file of evidence: for every input of linear layers mean and largest magnitudes, mean squares, counts of \
      outliers, and the products of features that GPTQ needs (--no-hessians leaves those out, which are most of the \
      file). `convert --evidence FILE` quantizes from it without running the model.

      EXAMPLES
        convert-model calibrate SOURCE -o evidence.safetensors --calibration text.txt
        convert-model SOURCE -o OUT -m gptq -b 4 --evidence evidence.safetensors
        convert-model calibrate --merge one.safetensors two.safetensors -o both.safetensors
        convert-model calibrate --show both.safetensors
        convert-model calibrate SOURCE --calibration text.txt --imatrix importance.gguf
        convert-model SOURCE -o OUT.gguf --type Q4_K_M --imatrix importance.gguf
      """)

  @Argument(help: "A model folder, a .safetensors file, or a model.safetensors.index.json.")
  var source: String?

  @Option(name: [.short, .customLong("output")], help: "The file to write.")
  var output: String?

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Add up files of evidence of the same model, instead of running it.", valueName: "files"))
  var merge: [String] = []

  @Option(help: ArgumentHelp("Show what is in a file of evidence.", valueName: "file"))
  var show: String?

  @Option(
    help: ArgumentHelp(
      "Write an imatrix file, too, or alone: mean squares of every layer's inputs by GGUF's names, as llama.cpp reads"
        + " them.", valueName: "file"))
  var imatrix: String?

  @Flag(inversion: .prefixedNo, help: "Sum the products of features, which GPTQ needs.")
  var hessians = true

  @Flag(help: "Replace what is to be written if it is there.")
  var overwrite = false

  @OptionGroup var resumption: ResumptionArguments
  @OptionGroup var recording: RecordingArguments

  @OptionGroup(title: "Calibration") var text: TextArguments
  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  func validate() throws {
    let asked = [source != nil, !merge.isEmpty, show != nil].count { $0 }
    guard asked == 1 else {
      throw ValidationError("give one of: a SOURCE to run, --merge FILES, --show FILE")
    }
    if show == nil, output == nil, imatrix == nil {
      throw ValidationError("give --output, the file to write, or --imatrix")
    }
    if imatrix != nil, source == nil { throw ValidationError("--imatrix needs the SOURCE to run") }
    if show != nil, output != nil { throw ValidationError("--show writes nothing: leave out --output") }
    if merge.count == 1 { throw ValidationError("--merge takes two files or more") }
  }

  func run() throws {
    try reportingErrors {
      if let show { return try printSummary(of: FilePath(show)) }
      let interruption = Interruption()
      if let source { return try calibrate(FilePath(source), interruption) }
      guard let output, let first = merge.first else { return }
      let display = ProgressDisplay(progress, verb: "Merging")
      defer { display.finish() }
      let file = try OutputFile(FilePath(output), source: FilePath(first), overwrite: overwrite)
      try EvidenceFile.merge(merge.map { FilePath($0) }, into: file, workers: running.workers) {
        display.show(share: $0, stage: "merging")
        return !interruption.isRequested
      }
      display.finish()
      try printSummary(of: FilePath(output))
    }
  }

  private func printSummary(of path: FilePath) throws {
    let summary = try EvidenceSummary(EvidenceFile(path), workers: running.workers)
    print(running.json ? summary.json.text(indent: 2) : summary.text)
  }

  /// Runs the model for evidence, for importances, or for both.
  private func calibrate(_ source: FilePath, _ interruption: Interruption) throws {
    let display = ProgressDisplay(progress, verb: "Calibrating")
    defer { display.finish() }
    // Evidence names its model, which only a checkpoint of full precision has.
    let checkpoint = try output.map { _ in try Checkpoint(source) }
    let opened = try OpenedWeights(source)
    if imatrix != nil {
      try ImportanceMatrix.architecture(of: opened.source, configuration: opened.configuration)
    }
    let model = try Model(opened.source, configuration: opened.configuration)
    var options = CalibrationOptions()
    try text.set(&options)
    options.heldOut = 0
    let sumsHessians = hessians && output != nil
    let plan = MemoryPlan(observing: model, options, sumsHessians: sumsHessians, workers: running.workers)
    let budget = try plan.activationBudget(within: memory.limit)
    try memory.requireAddresses(for: plan, workers: running.workers)
    let text = CalibrationText(
      model: model, options: options, running: running, memory: memory, interruption: interruption, display: display)
    if resumption.resume, try isComplete(text, checkpoint) {
      if !running.json { print("\((output ?? imatrix ?? "").printable): is complete already") }
      return
    }
    func claim(_ path: String) throws -> OutputFile {
      try OutputFile(FilePath(path), source: source, overwrite: overwrite)
    }
    let evidence = try output.map(claim)
    let importances = try imatrix.map(claim)
    guard let run = evidence ?? importances else { return }
    let earlier = try run.begin(
      identity(options, checkpoint, opened), restart: resumption.restart, recordingEvery: recording.interval)
    resumption.announce(run.finishedSteps, of: "calibration")
    do {
      let windows = try text.windows(for: run, goingOnFrom: earlier)
      let found = try text.gather(
        windows, memory: budget, spillFolder: memory.spillFolder(for: run),
        into: evidence?.written ?? run.scratch.appending("evidence"), for: run, goingOnFrom: earlier,
        model: checkpoint?.identity() ?? "", sumsHessians: sumsHessians)
      var matrix: ImportanceMatrix?
      if let importances {
        let made = try importance(found, windows, opened)
        // The evidence gets its place last: until then the run can be gone on with.
        try importances.finish(made.file(tokens: windows.tokenCount, chunkSize: windows.windows.first?.count ?? 0))
        matrix = made
      }
      try evidence?.commit()
      display.finish()
      try report(matrix, windows, plan)
    } catch {
      throw run.leave(error)
    }
  }

  private func identity(
    _ options: CalibrationOptions, _ checkpoint: Checkpoint?, _ opened: OpenedWeights
  ) throws -> ConversionIdentity {
    let recipe: JSONValue = [
      "command": "calibrate", "calibration": options.json(usesLayerEvidence: false), "hessians": .bool(hessians),
      "imatrix": .bool(imatrix != nil),
    ]
    let kernels = linearAlgebraFamily()
    guard let checkpoint else {
      return try ConversionIdentity(toolVersion: toolVersion, recipe: recipe, files: opened.files, kernels: kernels)
    }
    return try ConversionIdentity(toolVersion: toolVersion, recipe: recipe, source: checkpoint, kernels: kernels)
  }

  private func importance(
    _ evidence: EvidenceFile, _ windows: CalibrationWindows, _ opened: OpenedWeights
  ) throws -> ImportanceMatrix {
    var matrix = try ImportanceMatrix(
      evidence.statistics(workers: running.workers), of: opened.source, configuration: opened.configuration,
      datasets: windows.sources.map(\.name))
    matrix.chunkCount = windows.windows.count
    return matrix
  }

  /// Whether all that is asked for is there, gathered on the same windows.
  private func isComplete(_ text: CalibrationText, _ checkpoint: Checkpoint?) throws -> Bool {
    let paths = [output, imatrix].compactMap(\.self)
    guard paths.allSatisfy({ FileManager.default.fileExists(atPath: $0) }) else { return false }
    let windows = try text.windows()
    if let output, let checkpoint {
      let header = try EvidenceFile(FilePath(output)).header
      guard header == text.evidenceHeader(windows, model: try checkpoint.identity(), sumsHessians: hessians) else {
        return false
      }
    }
    guard let imatrix else { return true }
    let matrix = try ImportanceMatrix(FilePath(imatrix))
    return matrix.datasets == windows.sources.map(\.name) && matrix.chunkCount == windows.windows.count
  }

  private func report(_ matrix: ImportanceMatrix?, _ windows: CalibrationWindows, _ plan: MemoryPlan) throws {
    if let output {
      try printSummary(of: FilePath(output))
    } else if let matrix, let imatrix {
      if running.json {
        let json: JSONValue = [
          "path": .string(imatrix), "weights": .integer(matrix.means.count), "tokens": .integer(windows.tokenCount),
        ]
        print(json.text(indent: 2))
      } else {
        print(
          "\(imatrix.printable): importances of the columns of \(matrix.means.count) weights, from"
            + " \(windows.tokenCount) tokens")
      }
    }
    guard !running.json else { return }
    let run = ConversionRecord.Run(seconds: 0, threads: running.workers)
    print(memory.peakText(run.peakByteCount, of: plan))
  }
}
