import SystemPackage

/// One text for calibration, and its weight among several.
package struct CalibrationSource: Hashable, Sendable {
  package enum Origin: Hashable, Sendable {
    /// The text that ships with the program, see ``DefaultText``.
    case defaultText
    case file(FilePath)
    /// What the model itself writes, see ``SelfWrittenText``.
    case model
  }

  package let origin: Origin
  /// Greater than 0 and finite; a source's share is its weight over the sum of all weights.
  package let weight: Double

  package init(_ origin: Origin, weight: Double = 1) {
    precondition(weight > 0 && weight.isFinite)
    self.origin = origin
    self.weight = weight
  }

  package var isSelfWritten: Bool { origin == .model }

  /// The word that names the default text in an option; a file of that name is `./default`.
  package static let defaultName = "default"

  /// The word that names the model's own text; a file of that name is `./self`.
  package static let selfName = "self"

  /// As messages and records show it.
  package var name: String {
    switch origin {
    case .defaultText: Self.defaultName
    case .file(let path): path.string
    case .model: Self.selfName
    }
  }

  /// Reads `PATH[:WEIGHT][,PATH[:WEIGHT]…]`.
  ///
  /// Only what follows the last colon, and only where it is a decimal number, is a weight: `C:notes.txt` and
  /// `12:30/a.txt` are names. A backslash keeps a comma or a colon part of the name: `a\,b.txt`, `part\:2`.
  /// - Throws: for a missing name, a weight that is not positive and finite, and a source named twice: its windows
  ///   would be calibrated with twice, or be both calibrated with and held out.
  package static func parse(_ option: String) throws(CalibrationError) -> [CalibrationSource] {
    var sources: [CalibrationSource] = []
    for item in split(option) {
      let source = try parse(item, of: option)
      guard !sources.contains(where: { $0.isSame(as: source) }) else {
        throw CalibrationError(file: source.name, .duplicate)
      }
      sources.append(source)
    }
    return sources
  }

  private func isSame(as other: CalibrationSource) -> Bool {
    switch (origin, other.origin) {
    case (.file(let own), .file(let its)): own.lexicallyNormalized() == its.lexicallyNormalized()
    default: origin == other.origin
    }
  }

  /// An item of the option with the place of its last colon that no backslash precedes.
  private struct Item {
    var name = ""
    var colon: String.Index?
  }

  private static func split(_ option: String) -> [Item] {
    var items = [Item()]
    var rest = option[...]
    while let character = rest.popFirst() {
      let last = items.count - 1
      if character == "\\", let next = rest.first, next == "," || next == ":" {
        items[last].name.append(rest.removeFirst())
      } else if character == "," {
        items.append(Item())
      } else {
        if character == ":" { items[last].colon = items[last].name.endIndex }
        items[last].name.append(character)
      }
    }
    return items
  }

  private static func parse(_ item: Item, of option: String) throws(CalibrationError) -> CalibrationSource {
    var name = item.name
    var weight = 1.0
    if let colon = item.colon {
      let text = String(name[name.index(after: colon)...])
      if let number = number(text) {
        guard number > 0, number.isFinite else { throw CalibrationError(file: option, .weight(text)) }
        weight = number
        name = String(name[..<colon])
      }
    }
    guard !name.isEmpty else { throw CalibrationError(file: option, .emptyName) }
    let origin: Origin =
      switch name {
      case defaultName: .defaultText
      case selfName: .model
      default: .file(FilePath(name))
      }
    return CalibrationSource(origin, weight: weight)
  }

  /// A decimal number; unlike `Double` itself this takes no hexadecimal, `nan` or `infinity`, which may be names.
  private static func number(_ text: String) -> Double? {
    let allowed = text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"),
        UInt8(ascii: "e"), UInt8(ascii: "E"):
        true
      default: false
      }
    }
    return allowed ? Double(text) : nil
  }
}
