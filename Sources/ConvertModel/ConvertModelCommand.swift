import ArgumentParser

@main
struct ConvertModelCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert-model",
    abstract: "Turns a safetensors checkpoint into a packed, quantized one.",
    usage: """
      convert-model <source> --output <output> [<options>]
      convert-model <subcommand>
      """,
    discussion: """
      EXAMPLES
        Quantize a model to 4-bit NormalFloat:
          convert-model Llama-3.2-1B -o Llama-3.2-1B-nf4
        See what would happen, to the byte:
          convert-model Llama-3.2-1B -o out --method absmax --bits 4 --dry-run
        Look into any safetensors file or folder:
          convert-model inspect Llama-3.2-1B-nf4
        Compare two models, in any layouts:
          convert-model diff Llama-3.2-1B-nf4 Llama-3.2-1B-gptq --against Llama-3.2-1B
        Measure what was lost, from the bytes on disk:
          convert-model report Llama-3.2-1B-nf4 --against Llama-3.2-1B
        Measure what that does to its predictions:
          convert-model evaluate Llama-3.2-1B-nf4 --text eval.txt --against Llama-3.2-1B
        Turn it back into an ordinary checkpoint:
          convert-model unpack Llama-3.2-1B-nf4 -o dense

      EXIT CODES
         0  success
         1  `diff`: the models differ
        64  wrong usage
        65  malformed or unsuitable input
        66  input not found
        69  the program was built for another processor
        73  output cannot be created
        74  reading or writing failed
        75  another process is writing the output
       130  interrupted
      """,
    version: toolVersion,
    subcommands: [
      Convert.self, Calibrate.self, Inspect.self, Diff.self, Report.self, Evaluate.self, Generate.self, Unpack.self,
      Verify.self,
      Check.self,
    ],
    defaultSubcommand: Convert.self)

  static func main() {
    ProcessorLevel.require()
    main(nil)
  }
}

/// The version that `--version` prints and manifests record.
let toolVersion = "0.1.0"
