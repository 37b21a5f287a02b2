import ArgumentParser
import Checkpoints
import Conversion
import Reports
import SystemPackage

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is in a safetensors file or a model folder, packed or not.",
    discussion: """
      Reads headers only, so it is instant for any size; --tensor reads the values of one tensor.

      EXAMPLES
        convert-model inspect MODEL
        convert-model inspect OUT --tensor NAME --against SOURCE
      """)

  @Argument(help: "A folder or a file.")
  var path: String

  @Option(help: ArgumentHelp("Show the values of one tensor: histogram, codes, scales, errors.", valueName: "name"))
  var tensor: String?

  @Option(help: ArgumentHelp("With --tensor: list the largest errors against this checkpoint.", valueName: "source"))
  var against: String?

  @Flag(help: "Print JSON on standard output.")
  var json = false

  func validate() throws {
    if against != nil, tensor == nil {
      throw ValidationError("--against needs --tensor; `convert-model report` compares whole checkpoints")
    }
  }

  func run() throws {
    try reportingErrors {
      let inspector = try Inspector(FilePath(path))
      if let tensor {
        let found = try inspector.tensor(tensor, against: try against.map { try Checkpoint(FilePath($0)) })
        print(json ? found.json.text(indent: 2) : found.text)
      } else {
        let inspection = try inspector.inspection()
        print(json ? inspection.json.text(indent: 2) : inspection.text)
      }
    }
  }
}
