import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Models
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

  @Flag(inversion: .prefixedNo, help: "Sum the products of features, which GPTQ needs.")
  var hessians = true

  @Flag(help: "Replace OUTPUT if it is there.")
  var overwrite = false

  @OptionGroup(title: "Calibration") var text: TextArguments
  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  func validate() throws {
    let asked = [source != nil, !merge.isEmpty, show != nil].count { $0 }
    guard asked == 1 else {
      throw ValidationError("give one of: a SOURCE to run, --merge FILES, --show FILE")
    }
    if show == nil, output == nil { throw ValidationError("give --output, the file to write") }
    if show != nil, output != nil { throw ValidationError("--show writes nothing: leave out --output") }
    if merge.count == 1 { throw ValidationError("--merge takes two files or more") }
  }

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let path: String
      if let show {
        path = show
      } else if let output {
        path = output
        try write(FilePath(output), interruption)
      } else {
        return
      }
      let summary = try EvidenceSummary(EvidenceFile(FilePath(path)), workers: running.workers)
      print(running.json ? summary.json.text(indent: 2) : summary.text)
    }
  }

  private func write(_ path: FilePath, _ interruption: Interruption) throws {
    let display = ProgressDisplay(progress, verb: merge.isEmpty ? "Calibrating" : "Merging")
    defer { display.finish() }
    guard let source else {
      try EvidenceFile.merge(merge.map { FilePath($0) }, into: path, overwrite: overwrite, workers: running.workers) {
        display.show(share: $0, stage: "merging")
        return !interruption.isRequested
      }
      return
    }
    let checkpoint = try Checkpoint(FilePath(source))
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    var options = CalibrationOptions()
    try text.set(&options)
    options.heldOut = 0
    let windows = try CalibrationText(
      model: model, options: options, running: running, memory: memory, interruption: interruption,
      display: display
    ).windows()
    let evidence = EvidenceOptions(threshold: options.outlierThreshold, sumsHessians: hessians)
    let header = EvidenceHeader(
      model: try checkpoint.identity(), modelType: model.description.modelType, threshold: options.outlierThreshold,
      texts: [windows.evidenceRecord], inputs: model.description.linearInputs, hasHessians: hessians)
    let calibration = BlockCalibration(
      model, windows: windows.windows.map { Array(windows.tokens[$0]) }, heldOut: [],
      BlockCalibration.Options(
        workers: running.workers, memoryLimit: memory.limit / 2, spillFolder: memory.spillFolder))
    try EvidenceWriter.write(path, header, overwrite: overwrite) { writer in
      try calibration.collect(
        evidence,
        onProgress: { done in
          display.show(done, stage: "calibrating")
          return !interruption.isRequested
        }, receive: { try writer.write($0) })
    }
  }
}
