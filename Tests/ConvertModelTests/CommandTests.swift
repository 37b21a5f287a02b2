import Checkpoints
import Foundation
import SystemPackage
import TestSupport
import Testing

/// The built program, run as a user runs it.
@Suite struct CommandTests {
  typealias Outcome = ConvertModelProgram.Outcome

  let tiny = Fixtures.path("tiny-llama").string
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  static func run(_ arguments: [String]) async throws -> Outcome {
    try await ConvertModelProgram.run(arguments)
  }

  private func run(_ arguments: String...) async throws -> Outcome { try await Self.run(arguments) }

  private func path(_ name: String) -> String { folder.appending(name).string }

  @Test func aModelIsConvertedInspectedReportedVerifiedAndUnpacked() async throws {
    let converted = try await run(tiny, "-o", path("out"), "--method", "nf4", "--double-quantization")
    #expect(converted.code == 0 && converted.error.isEmpty)
    #expect(converted.output.contains("21 tensors quantized, 9 kept"))
    #expect(converted.output.contains("Accounted for: 30 source tensors"))
    let inspected = try await run("inspect", path("out"))
    #expect(inspected.code == 0 && inspected.output.contains("nf4 b64 double"))
    let reported = try await run("report", path("out"), "--against", tiny)
    #expect(reported.code == 0 && reported.output.contains("Worst ten"))
    let verified = try await run("verify", path("out"))
    #expect(verified.code == 0)
    let unpacked = try await run("unpack", path("out"), "-o", path("dense"))
    #expect(unpacked.code == 0)
    let again = try await run(path("dense"), "-o", path("again"), "--method", "nf4", "--double-quantization", "--json")
    #expect(try again.json["totals"]?["quantized_tensors"]?.integer == 21)
  }

  @Test func aModelBecomesAGGUFFileThatIsInspectedEvaluatedAndUnpacked() async throws {
    let file = path("tiny.gguf")
    let planned = try await run(tiny, "-o", file, "--type", "Q8_0", "--dry-run")
    #expect(planned.code == 0 && planned.output.contains("token_embd.weight"))
    #expect(!FileManager.default.fileExists(atPath: file))
    let converted = try await run(tiny, "-o", file, "--type", "q8_0", "--json")
    #expect(converted.code == 0 && converted.error.isEmpty)
    #expect(try converted.json["architecture"] == "llama")
    #expect(try await run(tiny, "-o", file).code == 73)
    let inspected = try await run("inspect", file)
    #expect(inspected.code == 0 && inspected.output.contains("general.architecture"))
    #expect(inspected.output.contains("blk.0-2.attn_q.weight"))
    let text = Fixtures.path("text/tiny-eval.txt").string
    let evaluated = try await run(
      "evaluate", file, "--text", text, "--against", tiny, "--window", "128", "--tokens", "1024", "--json")
    #expect(evaluated.code == 0 && evaluated.error.isEmpty)
    let unpacked = try await run("unpack", file, "-o", path("dense"))
    #expect(unpacked.code == 0 && unpacked.output.contains("decoded"))
    let again = try await run("evaluate", path("dense"), "--text", text, "--window", "128", "--tokens", "1024")
    #expect(again.code == 0)
    let refused = try await run(Fixtures.path("architectures/opt").string, "-o", path("opt.gguf"))
    #expect(refused.code == 65 && refused.error.contains("'opt' has no GGUF names here"))
    let notAMatrix = try await run(tiny, "-o", path("other.gguf"), "--imatrix", file)
    #expect(notAMatrix.code == 65 && notAMatrix.error.contains("is no imatrix file"))
  }

