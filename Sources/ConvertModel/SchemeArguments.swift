import ArgumentParser
import Calibration
import Conversion
import Foundation
import Kernels
import Quantization
import SystemPackage

/// How weights are quantized.
struct SchemeArguments: ParsableArguments {
  @Option(
    name: [.short, .long],
    help: ArgumentHelp(
      "absmax, zero-point, nf4, fp4, hqq, gptq, awq, learned or llm-int8. (default: nf4)",
      discussion: Quantization.Method.allCases.map { "\($0.rawValue): \($0.summary)" }.joined(separator: "\n"),
      valueName: "method"))
  var method: Quantization.Method?

  @Option(
    name: [.short, .long], help: "Bits of a code: 2 to 8. (default: 8 for absmax, zero-point and llm-int8, else 4)")
  var bits: Int?

  @Option(
    name: [.short, .long],
    help: ArgumentHelp(
      """
      Columns that share a scale: a number, 'row' (or -1) or 'tensor'; for nf4 and fp4 the block size. (default: row \
      for 8 bits, 128 below; 64 for nf4, fp4 and hqq)
      """, valueName: "size"))
  var groupSize: Granularity?

  @Option(
    help: ArgumentHelp(
      "Type of stored scales: f32, f16 or bf16. (default: f32 for nf4 and fp4, else f16)", valueName: "type"))
  var scaleType: ElementType?

  @Option(
    help: ArgumentHelp(
      "How ranges are chosen: 'none' takes smallest and largest value, 'mse' the clipped range of least squared error.",
      valueName: "search"))
  var scaleSearch: ScaleSearch?

  @Flag(
    inversion: .prefixedNo,
    help: "Codes around zero, or with zero points; for gptq and awq. (default: symmetric for gptq, not for awq)")
  var symmetric: Bool?

  @Option(
    help: ArgumentHelp(
      """
      gptq: which columns form a group: neighbours ('columns'), or those that are quantized one after another \
      ('activation', desc_act elsewhere), whose group index is stored. (default: columns)
      """, valueName: "order"))
  var groupOrder: GroupOrder?

  @Flag(help: "Store the scales of nf4 and fp4 in 8 bits (4.127 instead of 4.5 bits per weight).")
  var doubleQuantization = false

  var options: SchemeOptions {
    var options = SchemeOptions()
    options.method = method
    options.bits = bits
    options.granularity = groupSize
    options.scaleType = scaleType
    options.scaleSearch = scaleSearch
    options.doubleQuantization = doubleQuantization ? true : nil
    options.isSymmetric = symmetric
    options.groupOrder = groupOrder
    return options
  }
}

/// Which tensors are quantized, and which differently.
struct ChoiceArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Quantize matching tensors too that are kept by default, such as embeddings. May be repeated.",
      discussion: "Patterns are shell-style and match whole tensor names: '*', '?', '[0-9]'.", valueName: "pattern"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Keep matching tensors as they are. May be repeated.", valueName: "pattern"))
  var exclude: [String] = []

  @Option(
    help: ArgumentHelp(
      "Quantize matching tensors differently: 'PATTERN: method=absmax, bits=8'. May be repeated; the last match counts.",
      discussion:
        "Keys: method, bits, group-size, scale-type, scale-search, double-quantization, symmetric, group-order.",
      valueName: "pattern: key=value, …"))
  var override: [Recipe.Override] = []

  @Option(
    help: ArgumentHelp(
      "What to do with a tensor that holds infinities or NaN: 'refuse' to convert, or 'keep' it as it is.",
      valueName: "policy"))
  var allowNonfinite: Recipe.NonFinitePolicy = .refuse
}

