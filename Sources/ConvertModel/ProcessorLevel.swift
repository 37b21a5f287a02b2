import Foundation

/// The instructions that a build may use beyond those of every x86-64 processor: a level of the x86-64 psABI (§3.1.1,
/// microarchitecture levels), chosen by the Makefile for the machine that builds.
enum ProcessorLevel {
  #if X86_64_V4
    private static let built: (name: String, flags: [String]) = (
      "x86-64-v4", ["avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
    )
  #elseif X86_64_V3
    private static let built: (name: String, flags: [String]) = (
      "x86-64-v3", ["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"]
    )
  #else
    private static let built: (name: String, flags: [String])? = nil
  #endif

  /// Ends the program with a clear line, instead of an illegal instruction, on a processor that it was not built for.
  /// A system that does not tell its processor's flags is believed to have them.
  static func require() {
    let built: (name: String, flags: [String])? = built
    guard let built, let flags = processorFlags() else { return }
    let missing = built.flags.filter { !flags.contains(Substring($0)) }
    guard !missing.isEmpty else { return }
    printError(
      "this build is for \(built.name) processors, and this one lacks \(missing.joined(separator: ", ")); "
        + "build it here, or with `make install CPU=x86-64` for all processors")
    exit(69)
  }

  private static func processorFlags() -> Set<Substring>? {
    guard let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) else { return nil }
    let line = text.split(separator: "\n").first { $0.hasPrefix("flags") }
    return line.map { Set($0.split(whereSeparator: { " \t:".contains($0) })) }
  }
}
