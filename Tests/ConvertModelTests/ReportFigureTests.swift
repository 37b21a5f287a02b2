import Checkpoints
import Foundation
import Kernels
import SystemPackage
import TestSupport
import Testing

/// Every figure of a report, computed once more from the files in the plainest way, without the program's own readers.
@Suite struct ReportFigureTests {
  /// One conversion for all tests.
  private struct Made: Sendable {
    let folder: TemporaryFolder
    let report: JSONValue
    let html: String
    let source: Checkpoint
    let output: Checkpoint
    let calibration: JSONValue
  }

  private static let bits = 3
  private static let group = 64

  private static let made = Task {
    let folder = try TemporaryFolder()
    let (out, page) = (folder.appending("out").string, folder.appending("page.html").string)
    let arguments = ["-m", "gptq", "-b", "\(bits)", "-g", "\(group)"] + ConvertModelProgram.calibration
    let converted = try await ConvertModelProgram.run([ConvertModelProgram.tiny, "-o", out] + arguments)
    try #require(converted.code == 0, "\(converted.error)")
    let report = try await ConvertModelProgram.require(
      "report", out, "--against", ConvertModelProgram.tiny, "--json", "--html", page
    ).json
    return Made(
      folder: folder, report: report, html: try String(contentsOfFile: page, encoding: .utf8),
      source: try Checkpoint(FilePath(ConvertModelProgram.tiny)), output: try Checkpoint(FilePath(out)),
      calibration: try readJSONObject(folder.appending("out").appending("calibration_report.json")))
  }

  private let folder: TemporaryFolder
  private let report: JSONValue
  private let html: String
  private let source: Checkpoint
  private let output: Checkpoint
  private let calibration: JSONValue

  init() async throws {
    let made = try await Self.made.value
    (folder, report, html) = (made.folder, made.report, made.html)
    (source, output, calibration) = (made.source, made.output, made.calibration)
  }

  private var tensors: [JSONValue] { report["tensors"]?.array ?? [] }
  private var quantized: [JSONValue] { tensors.filter { $0["bucket"] == "quantized" } }

