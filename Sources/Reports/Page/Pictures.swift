import Foundation

/// Pictures as inline SVG. Colours are classes that the page's style sheet gives values to, for light and dark.
enum Pictures {
  /// Steps of the scale from little to much: classes `h0` to `h9`.
  static let steps = 10

  private static func number(_ value: Double) -> String { String(format: "%.1f", value) }

  static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }

  private static func svg(_ label: String, width: Double, height: Double, _ body: String) -> String {
    "<svg role=\"img\" aria-label=\"\(escaped(label))\" viewBox=\"0 0 \(number(width)) \(number(height))\" "
      + "width=\"\(number(width))\" height=\"\(number(height))\">\(body)</svg>"
  }

  private static func text(
    _ content: String, _ x: Double, _ y: Double, anchor: String = "start", style: String = ""
  ) -> String {
    "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\" class=\"\(style)\">\(escaped(content))</text>"
  }

  /// Blocks down, kinds across.
  /// - Parameters:
  ///   - values: by row and column; nil where there is none.
  ///   - format: a value as it stands in its field.
  static func heatMap(
    _ label: String, rows: [String], columns: [String], values: [[Double?]], format: (Double) -> String
  ) -> String {
    let found = values.flatMap { $0.compactMap(\.self) }
    let (low, high) = (found.min() ?? 0, found.max() ?? 1)
    let (left, cellWidth) = (44.0, max(64, Double(columns.map(\.count).max() ?? 0) * 6.6))
    let cellHeight = rows.count > 40 ? 14.0 : 22.0
    var body = ""
    for (index, column) in columns.enumerated() {
      body += text(column, left + cellWidth * (Double(index) + 0.5), 14, anchor: "middle")
    }
    for (row, name) in rows.enumerated() {
      let y = 22 + cellHeight * Double(row)
      body += text(name, left - 8, y + cellHeight * 0.7, anchor: "end")
      for (column, value) in values[row].enumerated() {
        guard let value else { continue }
        let share = high > low ? (value - low) / (high - low) : 0
        let step = min(steps - 1, Int(share * Double(steps)))
        let x = left + cellWidth * Double(column)
        body += "<g class=\"h\(step)\"><rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(cellWidth - 2))\" "
        body += "height=\"\(number(cellHeight - 2))\" rx=\"2\"/>"
        body += text(format(value), x + cellWidth / 2 - 1, y + cellHeight * 0.66, anchor: "middle") + "</g>"
      }
    }
    return svg(
      label, width: left + cellWidth * Double(columns.count), height: 24 + cellHeight * Double(rows.count), body)
  }

  struct Line {
    let name: String
    /// x and y.
    let points: [(x: Double, y: Double)]
  }

  /// Lines over block numbers, from zero up.
  static func lines(_ label: String, _ lines: [Line], format: (Double) -> String) -> String {
    let (width, height, left, bottom, top) = (720.0, 260.0, 64.0, 28.0, 12.0)
    let right = 20.0
    let points = lines.flatMap(\.points)
    let last = max(1, points.map(\.x).max() ?? 1)
    let most = ceiling(points.map(\.y).max() ?? 1)
    func x(_ value: Double) -> Double { left + (width - left - right) * value / last }
    func y(_ value: Double) -> Double { height - bottom - (height - bottom - top) * value / most }
    var body = ""
    for tick in 0...4 {
      let value = most * Double(tick) / 4
      body += "<line class=\"grid\" x1=\"\(number(left))\" x2=\"\(number(width - right))\" y1=\"\(number(y(value)))\" "
      body += "y2=\"\(number(y(value)))\"/>" + text(format(value), left - 8, y(value) + 4, anchor: "end")
    }
    let every = max(1, Int((last / 16).rounded(.up)))
    for value in stride(from: 0, through: Int(last), by: every) {
      body += text("\(value)", x(Double(value)), height - 8, anchor: "middle")
    }
    for (index, line) in lines.enumerated() {
      let path = line.points.map { "\(number(x($0.x))),\(number(y($0.y)))" }.joined(separator: " ")
      body += "<g class=\"c\(index % 8)\"><title>\(escaped(line.name))</title><polyline points=\"\(path)\"/>"
      for point in line.points {
        body += "<circle cx=\"\(number(x(point.x)))\" cy=\"\(number(y(point.y)))\" r=\"3\"><title>"
        body += "\(escaped(line.name)), block \(Int(point.x)): \(escaped(format(point.y)))</title></circle>"
      }
      body += "</g>"
    }
    return svg(label, width: width, height: height, body)
  }

  /// One bar for each name, from zero up.
  static func bars(_ label: String, _ bars: [(name: String, value: Double)], format: (Double) -> String) -> String {
    let (height, left, bottom, top) = (180.0, 64.0, 28.0, 12.0)
    let step = max(12, min(48, 640 / Double(max(1, bars.count))))
    let width = left + step * Double(bars.count) + 12
    let most = ceiling(bars.map(\.value).max() ?? 1)
    func y(_ value: Double) -> Double { height - bottom - (height - bottom - top) * value / most }
    var body = ""
    for tick in 0...4 {
      let value = most * Double(tick) / 4
      body += "<line class=\"grid\" x1=\"\(number(left))\" x2=\"\(number(width))\" y1=\"\(number(y(value)))\" "
      body += "y2=\"\(number(y(value)))\"/>" + text(format(value), left - 8, y(value) + 4, anchor: "end")
    }
    let every = max(1, Int((24 / step).rounded(.up)))
    for (index, bar) in bars.enumerated() {
      let x = left + step * Double(index)
      body += "<rect class=\"bar\" x=\"\(number(x + 2))\" y=\"\(number(y(bar.value)))\" width=\"\(number(step - 4))\" "
      body += "height=\"\(number(height - bottom - y(bar.value)))\"><title>\(escaped(bar.name)): "
      body += "\(escaped(format(bar.value)))</title></rect>"
      if index % every == 0 { body += text(bar.name, x + step / 2, height - 8, anchor: "middle") }
    }
    return svg(label, width: width, height: height, body)
  }

  /// Two bars of parts, before and after, on one scale.
  static func stacks(_ label: String, _ stacks: [(name: String, parts: [Double])], format: (Double) -> String) -> String
  {
    let (width, left, barHeight) = (720.0, 64.0, 30.0)
    let most = max(1, stacks.map { $0.parts.reduce(0, +) }.max() ?? 1)
    var body = ""
    for (row, stack) in stacks.enumerated() {
      let y = 4 + Double(row) * (barHeight + 8)
      var x = left
      body += text(stack.name, left - 8, y + barHeight * 0.65, anchor: "end")
      for (index, part) in stack.parts.enumerated() where part > 0 {
        let length = (width - left - 100) * part / most
        body +=
          "<rect class=\"f\(index % 8)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(max(length, 0.5)))\" "
        body += "height=\"\(number(barHeight))\"><title>\(escaped(format(part)))</title></rect>"
        x += length
      }
      body += text(format(stack.parts.reduce(0, +)), x + 8, y + barHeight * 0.65)
    }
    return svg(label, width: width, height: Double(stacks.count) * (barHeight + 8) + 4, body)
  }

  /// The next round number.
  private static func ceiling(_ value: Double) -> Double {
    guard value > 0, value.isFinite else { return 1 }
    let power = pow(10, floor(log10(value)))
    for factor in [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10] where value <= factor * power * (1 + 1e-9) {
      return factor * power
    }
    return 10 * power
  }
}
