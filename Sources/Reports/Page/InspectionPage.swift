import Checkpoints
import Foundation
import Mustache

/// What `inspect` found as one page that needs nothing else: no network, no other file. In the style of the report's.
package enum InspectionPage {
  private static let template = """
    <!DOCTYPE html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{{title}}: inspection</title>
    <link rel="icon" href="data:,">
    <style>{{{style}}}</style>
    </head>
    <body>
    <header>
    <p class="kicker">{{kicker}}</p>
    <h1>{{title}}</h1>
    <dl class="tiles">{{#tiles}}<div><dt>{{label}}</dt><dd>{{value}}</dd><dd class="note">{{note}}</dd></div>{{/tiles}}</dl>
    </header>
    <main>
    {{#hasFindings}}<section aria-labelledby="odd"><h2 id="odd">What is odd</h2>
    <ul class="findings">{{#findings}}<li>{{.}}</li>{{/findings}}</ul></section>{{/hasFindings}}
    {{#pictures}}<section><h2>{{title}}</h2><div class="scroll">{{{picture}}}</div></section>
    {{/pictures}}
    {{#tables}}<section><h2>{{title}}</h2>
    <div class="scroll"><table><thead><tr>{{#columns}}<th scope="col" class="{{class}}">{{name}}</th>{{/columns}}</tr></thead>
    <tbody>{{#rows}}<tr>{{#cells}}<td class="{{class}}">{{text}}</td>{{/cells}}</tr>
    {{/rows}}</tbody></table></div></section>
    {{/tables}}
    </main>
    </body>
    </html>

    """

  fileprivate struct Table {
    let title: String
    let columns: [TableColumn]
    let rows: [[String]]

    var context: [String: Any] {
      [
        "title": title, "columns": columns.map { ["name": $0.title, "class": $0.isNumber ? "n" : ""] },
        "rows": rows.map { row in
          ["cells": zip(columns, row).map { ["text": $1, "class": $0.isNumber ? "n" : ""] }]
        },
      ]
    }
  }

  fileprivate static func render(
    kicker: String, title: String, tiles: [(String, String, String)], findings: [String],
    pictures: [(title: String, picture: String)], tables: [Table]
  ) throws -> String {
    let context: [String: Any] = [
      "kicker": kicker, "title": title, "style": PageTemplate.style,
      "tiles": tiles.map { ["label": $0.0, "value": $0.1, "note": $0.2] }, "findings": findings,
      "hasFindings": !findings.isEmpty, "pictures": pictures.map { ["title": $0.title, "picture": $0.picture] },
      "tables": tables.filter { !$0.rows.isEmpty }.map(\.context),
    ]
    return try MustacheTemplate(string: template).render(context)
  }
}

extension Inspection {
  /// The page of a folder or file.
  package func html() throws -> String {
    let number = { (title: String) in TableColumn(title: title, isNumber: true) }
    let text = { (title: String) in TableColumn(title: title) }
    let layers = tensors.filter { $0.role == "linear" }
    let tiles = [
      ("Size of the weights", Figures.bytes(byteCount), "\(Figures.millions(weightCount)) weights"),
      ("Bits per weight", Figures.fixed(bitsPerWeight, 3), "over everything"),
      (
        "Linear weights quantized", "\(layers.count(where: \.isQuantized)) of \(layers.count)",
        Figures.count(tensors.count, "tensor") + " in all"
      ),
    ]
    let made = [["what", kind]] + (modelType.map { [["model type", $0.printable]] } ?? [])
    let odd = oddities.map { ($0.isDefect ? "Defect: " : "") + $0.text }
    let values = depth.map { depth in
      depth.odd.map { "\($0.inspection.tensor.name): \($0.findings.joined(separator: "; "))" }
    }
    let parts = formatTotals.filter { $0.byteCount > 0 }
    return try InspectionPage.render(
      kicker: "Inspection", title: path, tiles: tiles, findings: odd + (values ?? []),
      pictures: parts.isEmpty
        ? []
        : [
          (
            "Where the bytes are",
            Pictures.bars(
              "Bytes of each kind of tensor", parts.map { ("\($0.role) \($0.format)", Double($0.byteCount)) },
              format: { Figures.bytes(Int($0)) })
          )
        ],
      tables: [
        InspectionPage.Table(
          title: "How it was made", columns: [text("what"), text("value")],
          rows: made + provenance.map { [$0.name, $0.value] }),
        InspectionPage.Table(
          title: "Kinds of tensors",
          columns: [
            text("kind"), text("format"), number("tensors"), number("weights"), number("bytes"), number("bits/w"),
          ],
          rows: formatTotals.map {
            [
              $0.role, $0.format, "\($0.tensorCount)", Figures.millions($0.weightCount), Figures.bytes($0.byteCount),
              $0.weightCount > 0 ? Figures.fixed(Double($0.byteCount) * 8 / Double($0.weightCount), 3) : "",
            ]
          }),
        InspectionPage.Table(
          title: "Tensors",
          columns: [
            text("tensors"), number("count"), text("shape"), text("format"), number("bits/w"), number("bytes"),
          ],
          rows: families.map {
            [
              $0.name.printable, "\($0.members.count)", Figures.shape($0.members[0].shape), $0.members[0].format,
              Figures.fixed($0.members[0].bitsPerWeight, 3), Figures.bytes($0.byteCount),
            ]
          }),
        InspectionPage.Table(
          title: "Files", columns: [text("file"), number("size"), text("what")],
          rows: files.map { [$0.name.printable, Figures.bytes($0.byteCount), $0.note] }),
        InspectionPage.Table(
          title: "Metadata", columns: [text("key"), text("value")],
          rows: metadata.map { [$0.key.printable, $0.value] }),
      ])
  }
}

