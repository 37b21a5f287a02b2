import ArgumentParser
import Conversion
import Foundation
import Reports
import SystemPackage

/// How much memory the program may use.
struct MemoryArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Memory to use at most, such as 8G or 500M; activations that it does not hold go to a file. (default: 60 % of the machine's)",
      valueName: "size"))
  var maxMemory: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Where that file is made. (default: beside the output, or the system's folder for such files)",
      valueName: "folder"))
  var temporaryFolder: String?

  var limit: Int { maxMemory?.count ?? Int(Double(ProcessInfo.processInfo.physicalMemory) * 0.6) }

  var spillFolder: FilePath { FilePath(temporaryFolder ?? FileManager.default.temporaryDirectory.path) }

  /// Where activations go: beside what is written, unless another folder was named.
  func spillFolder(for output: any ResumableOutput) -> FilePath {
    temporaryFolder == nil ? output.scratch : spillFolder
  }

  /// Refuses a run for which the system allows too few addresses.
  func requireAddresses(for plan: MemoryPlan, workers: Int) throws {
    if let found = addressSpaceLimit { try plan.require(addressSpace: found, memory: limit, workers: workers) }
  }

  /// The same before anything is known of the run.
  func requireAddresses(workers: Int) throws {
    if let found = addressSpaceLimit { try MemoryPlan.require(addressSpace: found, workers: workers) }
  }

  func peakText(_ peak: Int, of plan: MemoryPlan) -> String {
    "Peak memory: \(Figures.bytes(peak)), of \(Figures.bytes(plan.peak(within: limit))) promised."
  }
}

/// A number of bytes as people write it.
struct ByteCount: ExpressibleByArgument, Hashable {
  let count: Int

  init?(argument: String) {
    let units: [(suffix: String, factor: Double)] = [
      ("K", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("", 1),
    ]
    let text = argument.uppercased().replacing("B", with: "")
    guard let unit = units.first(where: { text.hasSuffix($0.suffix) }),
      let number = Double(text.dropLast(unit.suffix.count)), number > 0, number * unit.factor < 1e18
    else { return nil }
    count = Int(number * unit.factor)
  }
}
