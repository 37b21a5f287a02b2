import ArgumentParser
import Checkpoints
import Conversion
import Packing
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

  @Flag(help: "Also decode every weight, and compare the codes with the sums that were taken before they were packed.")
  var deep = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func run() throws {
    try reportingErrors {
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Verifying")
      defer { display.finish() }
      let result = try Verification(FilePath(path), workers: running.workers).run { progress in
        display.show(progress)
        return !interruption.isRequested
      }
      var findings: [DecodedCheck.Finding] = []
      // What has no hashes is decoded anyhow.
      if deep, PackedCheckpoint.isPacked(FilePath(path)) {
        findings = try DecodedCheck(FilePath(path), workers: running.workers).run { progress in
          display.show(progress)
          return !interruption.isRequested
        }
      }
      display.finish()
      if running.json {
        let wrong = findings.map { ["tensor": .string($0.tensor), "problem": .string($0.problem)] as JSONValue }
        let json: JSONValue = [
          "path": .string(path), "tensors": .integer(result.tensorCount),
          "hashes": .bool(result.hasHashes), "damaged": .array(result.damaged.map { .string($0) }),
          "wrong": deep ? .array(wrong) : .null,
        ]
        print(json.text(indent: 2))
      } else if result.damaged.isEmpty, findings.isEmpty {
        print(
          result.hasHashes
            ? "\(path): all \(result.tensorCount) stored tensors are as written\(deep ? ", and decode to it" : "")"
            : "\(path): \(result.tensorCount) tensors fit together and are finite; hashes were not recorded")
      }
      let fault =
        result.hasHashes ? "its bytes are not those that were written" : "it decodes to values that are not finite"
      for name in result.damaged where !running.json {
        printError("\(path): tensor '\(name.printable)': \(fault); convert again")
      }
      for finding in findings where !running.json {
        printError("\(path): tensor '\(finding.tensor.printable)': \(finding.problem); convert again")
      }
      if !result.damaged.isEmpty || !findings.isEmpty { throw Exit.data }
    }
  }
}
