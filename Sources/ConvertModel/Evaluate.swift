import ArgumentParser
import Checkpoints
import Evaluation
import Models
import Reports
import SystemPackage
import Tokenizers

struct Evaluate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a model over a text: perplexity and, against another model, KL divergence and agreement.",
    discussion: """
      MODEL is an ordinary checkpoint or one written by convert-model, which is decoded block by block. The text is \
      encoded by the model's tokenizer without special tokens and cut into windows, each seen alone; a window's first \
      token is not predicted. The standard error is that of the perplexity, from the spread of the windows.

      EXAMPLES
        convert-model evaluate OUT --text eval.txt --against SOURCE
        convert-model evaluate MODEL --text eval.txt --window 2048 --stride 1024 --json
        convert-model evaluate OUT --text eval.txt --activations int8
      """)

  @Argument(help: "A model folder, a .safetensors file with config.json beside it, or a .gguf file.")
  var model: String

  @Option(help: ArgumentHelp("A text file in UTF-8.", valueName: "file"))
  var text: String

  @Option(help: ArgumentHelp("The model to compare with, usually the one it was made from.", valueName: "source"))
  var against: String?

  @Option(help: ArgumentHelp("A folder with the tokenizer. (default: the model's own)", valueName: "folder"))
  var tokenizer: String?

  @Option(name: [.short, .long], help: "Tokens of a window.")
  var window = 512

  @Option(
    help: "Tokens from one window's start to the next; less than the window makes them overlap. (default: window)")
  var stride: Int?

  @Option(name: .customLong("tokens"), help: ArgumentHelp("Only the first tokens of the text.", valueName: "count"))
  var tokenLimit: Int?

  @Option(
    help: ArgumentHelp(
      "What linear layers read: 'f32', or 'int8' for those with 8-bit weights and a scale per row (llm-int8, absmax).",
      discussion: "With int8, inputs are rounded token by token, and products are those of integers.",
      valueName: "type"))
  var activations = ActivationType.f32

  @Flag(help: "With --activations int8: round the outlier columns of llm-int8 too, to see what keeping them gains.")
  var withoutSplit = false

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var progress: ProgressArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  func validate() throws {
    if withoutSplit, activations != .int8 {
      throw ValidationError("--without-split is for --activations int8")
    }
    guard window >= 2 else { throw ValidationError("--window \(window): at least 2") }
    if let stride, !(1...window).contains(stride) {
      throw ValidationError("--stride \(stride): from 1 to the window's \(window)")
    }
    if let tokenLimit, tokenLimit < window {
      throw ValidationError("--tokens \(tokenLimit): less than one window of \(window)")
    }
  }

  func run() throws {
    try reportingErrors {
      try memory.requireAddresses(workers: running.workers)
      let subject = try Model(FilePath(model))
      let reference = try against.map { try Model(FilePath($0)) }
      let tokenizer = try ConvertModel.tokenizer(of: subject, named: tokenizer)
      let all = tokenizer.encode(try readText(FilePath(text)), addSpecialTokens: false)
      let windows = TextWindows(
        tokenLimit.map { Array(all.prefix($0)) } ?? all, length: window, stride: stride ?? window)
      guard let last = windows.windows.last else {
        throw InputError(text, "its \(all.count) tokens do not fill one window of \(window); use a smaller --window")
      }
      let options = Evaluator.Options(
        workers: running.workers, memoryLimit: memory.limit / 2, spillFolder: memory.spillFolder,
        arithmetic: activations == .int8 ? .integers(splitsOutliers: !withoutSplit) : .float32)
      let interruption = Interruption()
      let display = ProgressDisplay(progress, verb: "Evaluating")
      defer { display.finish() }
      let started = ContinuousClock.now
      let evaluation = try Evaluator(subject, against: reference, options).run(windows) { done in
        display.show(done, stage: "evaluating")
        return !interruption.isRequested
      }
      display.finish()
      let report = EvaluationReport(
        model: model, against: against, text: text, evaluation: evaluation, usedTokens: last.tokens.upperBound,
        textTokens: all.count, unusedTensors: subject.unusedTensors, integerProducts: integerProducts(of: subject),
        seconds: started.duration(to: .now).seconds)
      print(running.json ? report.json.text(indent: 2) : report.rendered)
    }
  }

  private func integerProducts(of model: Model) -> EvaluationReport.IntegerProducts? {
    guard activations == .int8 else { return nil }
    return EvaluationReport.IntegerProducts(
      layers: model.integerLayers, allLayers: model.description.blocks.reduce(0) { $0 + $1.linears.count },
      splitsOutliers: !withoutSplit)
  }
}

/// The type of what linear layers read.
enum ActivationType: String, CaseIterable, ExpressibleByArgument {
  case f32
  case int8
}
