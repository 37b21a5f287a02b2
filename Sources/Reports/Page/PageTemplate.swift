/// The page's frame, its style sheet and its script.
enum PageTemplate {
  static let html = """
    <!DOCTYPE html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{{title}}: quantization report</title>
    <link rel="icon" href="data:,">
    <style>{{{style}}}</style>
    </head>
    <body>
    <header>
    <p class="kicker">Quantization report</p>
    <h1>{{title}}</h1>
    <dl class="tiles">{{#tiles}}<div><dt>{{label}}</dt><dd>{{value}}</dd><dd class="note">{{note}}</dd></div>{{/tiles}}</dl>
    </header>
    <main>
    <section aria-labelledby="found"><h2 id="found">At a glance</h2>
    <ul class="findings">{{#findings}}<li>{{.}}</li>{{/findings}}</ul>
    {{#hasWarnings}}<details class="warnings" open><summary>Warnings</summary><ul>{{#warnings}}<li>{{.}}</li>{{/warnings}}\
    </ul></details>{{/hasWarnings}}
    </section>
    {{#hasEvaluation}}<section aria-labelledby="quality"><h2 id="quality">Quality</h2>
    <div class="scroll"><table class="small"><tbody>{{#evaluation}}<tr><th scope="row">{{name}}</th>\
    <td class="n">{{value}}</td></tr>{{/evaluation}}</tbody></table></div></section>{{/hasEvaluation}}
    {{#hasBlocks}}<section aria-labelledby="where"><h2 id="where">Where the error is</h2>
    <p>Each field is a linear layer: its {{measured}}, {{measuredLong}}.</p>
    <div class="scroll">{{{heat}}}</div>
    {{#hasRatio}}<h3>Against rounding to nearest</h3>
    <p>The same as a share of what rounding to nearest gives with equal codes and groups. Above 1, the method did harm.</p>
    <div class="scroll">{{{ratioHeat}}}</div>{{/hasRatio}}
    <h3>Along the depth</h3>
    <p class="legend">{{#legend}}<span class="{{class}}"><i></i>{{name}}</span>{{/legend}}</p>
    <div class="scroll">{{{depth}}}</div>
    <h3>What another bit would buy</h3>
    <p>A bit more halves the rounding error of a kind of layer. Its gain is the share of all squared {{measured}} that this
    takes off; its worth is the gain over what the files grow by.</p>
    <div class="scroll"><table><thead><tr><th scope="col">kind</th><th scope="col" class="n">weights</th>\
    <th scope="col" class="n">stored</th><th scope="col" class="n">of it scales</th>\
    <th scope="col" class="n">{{measured}}</th><th scope="col" class="n">share of squared error</th>\
    <th scope="col" class="n">a bit more costs</th><th scope="col" class="n">of the files</th>\
    <th scope="col" class="n">gain</th><th scope="col" class="n">worth</th></tr></thead>
    <tbody>{{#kinds}}<tr><th scope="row">{{kind}}</th><td class="n">{{weights}}</td><td class="n">{{bytes}}</td>\
    <td class="n">{{scales}}</td><td class="n">{{error}}</td><td class="n">{{share}}</td><td class="n">{{bit}}</td>\
    <td class="n">{{cost}}</td><td class="n">{{gain}}</td><td class="n">{{worth}}</td></tr>{{/kinds}}</tbody></table></div>
    </section>{{/hasBlocks}}
    <section aria-labelledby="size"><h2 id="size">Size</h2>
    {{#sizes}}<div class="scroll">{{{picture}}}</div>
    <div class="scroll"><table><thead><tr><th scope="col">kind of tensor</th><th scope="col" class="n">tensors</th>\
    <th scope="col" class="n">before</th><th scope="col" class="n">after</th></tr></thead>
    <tbody>{{#rows}}<tr><th scope="row"><i class="key {{class}}"></i>{{kind}}</th><td class="n">{{count}}</td>\
    <td class="n">{{before}}</td><td class="n">{{after}}</td></tr>{{/rows}}</tbody></table></div>{{/sizes}}
    {{#hasBlocks}}<h3>Bits per weight of each block</h3><div class="scroll">{{{bits}}}</div>{{/hasBlocks}}
    </section>
    <section aria-labelledby="tensors"><h2 id="tensors">Tensors</h2>
    <p>{{coverage}} Choose a tensor to see its weights, codes and scales.</p>
    <div id="detail" class="detail" aria-live="polite"></div>
    <p><label>Filter <input id="filter" type="search" placeholder="name or scheme"></label>
    <span id="shown" aria-live="polite">{{count}} tensors</span></p>
    <div class="scroll tall"><table id="ledger"><thead><tr>
    <th scope="col"><button>tensor</button></th><th scope="col"><button>scheme</button></th>
    <th scope="col" class="n"><button>bits per weight</button></th><th scope="col" class="n"><button>stored</button></th>
    <th scope="col" class="n"><button>weight error</button></th>
    {{#isCalibrated}}<th scope="col" class="n"><button>output error</button></th>
    <th scope="col" class="n"><button>against rounding</button></th>{{/isCalibrated}}
    <th scope="col" class="n"><button title="largest weight over the standard deviation">peak</button></th>
    <th scope="col" class="n"><button title="1 − (Σ√|w|)² / (d·Σ|w|): 0 even, towards 1 sparse">PQ index</button></th>
    </tr></thead>
    <tbody>{{#tensors}}<tr><th scope="row">{{#hasProfile}}<button>{{name}}</button>{{/hasProfile}}\
    {{^hasProfile}}{{name}}{{/hasProfile}}</th><td>{{scheme}}</td><td class="n">{{bits}}</td>\
    <td class="n" data-v="{{bytesValue}}">{{bytes}}</td><td class="n" data-v="{{errorValue}}">{{error}}</td>\
    {{#isCalibrated}}<td class="n" data-v="{{outputValue}}">{{output}}</td>\
    <td class="n" data-v="{{ratioValue}}">{{ratio}}</td>{{/isCalibrated}}<td class="n">{{peak}}</td>\
    <td class="n">{{sparsity}}</td></tr>
    {{/tensors}}</tbody></table></div>
    </section>
    <section aria-labelledby="how"><h2 id="how">How it was made</h2>
    <div class="scroll"><table class="small"><tbody>{{#provenance}}<tr><th scope="row">{{name}}</th><td>{{value}}</td>\
    </tr>{{/provenance}}</tbody></table></div></section>
    </main>
    <script type="application/json" id="profiles">{{{profiles}}}</script>
    <script>{{{script}}}</script>
    </body>
    </html>

    """

