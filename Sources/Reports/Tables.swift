import Foundation
import TextTable

/// A column of a printed table.
struct TableColumn {
  let title: String
  var isNumber = false
}

/// A table with aligned columns, one line per row; the last line ends without a newline.
func table(_ columns: [TableColumn], _ rows: [[String]]) -> String {
  guard !rows.isEmpty else { return "" }
  let layout = TextTable<[String]> { row in
    zip(columns, row).map { Column(title: $0.title, value: $1, align: $0.isNumber ? .right : .left) }
  }
  let text = layout.string(for: rows, style: Style.simple) ?? ""
  // The library pads the last column too.
  let lines = text.split(separator: "\n").map { line in
    String(line.reversed().drop { $0 == " " }.reversed())
  }
  return lines.joined(separator: "\n")
}

/// Numbers as people read them; the same in every locale.
package enum Figures {
  package static func bytes(_ count: Int) -> String {
    let value = Double(count)
    return switch count {
    case ..<10_000: "\(count) B"
    case ..<1_000_000: String(format: "%.1f kB", value / 1e3)
    case ..<1_000_000_000: String(format: "%.1f MB", value / 1e6)
    default: String(format: "%.2f GB", value / 1e9)
    }
  }

  static func fixed(_ value: Double, _ places: Int) -> String {
    value.isFinite ? String(format: "%.\(places)f", value) : value.isNaN ? "nan" : value > 0 ? "inf" : "-inf"
  }

  static func percent(_ value: Double) -> String { fixed(value * 100, 2) + " %" }

  static func short(_ value: Float) -> String { value.isFinite ? String(format: "%.4g", value) : "\(value)" }

  static func short(_ value: Double) -> String { value.isFinite ? String(format: "%.4g", value) : "\(value)" }

  static func count(_ value: Int, _ noun: String) -> String { "\(value) \(noun)\(value == 1 ? "" : "s")" }

  static func shape(_ shape: [Int]) -> String { "[" + shape.map(String.init).joined(separator: ", ") + "]" }

  static func millions(_ count: Int) -> String {
    count < 1_000_000
      ? "\(count)"
      : count < 1_000_000_000
        ? String(format: "%.1f M", Double(count) / 1e6) : String(format: "%.2f G", Double(count) / 1e9)
  }
}