  /// The codes of a tensor: a stream of bits, the lowest first.
  private func codes(_ name: String, _ count: Int) throws -> [Int] {
    let bytes = try allBytes(try #require(output[name + ".codes"]))
    return (0..<count).map { index in
      (0..<Self.bits).reduce(0) { code, bit in
        let place = index * Self.bits + bit
        return code | (Int(bytes[place / 8]) >> (place % 8) & 1) << bit
      }
    }
  }

  /// The text in the cells of a tensor's row of the page.
  private func row(_ name: String) throws -> [String] {
    let rows = html.matches(of: /<tr class="[^"]*"><th scope="row">(.*?)<\/tr>/).map { String($0.1) }
    let row = try #require(rows.first { $0.contains(">\(name)<") || $0.hasPrefix("\(name)<") })
    return row.matches(of: /<td>(.*?)<\/td>/).map { String($0.1) }
  }

  private func close(_ value: JSONValue?, _ expected: Double, within tolerance: Double = 1e-6) -> Bool {
    value?.double.map { abs($0 - expected) <= tolerance * max(abs(expected), 1e-9) } ?? false
  }

  private func shown(_ value: Double, _ places: Int) -> String { String(format: "%.\(places)f", value) }

  @Test func weightsCodesAndScales() throws {
    #expect(quantized.count == 21)
    let profiles = try #require(html.firstMatch(of: /id="profiles">(.*?)<\/script>/)?.1)
    let drawn = try #require(try JSONParser.parse(Array(profiles.utf8)).array)
    for (index, tensor) in tensors.enumerated() where tensor["bucket"] == "quantized" {
      let name = try #require(tensor["name"]?.string)
      let weights = try allValues(try #require(source[name])).map(Double.init)
      let codes = try codes(name, weights.count)
      let scales = try allValues(try #require(output[name + ".scales"])).map(Double.init)
      let decoded = codes.enumerated().map { scales[$0 / Self.group] * Double($1 - 4) }
      let differences = zip(weights, decoded).map { abs($0 - $1) }
      let (error, norm) = (differences.reduce(0) { $0 + $1 * $1 }, weights.reduce(0) { $0 + $1 * $1 })
      let relative = (error / norm).squareRoot()
      #expect(close(tensor["relative_error"], relative), "\(name)")
      #expect(close(tensor["sqnr_db"], 10 * log10(norm / error)))
      #expect(close(tensor["largest_error"], differences.max() ?? 0))
      let width = try #require(tensor["shape"]?.array?[1].integer)
      let place = try #require(tensor["largest_error_index"]?.array).compactMap(\.integer)
      #expect(abs(differences[place[0] * width + place[1]] - (differences.max() ?? 0)) < 1e-6)
      let product = zip(weights, decoded).reduce(0) { $0 + $1.0 * $1.1 }
      #expect(close(tensor["cosine"], product / (norm * decoded.reduce(0) { $0 + $1 * $1 }).squareRoot()))
      // The distribution of the weights: 64 intervals around zero.
      let largest = weights.map(abs).max() ?? 0
      var bins = [Int](repeating: 0, count: 64)
      for weight in weights { bins[min(63, Int((weight + largest) / (2 * largest) * 64))] += 1 }
      let counts = try #require(tensor["weights"]?["counts"]?.array).compactMap(\.integer)
      // A weight on a boundary may go to either side of it.
      #expect(counts.reduce(0, +) == weights.count && zip(counts, bins).allSatisfy { abs($0 - $1) <= 2 }, "\(name)")
      let mean = weights.reduce(0, +) / Double(weights.count)
      let deviation = (weights.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(weights.count)).squareRoot()
      #expect(close(tensor["peak"], largest / deviation))
      let roots = weights.reduce(0) { $0 + abs($1).squareRoot() }
      let index1 = 1 - roots * roots / (Double(weights.count) * weights.reduce(0) { $0 + abs($1) })
      #expect(close(tensor["pq_index"], index1, within: 1e-5))
      var usage = [Int](repeating: 0, count: 8)
      for code in codes { usage[code] += 1 }
      #expect(tensor["codes"]?["usage"]?.array?.compactMap(\.integer) == usage)
      let shares = usage.filter { $0 > 0 }.map { Double($0) / Double(codes.count) }
      #expect(close(tensor["codes"]?["entropy_bits"], -shares.reduce(0) { $0 + $1 * log2($1) }))
      let logarithms = scales.filter { $0 != 0 }.map { log2(abs($0)) }
      #expect(close(tensor["log2_scales"]?["low"], logarithms.min() ?? 0))
      #expect(close(tensor["log2_scales"]?["high"], logarithms.max() ?? 0))
      let scaleCounts = try #require(tensor["log2_scales"]?["counts"]?.array).compactMap(\.integer)
      #expect(scaleCounts.reduce(0, +) == logarithms.count && scaleCounts.count == 32)
      // What the page draws are shares, in thousandths of the largest.
      for (key, exact) in [("w", counts), ("c", usage), ("s", scaleCounts)] {
        let heights = try #require(drawn[index][key]?.array).compactMap(\.double)
        let most = Double(exact.max() ?? 1)
        #expect(
          heights.count == exact.count && zip(heights, exact).allSatisfy { abs($0 - Double($1) / most * 1000) <= 1 })
      }
      // The row of the page.
      let cells = try row(name)
      #expect(cells[2] == shown(tensor["bits_per_weight"]?.double ?? 0, 3))
      #expect(cells[5] == shown(relative * 100, 2), "\(name): \(cells)")
      #expect(cells.suffix(2) == [shown(largest / deviation, 1), shown(index1, 3)])
    }
  }

  @Test func sizes() throws {
    func fileBytes(_ checkpoint: Checkpoint) throws -> Int {
      try checkpoint.files.reduce(0) { try $0 + Int(Stat($1.path).size) }
    }
    let totals = report["totals"]
    #expect(try totals?["source_file_bytes"]?.integer == fileBytes(source))
    #expect(try totals?["stored_file_bytes"]?.integer == fileBytes(output))
    var (scaleBytes, codeBytes, weights) = (0, 0, 0)
    var byKind: [String: (weights: Int, stored: Int)] = [:]
    var byBlock: [Int: (weights: Int, stored: Int)] = [:]
    for tensor in tensors {
      let name = try #require(tensor["name"]?.string)
      let entry = try #require(source[name]).entry
      var stored = output[name]?.entry.bytes.count ?? 0
      if tensor["bucket"] == "quantized" {
        let codes = try #require(output[name + ".codes"]).entry.bytes.count
        let scales = try #require(output[name + ".scales"]).entry.bytes.count
        #expect(tensor["code_bytes"]?.integer == codes && tensor["scale_bytes"]?.integer == scales)
        #expect(codes == entry.elementCount * Self.bits / 8 && scales == entry.elementCount / Self.group * 2)
        (stored, scaleBytes, codeBytes) = (codes + scales, scaleBytes + scales, codeBytes + codes)
        weights += entry.elementCount
        let kind = try #require(name.firstMatch(of: /layers\.\d+\.(.*)\.weight/)?.1)
        let sum = byKind[String(kind)] ?? (0, 0)
        byKind[String(kind)] = (sum.weights + entry.elementCount, sum.stored + stored)
      }
      if let number = name.firstMatch(of: /layers\.(\d+)\./).flatMap({ Int($0.1) }) {
        let sum = byBlock[number] ?? (0, 0)
        byBlock[number] = (sum.weights + entry.elementCount, sum.stored + stored)
      }
      #expect(tensor["stored_bytes"]?.integer == stored && tensor["source_bytes"]?.integer == entry.bytes.count)
      #expect(close(tensor["bits_per_weight"], Double(stored) * 8 / Double(entry.elementCount)))
    }
    #expect(totals?["scale_bytes"]?.integer == scaleBytes && totals?["code_bytes"]?.integer == codeBytes)
    #expect(close(totals?["bits_per_quantized_weight"], Double(scaleBytes + codeBytes) * 8 / Double(weights)))
    #expect(html.contains("\(scaleBytes) bytes, zero points included"))
    let kinds = try #require(report["kinds"]?.array)
    #expect(kinds.count == byKind.count && byKind.count == 7)
    for kind in kinds {
      let expected = try #require(byKind[kind["kind"]?.string ?? ""])
      #expect(kind["weights"]?.integer == expected.weights && kind["stored_bytes"]?.integer == expected.stored)
      // Another bit takes one bit a weight.
      #expect(kind["bit_bytes"]?.integer == expected.weights / 8)
    }
    for block in try #require(report["blocks"]?.array) {
      let expected = try #require(byBlock[block["block"]?.integer ?? -1])
      #expect(close(block["bits_per_weight"], Double(expected.stored) * 8 / Double(expected.weights)))
    }
    let sizes = try #require(report["sizes"]?.array)
    let stored = sizes.reduce(0) { $0 + ($1["stored_bytes"]?.integer ?? 0) }
    #expect(stored == totals?["tensor_bytes"]?.integer)
  }

  @Test func outputErrorsAndWhatABitWouldTakeOff() throws {
    let layers = try #require(calibration["layers"]?.array)
    var squares: [String: [Double]] = [:]
    for layer in layers {
      let name = try #require(layer["tensor"]?.string)
      let error = try #require(layer["output_error"]?.double)
      let plain = try #require(layer["output_error_rtn"]?.double)
      let rounding = try #require(layer["output_error_rounding"]?.double)
      // Rounding is not all of an error, but a part of it; they are nearly at right angles.
      #expect(rounding > 0 && rounding < 1.1 * error)
      let margin = try #require(layer["ratio_margin_95"]?.double)
      let cells = try row(name)
      #expect(cells[6] == shown(error * 100, 2) && cells[7] == shown(rounding * 100, 2))
      #expect(cells[8] == "\(shown(error / plain, 3)) ± \(shown(margin, 3))")
      let kind = try #require(name.firstMatch(of: /layers\.\d+\.(.*)\.weight/)?.1)
      squares[String(kind), default: []].append(rounding * rounding)
    }
    let total = squares.values.reduce(0) { $0 + $1.reduce(0, +) }
    let stored = try #require(report["totals"]?["stored_file_bytes"]?.double)
    for kind in try #require(report["kinds"]?.array) {
      let own = try #require(squares[kind["kind"]?.string ?? ""])
      let share = own.reduce(0, +) / total
      #expect(close(kind["share"], share))
      #expect(close(kind["rounding_error"], (own.reduce(0, +) / Double(own.count)).squareRoot()))
      // Half the error is a quarter of its square.
      #expect(close(kind["bit_gain"], share - share / 4))
      let growth = try #require(kind["bit_bytes"]?.double) / stored
      #expect(close(kind["bit_worth"], share * 0.75 / growth))
    }
    // Queries, keys and values of the first block read an input that nothing has changed: rounding is all of it.
    for layer in layers.prefix(3) {
      #expect(close(layer["output_error_rounding"], layer["output_error"]?.double ?? 0, within: 0.2), "\(layer)")
    }
  }