/// What a model is run over to calibrate.
struct TextArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Texts to calibrate on: files, with weights where there are several ('a.txt:0.7,b.jsonl:0.3').",
      discussion:
        "Plain text, or JSON lines with 'text', 'messages' or 'input_ids'; 'self' lets the model write its own, which"
        + " takes a step of generation for each token. (default: a text of the program's)",
      valueName: "text"))
  var calibration: String?

  @Option(help: ArgumentHelp("Windows to calibrate on.", valueName: "count"))
  var samples = 128

  @Option(
    help: ArgumentHelp(
      "Tokens of a window. (default: 2048, or as many as the model was made for)", valueName: "count"))
  var sequenceLength: Int?

  @Option(help: "How documents become windows: 'packed' one after another, or 'padded', each its own.")
  var windows = CalibrationWindows.Layout.packed

  @Option(help: "Draw the windows at random with this seed. (default: the first ones of the text)")
  var seed: UInt64?

  @Option(help: ArgumentHelp("Inputs of this magnitude and above count as outliers.", valueName: "magnitude"))
  var outlierThreshold = FeatureStatistics.usualThreshold

  @Option(
    help: ArgumentHelp(
      "llm-int8: a feature is kept in 16 bits if it is an outlier in this share of tokens.", valueName: "share"))
  var outlierShare = OutlierColumns.usualShare

  func set(_ options: inout CalibrationOptions) throws {
    if let calibration {
      do {
        options.sources = try CalibrationSource.parse(calibration)
      } catch {
        throw ValidationError("--calibration: \(error)")
      }
    }
    options.samples = samples
    options.sequenceLength = sequenceLength
    options.layout = windows
    options.seed = seed
    options.outlierThreshold = outlierThreshold
    options.outlierShare = outlierShare
  }

  func validate() throws {
    guard (1...CalibrationWindows.Options.windowLimit).contains(samples) else {
      throw ValidationError("--samples \(samples): at least 1")
    }
    if let sequenceLength, !(2...(1 << 24)).contains(sequenceLength) {
      throw ValidationError("--sequence-length \(sequenceLength): at least 2")
    }
    guard outlierThreshold > 0, outlierThreshold.isFinite else {
      throw ValidationError("--outlier-threshold \(outlierThreshold): above 0")
    }
    guard outlierShare >= 0, outlierShare <= 1 else {
      throw ValidationError("--outlier-share \(outlierShare): from 0 to 1")
    }
  }
}

/// What methods that run the model are given.
struct CalibrationArguments: ParsableArguments {
  @OptionGroup var text: TextArguments

  @Option(
    help: ArgumentHelp(
      "What was learned of the layers' inputs before, instead of running the model: a file of 'calibrate', or a file or"
        + " folder of activations captured elsewhere ('<linear>.input', [tokens, in]).",
      valueName: "file"))
  var evidence: String?

  @Option(help: ArgumentHelp("Windows to hold out, on which errors are measured.", valueName: "count"))
  var heldOut = 8

  @Option(
    help: ArgumentHelp(
      """
      GPTQ: what is added to the Hessian's diagonal, as a share of its mean. (default: 0.01, or inputs / tokens where \
      that is more)
      """, valueName: "share"))
  var dampening: Double?

  @Option(
    help: ArgumentHelp(
      "GPTQ: sweeps of coordinate descent over codes and scales that follow; 0 for GPTQ as published.",
      valueName: "count"))
  var sweeps = 8

  @Flag(inversion: .prefixedNo, help: "GPTQ: take columns by falling size of their inputs.")
  var activationOrder = true

  @Option(
    help: ArgumentHelp(
      """
      How layers make up for what quantized ones before them changed, by the original model, which runs along: 'layer' \
      sets each to what gives the original's outputs, 'columns' corrects within GPTQ (GPTAQ), 'none' does not. (default: layer for gptq, else none)
      """, valueName: "way"))
  var outputCorrection: OutputCorrection?

  @Option(
    help: ArgumentHelp(
      "Scale inputs of layers before they are quantized, folded into the weights around: 'awq', 'smooth' (SmoothQuant) or"
        + " 'none'. For absmax, zero-point, gptq. (default: awq for awq, else none)", valueName: "scaling"))
  var scaling: ScalingChoice?

  @Option(
    help: ArgumentHelp(
      "Smoothing: the share of outliers that moves into weights, from 0 to 1, or 'search' per input. (default: 0.5)",
      valueName: "strength"))
  var smoothingStrength: SmoothingStrength?

