import ArgumentParser
import Checkpoints
import Conversion
import Reports
import SystemPackage

struct Unpack: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Turn a packed checkpoint back into an ordinary one.",
    discussion: """
      Writes the decoded weights in the types they had, so that any program loads the folder, transformers among them.

      EXAMPLES
        convert-model unpack OUT -o DENSE
        convert-model unpack FILE.gguf -o DENSE
      """)

  @Argument(help: "A folder written by convert-model, or a .gguf file.")
  var path: String

  @Option(name: [.short, .customLong("output")], help: "The folder to write.")
  var output: String

  @Flag(help: "Replace OUTPUT if it is a model folder.")
  var overwrite = false

  @OptionGroup var resumption: ResumptionArguments

  @Flag(help: "Flush OUTPUT to the disk before it appears, so that it survives a power cut.")
  var durable = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      if GGUFFile.isGGUF(FilePath(path)) {
        try unpack(GGUFUnpacker(FilePath(path), workers: running.workers), interruption)
      } else {
        try unpack(Unpacker(FilePath(path), workers: running.workers), interruption)
      }
    }
  }

  private func unpack(_ unpacker: some DenseUnpacker, _ interruption: Interruption) throws {
    if resumption.resume, unpacker.isWritten(at: FilePath(output)) {
      if !running.json { print("\(output.printable): is complete already") }
      return
    }
    let folder = try OutputFolder(FilePath(output), source: unpacker.source, overwrite: overwrite, durable: durable)
    let identity = try ConversionIdentity(
      toolVersion: toolVersion, recipe: ["command": "unpack"], files: unpacker.files)
    let earlier = try folder.begin(identity, restart: resumption.restart)
    resumption.announce(folder.finishedSteps, of: "unpacking")
    let display = ProgressDisplay(progress, verb: "Unpacking")
    defer { display.finish() }
    let written = try unpacker.run(into: folder, goingOnFrom: earlier) { progress in
      display.show(progress)
      return !interruption.isRequested
    }
    display.finish()
    print(running.json ? written.json(path: output).text(indent: 2) : written.text(path: output))
  }
}