  @Test func inputFeaturesAreThoseOfTheEvidence() async throws {
    // The first block's input is the same in the evidence of the original model.
    let arguments = ["calibrate", ConvertModelProgram.tiny, "-o", folder.appending("evidence.safetensors").string]
    _ = try await ConvertModelProgram.run(arguments + ConvertModelProgram.calibration)
    let evidence = try Checkpoint(folder.appending("evidence.safetensors"))
    let names = evidence.tensors.map(\.name)
    let first = try #require(report["input_features"]?.array?.first)
    #expect(first["tensor"] == "model.layers.0.self_attn.q_proj.weight")
    let squares = try #require(
      names.first { $0.hasSuffix("squares") || $0.hasSuffix("square_sums") }, "\(names.prefix(8))")
    let sums = try allValues(try #require(evidence[squares])).map(Double.init)
    let tokens = try #require(report["layers"]?.array?.first?["tokens"]?.double)
    let roots = sums.map { ($0 / tokens).squareRoot() }
    let median = roots.sorted()[roots.count / 2]
    #expect(close(first["median_rms"], median, within: 1e-4))
    #expect(first["outliers"]?.integer == roots.count { $0 >= 6 * median })
    let strongest = try #require(first["strongest"]?.array?.first)
    #expect(roots.firstIndex(of: roots.max() ?? 0) == strongest["feature"]?.integer)
    #expect(close(strongest["rms"], roots.max() ?? 0, within: 1e-4))
  }

  @Test func hashesAreThoseOfTheFiles() async throws {
    let files = try #require(report["provenance"]?["files"]?.array)
    #expect(files.count == source.files.count + output.files.count + 3)
    for file in files {
      let name = try #require(file["name"]?.string)
      let base = file["side"] == "source" ? ConvertModelProgram.tiny : folder.appending("out").string
      let path = FilePath(base).appending(name)
      #expect(file["bytes"]?.integer == Int(try Stat(path).size))
      let expected = try await ConvertModelProgram.sha256(of: path)
      #expect(file["sha256"]?.string == expected && html.contains(expected))
    }
  }
}
