import Checkpoints

/// The inputs of linear layers and what is known of them, as a table.
package enum EvidenceTable {
  package struct Line {
    package let layers: [String]
    package let tokens: Int
    package let features: Int
    package let outliers: Int
    package let largest: Float

    package init(layers: [String], tokens: Int, features: Int, outliers: Int, largest: Float) {
      self.layers = layers
      self.tokens = tokens
      self.features = features
      self.outliers = outliers
      self.largest = largest
    }
  }

  package static func text(_ lines: [Line], threshold: Float) -> String {
    table(
      [
        TableColumn(title: "input of"), TableColumn(title: "tokens", isNumber: true),
        TableColumn(title: "features", isNumber: true), TableColumn(title: "outliers", isNumber: true),
        TableColumn(title: "largest", isNumber: true),
      ],
      lines.map { line in
        let others = line.layers.count > 1 ? " and \(Figures.count(line.layers.count - 1, "other"))" : ""
        return [
          (line.layers.first ?? "") + others, "\(line.tokens)", "\(line.features)", "\(line.outliers)",
          Figures.short(line.largest),
        ]
      }) + "\nOutliers: features that reach \(Figures.short(threshold)) for some token."
  }
}
