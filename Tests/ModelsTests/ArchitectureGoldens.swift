import Checkpoints
import Foundation
import Kernels
import Models
import SystemPackage
import TestSupport
import Testing

@Suite struct ArchitectureGoldens {
  private static let folder = Fixtures.path("architectures")

  static let cases: [String] =
    (try? FileManager.default.contentsOfDirectory(atPath: folder.string))?
    .filter { FileManager.default.fileExists(atPath: folder.appending($0).appending("config.json").string) }
    .sorted() ?? []

  @Test("The forward pass agrees with transformers", arguments: cases)
  func agrees(_ name: String) throws {
    let folder = Self.folder.appending(name)
    let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
    let golden = try Golden(folder.appending("golden.safetensors"))
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    let batch = TokenBatch(lengths: [Int](repeating: golden.length, count: golden.rows))
    let forward = Forward(model, workers: 2)
    let isEncoder = model.description.head.linear == nil
    let result = try isEncoder ? forward.lastHiddenStates(golden.tokens, batch) : forward.logits(golden.tokens, batch)
    for token in 0..<golden.tokens.count {
      let found = result.values(ofRows: token..<(token + 1))
      let expected = Array(golden.values[token * golden.width..<(token + 1) * golden.width])
      #expect(relativeDifference(found, expected) < 1e-5, "\(name), token \(token)")
    }
  }

  @Test func thereIsACaseForEveryArchitecture() throws {
    let types = try Self.cases.map { name in
      try readJSONObject(Self.folder.appending(name).appending("config.json"))["model_type"]?.string ?? ""
    }
    for architecture in Architecture.all {
      #expect(architecture.modelTypes.contains { types.contains($0) }, "\(architecture.modelTypes)")
    }
  }

  @Test("One thread, or sequences one by one, give the same", arguments: ["llama", "gemma3", "mixtral", "gpt-neox"])
  func doesNotDependOnThreads(_ name: String) throws {
    let folder = Self.folder.appending(name)
    let checkpoint = try Checkpoint(folder.appending("model.safetensors"))
    let golden = try Golden(folder.appending("golden.safetensors"))
    let model = try Model(checkpoint, configuration: checkpoint.configuration)
    let batch = TokenBatch(lengths: [Int](repeating: golden.length, count: golden.rows))
    let two = try Forward(model, workers: 2).logits(golden.tokens, batch).values()
    #expect(try Forward(model, workers: 1).logits(golden.tokens, batch).values() == two)
    let alone = try Forward(model, workers: 2)
      .logits(Array(golden.tokens.prefix(golden.length)), TokenBatch(lengths: [golden.length]))
    #expect(relativeDifference(alone.values(), Array(two.prefix(alone.rows * alone.columns))) < 1e-6)
  }
}

/// ‖found − expected‖ / ‖expected‖.
func relativeDifference(_ found: [Float], _ expected: [Float]) -> Double {
  precondition(found.count == expected.count)
  let difference = zip(found, expected).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) }
  return (difference / expected.reduce(0.0) { $0 + Double($1) * Double($1) }).squareRoot()
}

/// What transformers computed: `Fixtures/generate/architectures.py`.
struct Golden {
  let tokens: [Int32]
  let rows: Int
  let length: Int
  let width: Int
  let values: [Float]

  init(_ path: FilePath) throws {
    let checkpoint = try Checkpoint(path)
    func read(_ name: String) throws -> (shape: [Int], values: [Float]) {
      let shape = try #require(checkpoint.shape(of: name))
      var values: [Float] = []
      var reader = checkpoint.makeReader()
      try reader.read(name, 0..<shape.reduce(1, *), into: &values)
      return (shape, values)
    }
    let ids = try read("input_ids")
    let output = try read(checkpoint["logits"] == nil ? "hidden" : "logits")
    (rows, length, width) = (ids.shape[0], ids.shape[1], output.shape[2])
    tokens = ids.values.map { Int32($0) }
    values = output.values
  }
}
