import ArgumentParser
import Checkpoints
import Conversion
import SystemPackage

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Say from the files alone whether a runtime will load a folder or a .gguf file, and if not, why and what to do.",
    discussion: """
      Reads headers and the configuration. Exit code 65 if the runtime will not load the folder, or would load it wrongly.

      EXAMPLES
        convert-model check OUT --runtime vllm --tensor-parallel 4
        convert-model check SOMEONES-GPTQ --runtime gptqmodel
        convert-model check MODEL.gguf --runtime llama.cpp
      """)

  @Argument(help: "A model folder or a .gguf file, whoever wrote it.")
  var path: String

  @Option(help: ArgumentHelp("The runtime.", valueName: "runtime"))
  var runtime: Runtime

  @Option(help: ArgumentHelp("Devices that vLLM splits layers over.", valueName: "count"))
  var tensorParallel = 1

  @Flag(help: "Print JSON on standard output.")
  var json = false

  func validate() throws {
    guard (1...1024).contains(tensorParallel) else {
      throw ValidationError("--tensor-parallel \(tensorParallel): from 1 to 1024")
    }
  }

  func run() throws {
    try reportingErrors {
      let findings = try RuntimeCheck.findings(of: FilePath(path), runtime: runtime, parts: tensorParallel)
      let loads = !findings.contains(where: \.isFatal)
      if json {
        let document: JSONValue = [
          "path": .string(path), "runtime": .string(runtime.rawValue), "loads": .bool(loads),
          "findings": .array(
            findings.map {
              ["fatal": .bool($0.isFatal), "problem": .string($0.problem), "remedy": .string($0.remedy)]
            }),
        ]
        print(document.text(indent: 2))
      } else {
        print("\(path): \(runtime.rawValue) \(loads ? "should load it" : "will not load it as it is")")
        for finding in findings {
          print("  \(finding.isFatal ? "problem" : "note"): \(finding.problem.printable); \(finding.remedy.printable)")
        }
      }
      if !loads { throw Exit.data }
    }
  }
}

extension Runtime: ExpressibleByArgument {}