  /// A source in any quantized form is unpacked on the way, which is said, and nothing but the output is left.
  @Test func aQuantizedSourceGoesThroughUnpack() async throws {
    #expect(
      try await run(tiny, "-o", path("gptq"), "--layout", "gptq", "-m", "absmax", "-b", "4", "-g", "64").code == 0)
    #expect(try await run(tiny, "-o", path("packed"), "-m", "nf4").code == 0)
    #expect(try await run(tiny, "-o", path("file.gguf"), "--type", "Q8_0").code == 0)
    let kept = try FileManager.default.contentsOfDirectory(atPath: folder.path.string)
    for (name, kind) in [("gptq", "GPTQ (v1)"), ("packed", "by convert-model"), ("file.gguf", "GGUF")] {
      let converted = try await run(
        path(name), "-o", path("to"), "--layout", "mlx", "-m", "zero-point", "-b", "8", "-g", "64")
      #expect(converted.code == 0, "\(converted.error)")
      #expect(converted.error.contains("are quantized already (\(kind))") && converted.error.contains("errors of both"))
      let found = try await run("report", path("to"), "--against", tiny)
      // A Q8_0 file has lost some of the embedding, too, which is then kept as it has become.
      #expect(found.code == (name == "file.gguf" ? 65 : 0))
      try FileManager.default.removeItem(atPath: path("to"))
      #expect(try Set(FileManager.default.contentsOfDirectory(atPath: folder.path.string)) == Set(kept))
    }
    let inTheWay = try await run(path("gptq"), "-o", path("packed"))
    #expect(inTheWay.code == 73 && inTheWay.error.contains("exists already"))
    let onto = try await run(path("gptq"), "-o", path("gptq"), "--overwrite")
    #expect(onto.code == 64 && onto.error.contains("source and output are the same folder"))
  }

  @Test func importancesGoIntoAGGUFFileFromATextAFileOrEvidence() async throws {
    let text = [
      "--samples", "6", "--sequence-length", "64", "--calibration", Fixtures.path("text/tiny-eval.txt").string,
    ]
    let alone = try await Self.run(["calibrate", tiny, "--imatrix", path("i.gguf")] + text)
    #expect(alone.code == 0 && alone.error.isEmpty && alone.output.contains("21 weights, from 384 tokens"))
    let both = ["calibrate", tiny, "--imatrix", path("j.gguf"), "-o", path("e.safetensors")] + text
    #expect(try await Self.run(both).code == 0)
    #expect(try readWhole(FilePath(path("i.gguf"))) == readWhole(FilePath(path("j.gguf"))))
    let ways = [["--imatrix", path("i.gguf")], ["--evidence", path("e.safetensors")], text]
    var weights: [[UInt8]] = []
    for (index, way) in ways.enumerated() {
      let output = path("\(index).gguf")
      let converted = try await Self.run([tiny, "-o", output, "--type", "Q4_0"] + way)
      #expect(converted.code == 0 && converted.output.contains("21 weighed by an imatrix"), "\(converted.error)")
      let file = try GGUFFile(FilePath(output))
      weights.append(Array(try readWhole(FilePath(output))[file.header.dataStart...]))
    }
    // A file holds sums, which round once more than means do.
    let different = zip(weights[0], weights[1]).count { $0 != $1 }
    #expect(weights[1] == weights[2] && weights[0].count == weights[1].count && different * 1000 < weights[0].count)
    let plain = try await run(tiny, "-o", path("plain"), "--layout", "gguf", "--type", "Q4_0")
    #expect(plain.code == 0 && plain.output.contains("0 weighed"))
    let file = try GGUFFile(FilePath(path("plain")))
    #expect(try Array(readWhole(FilePath(path("plain")))[file.header.dataStart...]) != weights[0])
    let checked = try await run("check", path("0.gguf"), "--runtime", "llama.cpp")
    #expect(checked.code == 0 && checked.output.contains("should load it"))
    let again = try await run(path("0.gguf"), "-o", path("again.gguf"), "--type", "Q8_0")
    #expect(again.code == 0 && again.error.contains("quantized already (GGUF)"))
    #expect(try await run(tiny, "-o", path("laid"), "--layout", "mlx-mxfp4").code == 0)
    for (name, count) in [("0.gguf", 30), ("laid", 30)] {
      let verified = try await run("verify", path(name))
      #expect(verified.code == 0 && verified.output.contains("\(count) tensors fit together and are finite"))
    }
    let wrong: [(code: Int32, arguments: [String], message: String)] = [
      (64, [tiny, "-o", path("x.gguf"), "-m", "nf4"], "get their types by --type"),
      (64, [tiny, "-o", path("x.gguf"), "--exclude", "*"], "get their types by --type"),
      (64, [tiny, "-o", path("x.gguf"), "--layout", "awq"], "leave out one"),
      (64, [tiny, "-o", path("x.gguf"), "--distill", "8"], "rounding is learned for folders"),
      (64, [tiny, "-o", path("x"), "--imatrix", path("i.gguf")], "--imatrix is for GGUF files"),
      (64, [tiny, "-o", path("x.gguf"), "--imatrix", "a", "--evidence", "b"], "give one of them"),
      (64, ["calibrate", "--show", "a", "--imatrix", "b"], "--imatrix needs the SOURCE"),
      (65, ["calibrate", Fixtures.path("architectures/opt").string, "--imatrix", path("x")], "model_type 'opt'"),
      (73, ["calibrate", tiny, "--imatrix", path("i.gguf")] + text, "exists already"),
    ]
    for (code, arguments, message) in wrong {
      let outcome = try await Self.run(arguments)
      #expect(outcome.code == code && outcome.error.contains(message), "\(arguments): \(outcome.error)")
    }
    let left = try FileManager.default.contentsOfDirectory(atPath: folder.path.string)
    #expect(!left.contains { $0.contains("partial") || $0.hasPrefix("x") })
  }

  @Test func aModelIsEvaluatedAgainstItsSourceAndContinuesATextAsBefore() async throws {
    _ = try await run(tiny, "-o", path("out"), "--method", "absmax")
    let text = Fixtures.path("text/tiny-eval.txt").string
    let found = try await run(
      "evaluate", path("out"), "--text", text, "--against", tiny, "--window", "128", "--tokens", "2048", "--json")
    #expect(found.code == 0 && found.error.isEmpty)
    let json = try found.json
    #expect(json["tokens"]?.integer == 16 * 127 && json["window"]?.integer == 128 && json["stride"]?.integer == 128)
    let divergence = try #require(json["klDivergence"]?.double)
    #expect(divergence > 0 && divergence < 0.01 && divergence < json["klDivergence99"]?.double ?? 0)
    #expect(json["top1Agreement"]?.double ?? 0 > 0.9 && json["draftAcceptance"]?.double ?? 0 > 0.9)
    #expect(json["perplexity"]?.double ?? 0 > 1 && json["standardError"]?.double ?? 0 > 0)
    let shown = try await run("evaluate", tiny, "--text", text, "--tokens", "512", "--window", "512")
    #expect(shown.code == 0 && shown.output.contains("predicted tokens  511"))
    let first = try await run("generate", tiny, "--prompt", "The", "--tokens", "20", "--json")
    #expect(try first.code == 0 && first.json["tokens"]?.array?.count ?? 0 > 0)
    let drawn = ["generate", tiny, "--prompt", "The", "--temperature", "1.2", "--seed", "4", "--tokens", "20"]
    #expect(try await Self.run(drawn).output == Self.run(drawn).output)
  }

  /// Chat templates are never rendered: one that would run code, or that no parser takes, changes nothing.
  @Test func templatesChangeNothing() async throws {
    let source = folder.appending("source")
    try FileManager.default.copyItem(atPath: tiny, toPath: source.string)
    let template = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for x in range(10**12) %}{% if"
    try folder.write(Array(template.utf8), to: "source/chat_template.jinja")
    let generated = ["--prompt", "The", "--tokens", "20"]
    let plain = try await Self.run(["generate", tiny] + generated)
    #expect(try await Self.run(["generate", source.string] + generated).output == plain.output)
    #expect(try await run(source.string, "-o", path("out"), "-m", "absmax").code == 0)
    #expect(try readWhole(folder.appending("out").appending("chat_template.jinja")) == Array(template.utf8))
    let text = Fixtures.path("text/tiny-eval.txt").string
    let evaluated = try await run("evaluate", path("out"), "--text", text, "--tokens", "512", "--window", "128")
    #expect(evaluated.code == 0 && evaluated.error.isEmpty)
    #expect(try await run(source.string, "-o", path("out.gguf"), "--type", "q8_0").code == 0)
    #expect(try await Self.run(["generate", path("out.gguf")] + generated).code == 0)
  }

  /// What was recorded while converting is measured again beside the source.
  @Test func verifyComparesWithTheSource() async throws {
    _ = try await run(tiny, "-o", path("out"))
    let verified = try await run("verify", path("out"), "--deep", "--against", tiny)
    #expect(verified.code == 0 && verified.output.contains("lost as much as was recorded"))
    let json = try await run("verify", path("out"), "--deep", "--against", tiny, "--json").json
    #expect(json["wrong"]?.array?.isEmpty == true && json["unrecorded"]?.integer == 0)
    let shallow = try await run("verify", path("out"), "--against", tiny)
    #expect(shallow.code == 64 && shallow.error.contains("add --deep"))
    _ = try await run(tiny, "-o", path("gptq"), "-m", "absmax", "--layout", "gptq")
    let unrecorded = try await run("verify", path("gptq"), "--deep", "--against", tiny)
    #expect(unrecorded.code == 65 && unrecorded.error.contains("has no record of errors"))
  }

  @Test func evidenceIsGatheredOnceForManyConversions() async throws {
    let text = ["--samples", "6", "--sequence-length", "64", "--calibration"]
    let own = ["calibrate", tiny, "-o", path("self.safetensors"), "--samples", "2", "--sequence-length", "16"]
    let file = Fixtures.path("text/tiny-eval.txt").string
    let gathered = try await Self.run(["calibrate", tiny, "-o", path("e.safetensors")] + text + [file])
    #expect(gathered.code == 0 && gathered.error.isEmpty, "\(gathered.error)")
    #expect(gathered.output.contains("statistics and Hessians of 12 inputs of a llama model, from 384 tokens."))
    #expect(try await Self.run(own + ["--calibration", "self"]).code == 0)
    let merged = try await run(
      "calibrate", "--merge", path("e.safetensors"), path("self.safetensors"), "-o", path("both.safetensors"))
    #expect(merged.code == 0 && merged.output.contains("from 416 tokens."), "\(merged.error)")
    let shown = try await run("calibrate", "--show", path("both.safetensors"), "--json")
    #expect(try shown.json["inputs"]?.array?.first?["tokens"]?.integer == 416)
    let gptq = try await run(tiny, "-o", path("gptq"), "-m", "gptq", "--evidence", path("both.safetensors"))
    #expect(gptq.code == 0 && gptq.output.contains("It holds no activations"), "\(gptq.error)")
    let weighed = try await run(tiny, "-o", path("nf4"), "-m", "nf4", "--evidence", path("both.safetensors"))
    #expect(weighed.code == 0)
    let manifest = try readJSONObject(folder.appending("nf4/quantization_manifest.json"))
    #expect(manifest["recipe"]?["scale_search"]?.string == "mse")
    #expect(try await Self.run([tiny, "-o", path("live"), "-m", "absmax", "-b", "4"] + text + [file]).code == 0)
    let wrong: [(code: Int32, arguments: [String], message: String)] = [
      (64, [tiny, "-o", path("x"), "--evidence", "a", "--calibration", "b"], "give one of them"),
      (64, [tiny, "-o", path("x"), "-m", "gptq", "--evidence", "a", "--fallback-rtn"], "--evidence holds none"),
      (64, [tiny, "-o", path("x"), "-m", "hqq", "--calibration", file], "nothing in this recipe uses it"),
      (64, [tiny, "-o", path("x"), "-m", "gptq", "--iterations", "8"], "give -m learned"),
      (64, [tiny, "-o", path("x"), "-m", "learned", "--tune-norms"], "--iterations or --distill"),
      (64, ["calibrate", tiny], "give --output"),
      (64, ["calibrate", "--merge", "a", "-o", path("x")], "two files or more"),
      (64, ["calibrate", "-o", path("x")], "give one of"),
      (65, ["calibrate", "--show", tiny + "/model-00001-of-00002.safetensors"], "is no evidence file"),
      (
        65, ["calibrate", "--merge", path("e.safetensors"), path("e.safetensors"), "-o", path("x")], "the same windows"
      ),
      (66, [tiny, "-o", path("x"), "--evidence", path("nowhere")], "no such file or folder"),
      (73, ["calibrate", tiny, "-o", path("e.safetensors")] + text + [file], "exists already"),
    ]
    for (code, arguments, message) in wrong {
      let outcome = try await Self.run(arguments)
      #expect(outcome.code == code && outcome.error.contains(message), "\(arguments): \(outcome.error)")
    }
  }

  @Test func theDryRunWritesNothingAndKnowsEveryByte() async throws {
    let planned = try await run(tiny, "-o", path("out"), "--method", "absmax", "--bits", "3", "--dry-run", "--json")
    #expect(planned.code == 0)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path.string).isEmpty)
    #expect(try await run(tiny, "-o", path("out"), "--method", "absmax", "--bits", "3").code == 0)
    let names = try FileManager.default.contentsOfDirectory(atPath: path("out"))
    let bytes = try names.reduce(0) { try $0 + Int(Stat(FilePath(path("out")).appending($1)).size) }
    #expect(try planned.json["output_bytes"]?.integer == bytes)
    for file in try #require(try planned.json["files"]?.array) {
      let name = try #require(file["name"]?.string)
      #expect(file["bytes"]?.integer == Int(try Stat(FilePath(path("out")).appending(name)).size))
    }
    let text = try await run(tiny, "-o", path("other"), "--dry-run")
    #expect(text.output.contains("The output folder takes"))
  }

  @Test func aModelThatCannotBeRunIsConvertedAllTheSame() async throws {
    let weight = SampleTensor("layers.0.mixer.in_proj.weight", [8, 64], [Float](repeating: 0.5, count: 512))
    try FileManager.default.createDirectory(atPath: path("mamba"), withIntermediateDirectories: true)
    try SampleTensor.write([weight], to: FilePath(path("mamba/model.safetensors")))
    try folder.write(Array(#"{"model_type": "mamba"}"#.utf8), to: "mamba/config.json")
    #expect(try await run(path("mamba"), "-o", path("out")).code == 0)
    let planned = try await run(path("mamba"), "-o", path("other"), "--dry-run")
    #expect(planned.output.contains("The model cannot be run, only converted: "))
    #expect(planned.output.contains("model_type 'mamba' is not one that can be run here"))
    let llama = Fixtures.path("architectures/bert").string
    let partly = try await run(llama, "-o", path("other"), "--group-size", "32", "--dry-run")
    let told = "The model can be run (bert) without 2 tensors that belong to no block: pooler.dense.bias"
    #expect(partly.output.contains(told))
  }

  @Test func differencesHaveTheirExitCodes() async throws {
    let out = ["one", "two"].map { path($0) }
    for folder in out { #expect(try await run(tiny, "-o", folder).code == 0) }
    let same = try await run("diff", out[0], out[1])
    #expect(same.code == 0 && same.output.contains("30 tensors: 30 the same"), "\(same.error)")
    #expect(same.error.isEmpty)
    let other = try await run("diff", tiny, out[0], "--against", tiny)
    #expect(other.code == 1 && other.output.contains("Nearer to \(tiny): A in 21 of 21 tensors"), "\(other.output)")
    let json = try await run("diff", tiny, out[0], "--json")
    #expect(try json.code == 1 && json.json["same"] == false && json.json["counts"]?["other_values"] == 21)
    #expect(try await run(tiny, "-o", path("whole.gguf"), "--type", "F32").code == 0)
    #expect(try await run("diff", tiny, path("whole.gguf")).code == 1)
    #expect(try await run("diff", tiny, path("whole.gguf"), "--ignore-format").code == 0)
    #expect(try await run("diff", tiny, path("nowhere")).code == 66)
    #expect(try await run("diff", tiny).code == 64)
    let opt = try await run("diff", path("whole.gguf"), Fixtures.path("malformed/trailing-bytes.safetensors").string)
    #expect(opt.code == 65)
  }

  @Test func oddFoldersAndValuesAreInspected() async throws {
    let broken = try await run("inspect", Fixtures.path("malformed/index-missing-shard").string)
    #expect(broken.code == 65 && broken.output.contains("DEFECT: model-00002-of-00002.safetensors"))
    _ = try await run(tiny, "-o", path("out"))
    let deep = try await run("inspect", path("out"), "--deep", "--html", path("page.html"))
    #expect(deep.code == 0 && deep.output.contains("all finite, nothing odd"), "\(deep.output)")
    #expect(String(decoding: try readWhole(FilePath(path("page.html"))), as: UTF8.self).contains("</html>"))
    let weight = "model.layers.0.mlp.up_proj.weight"
    let slice = try await run("inspect", path("out"), "--tensor", weight, "--values", "0:2,4:6", "--json")
    #expect(try slice.json["excerpt"]?["values"]?.array?.count == 4)
    #expect(try slice.json["excerpt"]?["codes"]?.array?.count == 4)
    #expect(try await run("inspect", tiny, "--values", "0").code == 64)
    #expect(try await run("inspect", tiny, "--tensor", weight, "--values", "a").code == 64)
    #expect(try await run("inspect", tiny, "--tensor", weight, "--values", "0:100000").code == 65)
    #expect(try await run("inspect", tiny, "--tensor", weight, "--deep").code == 64)
  }

  @Test func progressIsToldAsItIsAskedFor() async throws {
    let text = [
      "--samples", "4", "--sequence-length", "64", "--calibration", Fixtures.path("text/tiny-eval.txt").string,
    ]
    let method = ["-m", "gptq", "-b", "4", "-g", "64"] + text
    let quiet = try await Self.run([tiny, "-o", path("quiet")] + method)
    #expect(quiet.code == 0 && !quiet.error.contains("Converting"), "\(quiet.error)")
    let plain = try await Self.run([tiny, "-o", path("plain"), "--progress", "plain"] + method)
    let lines = plain.error.split(separator: "\n").filter { $0.hasPrefix("convert-model: Converting: ") }
    #expect(plain.code == 0 && lines.contains { $0.contains("calibrating, ") && $0.contains(" left, block ") })
    #expect(lines.contains { $0.contains("writing, ") } && !plain.error.contains("\u{1b}"))
    let told = try await Self.run([tiny, "-o", path("json"), "--progress", "json"] + method)
    let events = try told.error.split(separator: "\n").filter { $0.hasPrefix("{") }
      .map { try JSONParser.parse(Array($0.utf8)) }
    #expect(told.code == 0 && events.last?["event"] == "end" && events.count >= 4)
    let first = try #require(events.first { $0["stage"] == "calibrating" })
    #expect(first["task"] == "converting" && first["block"] == 0 && first["blocks"] == 3)
    for event in events.dropLast() {
      #expect(event["event"] == "progress" && (0...1).contains(event["share"]?.double ?? -1))
      #expect(event["seconds_left"]?.double ?? -1 >= 0 && event["seconds"]?.double ?? -1 >= 0)
    }
    // Whatever is told, the same is written.
    let written = try ["quiet", "plain", "json"].map {
      try readWhole(FilePath(path($0 + "/quantization_manifest.json")))
    }
    #expect(written[0] == written[1] && written[1] == written[2])
    let evaluation = try await run(
      "evaluate", tiny, "--text", Fixtures.path("text/tiny-eval.txt").string, "--window", "64", "--tokens", "512",
      "--progress", "json")
    #expect(evaluation.code == 0 && evaluation.error.contains(#""stage":"evaluating""#))
    #expect(try await run("verify", path("json"), "--progress", "json").error.contains(#""stage":"verifying""#))
    #expect(try await run("unpack", path("json"), "-o", path("dense"), "--progress", "none").error.isEmpty)
    #expect(try await run(tiny, "-o", path("x"), "--progress", "loud").code == 64)
    for seconds in ["-1", "nan", "soon"] {
      let refused = try await run(tiny, "-o", path("x"), "--record-every=\(seconds)")
      #expect(refused.code == 64 && refused.error.contains("record-every"), "\(refused)")
    }
  }

  @Test func jsonIsOneDocumentOnStandardOutput() async throws {
    _ = try await run(tiny, "-o", path("out"))
    for arguments in [
      ["inspect", path("out"), "--json"], ["report", path("out"), "--against", tiny, "--json"],
      ["inspect", path("out"), "--json", "--tensor", "model.layers.0.mlp.up_proj.weight", "--against", tiny],
      ["verify", path("out"), "--json"], ["unpack", path("out"), "-o", path("dense"), "--json"],
    ] {
      let outcome = try await Self.run(arguments)
      #expect(outcome.code == 0 && outcome.error.isEmpty, "\(arguments)")
      #expect(try outcome.json.object != nil, "\(arguments)")
    }
  }

  @Test func exitCodesAreThoseOfSysexits() async throws {
    _ = try await run(tiny, "-o", path("out"))
    try folder.write(Array("GGUF\u{3}\0\0\0\0\0\0\0\0".utf8), to: "model.gguf")
    try folder.write([0xff, 0xfe, 0x41], to: "latin.txt")
    try folder.write(Array("short".utf8), to: "short.txt")
    let text = Fixtures.path("text/tiny-eval.txt").string
    let bare = Fixtures.path("architectures/llama").string
    let encoder = Fixtures.path("architectures/bert").string
    let cases: [(code: Int32, arguments: [String], message: String)] = [
      (64, ["evaluate", tiny, "--text", text, "--window", "1"], "--window 1: at least 2"),
      (64, ["evaluate", tiny, "--text", text, "--stride", "600"], "from 1 to the window's 512"),
      (64, ["evaluate", tiny, "--text", text, "--tokens", "100"], "less than one window"),
      (64, ["evaluate", tiny, "--text", text, "--max-memory", "much"], "much"),
      (64, ["generate", tiny, "--prompt", "a", "--top-p", "2"], "above 0, at most 1"),
      (65, ["evaluate", tiny, "--text", path("latin.txt")], "is not text in UTF-8"),
      (65, ["evaluate", tiny, "--text", path("short.txt")], "do not fill one window of 512"),
      (66, ["evaluate", bare, "--text", text], "neither tokenizer.json nor tokenizer.model"),
      (66, ["evaluate", tiny, "--text", path("nowhere.txt")], "no such file or folder"),
      (64, [tiny], "Missing expected argument '--output"),
      (64, [tiny, "-o", path("x"), "--method", "gptq9"], "gptq9"),
      (64, [tiny, "-o", path("x"), "--method", "nf4", "--bits", "3"], "nf4 has 4 bits, not 3"),
      (64, [tiny, "-o", path("x"), "--group-size", "none"], "none"),
      (64, [tiny, "-o", path("x"), "--threads", "0"], "from 1 to 1024"),
      (64, [tiny, "-o", path("x"), "--override", "*: colour=red"], "colour=red"),
      (64, [tiny, "-o", path("x"), "--exclude", "nothing.*"], "no tensor matches 'nothing.*'"),
      (64, [tiny, "-o", tiny, "--overwrite"], "source and output are the same folder"),
      (64, ["inspect", tiny, "--against", tiny], "--against needs --tensor"),
      (65, [path("out"), "-o", path("x"), "--dry-run"], "is quantized already"),
      (65, ["report", tiny, "--against", tiny], "is not a folder written by convert-model"),
      (65, ["inspect", tiny, "--tensor", "up_proj"], "did you mean"),
      (65, [path("model.gguf"), "-o", path("x")], "ends within the number of tensors"),
      (66, ["inspect", path("nowhere")], "no such file or folder"),
      (66, [path("nowhere"), "-o", path("x")], "no such file or folder"),
      (73, [tiny, "-o", path("out")], "exists already"),
      (73, [tiny, "-o", "/proc/no/such"], "cannot be created"),
    ]
    for row in cases {
      let outcome = try await Self.run(row.arguments)
      #expect(outcome.code == row.code, "\(row.arguments): \(outcome.error)")
      #expect(outcome.error.contains(row.message), "\(row.arguments): \(outcome.error)")
      #expect(outcome.output.isEmpty)
    }
    #expect(!FileManager.default.fileExists(atPath: path("x")))
  }

  /// Each hand-made bad input: one clear line, exit code 65, no output left behind.
  @Test func malformedInputsEndWithOneLine() async throws {
    let cases = try #require(try Fixtures.json("malformed/cases.json").array)
    for row in cases {
      let name = try #require(row["path"]?.string)
      let outcome = try await run(Fixtures.path("malformed").pushing(FilePath(name)).string, "-o", path("out"))
      #expect(outcome.code == 65, "\(name): \(outcome.error)")
      #expect(outcome.error.hasPrefix("convert-model: error: ") && outcome.error.split(separator: "\n").count == 1)
      #expect(outcome.output.isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path.string).isEmpty, "\(name)")
    }
  }

  @Test func helpShowsExamplesAndExitCodes() async throws {
    let help = try await run("--help")
    #expect(help.code == 0)
    for text in ["EXAMPLES", "EXIT CODES", "inspect", "report", "unpack", "verify", "130  interrupted"] {
      #expect(help.output.contains(text))
    }
    for subcommand in ["convert", "inspect", "diff", "report", "unpack", "verify"] {
      let help = try await run(subcommand, "--help")
      #expect(help.code == 0 && help.output.contains("USAGE: convert-model \(subcommand)"), "\(subcommand)")
    }
    #expect(try await run("--version").output == "0.1.0\n")
  }

  /// A trained model of 5 M weights in four shards, as in the README.
  @Test(.enabled(if: Fixtures.shared("models/stories5M") != nil, "needs ../shared/models/stories5M"))
  func aTrainedModelCosts4Point127BitsPerWeight() async throws {
    let source = try #require(Fixtures.shared("models/stories5M")).string
    let outcome = try await run(source, "-o", path("out"), "--double-quantization", "--json")
    let totals = try #require(try outcome.json["totals"])
    #expect(abs((totals["bits_per_quantized_weight"]?.double ?? 0) - 4.127) < 5e-4)
    #expect(abs((totals["relative_error"]?.double ?? 0) - 0.092) < 1e-3)
  }
}
