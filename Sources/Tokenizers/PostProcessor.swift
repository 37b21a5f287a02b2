import Checkpoints
import OrderedCollections

/// The `post_processor` of a tokenizer.json: where special tokens go around one text.
enum PostProcessor: Sendable {
  /// The pieces of a template in order; nil stands for the text.
  case template([[Int32]?])
  case sequence([PostProcessor])
  /// Steps that change offsets only.
  case none

  static let known = ["BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"]

  init?(_ value: JSONValue?, at place: String, of document: TokenizerDocument) throws(TokenizerError) {
    guard let fields = try document.fields(value, at: place) else { return nil }
    switch try fields.type() {
    case "ByteLevel": self = .none
    case "BertProcessing", "RobertaProcessing":
      self = .template([[try Self.pair(fields, "cls")], nil, [try Self.pair(fields, "sep")]])
    case "TemplateProcessing": self = try Self.template(fields)
    case "Sequence": self = .sequence(try fields.steps("processors", PostProcessor.init))
    case let name:
      throw fields.error("type", .unsupported(kind: "post-processor", name: name, known: Self.known))
    }
  }

  private static func id(_ value: JSONValue?) -> Int32? {
    guard let id = value?.integer, id >= 0, id < Vocabulary.idLimit else { return nil }
    return Int32(id)
  }

  /// A token and its id, as `["[CLS]", 101]`.
  private static func pair(_ fields: TokenizerFields, _ key: String) throws(TokenizerError) -> Int32 {
    guard let items = fields.members[key]?.array, items.count == 2, items[0].string != nil, let id = id(items[1]) else {
      throw fields.error(key, .expected("a token and its id"))
    }
    return id
  }

  private static func template(_ fields: TokenizerFields) throws(TokenizerError) -> PostProcessor {
    let specials = fields.members["special_tokens"]?.object ?? [:]
    var pieces: [[Int32]?] = []
    for (index, item) in try fields.items("single").enumerated() {
      let key = "single[\(index)]"
      guard let member = item.object, member.count == 1 else {
        throw fields.error(key, .expected("an object with 'SpecialToken' or 'Sequence'"))
      }
      if let sequence = member["Sequence"] {
        guard sequence["id"]?.string == "A" else { throw fields.error(key, .expected("the sequence 'A'")) }
        pieces.append(nil)
      } else if let name = member["SpecialToken"]?["id"]?.string {
        guard let ids = specials[name]?["ids"]?.array else {
          throw fields.error(key, .notInTemplate(name))
        }
        var found: [Int32] = []
        for value in ids {
          guard let id = id(value) else {
            throw fields.error("special_tokens.\(name).ids", .expected("an array of token ids"))
          }
          found.append(id)
        }
        pieces.append(found)
      } else {
        throw fields.error(key, .expected("an object with 'SpecialToken' or 'Sequence'"))
      }
    }
    // Steps that each repeat the text would make it grow beyond all memory.
    guard pieces.count(where: { $0 == nil }) <= 1 else {
      throw fields.error("single", .expected("a template with the sequence 'A' once"))
    }
    return .template(pieces)
  }

  func apply(to ids: [Int32]) -> [Int32] {
    switch self {
    case .none: return ids
    case .sequence(let steps): return steps.reduce(ids) { $1.apply(to: $0) }
    case .template(let pieces):
      var result: [Int32] = []
      result.reserveCapacity(ids.count + 4)
      for piece in pieces { result += piece ?? ids }
      return result
    }
  }
}
