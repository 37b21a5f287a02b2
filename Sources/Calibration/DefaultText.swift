/// The text that calibration uses where none is given.
///
/// Written for this project, in its own words, and under the project's licence (MIT, see LICENSE): about half of it
/// English prose of many kinds, the rest code, markup and other languages. Literals rather than a resource file, so
/// that the program stays a single binary.
package enum DefaultText {
  /// The documents; each ends with a line feed. Every kind is spread over the whole, so that the first windows already
  /// show all kinds.
  package static let parts: [String] = {
    let kinds = [
      narrative, code, explanation, world, dialogue, markup, practical, european, essays, mathematics, verse,
    ]
    return evenlyInterleaved(kinds.map(\.count)).map { kind, part in kinds[kind][part] }
  }()

  package static var byteCount: Int { parts.reduce(0) { $0 + $1.utf8.count } }
}
