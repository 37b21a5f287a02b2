import Foundation
import Reports

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What a run cost, and on what machine: measured here, for libraries read neither clocks nor the environment.
extension ConversionRecord.Run {
  /// - Parameter seconds: of the work that is reported.
  init(seconds: Double, threads: Int) {
    self.init(seconds: seconds, peakByteCount: Self.peakByteCount, threads: threads, machine: .current)
  }

  /// The largest resident set of this process so far.
  private static var peakByteCount: Int {
    var usage = rusage()
    #if canImport(Glibc)
      guard getrusage(RUSAGE_SELF.rawValue, &usage) == 0 else { return 0 }
      // In units of 1024 bytes.
      return usage.ru_maxrss * 1024
    #else
      guard getrusage(RUSAGE_SELF, &usage) == 0 else { return 0 }
      return usage.ru_maxrss
    #endif
  }
}

extension ConversionRecord.Machine {
  static var current: Self {
    let process = ProcessInfo.processInfo
    return Self(
      processor: processorName, cores: process.activeProcessorCount, memoryByteCount: Int(process.physicalMemory),
      system: process.operatingSystemVersionString)
  }

  /// As /proc/cpuinfo has it; else the architecture that the program was built for.
  private static var processorName: String {
    if let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) {
      for line in text.split(separator: "\n") where line.hasPrefix("model name") {
        if let name = line.split(separator: ":", maxSplits: 1).last { return name.trimmingCharacters(in: .whitespaces) }
      }
    }
    #if arch(x86_64)
      return "x86-64"
    #elseif arch(arm64)
      return "ARM64"
    #else
      return "unknown"
    #endif
  }
}