  @Flag(help: "Give layers the inputs of the original model, not those that quantized layers before them give.")
  var parallelEvidence = false

  @Option(
    help: ArgumentHelp(
      """
      learned: sweeps of coordinate descent over codes and scales by what a layer's outputs count for the model's \
      predictions, after GPTQ; 0 for none.
      """, valueName: "count"))
  var coupledSweeps = LearningOptions().coupledSweeps

  @Option(help: ArgumentHelp("learned: gradient steps for each block, towards its output.", valueName: "count"))
  var iterations = LearningOptions().iterations

  @Option(
    help: ArgumentHelp(
      "learned: gradient steps for the whole model, towards its predictions. Needs 24 bytes of memory for each weight.",
      valueName: "count"))
  var distill = LearningOptions().distillation

  @Option(help: ArgumentHelp("learned: windows of a gradient step.", valueName: "count"))
  var batchSize = LearningOptions().batchSize

  @Option(help: ArgumentHelp("learned: the first step of a rounding offset, in codes.", valueName: "rate"))
  var learningRate = LearningOptions().rate

  @Flag(
    help: """
      learned: let gradient steps change norms and biases, too, which takes no room. With --distill and \
      --learning-rate 0, scales and norms alone are learned.
      """)
  var tuneNorms = false

  @Option(
    help: ArgumentHelp(
      "learned: the first step of tuned norms and biases, as a share of their root mean square.", valueName: "rate"))
  var normRate = LearningOptions().normRate

  @Flag(help: "Round a layer to nearest where its error on held-out windows is lower then.")
  var fallbackRtn = false

  func options() throws -> CalibrationOptions {
    var options = CalibrationOptions()
    try text.set(&options)
    options.heldOut = heldOut
    options.dampening = dampening
    options.order = activationOrder ? .activation : .natural
    options.usesOriginalInputs = parallelEvidence
    options.correction = parallelEvidence ? OutputCorrection.none : outputCorrection
    options.sweeps = sweeps
    options.fallsBack = fallbackRtn
    options.learning.coupledSweeps = coupledSweeps
    options.learning.iterations = iterations
    options.learning.distillation = distill
    options.learning.batchSize = batchSize
    options.learning.rate = learningRate
    options.learning.tunesNorms = tuneNorms
    options.learning.normRate = normRate
    return options
  }

  func validate() throws {
    if evidence != nil, text.calibration != nil {
      throw ValidationError("--evidence and --calibration: give one of them")
    }
    if evidence != nil, fallbackRtn {
      throw ValidationError("--fallback-rtn compares errors on held-out windows, and --evidence holds none")
    }
    guard (0...CalibrationWindows.Options.windowLimit).contains(heldOut) else {
      throw ValidationError("--held-out \(heldOut): from 0")
    }
    if smoothingStrength != nil, scaling != .smooth {
      throw ValidationError("--smoothing-strength is for --scaling smooth")
    }
    if let dampening, !(dampening > 0 && dampening <= GPTQ.largestDampening) {
      throw ValidationError("--dampening \(dampening): above 0, at most \(GPTQ.largestDampening)")
    }
    for (name, count) in [("coupled-sweeps", coupledSweeps), ("iterations", iterations), ("distill", distill)] {
      guard (0...1_000_000).contains(count) else { throw ValidationError("--\(name) \(count): 0 to 1000000") }
    }
    guard (1...65536).contains(batchSize) else { throw ValidationError("--batch-size \(batchSize): 1 to 65536") }
    guard learningRate >= 0, learningRate <= 0.5 else {
      throw ValidationError("--learning-rate \(learningRate): 0 to 0.5, half of the way between two codes")
    }
    guard normRate > 0, normRate <= 0.5 else { throw ValidationError("--norm-rate \(normRate): above 0, at most 0.5") }
    guard (0...1000).contains(sweeps) else { throw ValidationError("--sweeps \(sweeps): 0 to 1000") }
  }
}

