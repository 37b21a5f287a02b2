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

  @Flag(
    help: """
      Also decode every weight, and compare codes and weights with the sums that were taken before they were packed.
      """)
  var deep = false

  @Option(
    help: ArgumentHelp(
      "With --deep: measure the error of every weight against the checkpoint that it was made from, and compare it with"
        + " the one recorded while converting.",
      valueName: "source"))
  var against: String?

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments

  func validate() throws {
    if against != nil, !deep { throw ValidationError("--against compares decoded weights: add --deep") }
  }

  func run() throws {
    try reportingErrors {
      if against != nil, !PackedCheckpoint.isPacked(FilePath(path)) {
        throw InputError(
          path,
          "has no record of errors to compare with, which our own format alone keeps; `report --against` measures them")
      }
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Verifying")
      defer { display.finish() }
      let result = try Verification(FilePath(path), workers: running.workers).run { progress in
        display.show(progress)
        return !interruption.isRequested
      }
      var findings: [DecodedCheck.Finding] = []
      var unrecorded = 0
      // What has no hashes is decoded anyhow.
      if deep, PackedCheckpoint.isPacked(FilePath(path)) {
        let source = try against.map { try Checkpoint(FilePath($0)) }
        let check = try DecodedCheck(FilePath(path), against: source, workers: running.workers)
        findings = try check.run { progress in
          display.show(progress)
          return !interruption.isRequested
        }
        unrecorded = check.unrecorded.count
      }
      display.finish()
      if running.json {
        let wrong = findings.map { ["tensor": .string($0.tensor), "problem": .string($0.problem)] as JSONValue }
        let json: JSONValue = [
          "path": .string(path), "tensors": .integer(result.tensorCount),
          "hashes": .bool(result.hasHashes), "damaged": .array(result.damaged.map { .string($0) }),
          "wrong": deep ? .array(wrong) : .null, "unrecorded": deep ? .integer(unrecorded) : .null,
        ]
        print(json.text(indent: 2))
      } else if result.damaged.isEmpty, findings.isEmpty {
        print(
          result.hasHashes
            ? "\(path): all \(result.tensorCount) stored tensors are as written"
              + (!deep
                ? "" : against == nil ? ", and decode to it" : ", decode to it, and lost as much as was recorded")
            : "\(path): \(result.tensorCount) tensors fit together and are finite; hashes were not recorded")
      }
      if unrecorded > 0, !running.json {
        print(
          "Of \(unrecorded) quantized tensors the manifest, by an older version, records no sums: they were decoded alone."
        )
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
