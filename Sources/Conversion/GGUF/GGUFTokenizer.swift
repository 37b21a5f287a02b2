import Checkpoints
import Foundation
import OrderedCollections
import Packing
import SystemPackage
import Tokenizers

/// The tokenizer keys of a GGUF file, from and to the tables of a tokenizer.
package enum GGUFTokenizer {
  private static let prefix = "tokenizer.ggml."

  /// - Parameters:
  ///   - size: how many tokens the embedding has.
  ///   - isWanted: false: none, and runtimes take token ids only.
  static func metadata(
    folder: FilePath, size: Int, configuration: JSONValue?, isWanted: Bool
  ) throws -> GGUFMetadata {
    guard isWanted else { return [prefix + "model": .string("none")] }
    let tables = try TokenizerTables(folder: folder, size: size)
    guard tables.tokens.count == size else {
      throw GGUFError(
        file: folder.string, .tokenizer("it has \(tables.tokens.count) tokens, the embedding only \(size) rows"))
    }
    var result: GGUFMetadata = [:]
    switch tables.kind {
    case .bytePair(let merges, let preTokenizer):
      result[prefix + "model"] = .string("gpt2")
      result[prefix + "pre"] = .string(preTokenizer)
      result[prefix + "tokens"] = .strings(tables.tokens)
      result[prefix + "token_type"] = .integers(tables.types.map(\.rawValue))
      result[prefix + "merges"] = .strings(merges)
    case .sentencePiece(let scores, let addsSpacePrefix):
      result[prefix + "model"] = .string("llama")
      result[prefix + "pre"] = .string("default")
      result[prefix + "tokens"] = .strings(tables.tokens)
      result[prefix + "scores"] = .floats(scores)
      result[prefix + "token_type"] = .integers(tables.types.map(\.rawValue))
      result[prefix + "add_space_prefix"] = .bool(addsSpacePrefix)
    }
    let settings = (try? readJSONObject(folder.appending("tokenizer_config.json"))) ?? [:]
    let special = (try? readJSONObject(folder.appending("special_tokens_map.json"))) ?? [:]
    // seperator: so it is spelled in the format.
    for (key, name) in [
      ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("sep", "seperator"), ("pad", "padding"), ("cls", "cls"),
      ("mask", "mask"),
    ] {
      let value = settings["\(key)_token"] ?? special["\(key)_token"]
      let content = value?.string ?? value?["content"]?.string
      let found = content.flatMap { content in tables.tokens.firstIndex { $0.utf8.elementsEqual(content.utf8) } }
      let configured = configuration?["\(key)_token_id"]
      let id = found ?? configured?.integer ?? configured?.array?.first?.integer
      if let id, id >= 0, id < size { result["\(prefix)\(name)_token_id"] = .uint32(UInt32(id)) }
    }
    if let begin = tables.addsBegin ?? settings["add_bos_token"]?.bool {
      result[prefix + "add_bos_token"] = .bool(begin)
    }
    if let end = tables.addsEnd ?? settings["add_eos_token"]?.bool { result[prefix + "add_eos_token"] = .bool(end) }
    let template =
      settings["chat_template"]?.string
      ?? (try? readWhole(folder.appending("chat_template.jinja"))).map { String(decoding: $0, as: UTF8.self) }
    if let template { result["tokenizer.chat_template"] = .string(template) }
    return result
  }

  /// The tokenizer of a file.
  package static func tokenizer(of file: GGUFFile) throws -> Tokenizer {
    let (tables, begin, end) = try tables(of: file)
    return try Tokenizer(tables, begin: begin, end: end, file: file.path.string)
  }

  /// The tokenizer of a file as a file that checkpoints have.
  static func tokenizerFile(of file: GGUFFile) throws -> (name: String, bytes: [UInt8]) {
    let (tables, begin, end) = try tables(of: file)
    return try tables.file(begin: begin, end: end, file: file.path.string)
  }

  private static func tables(of file: GGUFFile) throws -> (TokenizerTables, begin: Int32?, end: Int32?) {
    let metadata = file.header.metadata
    func wrong(_ key: String, _ expected: String) -> GGUFError {
      GGUFError(file: file.path.string, .metadata(key: prefix + key, expected: expected))
    }
    let model = metadata[prefix + "model"]?.string ?? ""
    guard model == "gpt2" || model == "llama" else {
      throw wrong("model", "'gpt2' or 'llama', found '\(model)'; name a folder with a tokenizer by --tokenizer")
    }
    guard let tokens = metadata[prefix + "tokens"]?.elements?.compactMap(\.string), !tokens.isEmpty else {
      throw wrong("tokens", "a list of strings")
    }
    let types = metadata[prefix + "token_type"]?.elements?.map {
      $0.integer.flatMap { TokenizerTables.TokenType(rawValue: Int32(clamping: $0)) } ?? .normal
    }
    guard types?.count ?? tokens.count == tokens.count else {
      throw wrong("token_type", "a list of \(tokens.count) numbers")
    }
    let kind: TokenizerTables.Kind
    if model == "gpt2" {
      guard let elements = metadata[prefix + "merges"]?.elements, case let merges = elements.compactMap(\.string),
        merges.count == elements.count
      else {
        throw wrong("merges", "a list of strings")
      }
      kind = .bytePair(merges: merges, preTokenizer: metadata[prefix + "pre"]?.string ?? "default")
    } else {
      guard let scores = metadata[prefix + "scores"]?.elements?.compactMap({ $0.double.map { Float($0) } }),
        scores.count == tokens.count
      else { throw wrong("scores", "a list of \(tokens.count) numbers") }
      kind = .sentencePiece(scores: scores, addsSpacePrefix: metadata[prefix + "add_space_prefix"]?.bool ?? true)
    }
    let tables = TokenizerTables(
      kind: kind, tokens: tokens, types: types ?? tokens.map { _ in .normal },
      addsBegin: metadata[prefix + "add_bos_token"]?.bool, addsEnd: metadata[prefix + "add_eos_token"]?.bool)
    func id(_ name: String) -> Int32? { metadata["\(prefix)\(name)_token_id"]?.integer.flatMap { Int32(exactly: $0) } }
    return (tables, id("bos"), id("eos"))
  }
}