extension CalibrationArguments {
  /// Options that change nothing unless rounding is learned.
  var learningFlags: [String] {
    [("--iterations", iterations > 0), ("--distill", distill > 0), ("--tune-norms", tuneNorms)].filter(\.1).map(\.0)
  }
}

enum ScalingChoice: String, ExpressibleByArgument {
  case awq, smooth, none
}

/// A number from 0 to 1, or a search.
struct SmoothingStrength: ExpressibleByArgument, Hashable {
  /// nil: searched.
  let value: Double?

  init?(argument: String) {
    if argument == "search" {
      value = nil
      return
    }
    guard let number = Double(argument), (0...1).contains(number) else { return nil }
    value = number
  }
}

extension CalibrationArguments {
  var scalingRecipe: Scaling? {
    switch scaling {
    case .awq: .activationAware
    case .smooth: .smooth(strength: smoothingStrength.map(\.value) ?? SmoothingScales.usualStrength)
    case ScalingChoice.none?, nil: nil
    }
  }
}

extension CalibrationWindows.Layout: ExpressibleByArgument {}
extension OutputCorrection: ExpressibleByArgument {}

/// How the program runs.
struct RunningArguments: ParsableArguments {
  @Option(name: [.short, .long], help: "Threads. The result is the same for any number. (default: one per core)")
  var threads: Int?

  @Flag(help: "Print JSON on standard output.")
  var json = false

  var workers: Int { threads ?? ProcessInfo.processInfo.activeProcessorCount }

  func validate() throws {
    if let threads, !(1...1024).contains(threads) { throw ValidationError("--threads \(threads): from 1 to 1024") }
  }
}

extension Quantization.Method: ExpressibleByArgument {}
extension ScaleSearch: ExpressibleByArgument {}
extension GroupOrder: ExpressibleByArgument {}
extension Recipe.NonFinitePolicy: ExpressibleByArgument {}

extension ElementType: ExpressibleByArgument {
  public init?(argument: String) { self.init(rawValue: argument.uppercased()) }

  public static var allValueStrings: [String] { ["f32", "f16", "bf16"] }
}

extension Granularity: ExpressibleByArgument {
  public init?(argument: String) {
    switch argument {
    case "row", "-1": self = .row
    case "tensor": self = .tensor
    default:
      guard let size = Int(argument) else { return nil }
      self = .group(size)
    }
  }

  public static var allValueStrings: [String] { ["row", "tensor", "32", "64", "128"] }
}

extension Recipe.Override: ExpressibleByArgument {
  public init?(argument: String) {
    guard let colon = argument.lastIndex(of: ":") else { return nil }
    let pattern = argument[..<colon].trimmingCharacters(in: .whitespaces)
    var options = SchemeOptions()
    for item in argument[argument.index(after: colon)...].split(separator: ",", omittingEmptySubsequences: false) {
      let sides = item.split(separator: "=", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
      guard sides.count == 2, options.set(sides[0], to: sides[1]) else { return nil }
    }
    guard !pattern.isEmpty else { return nil }
    self.init(pattern: pattern, options: options)
  }
}

extension SchemeOptions {
  /// Sets one option by its name on the command line; false if name or value is unknown.
  fileprivate mutating func set(_ key: String, to value: String) -> Bool {
    switch key {
    case "method":
      method = Quantization.Method(rawValue: value)
      return method != nil
    case "bits":
      bits = Int(value)
      return bits != nil
    case "group-size":
      granularity = Granularity(argument: value)
      return granularity != nil
    case "scale-type":
      scaleType = ElementType(argument: value)
      return scaleType != nil
    case "scale-search":
      scaleSearch = ScaleSearch(rawValue: value)
      return scaleSearch != nil
    case "symmetric":
      isSymmetric = Bool(value)
      return isSymmetric != nil
    case "group-order":
      groupOrder = GroupOrder(rawValue: value)
      return groupOrder != nil
    case "double-quantization":
      doubleQuantization = Bool(value)
      return doubleQuantization != nil
    default: return false
    }
  }
}
