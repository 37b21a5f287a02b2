import Checkpoints
import Kernels
import OrderedCollections
import Quantization
import Reports
import Testing

/// What a report answers and warns of.
@Suite struct FindingsTests {
  /// A tensor that lost a part of its norm: weights 1, decoded 1 + error.
  private func tensor(_ name: String, error: Float, weights: Int = 800) -> TensorReport {
    var sums = PairSums()
    let values: [Float] = [1, 1, 1, 1]
    let decoded = values.map { $0 + error }
    sums.append(pairSums(values.span, decoded.span))
    return TensorReport(
      name: name, shape: [weights / 8, 8], sourceType: .bf16,
      outcome: .quantized(scheme: "int3 g8 f16", Distortion(sums, largestErrorElement: 0)),
      sourceByteCount: weights * 2,
      storedByteCount: weights * 3 / 8 + 40)
  }

  private func layer(_ tensor: String, _ error: Double, rtn: Double, rounding: Double, extra: JSONValue = [:])
    -> JSONValue
  {
    let usual: JSONValue = [
      "tensor": .string(tensor), "inputs": 8, "tokens": 1000, "dampening": .real(0.01), "dead_columns": 0,
      "output_error": .real(error), "output_error_rtn": .real(rtn), "output_error_rounding": .real(rounding),
      "ratio_margin_95": .real(0.02),
    ]
    return .object((usual.object ?? [:]).merging(extra.object ?? [:]) { $1 })
  }

  private static let names = (0..<3).flatMap { block in
    ["self_attn.q_proj", "mlp.down_proj"].map { "model.layers.\(block).\($0).weight" }
  }

  private func report(_ layers: [JSONValue], features: [JSONValue] = []) -> ModelReport {
    var report = ModelReport(
      tensors: Self.names.map { tensor($0, error: 0.1, weights: $0.contains("down") ? 1600 : 800) }, coverage: .all,
      sourceFileBytes: 20_000, storedFileBytes: 5000, headerBytes: 100, codebookBytes: 0)
    report.calibration = CalibrationReport(["layers": .array(layers), "input_features": .array(features)])
    for name in Self.names {
      report.profiles[name] = TensorProfile(
        weights: .init(low: -1, high: 1, counts: [1, 2, 3, 4]), codes: [5, 5, 5, 5, 5, 5, 5, 5],
        scales: .init(low: -9, high: -5, counts: [1, 2]), peak: 4, sparsity: 0.15, scaleByteCount: 40)
    }
    return report
  }

  private func answers(_ report: ModelReport) -> [String: String] {
    let found = Findings(report, Ledger(report)).answers
    return Dictionary(uniqueKeysWithValues: found.map { ($0.question, $0.answer) })
  }

  private func usual(_ change: (String) -> JSONValue?) -> [JSONValue] {
    Self.names.map { change($0) ?? layer($0, 0.05, rtn: 0.1, rounding: 0.05) }
  }

  @Test func whatCameInIsToldFromWhatRoundingAdds() throws {
    let worst = Self.names[3]
    let found = report(usual { $0 == worst ? layer($0, 0.3, rtn: 0.35, rounding: 0.04) : nil })
    let answer = try #require(answers(found)["Which tensor lost most, and why?"])
    #expect(answer.hasPrefix("model.layers.1.mlp.down_proj.weight: 30.00 % of its output's norm (median 5.00 %)."))
    #expect(answer.contains("Rounding it adds 4.00 %; the rest came in with its inputs"))
    #expect(answer.contains("why calibration gains little here"))
    #expect(answer.contains("By its own rounding model.layers.0.mlp.down_proj.weight lost most: 5.00 %."))
  }

