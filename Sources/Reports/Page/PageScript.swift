extension PageTemplate {
  /// Sorting, filtering, and the pictures of the chosen tensor. Sets `data-ready` on the document when all of it works.
  static let script = """
    "use strict";
    (() => {
      const profiles = JSON.parse(document.getElementById("profiles").textContent);
      const table = document.getElementById("ledger"), body = table.tBodies[0], detail = document.getElementById("detail");
      const rows = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
      const units = {B: 1, kB: 1e3, MB: 1e6, GB: 1e9, M: 1e6, G: 1e9};
      const parsed = rows.map(row => Array.from(row.cells, (cell, column) => {
        const text = cell.textContent;
        if (text === "" || text === "–") return null;
        if (column < 2) return text;
        const [number, unit] = text.split(" ");
        return number === "inf" ? Infinity : parseFloat(number) * (units[unit] ?? 1);
      }));
      const position = new Map(rows.map((row, index) => [row, index]));
      heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
        const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : column < 2;
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const order = rows.map((row, index) => index).sort((a, b) => {
          const x = parsed[a][column], y = parsed[b][column];
          if (x === null || y === null) return (x === null) - (y === null) || a - b;
          const sign = typeof x === "number" ? Math.sign(x - y) : x.localeCompare(y, "en", {numeric: true});
          return (up ? sign : -sign) || a - b;
        });
        body.append(...order.map(index => rows[index]));
      }));
      const filter = document.getElementById("filter"), state = document.getElementById("state");
      const shown = document.getElementById("shown");
      const texts = rows.map(row => (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase());
      const select = () => {
        const words = filter.value.toLowerCase().split(/\\s+/);
        let count = 0;
        rows.forEach((row, index) => {
          const hit = words.every(word => texts[index].includes(word)) && row.className.includes(state.value);
          row.hidden = !hit;
          if (hit) count += 1;
        });
        shown.textContent = (count < rows.length ? count + " of " : "") + rows.length + " tensors";
      };
      filter.addEventListener("input", select);
      state.addEventListener("change", select);
      const space = "http://www.w3.org/2000/svg";
      const part = (name, attributes, text) => {
        const element = document.createElementNS(space, name);
        for (const key in attributes) element.setAttribute(key, attributes[key]);
        if (text !== undefined) element.textContent = text;
        return element;
      };
      const percent = share => (share * 100).toPrecision(3) + " %";
      const figure = (caption, counts, most, low, high, name) => {
        const frame = document.createElement("figure"), title = document.createElement("figcaption");
        const picture = part("svg", {viewBox: "0 0 320 158", role: "img", "aria-label": caption});
        const width = 320 / counts.length;
        picture.append(part("text", {x: 0, y: 11}, percent(most)));
        picture.append(part("line", {class: "grid", x1: 0, x2: 320, y1: 17, y2: 17}));
        counts.forEach((count, index) => {
          const height = count * 0.118, group = part("g", {});
          group.append(part("title", {}, name(index) + ": " + percent(count / 1000 * most)));
          group.append(part("rect", {class: "bar", x: (index * width + width * 0.04).toFixed(1),
            y: (136 - height).toFixed(1), width: (width * 0.92).toFixed(1), height: height.toFixed(1)}));
          picture.append(group);
        });
        picture.append(part("text", {x: 0, y: 153}, low));
        picture.append(part("text", {x: 320, y: 153, "text-anchor": "end"}, high));
        title.textContent = caption;
        frame.append(picture, title);
        return frame;
      };
      const show = row => {
        const index = position.get(row), profile = profiles[index];
        if (!profile) return;
        rows.forEach(other => other.classList.toggle("on", other === row));
        const heading = document.createElement("h3"), facts = document.createElement("dl");
        heading.textContent = row.cells[0].textContent;
        profile.x.forEach(([name, value]) => {
          const term = document.createElement("dt"), text = document.createElement("dd");
          term.textContent = name;
          text.textContent = value;
          facts.append(term, text);
        });
        const parts = [heading, facts], edge = profile.m;
        const at = bin => ((bin / 32 - 1) * edge).toPrecision(3) + " to " + (((bin + 1) / 32 - 1) * edge).toPrecision(3);
        parts.push(figure("Distribution of the weights", profile.w, profile.p[0], "−" + edge, String(edge), at));
        if (profile.c) parts.push(figure("Distribution of the codes", profile.c, profile.p[1], "0",
          String(profile.c.length - 1), code => "code " + code));
        if (profile.s) {
          const [low, high] = profile.l, step = (high - low) / profile.s.length;
          parts.push(figure("Distribution of the magnitudes of scales", profile.s, profile.p[2],
            "2^" + low.toFixed(1), "2^" + high.toFixed(1),
            bin => "2^" + (low + bin * step).toFixed(2) + " to 2^" + (low + (bin + 1) * step).toFixed(2)));
        }
        detail.replaceChildren(...parts);
      };
      body.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button) show(button.closest("tr"));
      });
      document.querySelector("main").addEventListener("click", event => {
        const cell = event.target.closest("td[data-t]");
        if (!cell) return;
        show(rows[cell.dataset.t]);
        detail.scrollIntoView({block: "center"});
      });
      const first = rows[Number(table.dataset.first)];
      if (first) show(first);
      document.documentElement.dataset.ready = "yes";
    })();
    """
}
