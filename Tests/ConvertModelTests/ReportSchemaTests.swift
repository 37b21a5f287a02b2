import Checkpoints
import Foundation
import OrderedCollections
import SystemPackage
import TestSupport
import Testing

/// `Docs/report.schema.json` holds of what the program prints, and would not hold of anything else.
@Suite struct ReportSchemaTests {
  private let folder: TemporaryFolder
  private let schema: JSONSchema

  init() throws {
    folder = try TemporaryFolder()
    let file = Fixtures.folder.removingLastComponent().appending("Docs").appending("report.schema.json")
    schema = JSONSchema(try readJSONObject(file))
  }

  private func path(_ name: String) -> String { folder.appending(name).string }

  static let conversions: [[String]] = [
    ["-m", "nf4", "--double-quantization"], ["-m", "hqq"], ["-m", "absmax", "-b", "8"],
    ["-m", "gptq", "-b", "3", "-g", "64"] + ConvertModelProgram.calibration,
    ["-m", "gptq", "-b", "3", "-g", "64", "--override", "*.layers.0.mlp.*: bits=2"] + ConvertModelProgram.calibration,
    ["-m", "awq", "-g", "64"] + ConvertModelProgram.calibration,
    ["-m", "llm-int8"] + ConvertModelProgram.calibration,
    ["-m", "absmax", "-b", "4", "-g", "64"] + ConvertModelProgram.calibration,
    ["-m", "gptq", "-g", "64", "--layout", "pack-quantized"] + ConvertModelProgram.calibration,
    ["-m", "nf4", "--layout", "bitsandbytes"],
  ]

  @Test(arguments: conversions) func itHolds(of conversion: [String]) async throws {
    let tiny = ConvertModelProgram.tiny
    let arguments = [tiny, "-o", path("out"), "--json"] + conversion
    let converted = try await ConvertModelProgram.run(arguments)
    try #require(converted.code == 0, "\(converted.error)")
    #expect(try schema.faults(in: converted.json) == [])
    let report = try await ConvertModelProgram.require("report", path("out"), "--against", tiny, "--json").json
    #expect(schema.faults(in: report) == [])
    // Nothing is left out that can be known.
    #expect(report["provenance"]?["files"]?.array?.count ?? 0 > 3)
    let quantized = report["tensors"]?.array?.filter { $0["bucket"] == "quantized" } ?? []
    #expect(quantized.count == 21 && quantized.allSatisfy { $0["weights"] != nil && $0["codes"] != nil })
    #expect(report["layers"]?.array?.isEmpty == !["gptq", "awq", "llm-int8"].contains(conversion[1]))
    #expect((report["input_features"]?.array?.count ?? 0 > 0) == conversion.contains("--calibration"))
  }

  @Test(arguments: ["q8_0", "q4_k_m"]) func itHoldsOfGGUFFiles(mix: String) async throws {
    let tiny = ConvertModelProgram.tiny
    _ = try await ConvertModelProgram.require(tiny, "-o", path("out.gguf"), "--type", mix)
    let report = try await ConvertModelProgram.require(
      "report", path("out.gguf"), "--against", tiny, "--json", "--html", path("page.html")
    ).json
    #expect(schema.faults(in: report) == [])
    let quantized = report["tensors"]?.array?.filter { $0["bucket"] == "quantized" } ?? []
    #expect(quantized.count >= 21 && quantized.allSatisfy { $0["weights"] != nil && $0["codes"] != nil })
    #expect(report["provenance"]?["form"]?.string?.hasPrefix("GGUF file") == true)
  }

  @Test func itHoldsWithAnEvaluationAndARun() async throws {
    let tiny = ConvertModelProgram.tiny
    let converted = try await ConvertModelProgram.require(
      tiny, "-o", path("out"), "-m", "nf4", "--json", "--report", path("page.html"))
    let ran = try converted.json
    #expect(schema.faults(in: ran) == [])
    #expect(ran["provenance"]?["run"]?["peak_bytes"]?.integer ?? 0 > 1 << 20)
    let evaluation = try await ConvertModelProgram.require(
      "evaluate", path("out"), "--against", tiny, "--text", Fixtures.path("text/tiny-eval.txt").string, "--window",
      "128",
      "--tokens", "1024", "--json")
    try folder.write(Array(evaluation.output.utf8), to: "evaluation.json")
    let report = try await ConvertModelProgram.require(
      "report", path("out"), "--against", tiny, "--json", "--evaluation", path("evaluation.json")
    ).json
    #expect(schema.faults(in: report) == [])
    let found = try evaluation.json
    #expect(report["evaluation"]?["kl_divergence"]?["value"] == found["klDivergence"])
    #expect(report["evaluation"]?["perplexity_ratio"]?["standard_error"] == found["perplexityRatioStandardError"])
    // The time is not in the output, whose bytes are the same on every run.
    #expect(report["provenance"]?["run"] == nil)
  }

  @Test func everyMemberIsDescribed() { #expect(schema.undescribed == []) }

  @Test func itDoesNotHoldOfOtherDocuments() async throws {
    let tiny = ConvertModelProgram.tiny
    let arguments = [tiny, "-o", path("out"), "-m", "gptq", "-b", "3", "-g", "64"] + ConvertModelProgram.calibration
    _ = try await ConvertModelProgram.run(arguments)
    let report = try await ConvertModelProgram.require("report", path("out"), "--against", tiny, "--json").json
    // A key that the schema does not know, in every object but the recorded ones.
    for place in [
      [], ["totals"], ["provenance"], ["answers", "0"], ["kinds", "0"], ["sizes", "0"], ["blocks", "0"],
      ["tensors", "0"],
      ["layers", "0"], ["input_features", "0"], ["input_features", "0", "strongest", "0"],
      ["provenance", "files", "0"],
    ] {
      let changed = Self.changing(report, at: place) { $0["surprise"] = 1 }
      #expect(schema.faults(in: changed).contains { $0.contains("surprise") }, "\(place)")
      guard let first = Self.member(report, at: place)?.object?.keys.first else { continue }
      let emptied = Self.changing(report, at: place) { $0[first] = nil }
      #expect(!schema.faults(in: emptied).isEmpty, "\(place) without \(first)")
      let mistyped = Self.changing(report, at: place) { $0[first] = ["a": "b"] }
      #expect(!schema.faults(in: mistyped).isEmpty, "\(place) with another \(first)")
    }
    #expect(!schema.faults(in: .array([])).isEmpty)
  }

  private static func member(_ value: JSONValue, at place: [String]) -> JSONValue? {
    place.reduce(value as JSONValue?) { value, key in Int(key).map { value?.array?[$0] } ?? value?[key] }
  }

  private static func changing(
    _ value: JSONValue, at place: [String], _ change: (inout OrderedDictionary<String, JSONValue>) -> Void
  ) -> JSONValue {
    guard let key = place.first else {
      var members = value.object ?? [:]
      change(&members)
      return .object(members)
    }
    let rest = Array(place.dropFirst())
    if let index = Int(key), var items = value.array {
      items[index] = changing(items[index], at: rest, change)
      return .array(items)
    }
    var members = value.object ?? [:]
    members[key] = members[key].map { changing($0, at: rest, change) }
    return .object(members)
  }
}