  @Test func otherReasonsAreNamed() throws {
    let worst = Self.names[0]
    let features: JSONValue = [
      "tensor": .string(worst), "features": 8, "median_rms": .real(0.5), "outliers": 1,
      "strongest": .array([.array([5, .real(7.5)])]),
    ]
    let starved = layer(worst, 0.3, rtn: 0.35, rounding: 0.3, extra: ["tokens": 20])
    let answer = try #require(
      answers(report(usual { $0 == worst ? starved : nil }, features: [features]))["Which tensor lost most, and why?"])
    #expect(answer.contains("Only 20 tokens reached its 8 inputs."))
    #expect(answer.contains("Its strongest input feature is 15.0 times the median one."))
    let plain = report(usual { $0 == worst ? layer($0, 0.3, rtn: 0.35, rounding: 0.3) : nil })
    #expect(answers(plain)["Which tensor lost most, and why?"]?.hasSuffix("Nothing known of it stands out.") == true)
  }

  @Test func layersWorseThanRoundingAreNamed() throws {
    let question = "Is it better than rounding to nearest everywhere?"
    let better = report(usual { _ in nil })
    #expect(answers(better)[question]?.hasPrefix("Yes, in all 6 linear layers:") == true)
    let worse = report(usual { $0 == Self.names[2] ? layer($0, 0.12, rtn: 0.1, rounding: 0.12) : nil })
    let answer = try #require(answers(worse)[question])
    #expect(answer.hasPrefix("No, not in 1 of 6 linear layers: model.layers.1.self_attn.q_proj.weight (1.200);"))
    let unsure = report(usual { $0 == Self.names[2] ? layer($0, 0.099, rtn: 0.1, rounding: 0.09) : nil })
    #expect(answers(unsure)[question]?.hasSuffix("In 1 of them the 95 % interval reaches beyond 1.") == true)
  }

  @Test func bytesOfScalesAndWorthOfABit() throws {
    let found = report(usual { $0.contains("q_proj") ? layer($0, 0.1, rtn: 0.2, rounding: 0.1) : nil })
    let all = answers(found)
    // Six tensors with 40 bytes of scales each; 3 · 800 and 3 · 1600 weights of three bits.
    #expect(
      all["How many bytes are scales?"]?.hasPrefix("240 bytes, zero points included: 8.16 % of the 2940 B") == true)
    // Squares of 0.1 and 0.05: four fifths of the loss are in q_proj, which has a third of the weights.
    let bits = try #require(all["Would one more bit be worth it?"])
    #expect(
      bits.hasPrefix("Most for their bytes in self_attn.q_proj (60.00 % of all squared rounding error for 300 B,"))
    #expect(bits.contains("then mlp.down_proj (15.00 %") && bits.hasSuffix("One more bit for everything costs 900 B."))
  }

  @Test func withoutCalibrationWeightsSpeak() {
    var found = report([])
    found.calibration = nil
    let all = answers(found)
    #expect(
      all.keys.sorted() == [
        "How many bytes are scales?", "Which tensor lost most, and why?", "Would one more bit be worth it?",
      ])
    #expect(all["Which tensor lost most, and why?"]?.contains("10.00 % of its norm") == true)
  }

  @Test func everyKindOfWarningIsGiven() throws {
    let extras: [JSONValue] = [
      ["rounded_to_nearest": "no evidence"], ["tokens": 0], ["routed_tokens": 3, "expert": 2], ["tokens": 5],
      ["dampening_asked": .real(0.001)], ["dead_columns": 2],
    ]
    var layers = zip(Self.names, extras).map { layer($0, 0.05, rtn: 0.1, rounding: 0.05, extra: $1) }
    layers.append(layer(Self.names[0], 0.2, rtn: 0.1, rounding: 0.05, extra: ["expert": 1]))
    var found = report(layers)
    let lost = TensorReport(
      name: "lost", shape: [4], sourceType: .f32, outcome: .kept(reason: "norm", isIdentical: false),
      sourceByteCount: 16,
      storedByteCount: 16)
    found = ModelReport(
      tensors: found.tensors + [lost], coverage: .all, sourceFileBytes: 1, storedFileBytes: 1, headerBytes: 0,
      codebookBytes: 0)
    found.calibration = CalibrationReport(["layers": .array(layers)])
    found.profiles[Self.names[5]] = TensorProfile(
      weights: .init(low: -1, high: 1, counts: [1]), codes: [5, 0, 0, 5], scales: nil, peak: 4, sparsity: 0.15,
      scaleByteCount: 40)
    let warnings = Findings(found, Ledger(found)).warnings
    #expect(warnings.map(\.kind) == Findings.Warning.Kind.allCases)
    let text = found.text(path: "out")
    let html = try ReportPage(title: "out", report: found).html()
    for line in [
      "its bytes differ", "output error 2.000 ± 0.020 times that of rounding", "no evidence",
      "nothing is known of its inputs", "expert 2", "the router sent it 3; all of its mixture stand in",
      "5 tokens for 8 inputs", "from 0.001 to 0.01", "2 input features", "2 of 4",
    ] {
      #expect(text.contains(line) && html.contains(line), "\(line)")
    }
    #expect(html.contains("Warnings: 9"))
  }

  @Test func aThousandWarningsDoNotFillThePage() throws {
    let tensors = (0..<1000).map { tensor("model.layers.\($0).fc.weight", error: 0.1) }
    var found = ModelReport(
      tensors: tensors, coverage: .all, sourceFileBytes: 1, storedFileBytes: 1, headerBytes: 0, codebookBytes: 0)
    found.calibration = CalibrationReport([
      "layers": .array(tensors.map { layer($0.name, 0.2, rtn: 0.1, rounding: 0.05) })
    ])
    let html = try ReportPage(title: "out", report: found).html()
    #expect(html.contains("Worse than rounding to nearest: 1000") && html.contains("and 980 more"))
    #expect(found.text(path: "out").contains("  and 980 more"))
  }

  /// Text, JSON and page say the same.
  @Test func allRenderingsHaveTheSameAnswers() throws {
    let found = report(usual { _ in nil })
    let (text, json) = (found.text(path: "out"), found.json(path: "out"))
    let html = try ReportPage(title: "out", report: found).html()
    for answer in Findings(found, Ledger(found)).answers {
      #expect(text.contains(answer.answer) && html.contains(answer.question))
      #expect(json["answers"]?.array?.contains { $0["answer"]?.string == answer.answer } == true)
    }
  }

  @Test func damagedCalibrationReportsAreNoReports() {
    #expect(CalibrationReport(["layers": [["tokens": 3]]]) == nil)
    #expect(CalibrationReport(["windows": .null]) == nil)
    let odd = CalibrationReport([
      "layers": [],
      "input_features": [
        ["tensor": "a"], 3,
        [
          "tensor": "a", "features": 2, "median_rms": 0, "outliers": 9,
          "strongest": [[1, 2, 3]],
        ],
      ],
    ])
    #expect(odd?.inputFeatures.isEmpty == true)
  }
}
