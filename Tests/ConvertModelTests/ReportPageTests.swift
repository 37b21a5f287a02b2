import Checkpoints
import Foundation
import SystemPackage
import TestSupport
import Testing

/// The page of a report, looked at in a real browser: on a phone, a tablet and a desk, by day and by night.
@Suite("Report page", .enabled(if: Browser.program != nil, "no chromium is on the PATH"), .serialized)
struct ReportPageTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { folder.appending(name).string }

  /// Runs in a page: tells its width, the contrast of its texts, and what sorting and filtering do.
  private static let probe = """
    (() => {
      const colour = text => (text.match(/[\\d.]+/g) || []).map(Number);
      const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = element => {
        for (let at = element; at; at = at.parentElement) {
          const back = colour(getComputedStyle(at).backgroundColor);
          if (back.length === 3 || back[3] === 1) return back;
        }
        return [255, 255, 255];
      };
      let contrast = 100, where = "", texts = 0;
      for (const element of document.body.querySelectorAll("*")) {
        const isText = Array.from(element.childNodes).some(node => node.nodeType === 3 && node.data.trim() !== "");
        if (!isText || ["SCRIPT", "OPTION", "title"].includes(element.tagName)) continue;
        if (element.getClientRects().length === 0) continue;
        const style = getComputedStyle(element);
        const front = colour(element instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [luminance(front), luminance(behind(element))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        texts += 1;
        if (ratio < contrast) [contrast, where] = [ratio, element.tagName + "." + element.className + ": "
          + element.textContent.slice(0, 40) + " " + front + " on " + behind(element)];
      }
      const table = document.getElementById("ledger"), body = table.tBodies[0];
      const heads = Array.from(table.tHead.rows[0].cells);
      const names = () => Array.from(body.rows).filter(row => !row.hidden).map(row => row.cells[0].textContent);
      const texted = column => Array.from(body.rows).map(row => row.cells[column].textContent);
      const index = title => heads.findIndex(head => head.textContent === title);
      const press = title => { heads[index(title)].querySelector("button").click(); return index(title); };
      const sorts = {};
      const before = names();
      for (const title of ["tensor", "stored", "weight error %"]) {
        const first = texted(press(title)), order = heads[index(title)].getAttribute("aria-sort");
        const second = texted(press(title)), other = heads[index(title)].getAttribute("aria-sort");
        sorts[title] = {first, order, second, other};
      }
      const filter = document.getElementById("filter"), state = document.getElementById("state");
      const filtered = {};
      for (const words of ["down_proj", "LAYERS.1 mlp", "nothing like it", ""]) {
        filter.value = words;
        filter.dispatchEvent(new Event("input"));
        filtered[words] = {names: names(), shown: document.getElementById("shown").textContent};
      }
      state.value = "k";
      state.dispatchEvent(new Event("change"));
      const kept = names();
      state.value = "";
      state.dispatchEvent(new Event("change"));
      const chosen = () => document.querySelector("#detail h3").textContent;
      const first = chosen();
      const button = body.querySelector("button");
      button.click();
      const second = chosen(), pressed = button.textContent;
      const cell = document.querySelector("td[data-t]");
      cell.click();
      return {
        ready: document.documentElement.dataset.ready ?? "no", inner: innerWidth,
        scroll: document.documentElement.scrollWidth, texts, contrast, where, before, sorts, filtered, kept,
        chosen: [first, second, chosen()], pressed, figures: document.querySelectorAll("#detail svg").length,
        dark: matchMedia("(prefers-color-scheme: dark)").matches,
        paper: getComputedStyle(document.body).backgroundColor,
        unlabelled: Array.from(document.querySelectorAll("svg")).filter(svg => !svg.getAttribute("aria-label")).length
          + Array.from(document.querySelectorAll("input,select")).filter(field => field.labels.length === 0).length
          + Array.from(document.querySelectorAll("table")).filter(table => !table.querySelector("th[scope]")).length,
        requests: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length
      };
    })()
    """

  /// Sets the title to a list of what its frames send.
  private static let gatherer = """
    <!DOCTYPE html><title>[]</title><style>iframe{border:0}</style><script>
    const found = [];
    addEventListener("message", event => {
      found.push(event.data);
      document.title = "[" + found.join(",") + "]";
    });
    </script>
    """

  /// A page that shows the report at three widths and gathers what the probe finds in each.
  private func harness(_ page: String) throws -> FilePath {
    let html = try String(contentsOfFile: path(page), encoding: .utf8)
    let probed = html.replacingOccurrences(
      of: "</body>", with: "<script>parent.postMessage(JSON.stringify(\(Self.probe)), \"*\")</script></body>")
    try #require(probed != html)
    try folder.write(Array(probed.utf8), to: "probed.html")
    let frames = [400, 800, 1600].map { #"<iframe src="probed.html" width="\#($0)" height="900"></iframe>"# }.joined()
    try folder.write(Array((Self.gatherer + frames).utf8), to: "harness.html")
    return folder.appending("harness.html")
  }

  private func convert(_ arguments: [String]) async throws {
    let outcome = try await ConvertModelProgram.run(
      [ConvertModelProgram.tiny, "-o", path("out"), "--report", path("page.html")] + arguments)
    try #require(outcome.code == 0, "\(outcome.error)")
  }

  @Test(arguments: [false, true]) func everyWidthHolds(isDark: Bool) async throws {
    try await convert(["-m", "gptq", "-b", "3", "-g", "64"] + ConvertModelProgram.calibration)
    let visit = try await Browser(folder: folder.path).visit(harness("page.html"), isDark: isDark)
    #expect(visit.console == [])
    let views = try #require(visit.findings.array)
    #expect(Set(views.compactMap { $0["inner"]?.integer }) == [400, 800, 1600])
    for view in views {
      let width = view["inner"]?.integer ?? 0
      #expect(view["ready"] == "yes")
      #expect(view["dark"] == .bool(isDark))
      #expect(view["scroll"]?.integer ?? .max <= width, "at \(width) px the page is wider than its window")
      // WCAG 2.2, success criterion 1.4.3, level AA.
      #expect(view["contrast"]?.double ?? 0 >= 4.5, "\(view["where"]?.string ?? "")")
      #expect(view["texts"]?.integer ?? 0 > 500)
      #expect(view["unlabelled"] == 0 && view["requests"] == 0)
      try expectTableWorks(view)
    }
  }

  private func strings(_ value: JSONValue?) -> [String] { (value?.array ?? []).compactMap(\.string) }

  private func expectTableWorks(_ view: JSONValue) throws {
    let names = strings(view["before"])
    #expect(names.count == 30)
    for (title, places) in [("tensor", (0, 1)), ("stored", (1, 0)), ("weight error %", (1, 0))] {
      let sort = try #require(view["sorts"]?[title])
      let lists = [strings(sort["first"]), strings(sort["second"])]
      // Names rise at first, numbers fall.
      #expect(sort["order"]?.string == (places.0 == 0 ? "ascending" : "descending"))
      #expect(sort["other"]?.string == (places.0 == 0 ? "descending" : "ascending"))
      let rising = lists[places.0]
      #expect(rising.count == 30 && lists[0] != lists[1])
      if title == "tensor" {
        #expect(Set(rising) == Set(names))
      } else {
        // Those without a value stand last either way.
        let values = rising.map { $0.isEmpty ? Double.infinity : Self.number($0) }
        #expect(values == values.sorted(), "\(title)")
      }
    }
    let filtered = try #require(view["filtered"])
    func left(_ words: String) -> [String] { strings(filtered[words]?["names"]) }
    func told(_ words: String) -> String? { filtered[words]?["shown"]?.string }
    #expect(left("down_proj").count == 3)
    #expect(left("LAYERS.1 mlp").count == 3)
    #expect(told("LAYERS.1 mlp") == "3 of 30 tensors")
    #expect(left("nothing like it").isEmpty)
    #expect(told("") == "30 tensors")
    let kept = strings(view["kept"])
    #expect(kept.count == 9)
    let chosen = strings(view["chosen"])
    #expect(chosen.count == 3 && chosen[1] == view["pressed"]?.string && chosen[0] != chosen[1])
    #expect(chosen[2] == "model.layers.0.mlp.down_proj.weight")
    #expect(view["figures"] == 3)
  }

  /// "6144 B", "79.9 kB" or "27.88".
  private static func number(_ text: String) -> Double {
    let parts = text.split(separator: " ")
    let unit: Double =
      switch parts.last {
      case "kB": 1e3
      case "MB": 1e6
      default: 1
      }
    return (Double(parts.first ?? "") ?? .nan) * unit
  }

  /// The checks above see errors, wide pages and faint text where there are some.
  @Test func aBadPageIsFound() async throws {
    try await convert(["-m", "nf4"])
    let html = try String(contentsOfFile: path("page.html"), encoding: .utf8)
    let bad = html.replacingOccurrences(
      of: "<main>",
      with: #"<main><div style="width:5000px">wide</div><p style="color:#999;background:#aaa">faint</p>"#
        + "<script>nowhere()</script>")
    try folder.write(Array(bad.utf8), to: "bad.html")
    let visit = try await Browser(folder: folder.path).visit(harness("bad.html"))
    #expect(visit.console.contains { $0.contains("nowhere is not defined") })
    for view in try #require(visit.findings.array) {
      #expect(view["scroll"]?.integer ?? 0 > 4000)
      #expect(view["contrast"]?.double ?? 0 < 2)
    }
  }

  private static let methods: [[String]] = [
    ["-m", "nf4"], ["-m", "absmax", "-b", "8", "--include", "lm_head.weight"],
    ["-m", "awq", "-g", "64"] + ConvertModelProgram.calibration, ["-m", "llm-int8"] + ConvertModelProgram.calibration,
    ["-m", "nf4", "--layout", "bitsandbytes"],
  ]

  /// Every method's page loads; what it lacks leaves no gap that the script trips over.
  @Test func everyMethodHasAPage() async throws {
    for (index, arguments) in Self.methods.enumerated() {
      try await convert(arguments + ["--overwrite"])
      let html = try String(contentsOfFile: path("page.html"), encoding: .utf8)
      let told = html.replacingOccurrences(
        of: "</body>",
        with: #"<script>parent.postMessage(`"${document.documentElement.dataset.ready}"`, "*")</script></body>"#)
      try folder.write(Array(told.utf8), to: "told-\(index).html")
    }
    let frames = Self.methods.indices.map { #"<iframe src="told-\#($0).html"></iframe>"# }.joined()
    try folder.write(Array((Self.gatherer + frames).utf8), to: "all.html")
    let visit = try await Browser(folder: folder.path).visit(folder.appending("all.html"))
    #expect(visit.findings == .array(Self.methods.map { _ in "yes" }) && visit.console == [])
  }
}
