import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Subprocess
import SystemPackage
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the system around a run can do to it: each fault gives one clear line and its exit code, and leaves nothing
/// half-written and nothing lost.
@Suite(.timeLimit(.minutes(2))) struct FaultTests {
  typealias Outcome = CommandTests.Outcome

  let tiny = Fixtures.path("tiny-llama").string
  let text = Fixtures.path("text/tiny-eval.txt").string
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { folder.appending(name).string }

  /// Every name in a folder, hidden ones among them.
  private func names(_ folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
  }

  /// Runs the program in a shell that first runs `setup`, such as a limit, or under another program.
  private func run(setup: String = "", under wrapper: [String] = [], _ arguments: [String]) async throws -> Outcome {
    let program = FilePath(CommandLine.arguments[0]).removingLastComponent().appending("convert-model").string
    let script = setup + "\nexec \"$@\""
    let record = try await Subprocess.run(
      .path("/bin/sh"), arguments: Arguments(["-c", script, "sh"] + wrapper + [program] + arguments),
      output: .string(limit: 1 << 26), error: .string(limit: 1 << 20))
    guard case .exited(let code) = record.terminationStatus else {
      return Outcome(code: -1, output: "", error: "ended by a signal: \(record.terminationStatus)")
    }
    return Outcome(code: code, output: record.standardOutput, error: record.standardError)
  }

  private func expect(
    _ outcome: Outcome, code: Int32, _ message: String, _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(outcome.code == code, "\(outcome.error)", sourceLocation: location)
    #expect(outcome.error.contains(message), "\(outcome.error)", sourceLocation: location)
    let lines = outcome.error.split(separator: "\n").filter { !$0.contains("warning: ") }
    #expect(lines.count == 1, "\(outcome.error)", sourceLocation: location)
    #expect(outcome.output.isEmpty, sourceLocation: location)
  }

  // MARK: The output

  /// No output has appeared; what is kept to go on from is what the message names, and is removed here.
  private func expectNothing(
    in place: String, but outcome: Outcome, _ location: SourceLocation = #_sourceLocation
  ) throws {
    for name in try names(place) {
      let isKept = name.hasPrefix(".") && name.hasSuffix(".partial") && outcome.error.contains("\(place)/\(name)")
      #expect(isKept, "\(name) was left: \(outcome.error)", sourceLocation: location)
      try FileManager.default.removeItem(atPath: "\(place)/\(name)")
    }
  }

  /// Runs of every command that writes, each to be given a place that it cannot write to.
  private func writers(to place: String) async throws -> [[String]] {
    let packed = path("packed")
    if !FileManager.default.fileExists(atPath: packed) {
      #expect(try await CommandTests.run([tiny, "-o", packed, "-m", "absmax"]).code == 0)
    }
    return [
      [tiny, "-o", "\(place)/out", "-m", "absmax"],
      [tiny, "-o", "\(place)/out", "-m", "gptq", "--layout", "gptq", "--group-size", "32", "--calibration", text]
        + ["--samples", "4", "--sequence-length", "32"],
      [tiny, "-o", "\(place)/out.gguf", "--type", "q8_0"],
      ["unpack", packed, "-o", "\(place)/dense"],
      ["calibrate", tiny, "-o", "\(place)/e.safetensors", "--calibration", text, "--samples", "4"]
        + ["--sequence-length", "32"],
    ]
  }

  #if canImport(Glibc)
    /// Whether this process may mount a file system, as root mostly may outside of a container.
    static let mayMount: Bool = {
      guard let folder = try? TemporaryFolder(), mount("none", folder.path.string, "tmpfs", 0, "size=64k") == 0 else {
        return false
      }
      return umount2(folder.path.string, CInt(MNT_DETACH)) == 0
    }()

    /// - Parameter options: of the file system, such as `size=300k`.
    private func onFileSystem(_ options: String, _ body: (String) async throws -> Void) async throws {
      let place = path("mounted")
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
      let flags = options == "ro" ? CUnsignedLong(MS_RDONLY) : 0
      try #require(mount("none", place, "tmpfs", flags, flags == 0 ? options : "") == 0)
      defer { umount2(place, CInt(MNT_DETACH)) }
      try await body(place)
    }

    @Test(.enabled(if: mayMount, "needs the right to mount a file system"))
    func aFullDiskIsSaidAndLeftAsItWas() async throws {
      try await onFileSystem("size=300k") { place in
        for arguments in try await writers(to: place) {
          let outcome = try await CommandTests.run(arguments)
          #expect([73, 74].contains(outcome.code), "\(arguments): \(outcome.error)")
          let isNamed = ["has ", "No space left", "out of space"].contains { outcome.error.contains($0) }
          #expect(isNamed && outcome.error.contains(place), "\(arguments): \(outcome.error)")
          try expectNothing(in: place, but: outcome)
        }
      }
    }

    @Test(.enabled(if: mayMount, "needs the right to mount a file system"))
    func aReadOnlyFileSystemIsSaid() async throws {
      try await onFileSystem("ro") { place in
        for arguments in try await writers(to: place) {
          expect(try await CommandTests.run(arguments), code: 73, "cannot be created")
        }
      }
    }
  #endif

  /// A limit on the size of files comes as a signal, which would end the program with its half-written output left.
  @Test func aFileThatMayNotGrowIsSaidAndNothingIsLeft() async throws {
    let place = path("limited")
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
    for arguments in try await writers(to: place) {
      let outcome = try await run(setup: "ulimit -f 64", arguments)
      expect(outcome, code: 74, "writing failed: File too large")
      try expectNothing(in: place, but: outcome)
    }
  }

  @Test func aPlaceWhereNothingCanBeIsSaid() async throws {
    for place in ["/proc/self", "/dev/null"] {
      for arguments in try await writers(to: place) {
        expect(try await CommandTests.run(arguments), code: 73, "cannot be created")
      }
    }
  }

  // MARK: Permissions

  /// What runs a program without root's right to read everything; nil where the tests run as root and have none.
  static let unprivileged: [String]? = {
    if getuid() != 0 { return [] }
    let program = "/usr/bin/setpriv"
    return FileManager.default.isExecutableFile(atPath: program)
      ? [program, "--reuid=65534", "--regid=65534", "--clear-groups"] : nil
  }()

  @Test(.enabled(if: unprivileged != nil, "runs as root, and /usr/bin/setpriv is missing"))
  func whatMayNotBeReadOrWrittenIsSaid() async throws {
    let wrapper = try #require(Self.unprivileged)
    let probe = try await run(under: wrapper, ["--version"])
    // The folder of the build may itself be closed to others.
    guard probe.code == 0 else { return }
    let source = path("source")
    try FileManager.default.copyItem(atPath: tiny, toPath: source)
    let shard = source + "/model-00001-of-00002.safetensors"
    try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: folder.path.string)
    try FileManager.default.setAttributes([.posixPermissions: 0], ofItemAtPath: shard)
    let outcome = try await run(under: wrapper, [source, "-o", path("out"), "-m", "absmax"])
    expect(outcome, code: 66, "cannot be opened: Permission denied")
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: shard)
    try FileManager.default.createDirectory(
      atPath: path("closed"), withIntermediateDirectories: false, attributes: [.posixPermissions: 0o555])
    let closed = try await run(under: wrapper, [source, "-o", path("closed/out"), "-m", "absmax"])
    expect(closed, code: 73, "cannot be created")
    #expect(try names(path("closed")).isEmpty)
    #expect(try names(folder.path.string) == ["closed", "source"])
  }

  // MARK: The source

  /// Nothing waits for a pipe that nobody writes to.
  @Test func pipesAreRefusedInsteadOfWaitedFor() async throws {
    func pipe(_ name: String) throws -> String {
      try #require(mkfifo(path(name), 0o644) == 0)
      return path(name)
    }
    let plain = try pipe("model.safetensors")
    for arguments in [[plain, "-o", path("out")], ["inspect", plain], ["check", plain, "--runtime", "vllm"]] {
      expect(try await CommandTests.run(arguments), code: 66, "it is not a regular file")
    }
    let file = try pipe("text")
    let gathering = ["-m", "gptq", "--calibration", file, "--samples", "2", "--sequence-length", "16"]
    expect(try await CommandTests.run([tiny, "-o", path("out")] + gathering), code: 66, "it is not a regular file")
    expect(try await CommandTests.run(["evaluate", tiny, "--text", file]), code: 66, "it is not a regular file")
    expect(try await CommandTests.run([tiny, "-o", path("out"), "--evidence", file]), code: 66, "it is not a regular")
    expect(
      try await CommandTests.run([tiny, "-o", path("out.gguf"), "--imatrix", file]), code: 66, "it is not a regular")
    try FileManager.default.copyItem(atPath: tiny, toPath: path("source"))
    for name in ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors", "model.safetensors.index.json"] {
      try FileManager.default.removeItem(atPath: path("source/\(name)"))
      _ = try pipe("source/\(name)")
      let outcome = try await CommandTests.run(["evaluate", path("source"), "--text", text])
      expect(outcome, code: 66, "it is not a regular file")
      try FileManager.default.removeItem(atPath: path("source/\(name)"))
      try FileManager.default.copyItem(atPath: "\(tiny)/\(name)", toPath: path("source/\(name)"))
    }
  }

  @Test func linksThatLeadInACircleAreRefused() async throws {
    func link(_ name: String, to target: String) throws {
      try FileManager.default.createSymbolicLink(atPath: path(name), withDestinationPath: target)
    }
    try link("one", to: "two")
    try link("two", to: "one")
    expect(try await CommandTests.run([path("one"), "-o", path("out")]), code: 66, "no such file or folder")
    expect(try await CommandTests.run([tiny, "-o", path("one/out")]), code: 73, "cannot be created")
    try FileManager.default.createDirectory(atPath: path("model"), withIntermediateDirectories: false)
    try link("model/model.safetensors", to: "model.safetensors")
    let looped = try await CommandTests.run([path("model"), "-o", path("out")])
    #expect([65, 66].contains(looped.code) && looped.error.split(separator: "\n").count == 1, "\(looped.error)")
    // A folder that holds a link to itself is a folder like any other: nothing goes down into it.
    try FileManager.default.copyItem(atPath: tiny, toPath: path("source"))
    try link("source/self", to: ".")
    #expect(try await CommandTests.run([path("source"), "-o", path("out"), "-m", "absmax"]).code == 0)
    #expect(!FileManager.default.fileExists(atPath: path("out/self")))
  }

  /// A file of the kernel's that opens and cannot be read.
  static let unreadable: String? = {
    let file = "/sys/class/net/lo/speed"
    guard let opened = try? FileDescriptor.open(FilePath(file), .readOnly) else { return nil }
    defer { try? opened.close() }
    var byte: [UInt8] = [0]
    let result = Result { try opened.readFully(at: 0, count: 1, into: &byte) }
    if case .failure = result { return file }
    return nil
  }()

  @Test(.enabled(if: unreadable != nil, "needs a file that opens and cannot be read"))
  func aDeviceThatFailsIsAnErrorOfInputAndOutput() async throws {
    let file = try #require(Self.unreadable)
    expect(try await CommandTests.run(["inspect", file]), code: 74, "reading failed")
    expect(try await CommandTests.run([file, "-o", path("out")]), code: 74, "reading failed")
    #expect(try names(folder.path.string).isEmpty)
  }

  // MARK: Odd but legal

  @Test func namesOfTensorsStayNames() async throws {
    let odd = [
      "../../escape.weight", "/tmp/absolute.weight", "a\nb\u{1b}[31m.weight",
      "\u{65e5}\u{672c}\u{8a9e}.\u{1f600}.weight",
      "e\u{301}.weight", "...", String(repeating: "long.", count: 200) + "weight",
    ]
    let tensors = odd.map { SampleTensor($0, [4, 8], [Float](repeating: 0.5, count: 32)) }
    try FileManager.default.createDirectory(atPath: path("model"), withIntermediateDirectories: false)
    try SampleTensor.write(tensors, to: folder.appending("model").appending("model.safetensors"))
    let before = try names(folder.path.string)
    let converted = try await CommandTests.run([path("model"), "-o", path("out"), "-m", "absmax"])
    #expect(converted.code == 0, "\(converted.error)")
    for arguments in [["inspect", path("out")], ["report", path("out"), "--against", path("model")]] {
      let outcome = try await CommandTests.run(arguments)
      #expect(outcome.code == 0 && !outcome.output.unicodeScalars.contains("\u{1b}"), "\(outcome.error)")
      #expect(outcome.output.contains("a\\nb\\u{1B}[31m.weight"))
    }
    #expect(try await CommandTests.run(["verify", path("out")]).code == 0)
    #expect(try await CommandTests.run(["unpack", path("out"), "-o", path("dense")]).code == 0)
    #expect(try Set(Checkpoint(folder.appending("dense")).tensors.map(\.name)) == Set(odd))
    #expect(try names(folder.path.string) == (before + ["dense", "out"]).sorted())
  }

  @Test func tensorsWithoutElementsAreKept() async throws {
    let empty = [[0, 8], [8, 0], [0], [2, 0, 8]].enumerated().map { index, shape in
      SampleTensor("empty.\(index).weight", shape, [])
    }
    let full = SampleTensor("full.weight", [4, 8], [Float](repeating: 0.5, count: 32))
    try FileManager.default.createDirectory(atPath: path("model"), withIntermediateDirectories: false)
    try SampleTensor.write(empty + [full], to: folder.appending("model").appending("model.safetensors"))
    for method in ["absmax", "nf4", "hqq"] {
      let outcome = try await CommandTests.run([path("model"), "-o", path(method), "-m", method, "--json"])
      #expect(outcome.code == 0, "\(outcome.error)")
      #expect(try outcome.json["totals"]?["quantized_tensors"]?.integer == 1)
    }
    #expect(try await CommandTests.run(["verify", path("nf4")]).code == 0)
    #expect(try await CommandTests.run(["inspect", path("nf4")]).code == 0)
    #expect(try await CommandTests.run(["inspect", path("nf4"), "--tensor", "empty.0.weight"]).code == 0)
    #expect(try await CommandTests.run(["unpack", path("nf4"), "-o", path("dense")]).code == 0)
    #expect(try Checkpoint(folder.appending("dense"))["empty.3.weight"]?.entry.shape == [2, 0, 8])
  }

  /// A sparse file: 5 GB that take no room, and a weight behind them.
  @Test func offsetsBeyondFourGigabytesAreRight() async throws {
    let big = 5 << 28
    let values = (0..<32).map { Float($0) - 7 }
    let small = SampleTensor("small.weight", [4, 8], values)
    let layout = SafetensorsLayout(
      [TensorSpecification(name: "big", type: .f32, shape: [big]), small.specification], metadata: [:])
    let file = try FileDescriptor.open(
      folder.appending("model.safetensors"), .writeOnly, options: .create, permissions: .ownerReadWrite)
    defer { try? file.close() }
    try #require(ftruncate(file.rawValue, off_t(layout.fileSize)) == 0)
    try file.writeFully(layout.head, count: layout.head.count, at: 0)
    let start = try #require(layout.offsets["small.weight"])
    #expect(start > 1 << 32)
    try file.writeFully(small.bytes, count: small.bytes.count, at: start)
    let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
    #expect(try allValues(#require(checkpoint["small.weight"])) == values)
    let planned = try await CommandTests.run([path("model.safetensors"), "-o", path("out"), "--dry-run", "--json"])
    #expect(planned.code == 0, "\(planned.error)")
    #expect(try planned.json["output_bytes"]?.integer ?? 0 > 4 * big)
    let shown = try await CommandTests.run(["inspect", path("model.safetensors"), "--tensor", "small.weight", "--json"])
    #expect(shown.code == 0, "\(shown.error)")
  }

  /// A weight larger than all the address space that the program is given. The threads of OpenBLAS, which are never
  /// used, are left out: each takes 128 MB of it.
  @Test func aWeightLargerThanMemoryIsConverted() async throws {
    let layout = SafetensorsLayout(
      [TensorSpecification(name: "up_proj.weight", type: .bf16, shape: [32768, 4096])], metadata: [:])
    try FileManager.default.createDirectory(atPath: path("model"), withIntermediateDirectories: false)
    let file = try FileDescriptor.open(
      folder.appending("model").appending("model.safetensors"), .writeOnly, options: .create,
      permissions: .ownerReadWrite)
    defer { try? file.close() }
    try #require(ftruncate(file.rawValue, off_t(layout.fileSize)) == 0)
    try file.writeFully(layout.head, count: layout.head.count, at: 0)
    let little = "ulimit -v 230000; export OPENBLAS_NUM_THREADS=1"
    let outcome = try await run(setup: little, [path("model"), "-o", path("out"), "-m", "absmax"])
    #expect(outcome.code == 0, "\(outcome.error)")
  }

  /// Squares of the number of tensors would take many times the limits.
  @Test func manyTensorsTakeTimeAndMemoryInProportion() async throws {
    for count in [5000, 100_000] {
      let tensors = (0..<count).map {
        TensorSpecification(name: "model.layers.\($0).up_proj.weight", type: .bf16, shape: [2, 8])
      }
      let layout = SafetensorsLayout(tensors, metadata: [:])
      let model = folder.appending("model-\(count)")
      try FileManager.default.createDirectory(atPath: model.string, withIntermediateDirectories: true)
      let bytes = layout.head + [UInt8](repeating: 0x3f, count: layout.fileSize - layout.head.count)
      try Data(bytes).write(to: URL(fileURLWithPath: model.appending("model.safetensors").string))
    }
    let little = "ulimit -t 30; ulimit -v 1000000; export OPENBLAS_NUM_THREADS=1"
    let inspected = try await run(setup: little, ["inspect", path("model-100000"), "--json"])
    #expect(inspected.code == 0, "\(inspected.error)")
    let converted = try await run(setup: little, [path("model-5000"), "-o", path("out"), "-m", "absmax"])
    #expect(converted.code == 0, "\(converted.error)")
    let verified = try await run(setup: little, ["verify", path("out"), "--deep"])
    #expect(verified.code == 0, "\(verified.error)")
  }

  /// A list of 60 MB of numbers in the metadata of a GGUF file takes no multiple of that: a value for each element would
  /// take two gigabytes.
  @Test func longListsTakeTheBytesThatTheFileHas() async throws {
    func little(_ value: some FixedWidthInteger) -> [UInt8] {
      (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
    let count = 15_000_000
    var file = Array("GGUF".utf8) + little(UInt32(3)) + little(UInt64(0)) + little(UInt64(1))
    file += little(UInt64(1)) + Array("k".utf8) + little(UInt32(9)) + little(UInt32(4)) + little(UInt64(count))
    file += [UInt8](repeating: 1, count: 4 * count)
    file += [UInt8](repeating: 0, count: (32 - file.count % 32) % 32)
    try Data(file).write(to: URL(fileURLWithPath: path("long.gguf")))
    // Three times the file, and what the program itself reserves.
    let limits = "ulimit -t 30; ulimit -v 600000; export OPENBLAS_NUM_THREADS=1"
    let outcome = try await run(setup: limits, ["inspect", path("long.gguf")])
    #expect(outcome.code == 0, "\(outcome.error)")
    #expect(outcome.output.contains("15000000 × uint32: 16843009"), "\(outcome.output)")
  }
}