  static let style = """
    :root{--paper:#fbfaf8;--ink:#1d1d1f;--soft:#5d5d66;--line:#dcd9d3;--card:#fff;--accent:#0b5cad;--warn:#a33b00;
    --h0:#f3f0e8;--h1:#f6e6c8;--h2:#f8d9a4;--h3:#f9c87f;--h4:#f7b25f;--h5:#f09a4a;--h6:#e4803d;--h7:#d16435;--h8:#b3472e;
    --h9:#8c2a26;--on:#1d1d1f;--onhot:#fff;
    --c0:#0b5cad;--c1:#b5541c;--c2:#2f7d4f;--c3:#8a3ea0;--c4:#a88400;--c5:#007a87;--c6:#b03060;--c7:#5d5d66}
    @media (prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#ececf0;--soft:#a5a6b0;--line:#34363d;--card:#1e2025;
    --accent:#7ab8ff;--warn:#ffb088;
    --h0:#23252b;--h1:#33302f;--h2:#473a32;--h3:#5e4634;--h4:#775236;--h5:#925f38;--h6:#b06e3c;--h7:#ce8044;--h8:#e89a58;
    --h9:#ffc08a;--on:#ececf0;--onhot:#16171a;
    --c0:#7ab8ff;--c1:#ff9d66;--c2:#6fcf97;--c3:#d59bea;--c4:#e6c84c;--c5:#5cd0de;--c6:#ff8ab0;--c7:#a5a6b0}}
    *{box-sizing:border-box}
    body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
    header,main{max-width:1080px;margin:0 auto;padding:0 20px}
    header{padding-top:32px}.kicker{margin:0;color:var(--soft)}
    h1{margin:0 0 16px;font-size:1.7rem;line-height:1.2;overflow-wrap:anywhere}
    h2{margin:40px 0 8px;font-size:1.25rem;border-top:1px solid var(--line);padding-top:20px}
    h3{margin:24px 0 4px;font-size:1rem}p{margin:4px 0 12px;max-width:72ch}
    .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:12px;margin:0}
    .tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
    dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.5rem;font-variant-numeric:tabular-nums}
    dd.note{font-size:.85rem;color:var(--soft)}
    .findings{padding-left:1.2em}.findings li{margin:6px 0;max-width:80ch;overflow-wrap:anywhere}
    .warnings{border-left:3px solid var(--warn);padding-left:12px}.warnings summary{color:var(--warn);cursor:pointer}
    .scroll{overflow-x:auto;margin:8px 0}.tall{max-height:70vh;overflow:auto;border:1px solid var(--line);border-radius:8px}
    table{border-collapse:collapse;font-size:.875rem;min-width:100%}table.small{min-width:0}
    th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
    thead th{color:var(--soft);background:var(--card);position:sticky;top:0;z-index:1}
    .small th,.small td{white-space:normal}.small td{overflow-wrap:anywhere}
    .n,.small td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
    table button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}
    tbody button{color:var(--accent)}button:focus-visible,input:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
    th[aria-sort=ascending] button::after{content:" ↑"}th[aria-sort=descending] button::after{content:" ↓"}
    tr.on th{background:var(--h1)}
    input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:4px 8px}
    .legend span{display:inline-block;margin-right:16px}.legend i,.key{display:inline-block;width:.8em;height:.8em;
    border-radius:2px;margin-right:6px;background:currentColor}
    .detail{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:16px}
    .detail figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}
    .detail figcaption{font-size:.85rem;color:var(--soft);overflow-wrap:anywhere}.detail svg{width:100%;height:auto}
    svg{font:12px system-ui,sans-serif;display:block}svg text{fill:var(--ink)}
    svg .grid{stroke:var(--line)}svg .bar{fill:var(--c0)}
    svg polyline{fill:none;stroke:currentColor;stroke-width:2}svg circle{fill:currentColor}
    .h0 rect{fill:var(--h0)}.h1 rect{fill:var(--h1)}.h2 rect{fill:var(--h2)}.h3 rect{fill:var(--h3)}.h4 rect{fill:var(--h4)}
    .h5 rect{fill:var(--h5)}.h6 rect{fill:var(--h6)}.h7 rect{fill:var(--h7)}.h8 rect{fill:var(--h8)}.h9 rect{fill:var(--h9)}
    [class^=h] text{fill:var(--on)}.h8 text,.h9 text{fill:var(--onhot)}
    .c0,.key.f0{color:var(--c0)}.c1,.key.f1{color:var(--c1)}.c2,.key.f2{color:var(--c2)}.c3,.key.f3{color:var(--c3)}
    .c4,.key.f4{color:var(--c4)}.c5,.key.f5{color:var(--c5)}.c6,.key.f6{color:var(--c6)}.c7,.key.f7{color:var(--c7)}
    .key:not([class*=f]){background:none}
    rect.f0{fill:var(--c0)}rect.f1{fill:var(--c1)}rect.f2{fill:var(--c2)}rect.f3{fill:var(--c3)}rect.f4{fill:var(--c4)}
    rect.f5{fill:var(--c5)}rect.f6{fill:var(--c6)}rect.f7{fill:var(--c7)}
    @media print{.tall{max-height:none;overflow:visible;border:0}h2{break-after:avoid}.detail,label,#shown{display:none}
    body{background:#fff;font-size:12px}table{font-size:10px}th,td{white-space:normal;overflow-wrap:anywhere}}
    """

