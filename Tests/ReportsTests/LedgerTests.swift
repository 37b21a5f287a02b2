import Checkpoints
import Foundation
import Kernels
import Quantization
import Reports
import Testing

@Suite struct LedgerTests {
  @Test(arguments: [
    ("model.layers.12.mlp.down_proj.weight", 12, "mlp.down_proj"),
    ("model.layers.3.mlp.experts.17.w1.weight", 3, "mlp.experts.*.w1"),
    ("h.0.attn.c_attn.weight", 0, "attn.c_attn"),
  ])
  func placesAreReadOffNames(name: String, depth: Int, kind: String) {
    #expect(Ledger.place(of: name) == (depth, kind))
  }

  @Test func tensorsOutsideOfBlocksHaveNoDepth() {
    #expect(Ledger.place(of: "lm_head.weight") == (nil, "lm_head"))
    #expect(Ledger.place(of: "weight") == (nil, "weight"))
  }

  /// A model as large as 7 B parameters in 2,000 tensors.
  static func large() throws -> ReportPage {
    var tensors: [TensorReport] = []
    var profiles: [String: TensorProfile] = [:]
    var layers: [JSONValue] = []
    var features: [JSONValue] = []
    let kinds = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj"]
    for layer in 0..<400 {
      for (index, kind) in kinds.enumerated() {
        let name = "model.layers.\(layer).\(kind).weight"
        var sums = PairSums()
        let values: [Float] = [1, 2, 3, Float(layer)]
        let stored = values.map { $0 * 1.01 }
        sums.append(pairSums(values.span, stored.span))
        tensors.append(
          TensorReport(
            name: name, shape: [4096, 4096], sourceType: .bf16,
            outcome: .quantized(scheme: "gptq 4 bit g128", Distortion(sums, largestErrorElement: 0)),
            sourceByteCount: 4096 * 4096 * 2, storedByteCount: 4096 * 4096 / 2 + 4096 * 64))
        profiles[name] = TensorProfile(
          weights: .init(low: -1, high: 1, counts: (0..<64).map { $0 * 7919 % 100_000 }),
          codes: (0..<16).map { $0 * 104_729 }, scales: .init(low: -9, high: -5, counts: Array(1...32)), peak: 7.5,
          sparsity: 0.25, scaleByteCount: 4096 * 64)
        layers.append([
          "tensor": .string(name), "tokens": 262_144, "dampening": .real(0.01), "dead_columns": 0,
          "output_error": .real(0.01 * Double(index + 1)), "output_error_rtn": .real(0.03),
          "output_error_rounding": .real(0.005 * Double(index + 1)), "ratio_margin_95": .real(0.01),
        ])
        features.append([
          "tensor": .string(name), "features": 4096, "median_rms": .real(0.5), "outliers": 2,
          "strongest": .array((0..<8).map { .array([.integer($0 * 500), .real(4.25 - Double($0) / 4)]) }),
        ])
      }
    }
    var report = ModelReport(
      tensors: tensors, coverage: .all, sourceFileBytes: 67_108_864_000, storedFileBytes: 17_000_000_000,
      headerBytes: 100_000, codebookBytes: 0)
    report.calibration = CalibrationReport(["layers": .array(layers), "input_features": .array(features)])
    report.profiles = profiles
    return ReportPage(title: "large", report: report)
  }

  @Test("2,000 tensors: under two seconds and three megabytes")
  func staysSmall() throws {
    let page = try Self.large()
    let clock = ContinuousClock()
    var html = ""
    let time = try clock.measure { html = try page.html() }
    #expect(html.utf8.count < 3_000_000)
    // The bound is loose: tests share the machine.
    #expect(time < .seconds(10), "\(time)")
    #expect(html.contains("model.layers.399.mlp.gate_proj.weight"))
  }

  @Test func kindsAddUp() throws {
    let ledger = try Self.large().ledger
    let kinds = ledger.kindSummaries
    #expect(kinds.count == 5 && ledger.depths == Array(0..<400))
    #expect(abs(kinds.reduce(0) { $0 + $1.share } - 1) < 1e-12)
    // Squares of 1 to 5 hundredths.
    #expect(abs(kinds[4].share - 25.0 / 55) < 1e-12)
    #expect(kinds[0].bitBytes == 400 * 4096 * 4096 / 8)
    #expect(ledger.byLoss.first?.kind == "mlp.gate_proj")
    #expect(abs(ledger.blockSummaries[3].bitsPerWeight - (4 + 64.0 * 8 / 4096)) < 1e-12)
  }

  @Test func namesCannotBreakThePage() throws {
    let name = "</script><b>&\"x\".weight"
    let tensor = TensorReport(
      name: name, shape: [2], sourceType: .f32, outcome: .kept(reason: "norm", isIdentical: true), sourceByteCount: 8,
      storedByteCount: 8)
    let profile = TensorProfile(
      weights: .init(low: -1, high: 1, counts: [1, 2]), codes: [], scales: nil, peak: 1, sparsity: 0, scaleByteCount: 0)
    var report = ModelReport(
      tensors: [tensor], coverage: .all, sourceFileBytes: 8, storedFileBytes: 8, headerBytes: 0, codebookBytes: 0)
    report.profiles = [name: profile]
    let html = try ReportPage(title: name, report: report).html()
    #expect(!html.contains("</script><b>"))
    #expect(html.components(separatedBy: "</script>").count == 3)
  }
}
