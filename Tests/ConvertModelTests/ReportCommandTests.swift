import Checkpoints
import Foundation
import SystemPackage
import TestSupport
import Testing

/// `report`, and `convert --report`, as a user runs them.
@Suite struct ReportCommandTests {
  private let folder: TemporaryFolder
  private let tiny = ConvertModelProgram.tiny

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { folder.appending(name).string }

  private func contents(_ name: String) throws -> [String: Data] {
    let names = try FileManager.default.contentsOfDirectory(atPath: path(name))
    return try Dictionary(
      uniqueKeysWithValues: names.map {
        ($0, try Data(contentsOf: URL(fileURLWithPath: path(name + "/" + $0))))
      })
  }

  @Test func thePageHasTheRunAndTheOutputHasNothingOfIt() async throws {
    let arguments = ["-m", "gptq", "-b", "3", "-g", "64"] + ConvertModelProgram.calibration
    let plain = try await ConvertModelProgram.run([tiny, "-o", path("plain")] + arguments)
    let paged = try await ConvertModelProgram.run(
      [tiny, "-o", path("paged"), "--report", path("page.html"), "--threads", "1"] + arguments)
    #expect(plain.code == 0 && paged.code == 0, "\(paged.error)")
    #expect(try contents("plain") == contents("paged"))
    let html = try String(contentsOfFile: path("page.html"), encoding: .utf8)
    for row in ["time", "peak memory", "threads", "processor", "memory", "system"] {
      #expect(html.contains("<th scope=\"row\">\(row)</th>"), "\(row)")
    }
    #expect(html.contains("<th scope=\"row\">threads</th><td>1</td>"))
    // Nothing is loaded from anywhere, and every part that the page promises is there.
    let loading = html.replacingOccurrences(of: "http://www.w3.org/2000/svg", with: "")
    for word in ["http:", "https:", "@import", "url(", "<img", "src="] { #expect(!loading.contains(word), "\(word)") }
    for heading in [
      "At a glance", "Where the error is", "Along the depth", "Would one more bit be worth it?", "Input features",
      "Size",
      "Bits per weight of each block", "Tensors", "How it was made", "Recipe", "Calibrated on",
      "Kept as they were, and why",
      "PQ index of the weights", "Output error over that of rounding to nearest",
    ] {
      #expect(html.contains(heading), "\(heading)")
    }
  }

  @Test func anEvaluationIsShownWithItsIntervals() async throws {
    _ = try await ConvertModelProgram.require(tiny, "-o", path("out"), "-m", "nf4")
    let evaluation = try await ConvertModelProgram.require(
      "evaluate", path("out"), "--against", tiny, "--text", Fixtures.path("text/tiny-eval.txt").string, "--window",
      "128",
      "--tokens", "1024", "--json")
    try folder.write(Array(evaluation.output.utf8), to: "evaluation.json")
    let report = try await ConvertModelProgram.require(
      "report", path("out"), "--against", tiny, "--evaluation", path("evaluation.json"), "--html", path("page.html"))
    let html = try String(contentsOfFile: path("page.html"), encoding: .utf8)
    let json = try evaluation.json
    let value = try #require(json["top1Agreement"]?.double)
    let error = try #require(json["top1AgreementStandardError"]?.double)
    let interval = [value - 1.96 * error, min(1, value + 1.96 * error)].map { String(format: "%.2f %%", $0 * 100) }
    #expect(report.output.contains(interval.joined(separator: " to ")))
    #expect(html.contains("<td>\(interval.joined(separator: " to "))</td>"))
    let ratio = try #require(json["perplexityRatio"]?.double)
    let both = try #require(json["perplexity"]?.double) / #require(json["againstPerplexity"]?.double)
    #expect(abs(ratio - both) < 1e-9)
  }

  @Test func foldersOfOtherProgramsAreReported() async throws {
    // What the runtime's own program wrote, and what it decodes to.
    for name in ["gptq-4", "awq", "nf4-double", "pack-quantized-4-zero", "mlx-4"] {
      let quantized = Fixtures.path("layouts").appending(name).string
      _ = try await ConvertModelProgram.require("unpack", quantized, "-o", path("dense-" + name))
      let report = try await ConvertModelProgram.require(
        "report", quantized, "--against", path("dense-" + name), "--json", "--html", path(name + ".html"))
      let tensors = try report.json["tensors"]?.array?.filter { $0["bucket"] == "quantized" } ?? []
      #expect(!tensors.isEmpty, "\(name)")
      for tensor in tensors {
        #expect(tensor["codes"]?["usage"]?.array?.count ?? 0 >= 16 && tensor["log2_scales"] != nil, "\(name)")
        #expect(tensor["scale_bytes"]?.integer ?? 0 > 0)
        // Rounded to the source's type, no more is lost than that rounding.
        #expect(tensor["relative_error"]?.double ?? 1 < 0.005, "\(name)")
      }
    }
  }

  @Test func refusalsSayWhatToDo() async throws {
    _ = try await ConvertModelProgram.require(tiny, "-o", path("out"), "-m", "nf4")
    _ = try await ConvertModelProgram.require(tiny, "-o", path("tiny.gguf"), "--type", "Q8_0")
    try folder.write(Array(#"{"perplexity": "low"}"#.utf8), to: "other.json")
    let report = ["report", path("out"), "--against", tiny]
    let cases: [(code: Int32, arguments: [String], message: String)] = [
      (
        65, ["report", path("tiny.gguf"), "--against", Fixtures.path("architectures/llama").string],
        "but the source to compare with has"
      ),
      (65, report + ["--evaluation", path("other.json")], "is not what `convert-model evaluate --json` prints"),
      (66, report + ["--evaluation", path("nowhere.json")], "no such file"),
      (73, report + ["--html", path("no/such/page.html")], "there is no folder"),
      (73, [tiny, "-o", path("x"), "--report", path("no/such/page.html")], "there is no folder"),
      (64, [tiny, "-o", path("x.gguf"), "--report", path("page.html")], "not for GGUF files"),
      (64, [tiny, "-o", path("x"), "--report", path("page.html"), "--dry-run"], "which --dry-run does not write"),
    ]
    for (code, arguments, message) in cases {
      let outcome = try await ConvertModelProgram.run(arguments)
      #expect(outcome.code == code && outcome.error.contains(message), "\(arguments): \(outcome.error)")
      #expect(outcome.output.isEmpty)
    }
    #expect(
      !FileManager.default.fileExists(atPath: path("x")) && !FileManager.default.fileExists(atPath: path("page.html")))
  }
}
