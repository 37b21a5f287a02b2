import Calibration
import Checkpoints
import Kernels
import Models
import OrderedCollections
import Quantization
import SystemPackage

/// What splitting outlier features off did to one layer.
package struct SplitOutcome: Hashable, Codable, Sendable {
  package let tensor: String
  /// Position among the experts that the tensor stacks.
  package let expert: Int?
  package let inputs: Int
  /// The input features whose weights stay in 16 bits.
  package let columns: [Int32]
  /// On tokens that were not calibrated on; nil where none reached the layer.
  package let errors: SplitErrors?
}

/// Measures the layers of a plan that keep outlier columns apart, on held-out windows of the original model.
struct SplitLayers {
  let plan: Plan
  let model: Model
  let windows: CalibrationWindows
  let resources: RunResources
  let workers: Int

  /// - Parameters:
  ///   - finished: what an interrupted run has measured.
  ///   - onProgress: how far it is; false stops the work.
  func run(
    for output: OutputFolder, goingOnFrom finished: FinishedWork.Splits, onProgress: @escaping (WorkProgress) -> Bool
  ) throws -> [SplitOutcome] {
    var wanted: [String: (scheme: WeightScheme, outliers: OutlierColumns)] = [:]
    for tensor in plan.tensors {
      guard case .quantize(let quantizer, _) = tensor.work, quantizer.scheme.method.needsStatistics else { continue }
      let type = OutlierColumns.type(source: tensor.source.entry.type, scaleType: quantizer.scheme.scaleType)
      wanted[tensor.source.name] = (
        quantizer.scheme, quantizer.outliers ?? OutlierColumns(columns: [], type: type)
      )
    }
    let heldOut = windows.heldOut.map { Array(windows.tokens[$0]) }
    guard !heldOut.isEmpty else {
      return plan.tensors.compactMap { tensor in
        wanted[tensor.source.name].map {
          SplitOutcome(
            tensor: tensor.source.name, expert: nil, inputs: tensor.source.entry.shape.last ?? 1,
            columns: $0.outliers.columns, errors: nil)
        }
      }
    }
    var outcomes = finished.outcomes
    var recorded = outcomes.count
    let milestones = output.journal.map { journal in
      BlockPass.splitting.milestones(of: output, journal, goingOnFrom: finished.pass, workers: workers) {
        defer { recorded = outcomes.count }
        return [FinishedWork.Key.splits: try JSONValue(encoding: Array(outcomes[recorded...]))]
      }
    }
    // Nothing is calibrated here: the layers are handed out with the inputs that the original model gives them.
    let walk = BlockCalibration(
      model, windows: [], heldOut: heldOut,
      BlockCalibration.Options(
        workers: workers, memoryLimit: resources.activationMemory, spillFolder: resources.spillFolder))
    try walk.run(isWanted: { wanted[$0.weight] != nil }, onProgress: onProgress, milestones: milestones) { problem in
      guard let (scheme, outliers) = wanted[problem.linear.weight] else { return }
      var expert: Int?
      if case .expert(let index, _) = problem.linear.storage { expert = index }
      var errors: SplitErrors?
      if let inputs = problem.heldOut?.inputs, inputs.rows > 0 {
        errors = SplitErrors(
          problem.weight, inputs: inputs, outliers: outliers, scaleType: scheme.scaleType, workers: workers)
      }
      outcomes.append(
        SplitOutcome(
          tensor: problem.linear.weight, expert: expert, inputs: problem.linear.inputs, columns: outliers.columns,
          errors: errors))
    }
    return outcomes
  }
}

/// What splitting did to the layers of a conversion, as it is shown at its end and written beside the weights.
package struct SplitSummary: Sendable {
  private let outcomes: [SplitOutcome]
  private let options: CalibrationOptions
  private let windows: CalibrationWindows

  init(_ outcomes: [SplitOutcome], _ options: CalibrationOptions, _ windows: CalibrationWindows) {
    self.outcomes = outcomes
    self.options = options
    self.windows = windows
  }

  /// The work of measuring it, before it begins.
  package static func plannedWork(of model: Model, _ windows: CalibrationWindows) -> [WorkProgress.Kind: Double] {
    BlockCalibration(
      model, windows: [], heldOut: windows.heldOut.map { Array(windows.tokens[$0]) },
      BlockCalibration.Options(workers: 1, memoryLimit: 0, spillFolder: "")
    ).plannedWork(isWanted: { _ in true })
  }

  package var text: String {
    let counts = outcomes.map(\.columns.count).sorted()
    let features = outcomes.reduce(0) { $0 + $1.inputs }
    var lines = [
      "Outlier features (|x| of \(options.outlierThreshold) and above in \(options.outlierShare * 100) % of"
        + " \(windows.tokenCount) tokens or more): \(counts.reduce(0, +)) of \(features) in \(outcomes.count) layers."
    ]
    let errors = outcomes.compactMap(\.errors)
    if !errors.isEmpty {
      lines.append(
        "Output error with 8-bit weights and inputs on \(windows.heldOut.count) held-out windows:"
          + " \(percent(median(errors.map(\.split)))) with the split, \(percent(median(errors.map(\.unsplit)))) without"
          + " (median layer; worst \(percent(errors.map(\.split).max() ?? 0)) and"
          + " \(percent(errors.map(\.unsplit).max() ?? 0))).")
    }
    for outcome in outcomes where !outcome.columns.isEmpty {
      let expert = outcome.expert.map { ", expert \($0)" } ?? ""
      let change = outcome.errors.map { ", error \(percent($0.split)) instead of \(percent($0.unsplit))" } ?? ""
      lines.append("  \(outcome.tensor.printable)\(expert): \(list(outcome.columns))\(change)")
    }
    return lines.joined(separator: "\n")
  }

  private static let listed = 8

  private func list(_ columns: [Int32]) -> String {
    let names = columns.prefix(Self.listed).map(String.init).joined(separator: " ")
    return "\(columns.count) (\(names)\(columns.count > Self.listed ? " …" : ""))"
  }

  private func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }

  private func percent(_ share: Double) -> String { "\((share * 100_000).rounded() / 1000) %" }

  package var json: JSONValue {
    [
      "threshold": .real(Double(options.outlierThreshold)), "share": .real(options.outlierShare),
      "tokens": .integer(windows.tokenCount),
      "held_out_windows": .integer(windows.heldOut.count),
      "layers": .array(
        outcomes.map { outcome in
          var fields: OrderedDictionary<String, JSONValue> = ["tensor": .string(outcome.tensor)]
          if let expert = outcome.expert { fields["expert"] = .integer(expert) }
          fields["inputs"] = .integer(outcome.inputs)
          fields["outlier_columns"] = .array(outcome.columns.map { .integer(Int($0)) })
          if let errors = outcome.errors {
            fields["tokens"] = .integer(errors.tokens)
            fields["output_error"] = .real(errors.split)
            fields["output_error_without_split"] = .real(errors.unsplit)
          }
          return .object(fields)
        }),
    ]
  }
}
