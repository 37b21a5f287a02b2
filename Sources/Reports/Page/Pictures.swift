import Foundation

/// Pictures as inline SVG, and heat maps as tables, which every reader can go through. Colours are classes that the
/// page's style sheet gives values to, for light and dark.
enum Pictures {
  /// Steps of the scale from little to much: classes `h0` to `h9`.
  static let steps = 10

  private static func number(_ value: Double) -> String {
    let text = String(format: "%.1f", value)
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }

  static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }

  private static func svg(_ label: String, width: Double, height: Double, _ body: String) -> String {
    "<svg role=\"img\" aria-label=\"\(escaped(label))\" viewBox=\"0 0 \(number(width)) \(number(height))\" "
      + "width=\"\(number(width))\" height=\"\(number(height))\">\(body)</svg>"
  }

  private static func text(_ content: String, _ x: Double, _ y: Double, anchor: String = "start") -> String {
    let anchor = anchor == "start" ? "" : " text-anchor=\"\(anchor)\""
    return "<text x=\"\(number(x))\" y=\"\(number(y))\"\(anchor)>\(escaped(content))</text>"
  }

  private static func rectangle(_ style: String, x: Double, y: Double, width: Double, height: Double) -> String {
    "<rect class=\"\(style)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(max(width, 0.5)))\" "
      + "height=\"\(number(height))\"/>"
  }

  // MARK: Heat maps

  struct Cell {
    let value: Double
    /// The row of the table of tensors that it stands for.
    let position: Int?
  }

  /// Blocks down, kinds across, as a table whose cells are coloured by their values.
  /// - Parameters:
  ///   - limit: the value that the warmest colour stands for; nil: the largest. Values beyond it are set apart.
  ///   - format: a value as it stands in its cell.
  static func heatMap(
    _ caption: String, rows: [String], columns: [String], cells: [[Cell?]], limit: Double? = nil,
    format: (Double) -> String
  ) -> String {
    let found = cells.flatMap { $0.compactMap { $0?.value } }.filter(\.isFinite)
    let (least, most) = (found.min() ?? 0, found.max() ?? 1)
    // Values that hardly differ shall not look as if they did.
    let span = max(most - least, 0.25 * most)
    let low = limit != nil ? 0 : (least + most - span) / 2
    let high = limit ?? low + span
    var body = "<table class=\"heat\"><caption>\(escaped(caption))</caption><thead><tr><th scope=\"col\">block</th>"
    for column in columns { body += "<th scope=\"col\">\(escaped(column))</th>" }
    body += "</tr></thead><tbody>"
    for (row, name) in rows.enumerated() {
      body += "<tr><th scope=\"row\">\(escaped(name))</th>"
      for cell in cells[row] {
        guard let cell else {
          body += "<td></td>"
          continue
        }
        let share = high > low ? (cell.value - low) / (high - low) : 0
        let step = share.isFinite ? max(0, min(steps - 1, Int(share * Double(steps)))) : steps - 1
        let isBeyond = limit.map { cell.value > $0 } ?? false
        body += "<td class=\"h\(step)\(isBeyond ? " beyond" : "")\""
        if let position = cell.position { body += " data-t=\"\(position)\"" }
        body += ">\(escaped(format(cell.value)))</td>"
      }
      body += "</tr>"
    }
    return body + "</tbody></table>"
  }

  // MARK: Charts

  struct Line {
    let name: String
    /// x and y.
    let points: [(x: Double, y: Double)]
  }

  /// Lines over block numbers, from zero up, each with its name at its end.
  static func lines(_ label: String, _ lines: [Line], format: (Double) -> String) -> String {
    let (width, height, left, bottom, top) = (720.0, 300.0, 64.0, 34.0, 12.0)
    let longest = Double(lines.map(\.name.count).max() ?? 0)
    let right = 18 + longest * 6.8
    let points = lines.flatMap(\.points)
    let (first, last) = (points.map(\.x).min() ?? 0, max(1, points.map(\.x).max() ?? 1))
    let most = ceiling(points.map(\.y).max() ?? 1)
    func x(_ value: Double) -> Double { left + (width - left - right) * (value - first) / max(1, last - first) }
    func y(_ value: Double) -> Double { height - bottom - (height - bottom - top) * value / most }
    var body = grid(most, left: left, right: width - right, y: y, format: format)
    let every = max(1, Int(((last - first) / 16).rounded(.up)))
    for value in stride(from: Int(first), through: Int(last), by: every) {
      body += text("\(value)", x(Double(value)), height - 18, anchor: "middle")
    }
    body += text("block", (left + width - right) / 2, height - 3, anchor: "middle")
    // Names keep a line's height apart, in the order of the ends that they stand at.
    let order = lines.indices.sorted { (lines[$0].points.last?.y ?? 0) > (lines[$1].points.last?.y ?? 0) }
    let step = min(14, (height - top - 4) / Double(max(1, lines.count)))
    var places = [Double](repeating: 0, count: lines.count)
    var next = top
    for index in order {
      places[index] = max(next, y(lines[index].points.last?.y ?? 0) + 4)
      next = places[index] + step
    }
    var limit = height - 4
    for index in order.reversed() {
      places[index] = min(places[index], limit)
      limit = places[index] - step
    }
    for (index, line) in lines.enumerated() {
      guard let end = line.points.last else { continue }
      let path = line.points.map { "\(number(x($0.x))),\(number(y($0.y)))" }.joined(separator: " ")
      let dashes = index < 8 ? "" : " stroke-dasharray=\"5 3\""
      body += "<g class=\"c\(index % 8)\"><polyline points=\"\(path)\"\(dashes)/>"
      for point in line.points where line.points.count <= 48 {
        body += "<circle cx=\"\(number(x(point.x)))\" cy=\"\(number(y(point.y)))\" r=\"3\"><title>"
        body += "\(escaped(line.name)), block \(Int(point.x)): \(escaped(format(point.y)))</title></circle>"
      }
      body += "<line class=\"leader\" x1=\"\(number(x(end.x) + 4))\" y1=\"\(number(y(end.y)))\" "
      body += "x2=\"\(number(width - right + 12))\" y2=\"\(number(places[index] - 4))\"/>"
      body += text(line.name, width - right + 15, places[index]) + "</g>"
    }
    return svg(label, width: width, height: height, body)
  }

  private static func grid(
    _ most: Double, left: Double, right: Double, y: (Double) -> Double, format: (Double) -> String
  ) -> String {
    var body = ""
    for tick in 0...4 {
      let value = most * Double(tick) / 4
      body += "<line class=\"grid\" x1=\"\(number(left))\" x2=\"\(number(right))\" y1=\"\(number(y(value)))\" "
      body += "y2=\"\(number(y(value)))\"/>" + text(format(value), left - 8, y(value) + 4, anchor: "end")
    }
    return body
  }

  /// One bar for each name, from zero up.
  /// - Parameter axis: what the names are, if they do not say it.
  static func bars(
    _ label: String, _ bars: [(name: String, value: Double)], axis: String? = nil, format: (Double) -> String
  ) -> String {
    let (height, left, bottom, top) = (190.0, 64.0, 34.0, 12.0)
    let step = max(6, min(48, 640 / Double(max(1, bars.count))))
    let width = left + max(120, step * Double(bars.count)) + 12
    let most = ceiling(bars.map(\.value).max() ?? 1)
    func y(_ value: Double) -> Double { height - bottom - (height - bottom - top) * value / most }
    var body = grid(most, left: left, right: width, y: y, format: format)
    // So many that the widest of them do not touch.
    let room = Double(bars.map(\.name.count).max() ?? 1) * 6.6 + 10
    let every = max(1, Int((room / step).rounded(.up)))
    let gap = min(4, step / 4)
    for (index, bar) in bars.enumerated() {
      let x = left + step * Double(index)
      body += "<g><title>\(axis.map { $0 + " " } ?? "")\(escaped(bar.name)): \(escaped(format(bar.value)))</title>"
      body += rectangle(
        "bar", x: x + gap / 2, y: y(bar.value), width: step - gap, height: height - bottom - y(bar.value))
      body += "</g>"
      if index % every == 0 { body += text(bar.name, x + step / 2, height - 18, anchor: "middle") }
    }
    if let axis { body += text(axis, (left + width) / 2, height - 3, anchor: "middle") }
    return svg(label, width: width, height: height, body)
  }

  /// What a kind of tensor weighs.
  struct Weight {
    let name: String
    let before: Double
    /// By part, in the order of the legend.
    let after: [Double]
  }

  /// For each kind one bar before and one after, the latter in parts, on one scale.
  static func weights(_ label: String, _ weights: [Weight], format: (Double) -> String) -> String {
    let longest = Double(min(42, weights.map(\.name.count).max() ?? 0))
    let (width, left, barHeight, step) = (720.0, 12 + longest * 6.6, 9.0, 30.0)
    let most = max(1, weights.map { max($0.before, $0.after.reduce(0, +)) }.max() ?? 1)
    let scale = (width - left - 84) / most
    var body = ""
    for (row, weight) in weights.enumerated() {
      let y = 4 + Double(row) * step
      let name = weight.name.count > 42 ? weight.name.prefix(41) + "…" : weight.name[...]
      let after = weight.after.reduce(0, +)
      body += text(String(name), left - 8, y + 14, anchor: "end")
      body += "<g><title>\(escaped(weight.name)): \(escaped(format(weight.before))) before, "
      body += "\(escaped(format(after))) after</title>"
      body += rectangle("f7", x: left, y: y, width: weight.before * scale, height: barHeight)
      body += text(format(weight.before), left + max(weight.before, after) * scale + 6, y + 9)
      var x = left
      for (index, part) in weight.after.enumerated() where part > 0 {
        body += rectangle("f\(index)", x: x, y: y + barHeight + 1, width: part * scale, height: barHeight)
        x += part * scale
      }
      body += text(format(after), left + max(weight.before, after) * scale + 6, y + 21) + "</g>"
    }
    return svg(label, width: width, height: Double(weights.count) * step + 4, body)
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
