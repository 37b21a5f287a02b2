import ArgumentParser
import Calibration
import Checkpoints
import Conversion
import Evaluation
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage

extension Convert {
  /// Plans and writes a GGUF file.
  func writeGGUF() throws {
    let interruption = Interruption()
    let display = ProgressDisplay(progress, verb: "Converting")
    defer { display.finish() }
    let opened = try OpenedWeights(FilePath(source))
    var options = GGUFConversion.Options(mix: gguf.type ?? .q4KM)
    options.writesTokenizer = !gguf.noTokenizer
    var files = opened.files
    var text: CalibrationText?
    if let imatrix = gguf.imatrix {
      options.importance = try ImportanceMatrix(FilePath(imatrix))
      options.importanceFile = FilePath(imatrix).lastComponent?.string
      files.append(FilePath(imatrix))
    } else if let path = calibration.evidence {
      let checkpoint = try Checkpoint(FilePath(source))
      let name = FilePath(path).lastComponent?.string ?? path
      options.importanceFile = name
      options.importance = try ImportanceMatrix(
        openEvidence(path, for: checkpoint).statistics(workers: running.workers), of: checkpoint,
        configuration: checkpoint.configuration, datasets: [name])
    } else if let texts = calibration.text.calibration {
      let model = try Model(opened.source, configuration: opened.configuration)
      var calibrationOptions = CalibrationOptions()
      try calibration.text.set(&calibrationOptions)
      calibrationOptions.heldOut = 0
      text = calibrationText(model, calibrationOptions, interruption, display)
      options.importanceFile = texts
      options.importance = try ImportanceMatrix(
        model.description.linearInputs.map(Self.unknown), of: opened.source, configuration: opened.configuration,
        datasets: [texts])
    }
    if let note = opened.quantizationNote { printWarning("\(source): \(note)") }
    func plan() throws -> GGUFConversion {
      try GGUFConversion(opened.source, configuration: opened.configuration, folder: opened.folder, options)
    }
    var conversion = try plan()
    if let warning = conversion.warning { printWarning("\(source): \(warning)") }
    let memoryPlan = MemoryPlan(
      conversion, observing: text.map { ($0.model, $0.options) }, workers: running.workers)
    if dryRun {
      let summary = conversion.summary
      print(
        running.json
          ? summary.json(path: output, seconds: nil, plan: memoryPlan.summary).text(indent: 2)
          : summary.text(path: output, seconds: nil, plan: memoryPlan.summary))
      return
    }
    let activationMemory = try memoryPlan.activationBudget(within: memory.limit)
    try memory.requireAddresses(for: memoryPlan, workers: running.workers)
    if resumption.resume, conversion.isWritten(at: FilePath(output)) {
      if !running.json { print("\(output.printable): is complete already") }
      return
    }
    let file = try OutputFile(FilePath(output), source: FilePath(source), overwrite: overwrite, durable: durable)
    var recipe = conversion.recipe.object ?? [:]
    if let text { recipe["calibration"] = text.options.json(usesLayerEvidence: false) }
    let identity = try ConversionIdentity(
      toolVersion: toolVersion, recipe: .object(recipe), files: files,
      kernels: text == nil ? nil : linearAlgebraFamily())
    let earlier = try file.begin(
      identity, restart: resumption.restart, recordingEvery: recording.interval)
    resumption.announce(file.finishedSteps)
    let started = ContinuousClock.now
    if let text {
      do {
        let windows = try text.windows(for: file, goingOnFrom: earlier)
        let evidence = try text.gather(
          windows, memory: activationMemory, spillFolder: memory.spillFolder(for: file),
          into: file.scratch.appending("evidence"), for: file, goingOnFrom: earlier)
        var matrix = try ImportanceMatrix(
          evidence.statistics(workers: running.workers), of: opened.source, configuration: opened.configuration,
          datasets: options.importance?.datasets ?? [])
        matrix.chunkCount = windows.windows.count
        options.importance = matrix
        conversion = try plan()
      } catch {
        throw file.leave(error)
      }
    }
    try conversion.run(into: file, goingOnFrom: earlier, workers: running.workers) { progress in
      display.show(progress)
      return !interruption.isRequested
    }
    display.finish()
    let run = ConversionRecord.Run(seconds: started.duration(to: .now).seconds, threads: running.workers)
    guard !running.json else {
      print(conversion.summary.json(path: output, seconds: run.seconds, plan: nil).text(indent: 2))
      return
    }
    print(conversion.summary.text(path: output, seconds: run.seconds, plan: nil))
    print(memory.peakText(run.peakByteCount, of: memoryPlan))
  }

  /// What stands for the evidence of an input until it is gathered.
  private static func unknown(_ input: LinearInput) -> InputEvidence {
    let sums = ColumnStatistics(columns: input.dimension)
    return InputEvidence(
      input.layers, FeatureStatistics(tokens: 1, threshold: FeatureStatistics.usualThreshold, sums: sums), nil)
  }
}
