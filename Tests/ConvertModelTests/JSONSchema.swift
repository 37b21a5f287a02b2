import Checkpoints
import Foundation
import OrderedCollections

/// JSON Schema 2020-12, as far as our schemas use it. A keyword that is not known here is an error, so that none can go
/// unchecked.
struct JSONSchema {
  private let root: JSONValue

  init(_ root: JSONValue) { self.root = root }

  /// What does not hold of a document, each with its place.
  func faults(in document: JSONValue) -> [String] {
    var faults: [String] = []
    check(document, against: root, at: "$", &faults)
    return faults
  }

  private static let notes: Set<String> = ["$schema", "$id", "$defs", "title", "description"]

  private func check(_ value: JSONValue, against schema: JSONValue, at place: String, _ faults: inout [String]) {
    guard let keywords = schema.object else {
      faults.append("\(place): the schema is no object")
      return
    }
    for (keyword, rule) in keywords where !Self.notes.contains(keyword) {
      switch keyword {
      case "$ref":
        if let target = resolve(rule.string ?? "") {
          check(value, against: target, at: place, &faults)
        } else {
          faults.append("\(place): no \(rule.text())")
        }
      case "type":
        let names = (rule.array ?? [rule]).compactMap(\.string)
        if !names.contains(where: { Self.isOf($0, value) }) { faults.append("\(place): not of type \(names)") }
      case "const": if value != rule { faults.append("\(place): not \(rule.text())") }
      case "enum": if rule.array?.contains(value) != true { faults.append("\(place): not one of \(rule.text())") }
      case "minimum":
        if let number = value.double, number < rule.double ?? .nan { faults.append("\(place): below \(rule.text())") }
      case "maximum":
        if let number = value.double, number > rule.double ?? .nan { faults.append("\(place): above \(rule.text())") }
      case "pattern":
        if let text = value.string, text.range(of: rule.string ?? "", options: .regularExpression) == nil {
          faults.append("\(place): does not match \(rule.text())")
        }
      case "minItems":
        if let items = value.array, items.count < rule.integer ?? 0 { faults.append("\(place): too few") }
      case "maxItems":
        if let items = value.array, items.count > rule.integer ?? 0 { faults.append("\(place): too many") }
      case "items":
        for (index, item) in (value.array ?? []).enumerated() {
          check(item, against: rule, at: "\(place)[\(index)]", &faults)
        }
      case "required":
        for name in (rule.array ?? []).compactMap(\.string) where value.object != nil && value[name] == nil {
          faults.append("\(place): lacks \(name)")
        }
      case "properties":
        for (name, part) in rule.object ?? [:] {
          if let member = value[name] { check(member, against: part, at: "\(place).\(name)", &faults) }
        }
      case "additionalProperties":
        let known = keywords["properties"]?.object ?? [:]
        for name in (value.object ?? [:]).keys where rule == false && known[name] == nil {
          faults.append("\(place): unknown key \(name)")
        }
      case "anyOf":
        let attempts = (rule.array ?? []).map { choice in
          var found: [String] = []
          check(value, against: choice, at: place, &found)
          return found
        }
        if !attempts.contains(where: \.isEmpty) { faults += ["\(place): no choice holds"] + attempts.flatMap { $0 } }
      default: faults.append("\(place): the keyword \(keyword) is not known here")
      }
    }
  }

  private func resolve(_ reference: String) -> JSONValue? {
    guard reference.hasPrefix("#/") else { return nil }
    return reference.dropFirst(2).split(separator: "/").reduce(root as JSONValue?) { $0?[String($1)] }
  }

  private static func isOf(_ type: String, _ value: JSONValue) -> Bool {
    switch (type, value) {
    case ("null", .null), ("boolean", .bool), ("string", .string), ("array", .array), ("object", .object),
      ("number", .number):
      true
    case ("integer", .number): value.double.map { $0 == $0.rounded() } ?? false
    default: false
    }
  }

  /// Members of the schema's objects that say nothing of what they mean, by place.
  var undescribed: [String] {
    func members(_ schema: JSONValue, _ place: String) -> [String] {
      var found: [String] = []
      for (name, part) in schema["properties"]?.object ?? [:] {
        if part["description"]?.string?.isEmpty != false { found.append("\(place).\(name)") }
        found += members(part, "\(place).\(name)")
      }
      if let items = schema["items"] { found += members(items, place + "[]") }
      return found
    }
    let parts = (root["$defs"]?.object ?? [:]).flatMap { members($0.value, $0.key) }
    return members(root, "$") + parts
  }
}
