import Checkpoints
import Foundation
import Subprocess
import SystemPackage
import Testing

/// A browser without a window, to look at pages with.
struct Browser {
  /// What ran in a page left behind.
  struct Visit {
    /// What the page's script sets as the document's title, as JSON.
    let findings: JSONValue
    /// Lines of the console: errors, and whatever a page prints.
    let console: [String]
  }

  /// The first of its kind on the path; nil where there is none, and then tests are skipped.
  static let program: FilePath? = {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    for name in ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"] {
      for folder in folders {
        let path = FilePath(String(folder)).appending(name)
        if FileManager.default.isExecutableFile(atPath: path.string) { return path }
      }
    }
    return nil
  }()

  /// Where its profile goes.
  let folder: FilePath

  func visit(_ page: FilePath, isDark: Bool = false, width: Int = 1600) async throws -> Visit {
    let program = try #require(Self.program)
    let record = try await Subprocess.run(
      .path(program),
      arguments: [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run",
        "--user-data-dir=\(folder.appending("profile-\(UUID().uuidString)").string)",
        "--blink-settings=preferredColorScheme=\(isDark ? 0 : 1)", "--window-size=\(width),1000",
        "--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--dump-dom", "file://\(page.string)",
      ], output: .string(limit: 1 << 26), error: .string(limit: 1 << 22))
    let html = record.standardOutput
    let title = html.firstMatch(of: /<title>(.*?)<\/title>/.dotMatchesNewlines())?.1 ?? ""
    let text = title.replacing("&quot;", with: "\"").replacing("&lt;", with: "<").replacing("&gt;", with: ">")
      .replacing("&amp;", with: "&")
    let console = record.standardError.split(separator: "\n").map(String.init).filter { $0.contains(":CONSOLE") }
    return Visit(findings: try JSONParser.parse(Array(text.utf8)), console: console)
  }
}
