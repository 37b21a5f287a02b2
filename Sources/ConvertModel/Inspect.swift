import ArgumentParser
import Checkpoints
import Conversion
import Foundation
import Reports
import SystemPackage

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is in a model folder or file, packed or not: what it is, how it was made, what is odd.",
    discussion: """
      Reads headers only, so that it is instant for any size: safetensors, folders in our own format and in those of \
      runtimes, GGUF. --deep reads all values; --tensor looks at one tensor.

      EXAMPLES
        At a glance, in the terminal or as a page:
          convert-model inspect MODEL
          convert-model inspect MODEL --html model.html
        Read everything: NaN, zero scales, unused codes, saturation:
          convert-model inspect OUT --deep
        One tensor: histograms of values, codes and scales; its largest errors:
          convert-model inspect OUT --tensor model.layers.0.mlp.up_proj.weight --against SOURCE
        The weights of rows 0 to 3 and columns 0 to 7, with their codes:
          convert-model inspect OUT --tensor model.layers.0.mlp.up_proj.weight --values 0:4,0:8

      Exit code 65 if the folder cannot be loaded: shards missing, damaged or not those of the index.
      """)

  @Argument(help: "A folder or a file.")
  var path: String

  @Flag(help: "List every tensor, not only every kind of them.")
  var all = false

  @Flag(help: "Read all values, codes and scales, and tell what is odd about them.")
  var deep = false

  @Option(help: ArgumentHelp("Show one tensor: histograms of values, codes and scales.", valueName: "name"))
  var tensor: String?

  @Option(
    help: ArgumentHelp(
      "With --tensor: show these values, a range for each dimension, such as 0:4,0:8 or 7,:.", valueName: "ranges"))
  var values: TensorSlice?

  @Option(help: ArgumentHelp("With --tensor: list the largest errors against this checkpoint.", valueName: "source"))
  var against: String?

  @Option(
    help: ArgumentHelp("Write a page to this file, too: it needs no network and no other file.", valueName: "file"))
  var html: String?

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func validate() throws {
    if against != nil, tensor == nil {
      throw ValidationError("--against needs --tensor; `convert-model diff` compares whole checkpoints")
    }
    if values != nil, tensor == nil { throw ValidationError("--values needs --tensor") }
    if tensor != nil, deep || all { throw ValidationError("--tensor shows one tensor: leave out --deep and --all") }
  }

  func run() throws {
    try reportingErrors {
      let inspector = try Inspector(FilePath(path))
      if let tensor {
        let found = try inspector.tensor(
          tensor, against: try against.map { try Checkpoint(FilePath($0)) }, slice: values)
        if let html { try writeFile(Data(try found.html().utf8), to: html) }
        print(running.json ? found.json.text(indent: 2) : found.text(plain: prefersPlainText))
        return
      }
      var inspection = try inspector.inspection()
      if deep {
        let interruption = Interruption()
        let display = ProgressDisplay(progress, verb: "Reading")
        defer { display.finish() }
        inspection.depth = try inspector.depth(workers: running.workers) { progress in
          display.show(progress)
          return !interruption.isRequested
        }
      }
      if let html { try writeFile(Data(try inspection.html().utf8), to: html) }
      print(running.json ? inspection.json.text(indent: 2) : inspection.text(all: all))
      if inspection.isDefective { throw Exit.data }
    }
  }
}

/// Whether the terminal asks for plain characters: NO_COLOR is set, or the locale names another encoding than UTF-8.
private var prefersPlainText: Bool {
  let environment = ProcessInfo.processInfo.environment
  if environment["NO_COLOR"].map({ !$0.isEmpty }) ?? false { return true }
  let locale = ["LC_ALL", "LC_CTYPE", "LANG"].compactMap { environment[$0] }.first { !$0.isEmpty }
  guard let encoding = locale?.lowercased() else { return false }
  return !encoding.contains("utf-8") && !encoding.contains("utf8")
}

extension TensorSlice: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