extension TensorInspection {
  /// The page of one tensor.
  package func html() throws -> String {
    let number = { (title: String) in TableColumn(title: title, isNumber: true) }
    var tiles = [
      ("Bits per weight", Figures.fixed(tensor.bitsPerWeight, 3), "\(tensor.format) \(Figures.shape(tensor.shape))"),
      (
        "Values", "\(Figures.short(histogram.low)) to \(Figures.short(histogram.high))",
        "standard deviation \(Figures.short(Float(standardDeviation)))"
      ),
    ]
    func bars(_ histogram: Histogram, _ label: String, _ value: (Float) -> Float) -> String {
      Pictures.bars(
        label,
        histogram.counts.indices.map {
          (Figures.short(value(histogram.bounds(of: $0).0)), Double(histogram.counts[$0]))
        },
        format: { "\(Int($0))" })
    }
    var pictures = [(title: "Values", picture: bars(histogram, "How often values occur", { $0 }))]
    if let codes {
      tiles.append(
        (
          "Codes", "\(codes.usage.count - codes.unused.count) of \(codes.usage.count)",
          "entropy \(Figures.fixed(codes.entropy, 3)) bits, \(Figures.percent(codes.saturation)) at the ends"
        ))
      pictures.append(
        (
          "Codes",
          Pictures.bars(
            "How often codes occur", codes.usage.enumerated().map { ("\($0)", Double($1)) }, format: { "\(Int($0))" })
        ))
      if let scales = codes.scaleHistogram, scales.high > scales.low {
        pictures.append(("Scales", bars(scales, "How often magnitudes of scales occur", { exp2($0) })))
      }
    }
    var tables: [InspectionPage.Table] = []
    if let excerpt {
      let last = excerpt.ranges.last ?? 0..<1
      tables.append(
        InspectionPage.Table(
          title: "Values \(excerpt.ranges.map { "\($0.lowerBound):\($0.upperBound)" }.joined(separator: ", "))",
          columns: last.map { number("\($0)") },
          rows: stride(from: 0, to: excerpt.values.count, by: max(1, last.count)).map { start in
            (start..<start + last.count).map { place in
              Figures.short(excerpt.values[place]) + (excerpt.codes.isEmpty ? "" : " (\(excerpt.codes[place]))")
            }
          }))
    }
    if let largestErrors, !largestErrors.isEmpty {
      tables.append(
        InspectionPage.Table(
          title: "Largest errors",
          columns: [TableColumn(title: "at"), number("source"), number("stored"), number("error")],
          rows: largestErrors.map {
            [
              Figures.shape($0.index), Figures.short($0.source), Figures.short($0.stored),
              Figures.short($0.stored - $0.source),
            ]
          }))
    }
    return try InspectionPage.render(
      kicker: "Tensor", title: tensor.name, tiles: tiles, findings: DeepInspection.Tensor(self).findings,
      pictures: pictures, tables: tables)
  }
}
