import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
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
      let interruption = Interruption()
      let path: String
      if let show {
        path = show
      } else if let output {
        path = output
        try write(FilePath(output), interruption)
      } else if let imatrix, let source {
        try writeImportance(FilePath(imatrix), of: FilePath(source), interruption)
        return
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
    if imatrix != nil {
      try ImportanceMatrix.architecture(of: checkpoint, configuration: checkpoint.configuration)
    }
    let matrix = try imatrix.map {
      try OutputFile(FilePath($0), source: checkpoint.folder, overwrite: overwrite)
    }
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
    guard let matrix else { return }
    let file = try EvidenceFile(path)
    let inputs = try file.inputs.indices.map {
      try file.evidence(ofInput: $0, withHessian: false, workers: running.workers)
    }
    try put(inputs, windows, of: checkpoint, configuration: checkpoint.configuration, into: matrix)
  }

  /// Gathers mean squares alone.
  private func writeImportance(_ path: FilePath, of source: FilePath, _ interruption: Interruption) throws {
    let display = ProgressDisplay(progress, verb: "Calibrating")
    defer { display.finish() }
    let opened = try OpenedWeights(source)
    try ImportanceMatrix.architecture(of: opened.source, configuration: opened.configuration)
    let matrix = try OutputFile(path, source: source, overwrite: overwrite)
    let model = try Model(opened.source, configuration: opened.configuration)
    var options = CalibrationOptions()
    try text.set(&options)
    options.heldOut = 0
    let calibration = CalibrationText(
      model: model, options: options, running: running, memory: memory, interruption: interruption, display: display)
    let windows = try calibration.windows()
    let evidence = try calibration.gather(windows, memory: memory.limit / 2, spillFolder: memory.spillFolder)
    display.finish()
    let count = try put(
      evidence.inputs, windows, of: opened.source, configuration: opened.configuration, into: matrix)
    if running.json {
      let json: JSONValue = [
        "path": .string(path.string), "weights": .integer(count), "tokens": .integer(windows.tokenCount),
      ]
      print(json.text(indent: 2))
    } else {
      print("\(path): importances of the columns of \(count) weights, from \(windows.tokenCount) tokens")
    }
  }

  /// - Returns: how many weights it says something of.
  @discardableResult
  private func put(
    _ inputs: [InputEvidence], _ windows: CalibrationWindows, of source: any WeightSource, configuration: JSONValue?,
    into file: OutputFile
  ) throws -> Int {
    var matrix = try ImportanceMatrix(
      inputs, of: source, configuration: configuration, datasets: windows.sources.map(\.name))
    matrix.chunkCount = windows.windows.count
    try file.finish(matrix.file(tokens: windows.tokenCount, chunkSize: windows.windows.first?.count ?? 0))
    return matrix.means.count
  }
}