  static let script = """
    "use strict";
    (() => {
      const profiles = JSON.parse(document.getElementById("profiles").textContent);
      const table = document.getElementById("ledger"), body = table.tBodies[0], detail = document.getElementById("detail");
      const rows = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
      const value = (row, column) => {
        const cell = row.cells[column], text = cell.dataset.v ?? cell.textContent, number = parseFloat(text);
        return text === "" ? null : Number.isNaN(number) || column < 2 ? text : number;
      };
      heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "descending" || (column < 2 && !head.hasAttribute("aria-sort"));
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        rows.sort((a, b) => {
          const x = value(a, column), y = value(b, column);
          if (x === null || y === null) return (x === null) - (y === null);
          const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", {numeric: true});
          return down ? order : -order;
        });
        body.append(...rows);
      }));
      const shown = document.getElementById("shown");
      document.getElementById("filter").addEventListener("input", event => {
        const wanted = event.target.value.trim().toLowerCase();
        let count = 0;
        for (const row of rows) {
          const hit = (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase().includes(wanted);
          row.hidden = !hit;
          if (hit) count += 1;
        }
        shown.textContent = count + (count === 1 ? " tensor" : " tensors");
      });
      const space = "http://www.w3.org/2000/svg";
      const figure = (caption, counts, low, high) => {
        const frame = document.createElement("figure"), picture = document.createElementNS(space, "svg");
        picture.setAttribute("viewBox", "0 0 320 140");
        picture.setAttribute("role", "img");
        picture.setAttribute("aria-label", caption);
        const width = 320 / counts.length;
        counts.forEach((count, index) => {
          const bar = document.createElementNS(space, "rect"), height = count * 0.115;
          bar.setAttribute("class", "bar");
          bar.setAttribute("x", (index * width + 0.5).toFixed(1));
          bar.setAttribute("y", (118 - height).toFixed(1));
          bar.setAttribute("width", Math.max(width - 1, 0.5).toFixed(1));
          bar.setAttribute("height", height.toFixed(1));
          picture.append(bar);
        });
        [[low, 0, "start"], [high, 320, "end"]].forEach(([label, x, anchor]) => {
          const text = document.createElementNS(space, "text");
          text.setAttribute("x", x);
          text.setAttribute("y", 134);
          text.setAttribute("text-anchor", anchor);
          text.textContent = label;
          picture.append(text);
        });
        const title = document.createElement("figcaption");
        title.textContent = caption;
        frame.append(picture, title);
        return frame;
      };
      const show = row => {
        const name = row.cells[0].textContent, profile = profiles[name];
        if (!profile) return;
        rows.forEach(other => other.classList.toggle("on", other === row));
        const parts = [figure("Weights of " + name, profile.w, "−" + profile.m, String(profile.m))];
        if (profile.c) parts.push(figure("Codes", profile.c, "0", String(profile.c.length - 1)));
        if (profile.s) parts.push(figure("Magnitudes of scales, powers of two", profile.s,
          "2^" + profile.l[0].toFixed(1), "2^" + profile.l[1].toFixed(1)));
        detail.replaceChildren(...parts);
      };
      body.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button) show(button.closest("tr"));
      });
      const errors = table.querySelectorAll("thead th").length > 7 ? 5 : 4;
      const worst = rows.reduce((best, row) => (value(row, errors) ?? -1) > (value(best, errors) ?? -1) ? row : best, rows[0]);
      if (worst) show(worst);
    })();
    """
}
