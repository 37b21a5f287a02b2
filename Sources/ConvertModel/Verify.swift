import ArgumentParser
import Checkpoints
import Conversion
import SystemPackage

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check that a packed checkpoint is whole: structure, sizes and hashes.",
    discussion: """
      A folder in our own format has the hash of every tensor. Layouts of runtimes and GGUF files have none, whoever \
      wrote them: there names, types, shapes and sizes are checked, and that every weight decodes to finite values. \
      Exit code 65 if something is not as it should be.
      """)

  @Argument(help: "A packed folder, one in the layout of a runtime, or a .gguf file.")
  var path: String

  @OptionGroup(title: "Running") var running: RunningArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(verb: "Verifying")
      defer { display.finish() }
      let result = try Verification(FilePath(path), workers: running.workers).run { progress in
        display.show(progress)
        return !interruption.isRequested
      }
      display.finish()
      if running.json {
        let json: JSONValue = [
          "path": .string(path), "tensors": .integer(result.tensorCount),
          "hashes": .bool(result.hasHashes), "damaged": .array(result.damaged.map { .string($0) }),
        ]
        print(json.text(indent: 2))
      } else if result.damaged.isEmpty {
        print(
          result.hasHashes
            ? "\(path): all \(result.tensorCount) stored tensors are as written"
            : "\(path): \(result.tensorCount) tensors fit together and are finite; hashes were not recorded")
      }
      let fault =
        result.hasHashes ? "its bytes are not those that were written" : "it decodes to values that are not finite"
      for name in result.damaged where !running.json {
        printError("\(path): tensor '\(name.printable)': \(fault); convert again")
      }
      if !result.damaged.isEmpty { throw Exit.data }
    }
  }
}
