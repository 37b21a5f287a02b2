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
    #if canImport(Glibc)
      // getrusage would give that of the process that started this one, where it was larger.
      let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
      for line in status.split(separator: "\n") where line.hasPrefix("VmHWM:") {
        return (Int(line.filter(\.isNumber)) ?? 0) * 1024
      }
      return 0
    #else
      var usage = rusage()
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
