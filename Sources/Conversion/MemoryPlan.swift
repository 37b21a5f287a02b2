import Calibration
import Checkpoints
import Evaluation
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage

/// What a conversion holds in memory at its highest, part by part, before any work.
///
/// Each part is an upper bound, computed from shapes alone. Only activations can go to a file instead: what the limit
/// leaves for them decides where they are kept, never what comes out, so that the bytes of an output do not depend on it.
/// Tiles and groups of windows have sizes of their own, for the same reason.
package struct MemoryPlan: Sendable {
  package struct Need: Hashable, Sendable {
    package let what: String
    package let byteCount: Int
  }

  package let needs: [Need]
  private let runsModel: Bool
  /// What is refused where it does not hold, and what else could be done.
  private let work: String
  private let advice: String
  /// What all activations take that may go to a file.
  package let activationByteCount: Int

  /// What cannot go to a file.
  package var least: Int { needs.reduce(0) { $0 + $1.byteCount } }

  /// The program itself and the buffers of OpenBLAS's threads.
  package static let programBytes = 40 << 20
  private static let bytesPerThread = 12 << 20
  /// Of headers, plan and manifest.
  private static let bytesPerTensor = 8 << 10
  private static let float = MemoryLayout<Float>.stride

  /// Of a run of the model that gathers evidence and changes nothing.
  package init(observing model: Model, _ options: CalibrationOptions, sumsHessians: Bool = false, workers: Int) {
    let run = ModelRun(observing: model, options, workers: workers)
    needs =
      Self.always(tensorCount: model.source.tensorNames.count, workers: workers) + run.needs
      + (sumsHessians ? [Self.hessian(of: model)] : [])
    activationByteCount = run.activations
    runsModel = true
    work = "calibration"
    advice =
      "Raise it" + (sumsHessians ? ", or leave out the Hessians, which GPTQ alone needs, with --no-hessians" : "")
  }

  /// Of a GGUF file.
  /// - Parameter text: what a text is run through for importances; nil: they are known, or there are none.
  package init(
    _ conversion: GGUFConversion, observing text: (model: Model, options: CalibrationOptions)?, workers: Int
  ) {
    let run = text.map { ModelRun(observing: $0.model, $0.options, workers: workers) }
    // Weights in the order of the file and before; what a reader holds of them; blocks.
    let tiles = workers * Self.bytesPerTileElement * conversion.largestTile + conversion.tileCount * 16
    let needs =
      Self.always(tensorCount: conversion.summary.tensors.count, workers: workers) + [
        Need(what: "tiles of \(workers) threads", byteCount: tiles),
        Need(what: "metadata, the tokenizer among it", byteCount: Self.metadataFactor * conversion.layout.head.count),
        Need(what: "importances of columns", byteCount: 2 * Self.float * conversion.importanceCount),
      ] + (run?.needs ?? [])
    self.needs = needs.filter { $0.byteCount > 0 }
    activationByteCount = run?.activations ?? 0
    runsModel = text != nil
    work = "conversion"
    advice = text == nil ? "Raise it" : "Raise it, or give the importance of columns by --imatrix instead of a text"
  }

  /// Two of floats, the bytes that they are read from and what of a packed source is decoded on the way, and blocks.
  private static let bytesPerTileElement = 20
  /// Tokens and merges as text, as values, and in the file's head.
  private static let metadataFactor = 12

  package init(_ plan: Plan, workers: Int) {
    var needs = Self.always(tensorCount: plan.source.tensors.count, workers: workers)
    var activations = 0
    let tile = plan.tensors.map { tensor -> Int in
      switch tensor.work {
      case .quantize(_, let tiling), .round(_, let tiling):
        min(tiling.tileLength, tensor.source.entry.elementCount)
      case .keep: 1 << 18
      case .calibrate, .rewrite: 0
      }
    }
    // Source bytes, floats, codes, packed bytes.
    needs.append(Need(what: "tiles of \(workers) threads", byteCount: workers * 16 * (tile.max() ?? 0)))
    needs += Self.layouts(plan.tensors.compactMap(\.layout), workers: workers)
    if let evidence = plan.evidence {
      needs.append(Self.layer(plan, tracks: 1) { $0.work.isCalibrated })
      needs.append(Need(what: "evidence of \(evidence.inputs.count) inputs", byteCount: evidence.inputs.count << 10))
    } else if plan.model != nil || plan.recipe.needsStatistics,
      let model = try? Plan.model(of: plan.source, plan.recipe)
    {
      let run = ModelRun(model, plan.recipe, workers: workers)
      needs += run.needs
      activations = run.activations
      needs.append(Self.layer(plan, tracks: run.tracks) { $0.work.isCalibrated })
    }
    self.needs = needs.filter { $0.byteCount > 0 }
    activationByteCount = activations
    runsModel = plan.recipe.needsStatistics || plan.tensors.contains(where: \.work.isCalibrated)
    work = "conversion"
    advice = "Raise it, or take a method that needs less: absmax, zero-point, nf4 and hqq work tile by tile"
  }

  private static func always(tensorCount: Int, workers: Int) -> [Need] {
    [
      Need(what: "the program and \(workers) threads", byteCount: programBytes + workers * bytesPerThread),
      Need(
        what: "headers and plan of \(tensorCount) tensors", byteCount: tensorCount * bytesPerTensor),
    ]
  }

  /// Its file as text and values, and the tables made of it: measured, with room to spare.
  private static func tokenizerBytes(_ folder: FilePath) -> Int {
    let factors = [("tokenizer.json", 3), ("tokenizer.model", 12)]
    for (name, factor) in factors {
      if let size = try? Stat(folder.appending(name)).size { return factor * Int(size) }
    }
    return 0
  }

  /// Of the input with the most features.
  private static func hessian(of model: Model) -> Need {
    let widest = model.description.linearInputs.max { $0.dimension < $1.dimension }
    let size = widest?.dimension ?? 0
    return Need(
      what: "the Hessian of the inputs of '\(widest?.layers.first?.weight.printable ?? "")'",
      byteCount: float * size * size)
  }

  /// Of weights that are packed for a runtime: where its words stand across the rows, those of the weights in work, one
  /// for each thread and one more; and their scales and zero points, as they are and packed.
  private static func layouts(_ layouts: [any WeightLayout], workers: Int) -> [Need] {
    let words = layouts.map(\.wordCount).max() ?? 0
    // Without words, tensors of several files are in work (`Schedule`).
    let weights = min(layouts.count, workers + (words > 0 ? 1 : Schedule.laneLimit))
    return [
      Need(what: "packed codes of \(weights) weights, for their layout", byteCount: 4 * words * weights),
      Need(
        what: "scales of \(weights) weights, for their layout",
        byteCount: 24 * weights * (layouts.map(\.groupCount).max() ?? 0)),
    ]
  }

  /// The evidence of the layer that takes most, and what quantizing it takes: its Hessian, a factor of it, and another
  /// for coordinate descent; what the original model gives; the weight, its goal and its errors.
  private static func layer(_ plan: Plan, tracks: Int, _ isWanted: (Plan.Tensor) -> Bool) -> Need {
    let needs = plan.tensors.filter(isWanted).map { tensor -> (Plan.Tensor, Int) in
      let shape = tensor.source.entry.shape
      let (rows, columns) = (shape.count > 1 ? shape[shape.count - 2] : 1, shape.last ?? 1)
      let squares = (tracks > 1 ? 4 : 3) * columns * columns
      return (tensor, float * (squares + 6 * rows * columns))
    }
    guard let (tensor, count) = needs.max(by: { $0.1 < $1.1 }) else { return Need(what: "layers", byteCount: 0) }
    let hessian = Figures.bytes(float * (tensor.source.entry.shape.last ?? 1) * (tensor.source.entry.shape.last ?? 1))
    return Need(
      what: "quantizing '\(tensor.source.name.printable)', whose Hessian alone is \(hessian)", byteCount: count)
  }

  /// A model that runs block by block over a text.
  private struct ModelRun {
    var needs: [Need] = []
    var activations = 0
    let tracks: Int

    /// Of a model as it is, for statistics of its inputs.
    init(observing model: Model, _ options: CalibrationOptions, workers: Int) {
      var recipe = Recipe()
      recipe.options.method = .llmInt8
      recipe.calibration = options
      self.init(model, recipe, workers: workers)
    }

    init(_ model: Model, _ recipe: Recipe, workers: Int) {
      let description = model.description
      let options = recipe.calibration
      let correction = options.correction(usesLayerEvidence: recipe.needsLayerEvidence)
      let runsOriginal = recipe.needsCalibration && (correction != OutputCorrection.none || recipe.needsLearning)
      tracks = runsOriginal && !options.usesOriginalInputs ? 2 : 1
      let length = options.sequenceLength ?? min(2048, description.positionLimit ?? 2048)
      let tokens = (options.samples, options.samples + options.heldOut)
      let group = min(max(BlockCalibration.groupTokens, length), tokens.0 * length)
      let hidden = description.hiddenSize
      let weights =
        description.blocks.map { block in
          block.linears.reduce(0) { $0 + $1.inputs * $1.outputs }
        }.max() ?? 0
      needs.append(
        Need(what: "weights of a block as float32\(tracks > 1 ? ", twice" : "")", byteCount: tracks * float * weights))
      let widths =
        description.blocks.map { block in
          let inner = block.feedForward.experts.map(\.output.inputs).max() ?? 0
          let both = block.feedForward.experts.map(\.input.outputs).max() ?? 0
          return 6 * hidden + 2 * block.attention.input.outputs + block.attention.output.inputs + 3 * inner + 2 * both
        }.max() ?? 0
      let isLearned = recipe.needsLearning ? 2 : 1
      needs.append(
        Need(
          what: "activations of \(group) tokens on their way through a block",
          byteCount: isLearned * float * group * widths))
      let parts = description.blocks.map { block in
        let both = block.feedForward.experts.map(\.input.outputs).max() ?? 0
        return min(group, block.partTokens) * (hidden + block.attention.input.outputs + both)
      }
      needs.append(
        Need(
          what: "activations of parts of them on \(workers) threads",
          byteCount: workers * float * (parts.max() ?? 0)))
      let widest = description.blocks.flatMap(\.linears).map(\.inputs).max() ?? 0
      let outputs = description.blocks.flatMap(\.linears).map(\.outputs).max() ?? 0
      needs.append(Need(what: "the tokenizer", byteCount: MemoryPlan.tokenizerBytes(model.folder)))
      if options.heldOut > 0 {
        needs.append(
          Need(
            what: "\(options.heldOut) held-out windows at the inputs of a layer",
            byteCount: float * options.heldOut * length * (tracks * max(widest, hidden) + 2 * hidden)))
        needs.append(
          Need(
            what: "errors of their outputs",
            byteCount: HeldOutErrors.byteCount(tokens: options.heldOut * length, outputs: outputs, workers: workers)))
      }
      if recipe.needsStatistics || recipe.inputScaling != nil {
        let inputs = description.blocks.reduce(0) { $0 + $1.linears.reduce(0) { $0 + $1.inputs } }
        needs.append(Need(what: "statistics of the inputs of all layers", byteCount: 48 * inputs))
      }
      if recipe.needsLearning, options.learning.coupledSweeps > 0 {
        let outputs = description.blocks.reduce(0) { $0 + $1.linears.reduce(0) { $0 + $1.outputs } }
        needs.append(
          Need(what: "what outputs count for predictions", byteCount: float * OutputCurvature.blockRows * outputs))
      }
      // The streams; what the layers of a block read that add to them, of the original only where they aim at that.
      let keepsOriginal =
        correction != .layer
        || !description.blocks.allSatisfy {
          $0.addsUnchanged($0.attentionNorms) && $0.addsUnchanged($0.feedForwardNorms)
        }
      activations = float * tokens.1 * length * (tracks * hidden + (keepsOriginal ? tracks : 1) * (hidden + widest))
    }
  }

  // MARK: The limit

  /// What a limit leaves for activations.
  /// - Throws: where what cannot go to a file takes more.
  package func activationBudget(within limit: Int) throws(ConversionError) -> Int {
    guard least <= limit else {
      throw .tooLittleMemory(
        limit: Figures.bytes(limit), work: work, needed: Figures.bytes(least),
        parts: needs.sorted { $0.byteCount > $1.byteCount }.map { "\(Figures.bytes($0.byteCount)): \($0.what)" },
        advice: advice)
    }
    return limit - least
  }

  /// Refuses to start where reserving buffers would fail: OpenBLAS then tries again for ever.
  /// - Parameter limit: of this process's addresses.
  package func require(addressSpace limit: Int, memory: Int, workers: Int) throws(ConversionError) {
    guard runsModel else { return }
    try Self.require(addressSpace: limit, peak: peak(within: memory), workers: workers)
  }

  /// The same for a run of which no more is known than that it multiplies.
  package static func require(
    addressSpace limit: Int, peak: Int = programBytes, workers: Int
  ) throws(ConversionError) {
    let needed = reservedBytes + (workers + 1) * bufferBytes + peak
    guard needed <= limit else {
      throw .tooLittleAddressSpace(limit: Figures.bytes(limit), needed: Figures.bytes(needed))
    }
  }

  /// Reserved by a thread of OpenBLAS when it first multiplies.
  private static let bufferBytes = 1 << 27
  /// Of the program's code and libraries, the stacks and arenas of threads, and OpenBLAS at rest.
  private static let reservedBytes = 320 << 20

  /// For a plan that is shown.
  package var summary: PlanSummary.Memory {
    PlanSummary.Memory(parts: needs.map { ($0.what, $0.byteCount) }, activationByteCount: activationByteCount)
  }

  /// The most that a run under a limit takes.
  package func peak(within limit: Int) -> Int { min(limit, least + activationByteCount) }
}
