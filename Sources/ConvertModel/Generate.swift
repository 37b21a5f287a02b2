import ArgumentParser
import Checkpoints
import Evaluation
import Foundation
import Models
import SystemPackage
import Tokenizers

struct Generate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Let a model continue a text, for a quick look at what it became.",
    discussion: """
      Prints the prompt and its continuation as it is made. Without --temperature the most probable token is taken \
      every time; with it tokens are drawn, the same ones for the same --seed.

      EXAMPLES
        convert-model generate OUT --prompt 'Once upon a time'
        convert-model generate OUT --prompt 'Once upon a time' --temperature 0.8 --top-p 0.95 --seed 7
      """)

  @Argument(help: "A model folder or a .safetensors file with config.json beside it.")
  var model: String

  @Option(name: [.short, .long], help: "The text to continue.")
  var prompt: String

  @Option(
    name: [.customShort("n"), .customLong("tokens")], help: ArgumentHelp("The most tokens to add.", valueName: "count"))
  var tokenLimit = 128

  @Option(help: "How freely tokens are drawn; 0 takes the most probable one.")
  var temperature: Float = 0

  @Option(help: "Draw from this many most probable tokens only.")
  var topK: Int?

  @Option(help: "Draw from the most probable tokens that together have this probability.")
  var topP: Float = 1

  @Option(help: "Seed of the draws.")
  var seed: UInt64 = 0

  @OptionGroup(title: "Running") var running: RunningArguments
  @OptionGroup(title: "Running") var memory: MemoryArguments

  func validate() throws {
    guard tokenLimit >= 1 else { throw ValidationError("--tokens \(tokenLimit): at least 1") }
    guard temperature >= 0, temperature.isFinite else { throw ValidationError("--temperature \(temperature): from 0") }
    guard topP > 0, topP <= 1 else { throw ValidationError("--top-p \(topP): above 0, at most 1") }
    if let topK, topK < 1 { throw ValidationError("--top-k \(topK): at least 1") }
  }

  func run() throws {
    try reportingErrors {
      try memory.requireAddresses(workers: running.workers)
      let subject = try Model(FilePath(model))
      let tokenizer = try ConvertModel.tokenizer(of: subject, named: nil)
      let ends = try subject.endTokens()
      let interruption = Interruption()
      let start = tokenizer.encode(prompt, addSpecialTokens: true).filter {
        !ends.contains($0) || tokenizer.isSpecial($0)
      }
      guard !start.isEmpty else { throw ValidationError("--prompt is empty, and this tokenizer begins no text itself") }
      let generation = try Generation(
        subject, capacity: start.count + tokenLimit, memoryLimit: memory.limit / 2, workers: running.workers)
      var generator = SeededGenerator(seed: seed)
      let sampling = Sampling(temperature: temperature, topK: topK, topP: topP)
      var stream = TextStream(tokenizer, skipSpecialTokens: true)
      if !running.json { show(start.reduce(into: "") { $0 += stream.append($1) }) }
      var made: [Int32] = []
      let started = ContinuousClock.now
      var logits = try generation.append(start)
      while made.count < tokenLimit, !interruption.isRequested {
        let token = sampling.token(logits, using: &generator)
        if ends.contains(token) { break }
        made.append(token)
        if !running.json { show(stream.append(token)) }
        if made.count == tokenLimit || generation.length == generation.capacity { break }
        logits = try generation.append([token])
      }
      let seconds = started.duration(to: .now).seconds
      if running.json {
        let json: JSONValue = [
          "model": .string(model), "prompt": .string(prompt),
          "text": .string(tokenizer.decode(made, skipSpecialTokens: true)),
          "tokens": .array(made.map { .integer(Int($0)) }), "seconds": .real(seconds),
        ]
        print(json.text(indent: 2))
      } else {
        show(stream.finish() + "\n")
        if isatty(STDERR_FILENO) != 0 {
          let rate = String(format: "%.1f", Double(made.count) / max(seconds, 1e-9))
          FileHandle.standardError.write(Data("\(made.count) tokens, \(rate) tokens/s\n".utf8))
        }
      }
    }
  }

  private func show(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }
}
