import Checkpoints
import Conversion
import Foundation
import Kernels
import Quantization
import SystemPackage
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A source that changes after it was opened.
@Suite struct ChangingSourceTests {
  let folder: TemporaryFolder
  let source: FilePath

  init() throws {
    folder = try TemporaryFolder()
    source = folder.appending("source")
    try FileManager.default.copyItem(atPath: Fixtures.path("tiny-llama").string, toPath: source.string)
  }

  /// Opens, plans, lets the source change, and converts.
  private func convert(to output: FilePath, after change: () throws -> Void) throws {
    var recipe = Recipe()
    recipe.options.method = .absmax
    let plan = try Plan(converting: Checkpoint(source), recipe: recipe)
    let target = try OutputFolder(output, source: source, overwrite: false)
    try change()
    try Converter(plan: plan, toolVersion: "test", workers: 2).run(into: target) { _ in true }
  }

  private var shard: FilePath { source.appending("model-00002-of-00002.safetensors") }

  @Test func aFileThatShrinksIsNamed() throws {
    let error = #expect(throws: (any Error).self) {
      try convert(to: folder.appending("out")) {
        let size = try Stat(shard).size
        try #require(truncate(shard.string, off_t(size - 1000)) == 0)
      }
    }
    let text = "\(try #require(error))"
    #expect(text.contains("model-00002-of-00002.safetensors") && text.contains("the file changed while it was read"))
    #expect(!FileManager.default.fileExists(atPath: folder.appending("out").string))
  }

  /// The bytes of an open file stay until it is closed.
  @Test func aFileThatVanishesIsReadOn() throws {
    try convert(to: folder.appending("whole")) {}
    try convert(to: folder.appending("out")) { try FileManager.default.removeItem(atPath: shard.string) }
    #expect(try contents(folder.appending("out")) == contents(folder.appending("whole")))
  }

  @Test func aTokenizerThatVanishesIsNamedAndNothingAppears() throws {
    let error = #expect(throws: (any Error).self) {
      try convert(to: folder.appending("out")) {
        try FileManager.default.removeItem(atPath: source.appending("tokenizer.json").string)
      }
    }
    #expect("\(try #require(error))".contains("tokenizer.json"))
    #expect(!FileManager.default.fileExists(atPath: folder.appending("out").string))
  }
}
