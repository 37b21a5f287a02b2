/// The page's frame. `PageStyle` and `PageScript` have its style sheet and script.
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
    {{#subtitle}}<p class="subtitle">{{.}}</p>{{/subtitle}}
    <dl class="tiles">{{#tiles}}<div><dt>{{label}}</dt><dd>{{value}}</dd><dd class="note">{{note}}</dd></div>{{/tiles}}</dl>
    <nav aria-label="Sections"><a href="#glance">At a glance</a>\
    {{#hasEvaluation}}<a href="#quality">Quality</a>{{/hasEvaluation}}\
    {{#hasBlocks}}<a href="#where">Errors</a><a href="#bits">More bits</a>{{/hasBlocks}}\
    {{#hasInputs}}<a href="#inputs">Inputs</a>{{/hasInputs}}<a href="#size">Size</a><a href="#tensors">Tensors</a>\
    <a href="#how">How it was made</a></nav>
    </header>
    <main>
    <section aria-labelledby="glance"><h2 id="glance">At a glance</h2>
    <dl class="answers">{{#answers}}<dt>{{question}}</dt><dd>{{answer}}</dd>{{/answers}}</dl>
    {{#hasWarnings}}<details class="warnings" open><summary>Warnings: {{warningCount}}</summary>
    {{#warnings}}<h3>{{title}}</h3><ul>{{#items}}<li><code>{{name}}</code>: {{text}}</li>{{/items}}\
    {{#more}}<li>and {{.}} more, in the table of tensors</li>{{/more}}</ul>{{/warnings}}</details>{{/hasWarnings}}
    {{^hasWarnings}}<p>No warnings.</p>{{/hasWarnings}}
    {{#hasKept}}<h3>Kept as they were, and why</h3>
    <ul>{{#kept}}<li>{{reason}}: {{count}}, {{bytes}} (<code>{{examples}}</code>)</li>{{/kept}}</ul>{{/hasKept}}
    </section>
    {{#hasEvaluation}}<section aria-labelledby="quality"><h2 id="quality">Quality</h2>
    <p>{{setting}} Intervals are of 95 %, from the spread of the windows.</p>
    <div class="scroll"><table class="numbers text-last"><thead><tr><th scope="col">measure</th><th scope="col">value</th>\
    <th scope="col">interval</th><th scope="col">meaning</th></tr></thead>
    <tbody>{{#evaluation}}<tr><th scope="row">{{name}}</th><td>{{value}}</td><td>{{interval}}</td><td>{{meaning}}</td></tr>
    {{/evaluation}}</tbody></table></div></section>{{/hasEvaluation}}
    {{#hasBlocks}}<section aria-labelledby="where"><h2 id="where">Where the error is</h2>
    <p>{{measuredLong}}</p>
    <div class="maps">{{#maps}}<figure><div class="scroll{{#isDeep}} deep{{/isDeep}}">{{{table}}}</div><figcaption>{{note}}</figcaption></figure>
    {{/maps}}</div>
    <h3>Along the depth</h3>
    <div class="scroll">{{{depth}}}</div>
    <h3 id="bits">Would one more bit be worth it?</h3>
    <p>One more bit a code halves what rounding adds, and so leaves a quarter of its square. For each kind of linear
    layer: what it adds now, as a share of all squared rounding errors; what a bit more costs; what it takes off. Worth is
    the share taken off over the share that the files grow by. It is an estimate, blind to how much the model depends on a
    layer: before spending the bytes, try <code>{{trial}}</code> and
    <code>evaluate</code>.</p>
    <div class="scroll"><table class="numbers"><thead><tr><th scope="col">kind</th><th scope="col">tensors</th>\
    <th scope="col">stored</th><th scope="col">codes</th><th scope="col">scales</th>\
    <th scope="col">{{measured}}</th><th scope="col">by rounding</th><th scope="col">share of squares</th>\
    <th scope="col">a bit more costs</th><th scope="col">of the files</th><th scope="col">takes off</th>\
    <th scope="col">worth</th></tr></thead>
    <tbody>{{#kinds}}<tr><th scope="row">{{kind}}</th><td>{{count}}</td><td>{{bytes}}</td><td>{{codes}}</td>\
    <td>{{scales}}</td><td>{{error}}</td><td>{{rounding}}</td><td>{{share}}</td><td>{{bit}}</td><td>{{cost}}</td>\
    <td>{{gain}}</td><td>{{worth}}</td></tr>{{/kinds}}</tbody></table></div>
    </section>{{/hasBlocks}}
    {{#hasInputs}}<section aria-labelledby="inputs"><h2 id="inputs">Input features</h2>
    <p>Errors of the weights that meet a strong input feature count most. For each linear layer: √E[x²] of its strongest
    input feature, as a multiple of the median feature's, over the tokens that were calibrated on. Features of six times
    the median and more are called outliers. {{#recurring}}{{.}}{{/recurring}}</p>
    <div class="maps"><figure><div class="scroll{{#isDeep}} deep{{/isDeep}}">{{{inputMap}}}</div></figure>
    <figure><div class="scroll"><table class="numbers text-last"><caption>The strongest inputs</caption><thead><tr>\
    <th scope="col">input of</th><th scope="col">features</th><th scope="col">outliers</th>\
    <th scope="col">strongest features, times the median</th></tr></thead>
    <tbody>{{#inputRows}}<tr><th scope="row">{{name}}</th><td>{{count}}</td><td>{{outliers}}</td><td>{{strongest}}</td></tr>
    {{/inputRows}}</tbody></table></div></figure></div>
    </section>{{/hasInputs}}
    <section aria-labelledby="size"><h2 id="size">Size</h2>
    <p class="legend"><span><i class="f7"></i>before</span><span><i class="f0"></i>codes and kept values after</span>\
    <span><i class="f1"></i>scales and zero points after</span>\
    {{#hasOutliers}}<span><i class="f2"></i>outlier columns after</span>{{/hasOutliers}}</p>
    <div class="scroll">{{{weights}}}</div>
    <div class="scroll"><table class="numbers"><thead><tr><th scope="col">kind of tensor</th><th scope="col">tensors</th>\
    <th scope="col">before</th><th scope="col">after</th><th scope="col">of it scales</th>\
    <th scope="col">after, of before</th></tr></thead>
    <tbody>{{#sizes}}<tr><th scope="row">{{name}}</th><td>{{count}}</td><td>{{before}}</td><td>{{after}}</td>\
    <td>{{scales}}</td><td>{{share}}</td></tr>{{/sizes}}</tbody></table></div>
    {{#hasBlocks}}<h3>Bits per weight of each block</h3><p>Everything in the block, norms and scales too.</p>
    <div class="scroll">{{{bits}}}</div>{{/hasBlocks}}
    </section>
    <section aria-labelledby="tensors"><h2 id="tensors">Tensors</h2>
    <p>{{coverage}} Choose a tensor to see its weights, codes and scales.</p>
    <div id="detail" class="detail" aria-live="polite"></div>
    <p class="controls"><label>Filter <input id="filter" type="search" placeholder="words of name or scheme"></label>
    <label>Show <select id="state"><option value="">all</option><option value="q">quantized</option>\
    <option value="k">kept</option>{{#hasRatio}}<option value="w">worse than rounding</option>{{/hasRatio}}</select></label>
    <span id="shown" aria-live="polite">{{count}} tensors</span></p>
    <div class="scroll tall" tabindex="0" role="region" aria-label="Table of tensors"><table id="ledger" class="numbers" data-first="{{first}}">\
    <thead><tr>{{#columns}}<th scope="col"{{#hint}} title="{{.}}"{{/hint}}><button type="button">{{title}}</button></th>\
    {{/columns}}</tr></thead>
    <tbody>{{#tensors}}<tr class="{{state}}"><th scope="row">{{#hasProfile}}<button type="button">{{name}}</button>\
    {{/hasProfile}}{{^hasProfile}}{{name}}{{/hasProfile}}</th>{{#cells}}<td>{{.}}</td>{{/cells}}</tr>
    {{/tensors}}</tbody></table></div>
    <dl class="terms">{{#columns}}{{#hint}}<dt>{{title}}</dt><dd>{{hint}}</dd>{{/hint}}{{/columns}}</dl>
    </section>
    <section aria-labelledby="how"><h2 id="how">How it was made</h2>
    {{#hasProvenance}}<div class="maps">{{#provenance}}<div class="scroll"><table class="facts"><caption>{{title}}</caption>\
    <tbody>{{#rows}}<tr><th scope="row">{{name}}</th><td>{{value}}</td></tr>{{/rows}}</tbody></table></div>\
    {{/provenance}}</div>{{/hasProvenance}}
    {{#hasFiles}}<div class="scroll"><table class="numbers text-last"><caption>Files</caption><thead><tr>\
    <th scope="col">file</th><th scope="col">of</th><th scope="col">bytes</th><th scope="col">SHA-256</th></tr></thead>
    <tbody>{{#files}}<tr><th scope="row">{{name}}</th><td>{{side}}</td><td>{{bytes}}</td><td><code>{{hash}}</code></td></tr>
    {{/files}}</tbody></table></div>{{/hasFiles}}
    </section>
    </main>
    <script type="application/json" id="profiles">{{{profiles}}}</script>
    <script>{{{script}}}</script>
    </body>
    </html>

    """
}
